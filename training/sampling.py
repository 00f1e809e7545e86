"""One training sample: two slices of a random region, the cube around them, and what is to be found there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from BoneSAMLib.model.prompt_encoder import INPUT_SIZE
from training.label_places import UNKNOWN as NOT_NAMED
from training.lookup import brightness_at, labels_at
from training.store import Subject, Target
from training.synthesis.contrast import Contrast, random_contrast, render
from training.synthesis.radiograph import project
from training.synthesis.scanner import cut_out, degrade
from training.synthesis.tissues import HARD
from training.warp import Frame, lattice, random_frame

CUBE_SIZE = 64
RAYS = 128  # through the body; the shadow of the target is traced with as many as its thinnest part needs
MOST_TARGET_RAYS = 256
UNKNOWN = 255
NEAR_MM = 8.0
PATIENCE = 50  # draws before another subject is tried: a blank scan would be waited for forever
OBJECT, ALL_BONES, ANYTHING = 0, 1, 2


@dataclass
class Mixture:
    """How often each kind of sample is drawn. Every number is a probability or a relative weight."""

    synthetic: float = 0.5  # anatomy with drawn contrast; the rest are real images
    unlabelled: float = 0.04
    radiograph: float = 0.14  # of the synthetic ones
    all_bones: float = 0.15
    whole_slices: float = 0.5  # of those with all bones: the view that a session without prompts has
    # The same of MR in which not every bone is annotated, judged near those that are: for data in which the
    # bones that nobody annotated keep away from them.
    all_near: float = 0.0
    anything: float = 0.12  # any structure, or a superpixel, instead of a bone
    two_dimensional_box: float = 0.2
    # Of the bones: slice 0 near an end of it and slice 1 nearer to that end, or past it. There a bone that is
    # followed from slice to slice must be left.
    ends: float = 0.0
    named: float = 0.5  # of the bones whose kind is known: the network is told it
    cut_out: float = 0.06  # part of the image blanked, as by a field of view or a collimator
    sources: dict[str, float] | None = None  # weights of real sources; None for equal


def draw_sample(
    subjects: list[Subject], mixture: Mixture, size: int, with_cube: bool, rng: np.random.Generator
) -> dict[str, Any]:
    """A random sample at `size` x `size` pixels; see `Sampler` for its entries.

    The cube takes half of the time.
    """
    kind = "labels" if rng.random() < mixture.synthetic else "image"
    if rng.random() < mixture.unlabelled:
        kind = "unlabelled"
    pool = [subject for subject in subjects if subject.kind == kind]
    if not pool:
        pool = subjects
    sources = sorted({subject.source for subject in pool})
    if kind == "image":
        weights = np.array([(mixture.sources or {}).get(source, 1.0) for source in sources])
        source = rng.choice(sources, p=weights / weights.sum())
        pool = [subject for subject in pool if subject.source == source]
    while True:
        subject = pool[int(rng.integers(len(pool)))]
        for _ in range(PATIENCE):
            sample = Sampler(subject, mixture, size, with_cube, rng).draw()
            if sample is not None:
                return sample


class Sampler:
    """Draws from one subject.

    A sample holds: `slices` float16 [2, 3, s, s] in 0..1, `target` uint8 [2, s, s] of 0/1, `weight` uint8
    [2, s, s] (0 where the annotation says nothing), `cube` float16 [64, 64, 64], `cube_bone` and
    `cube_target` uint8 of 0/1/255 (255: unknown), `box` float32 [6] (low and high x, y, depth in 256-pixel
    units, depth relative to slice 0), `depths` float32 [2] of the slices likewise, `cube_plane` float32 [2]
    (the slices' positions in the cube, in voxels), `mode`, `kind` (0, or what the target is said to be, as in
    `LabelPlaces`), `has_cube` and `flat` (1: the box is drawn on slice 0 only).
    """

    def __init__(
        self, subject: Subject, mixture: Mixture, size: int, with_cube: bool, rng: np.random.Generator
    ) -> None:
        self.subject, self.mixture, self.size, self.rng = subject, mixture, size, rng
        self.with_cube = with_cube

    def draw(self) -> dict[str, Any] | None:
        """None where the drawn region turned out to hold nothing of the target."""
        subject, rng = self.subject, self.rng
        if subject.kind == "unlabelled":
            return self._superpixel()
        bones = [t for t in subject.targets if subject.tissues[t.label] in HARD]
        mode = OBJECT
        if rng.random() < (self._share_near() if subject.partial else self.mixture.all_bones):
            mode = ALL_BONES
        elif subject.kind == "labels" and rng.random() < self.mixture.anything:
            mode = ANYTHING
        target = bones[int(rng.integers(len(bones)))]
        teeth = subject.tissues[target.label] == "tooth"
        if teeth and rng.random() < 0.7:  # 28 teeth would outnumber every bone of a head
            target = bones[int(rng.integers(len(bones)))]
        return self._around(target, mode)

    def _share_near(self) -> float:
        # In CT and radiographs, ribs are beside clavicles.
        return self.mixture.all_near if self.subject.modality == "MR" else 0.0

    def _around(self, target: Target, mode: int) -> dict[str, Any] | None:
        subject, rng = self.subject, self.rng
        points = subject.points_of(target)
        if len(points) < 4:
            return None
        extent = float(np.ptp(points * subject.spacing, axis=0).max()) + 1.0
        flat_image = 1 in subject.size
        tilted = 0.2 if subject.kind == "image" else 0.4
        frame = random_frame(subject.spacing, subject.slicing, extent, tilted, rng)
        outline = frame.from_voxels(points.astype(float))
        pad = 0.5 * np.sqrt((frame.axes**2 * (subject.spacing**2)[:, None]).sum(0)) * frame.scale
        low, high = outline.min(0) - pad, outline.max(0) + pad
        width = float((high - low)[:2].max() * rng.uniform(1.12, 2.2))
        if mode == ALL_BONES:
            width *= float(np.exp(rng.uniform(0, 1.5)))
            width = min(width, float(1.05 * (subject.size * subject.spacing).max()))
        width = max(width, 12 * float(subject.spacing.min()))
        center = (low + high) / 2
        whole = mode == ALL_BONES and rng.random() < self.mixture.whole_slices
        slack = np.maximum(width - (high - low)[:2], 0.1 * width)
        center[:2] += rng.uniform(-0.42, 0.42, 2) * slack
        if whole:
            extents = (np.abs(frame.axes).T @ (subject.size * subject.spacing)) * frame.scale
            width = float(extents[:2].max() * rng.uniform(0.95, 1.05))
            center[:2] = frame.from_voxels(((subject.size - 1) / 2)[None])[0, :2]
        ends = mode == OBJECT and not flat_image and rng.random() < self.mixture.ends
        step, slices = self._slice_positions(low[2], high[2], width, frame, flat_image)
        if ends:
            slices = self._slices_at_end(low[2], high[2], step)
        if subject.kind == "labels" and not flat_image and rng.random() < self.mixture.radiograph:
            return self._radiograph(target, mode, frame, center, width, low, high)
        if mode == ANYTHING:
            target = self._other_structure(frame, center, width, slices[0]) or target
            if subject.tissues[target.label] not in HARD:
                points = subject.points_of(target)
                if len(points) < 4:
                    return None
                outline = frame.from_voxels(points.astype(float))
                low, high = outline.min(0) - pad, outline.max(0) + pad
        depths = np.array([w + offset for w in slices for offset in (-step, 0.0, step)])
        planes = self._lattice(frame, center, width, self.size, depths)
        cube_center = float(np.clip(slices[0] + rng.uniform(-0.3, 0.3) * width, low[2], high[2]))
        if abs(cube_center - slices[0]) > 0.45 * width:
            cube_center = slices[0]
        cube_depths = cube_center + ((np.arange(CUBE_SIZE) + 0.5) / CUBE_SIZE - 0.5) * width
        cube_grid = self._lattice(frame, center, width, CUBE_SIZE, cube_depths) if self.with_cube else None
        if subject.kind == "labels":
            stack, cube, masks, cube_labels, is_ct = self._synthesize(planes, cube_grid, width)
        else:
            across = int(np.abs(frame.axes[:, 2]).argmax())
            stack, cube, masks, cube_labels = self._real(planes, cube_grid, width, across)
            is_ct = subject.modality == "CT"
        degrade(stack, cube, subject.kind == "labels", is_ct, rng)
        if flat_image:
            stack = stack[[1, 1, 1, 4, 4, 4]]  # in use, all three channels are the one image, noise included
        blanked = cut_out(stack, rng) if rng.random() < self.mixture.cut_out else None
        masks = masks[[1, 4]]
        if mode == ALL_BONES:
            truth = self._is_bone(masks)
        else:
            truth = masks == target.label
        if mode != ALL_BONES and not truth.any() and rng.random() < 0.8:
            return None
        weight = np.ones_like(truth)
        if mode == ALL_BONES and subject.partial:
            if not truth.any():
                return None
            cube = None  # in use, too, all bones of an MR are found without depth attention
            for known, bone in zip(weight, truth, strict=True):
                away = ndimage.distance_transform_edt(~bone) * (width / self.size)
                known &= bone.any() & (away <= NEAR_MM)
        if blanked is not None:
            weight = weight & ~blanked
        scale = INPUT_SIZE / width
        origin = np.array([center[0] - width / 2, center[1] - width / 2, slices[0]])
        cube_plane = (np.array(slices) - cube_center) / width * CUBE_SIZE + CUBE_SIZE / 2 - 0.5
        box = (np.concatenate([low - origin, high - origin]) * scale).astype(np.float32)
        drawn_on_slice = mode != ALL_BONES and bool(truth[0].any())
        flat = flat_image or (drawn_on_slice and rng.random() < self.mixture.two_dimensional_box)
        if flat and truth[0].any():
            box = self._slice_box(truth[0])
        return {
            "slices": stack.reshape(2, 3, self.size, self.size).astype(np.float16),
            "target": truth.astype(np.uint8),
            "weight": weight.astype(np.uint8),
            "box": box,
            "depths": ((np.array(slices) - slices[0]) * scale).astype(np.float32),
            "cube_plane": cube_plane.astype(np.float32),
            "mode": mode,
            "kind": self._kind(target, mode),
            "flat": int(flat),
            **self._cube_truth(None if flat_image else cube, cube_labels, target, mode),
        }

    def _kind(self, target: Target, mode: int) -> int:
        if mode != OBJECT or self.rng.random() >= self.mixture.named:
            return 0
        kind = int(self.subject.places.kind[target.label])
        return 0 if kind == NOT_NAMED else kind

    def _slice_box(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The box [6] that a user would draw around a mask [s, s] on its slice."""
        rows, columns = np.nonzero(mask)
        bounds = [columns.min(), rows.min(), 0, columns.max() + 1, rows.max() + 1, 0]
        return np.array(bounds, np.float32) * np.float32(INPUT_SIZE / self.size)

    def _cube_truth(
        self,
        cube: NDArray[np.float32] | None,
        labels: NDArray[Any] | None,
        target: Target,
        mode: int,
    ) -> dict[str, Any]:
        """The cube and what is bone and target in it; blank where the sample has none."""
        if cube is None or labels is None:
            blank = np.zeros((CUBE_SIZE,) * 3, np.uint8)
            return {"cube": blank.astype(np.float16), "cube_bone": blank, "cube_target": blank, "has_cube": 0}
        bone = self._is_bone(labels).astype(np.uint8)
        meant = bone if mode == ALL_BONES else (labels == target.label).astype(np.uint8)
        if self.subject.partial:
            # Its bones alone, without anything that is known to be none, taught "all of an MR is bone".
            bone = np.full_like(bone, UNKNOWN)
        return {"cube": cube.astype(np.float16), "cube_bone": bone, "cube_target": meant, "has_cube": 1}

    def _slice_positions(
        self, low: float, high: float, width: float, frame: Frame, flat_image: bool
    ) -> tuple[float, list[float]]:
        """Distance of neighboring slices in mm, and where the two slices lie along the stack."""
        subject, rng = self.subject, self.rng
        if flat_image:
            return 0.0, [0.0, 0.0]
        pixel = width / INPUT_SIZE
        outside = rng.random() < 0.1
        if subject.slicing.thick:
            step = float(subject.spacing[subject.slicing.axis])
            first, last = int(np.ceil(low / step)), int(np.floor(high / step))
            chosen = int(rng.integers(first - 2, last + 3)) if outside else int(rng.integers(first, last + 1))
            reach = 1 + int(rng.exponential(1.5))
            other = int(np.clip(chosen + rng.choice([-1, 1]) * reach, first - 1, last + 1))
            return step, [chosen * step, other * step]
        step = float(np.clip(pixel * np.exp(rng.uniform(0, np.log(16))), 0.4 * subject.spacing.min(), 8.0))
        margin = 0.15 * (high - low) + step
        chosen_mm = rng.uniform(low - margin, high + margin) if outside else rng.uniform(low, high)
        reach_mm = step * (1 + int(rng.exponential(2.0))) * rng.choice([-1, 1])
        return step, [float(chosen_mm), float(np.clip(chosen_mm + reach_mm, low - step, high + step))]

    def _slices_at_end(self, low: float, high: float, step: float) -> list[float]:
        """Slice 0 in the bone near an end of it, slice 1 some steps nearer to that end or beyond it."""
        rng = self.rng
        outward = rng.choice([-1, 1])
        end = high if outward > 0 else low
        if self.subject.slicing.thick:
            end = step * (np.floor(end / step) if outward > 0 else np.ceil(end / step))
        length = int((high - low) / step)
        first = end - outward * step * int(rng.integers(0, 1 + min(3, length)))
        reach = min(1 + int(rng.exponential(2.0)), 6)
        return [float(first), float(first + outward * step * reach)]

    @staticmethod
    def _lattice(
        frame: Frame, center: NDArray[np.float64], width: float, size: int, depths: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Voxel coordinates [depth, size, size, 3] of square planes `width` mm wide."""
        offsets = ((np.arange(size) + 0.5) / size - 0.5) * width
        return lattice(frame, center[0] + offsets, center[1] + offsets, depths)

    def _synthesize(
        self, planes: NDArray[np.float32], cube_grid: NDArray[np.float32] | None, width: float
    ) -> tuple[Any, Any, Any, Any, bool]:
        contrast = random_contrast(self.subject.tissues, self.rng)
        plane_labels, plane_depth = labels_at(self.subject, planes)
        stack = render(plane_labels, plane_depth, width / self.size, contrast, self.rng)
        cube, cube_labels = None, None
        if cube_grid is not None:
            cube_labels, cube_depth = labels_at(self.subject, cube_grid)
            cube = render(cube_labels, cube_depth, width / CUBE_SIZE, contrast, self.rng)
        self._add_disease(stack, plane_labels, contrast)
        return stack, cube, plane_labels, cube_labels, contrast.regime == "CT"

    def _add_disease(self, stack: NDArray[np.float32], labels: NDArray[Any], contrast: Contrast) -> None:
        """Sometimes a lesion or an implant: a blob of another brightness inside bone, in all slices."""
        if self.rng.random() > 0.12:
            return
        bone = np.argwhere(contrast.is_bone[labels[1]])
        if not len(bone):
            return
        y, x = bone[self.rng.integers(len(bone))]
        radius = self.rng.uniform(3, 20)
        grid_y, grid_x = np.mgrid[: self.size, : self.size]
        blob = np.exp(-(((grid_y - y) ** 2 + (grid_x - x) ** 2) / radius**2)).astype(np.float32)
        stack += (np.float32(self.rng.choice([-0.4, 0.4, 1.0])) * blob)[None]

    def _real(
        self, planes: NDArray[np.float32], cube_grid: NDArray[np.float32] | None, width: float, across: int
    ) -> tuple[Any, Any, Any, Any]:
        stack = brightness_at(self.subject, planes, width / self.size, across)
        plane_labels, _ = labels_at(self.subject, planes)
        cube, cube_labels = None, None
        if cube_grid is not None:
            cube = brightness_at(self.subject, cube_grid, width / CUBE_SIZE)
            cube_labels, _ = labels_at(self.subject, cube_grid)
        return stack, cube, plane_labels, cube_labels

    def _is_bone(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        table = np.zeros(int(max(self.subject.tissues, default=0)) + 1, bool)
        for value, tissue in self.subject.tissues.items():
            table[value] = tissue in HARD
        return table[labels]

    def _other_structure(
        self, frame: Frame, center: NDArray[np.float64], width: float, depth: float
    ) -> Target | None:
        """A structure seen in the slice, of any tissue but the unnamed filling."""
        voxels = self._lattice(frame, center, width, self.size // 4, np.array([depth]))[0]
        labels, _ = labels_at(self.subject, voxels)
        values, counts = np.unique(labels, return_counts=True)
        named = [
            int(v)
            for v, n in zip(values, counts, strict=True)
            if v and n > 12 and self.subject.tissues.get(int(v), "fat") not in ("fat", *HARD)
        ]
        if not named:
            return None
        label = named[int(self.rng.integers(len(named)))]
        assert self.subject.labels is not None
        # Its extent within sight is enough: a muscle or a vessel tree can be as long as the body.
        points = voxels[labels == label]
        return Target(label, self.subject.tissues[label], (0, 0, 0), (0, 0, 0), False, points)

    def _radiograph(
        self, target: Target, mode: int, frame: Frame, center: NDArray[np.float64], width: float,
        low: NDArray[np.float64], high: NDArray[np.float64],
    ) -> dict[str, Any] | None:  # fmt: skip
        rng = self.rng
        thickness = min(float((self.subject.size * self.subject.spacing).min() * 1.3), 350.0)
        thickness = max(thickness, float(high[2] - low[2]))
        rays = ((np.arange(RAYS) + 0.5) / RAYS - 0.5) * thickness + center[2]
        labels, depth = labels_at(self.subject, self._lattice(frame, center, width, self.size, rays))
        image = project(labels, depth, thickness / RAYS, self.subject.tissues, rng)
        if mode == ALL_BONES:
            truth = np.asarray(self._is_bone(labels).any(axis=0))
        else:
            truth = self._shadow(target, frame, center, width, low[2], high[2])
        if not truth.any():
            return None
        stack = np.repeat(image[None], 2, axis=0)
        degrade(stack, None, True, False, rng)
        stack = stack[[0, 0, 0, 1, 1, 1]]
        origin = np.array([center[0] - width / 2, center[1] - width / 2, 0.0])
        box = np.concatenate([low - origin, high - origin]) * INPUT_SIZE / width
        box[[2, 5]] = 0.0
        return {
            "slices": stack.reshape(2, 3, self.size, self.size).astype(np.float16),
            "target": np.repeat(truth[None], 2, axis=0).astype(np.uint8),
            "weight": np.ones((2, self.size, self.size), np.uint8),
            "box": box.astype(np.float32),
            "depths": np.zeros(2, np.float32),
            "cube_plane": np.zeros(2, np.float32),
            "mode": mode,
            "kind": self._kind(target, mode),
            "flat": 1,
            **self._cube_truth(None, None, target, mode),
        }

    def _shadow(
        self, target: Target, frame: Frame, center: NDArray[np.float64], width: float, low: float, high: float
    ) -> NDArray[np.bool_]:
        """Where the target lies along rays from depth `low` to `high`, without holes.

        A scapula seen face-on is thinner than the distance of rays through the whole body.
        """
        step = 0.7 * float(self.subject.spacing.min())
        count = int(np.clip(np.ceil((high - low) / step), 1, MOST_TARGET_RAYS))
        rays = low + (np.arange(count) + 0.5) / count * (high - low)
        labels, _ = labels_at(self.subject, self._lattice(frame, center, width, self.size, rays))
        return np.asarray((labels == target.label).any(axis=0))

    def _superpixel(self) -> dict[str, Any] | None:
        """A region of similar brightness in a slice of an unlabelled scan: prompts mean "this object"
        (ScribblePrompt, Wong et al. 2024, sec. 4.2).
        """
        subject, rng = self.subject, self.rng
        frame = random_frame(subject.spacing, subject.slicing, 100.0, 0.2, rng)
        middle = frame.from_voxels((rng.uniform(0.2, 0.8, 3) * subject.size)[None])[0]
        width = float((subject.size * subject.spacing).max() * rng.uniform(0.2, 0.8))
        step = width / 64
        if subject.slicing.thick:
            step = float(subject.spacing[subject.slicing.axis])
            middle[2] = np.rint(middle[2] / step) * step
        depths = middle[2] + np.array([-step, 0.0, step])
        stack = brightness_at(
            self.subject, self._lattice(frame, middle, width, self.size, depths), width / self.size
        )
        parts = felzenszwalb(stack[1, ::2, ::2], scale=float(rng.uniform(20, 500)), sigma=0.5, min_size=24)
        parts = np.kron(parts, np.ones((2, 2), parts.dtype))
        values, counts = np.unique(parts[stack[1] > 0.02], return_counts=True)
        values = values[(counts > 60) & (counts < 0.35 * parts.size)]
        if not len(values):
            return None
        truth = parts == rng.choice(values)
        stack = np.repeat(stack[None], 2, axis=0).reshape(6, self.size, self.size)
        degrade(stack, None, False, subject.modality == "CT", rng)
        rows, columns = np.nonzero(truth)
        scale = INPUT_SIZE / self.size
        box = np.array([columns.min(), rows.min(), 0, columns.max() + 1, rows.max() + 1, 0]) * scale
        return {
            "slices": stack.reshape(2, 3, self.size, self.size).astype(np.float16),
            "target": np.repeat(truth[None], 2, axis=0).astype(np.uint8),
            "weight": np.ones((2, self.size, self.size), np.uint8),
            "box": box.astype(np.float32),
            "depths": np.zeros(2, np.float32),
            "cube_plane": np.zeros(2, np.float32),
            "mode": ANYTHING,
            "kind": 0,
            "flat": 1,
            **self._cube_truth(None, None, Target(0, "", (0, 0, 0), (0, 0, 0), False), ANYTHING),
        }
