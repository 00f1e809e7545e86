"""The project's sample scans: a CT of the hips, an MR of a knee, a radiograph of a hand, with their bones.

They are rendered from the BodyParts3D anatomies of the training store, with fixed seeds, so that everybody
has scans to try BoneSAM on. Run ``python -m training.synthesis.sample --store DIR --out DIR``.
"""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cc3d
import edt
import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from BoneSAMLib.intensity import CT_HIGH_HU, CT_LOW_HU
from BoneSAMLib.volume import Affine, Volume
from BoneSAMLib.writing import write_mask
from training.store import DEPTH_UNIT_MM
from training.synthesis.anatomy import AIR, FAT, HARD
from training.synthesis.contrast import MEANS, Contrast, render
from training.synthesis.radiograph import ATTENUATION

Array = NDArray[np.float32]
Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]

AIR_HU = -1000.0
LONG_BONES = re.compile(r"femur|tibia|fibula|radius|ulna|metacarpal|phalanx")
# Cortex at the ends of long bones and around all others; in the shaft a share of the radius.
THIN_CORTEX_MM, SHAFT_CORTEX = 1.0, 0.4
# Of a long bone's width at its end: how far from there cortex begins to thicken, and where it is a shaft.
SHAFT_BEGINS, SHAFT_REACHED = 0.6, 1.5
SKIN_MM = 1.6


@dataclass
class Anatomy:
    """Labels [k, j, i] of one body, along the axes of RAS, and what they mean."""

    labels: NDArray[np.uint16]
    depth_mm: Array  # below the surface of the voxel's bone
    names: dict[int, str]
    tissues: dict[int, str]
    spacing: Vector  # (i, j, k) mm
    origin: Vector  # RAS mm of voxel (0, 0, 0)

    @property
    def bones(self) -> list[int]:
        """Label values of bones, in their order."""
        return sorted(value for value, tissue in self.tissues.items() if tissue in HARD)

    @property
    def sampling(self) -> tuple[float, ...]:
        """Spacing in mm in the order of the array's axes: k, j, i."""
        return tuple(float(s) for s in self.spacing[::-1])

    def add(self, where: Mask, name: str, tissue: str) -> None:
        """Give a part of the body a label of its own."""
        value = max(self.tissues) + 1
        self.names[value], self.tissues[value] = name, tissue
        self.labels[where] = value

    @property
    def numbered_bones(self) -> dict[int, str]:
        """Names of the bones by their number, from 1."""
        return {number: self.names[value] for number, value in enumerate(self.bones, start=1)}

    @property
    def center(self) -> Vector:
        """The middle in RAS mm."""
        middle: Vector = self.origin + (np.array(self.labels.shape[::-1]) - 1) / 2 * self.spacing
        return middle


def read_anatomy(store: Path, name: str, low: float = 0.0, high: float = 1.0) -> Anatomy:
    """One anatomy of the store, cut along k to the part between `low` and `high` (0 is the lowest slice)."""
    facts = json.loads((store / f"{name}.json").read_text(encoding="utf-8"))
    whole = np.load(store / f"{name}.labels.npy", mmap_mode="r")
    levels = slice(round(low * len(whole)), round(high * len(whole)))
    labels = np.array(whole[levels])
    depth = np.load(store / f"{name}.depth.npy", mmap_mode="r")[levels]
    seen = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    structures = {value: facts["labels"][str(value)] for value in seen if value != AIR}
    spacing = np.array(facts["spacing"], float)
    return Anatomy(
        labels,
        depth.astype(np.float32) * np.float32(DEPTH_UNIT_MM),
        {value: row["name"] for value, row in structures.items()},
        {value: row["tissue"] for value, row in structures.items()},
        spacing,
        np.array(facts["origin_ras"], float) + np.array([0.0, 0.0, levels.start * spacing[2]]),
    )


# What the meshes lack ------------------------------------------------------------------------------


def distance_to(mask: Mask, sampling: Sequence[float]) -> Array:
    """Distance in mm of each voxel to the nearest voxel of the mask, 0 in it."""
    distance: Array = edt.edt(np.ascontiguousarray(~mask), anisotropy=tuple(sampling), parallel=1)
    return distance


def add_skin(anatomy: Anatomy) -> None:
    """The outermost fat is skin."""
    near = distance_to(anatomy.labels == AIR, anatomy.sampling) <= SKIN_MM
    anatomy.add(near & (anatomy.labels == FAT), "skin", "skin")


def between_bones(anatomy: Anatomy, values: Sequence[int], reach_mm: float) -> Mask:
    """Fat in gaps, less than twice `reach_mm` wide, between the bones with these values."""
    bone = np.isin(anatomy.labels, values)
    swollen = distance_to(bone, anatomy.sampling) <= reach_mm
    closed = distance_to(~swollen, anatomy.sampling) > reach_mm
    gap: Mask = closed & (anatomy.labels == FAT)
    return gap


def add_ligament(anatomy: Anatomy, name: str, ends: Sequence[Sequence[float]], radius_mm: float) -> None:
    """A round ligament between two points (i, j, k), where there is no bone."""
    first, last = (np.array(end) * anatomy.spacing for end in ends)
    low = np.floor((np.minimum(first, last) - radius_mm) / anatomy.spacing).astype(int)
    high = np.ceil((np.maximum(first, last) + radius_mm) / anatomy.spacing).astype(int) + 1
    window = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    grid = np.moveaxis(np.mgrid[window][::-1], 0, -1) * anatomy.spacing
    along = np.clip((grid - first) @ (last - first) / np.sum((last - first) ** 2), 0, 1)[..., None]
    near = np.linalg.norm(grid - first - along * (last - first), axis=-1) <= radius_mm
    where = np.zeros(anatomy.labels.shape, bool)
    where[window] = near & ~np.isin(anatomy.labels[window], anatomy.bones)
    anatomy.add(where, name, "ligament")


def complete_knee(anatomy: Anatomy) -> None:
    """Cartilage, menisci, cruciate ligaments and tendons; places are voxels of bp3d_v4_knee_right."""
    value_of = {name: value for value, name in anatomy.names.items()}
    add_ligament(anatomy, "anterior cruciate ligament", [(111, 146, 176), (121, 108, 204)], 4.0)
    add_ligament(anatomy, "posterior cruciate ligament", [(113, 92, 164), (105, 128, 190)], 4.5)
    anatomy.add(between_bones(anatomy, anatomy.bones, 4.0), "articular cartilage", "cartilage")
    menisci = between_bones(anatomy, [value_of["right femur"], value_of["right tibia"]], 8.0)
    menisci[:, :, 97:127] = False  # between the condyles
    menisci[:160] = False
    anatomy.add(menisci, "menisci", "ligament")
    # The mesh of this muscle goes on as the tendon of the quadriceps and the ligament of the patella.
    tendon = anatomy.labels == value_of["right rectus femoris"]
    tendon[248:] = False
    anatomy.add(tendon, "patellar ligament", "ligament")


# Bone from outside to inside -----------------------------------------------------------------------


def shaft_and_cortex(anatomy: Anatomy) -> tuple[Array, Array]:
    """How much of a shaft a bone is at each voxel (0 at its ends, 1 in the shaft), and its cortex in mm.

    In shafts the cortex is thick and the canal holds fat; ends have a thin shell around trabeculae. An end
    that the volume cuts off is shaft.
    """
    shaft = np.zeros(anatomy.labels.shape, np.float32)
    cortex = np.full(anatomy.labels.shape, THIN_CORTEX_MM, np.float32)
    size = np.array(anatomy.labels.shape)
    for value in anatomy.bones:
        if not LONG_BONES.search(anatomy.names[value]):
            continue
        found = np.nonzero(anatomy.labels == value)
        points = np.stack(found, axis=1) * np.array(anatomy.sampling)
        axes = np.linalg.svd(points[::37] - points.mean(axis=0), full_matrices=False)[2]
        along, across = points @ axes[0], points @ axes[1]
        depth = anatomy.depth_mm[found]
        from_end = np.full(len(points), np.inf)
        for end in (along - along.min(), along.max() - along):
            tip = np.stack(found, axis=1)[end < 2.0 * max(anatomy.sampling)]
            if (tip.min(axis=0) > 0).all() and (tip.max(axis=0) < size - 1).all():
                width = np.ptp(across[end < 0.3 * np.ptp(along)])
                from_end = np.minimum(from_end, (end / width - SHAFT_BEGINS) / (SHAFT_REACHED - SHAFT_BEGINS))
        part = np.clip(from_end, 0, 1)
        part = part * part * (3 - 2 * part)
        level = (along - along.min()).astype(int)
        radius = ndimage.maximum(depth, level, np.arange(level.max() + 1))
        radius = ndimage.gaussian_filter1d(np.asarray(radius), 3.0)[level]
        shaft[found] = part
        cortex[found] = THIN_CORTEX_MM + part * np.maximum(SHAFT_CORTEX * radius - THIN_CORTEX_MM, 0.0)
    return shaft, cortex


def texture(shape: tuple[int, ...], grains: Sequence[float], rng: np.random.Generator) -> Array:
    """Noise of unit variance with grains of several sizes (voxels)."""
    total = np.zeros(shape, np.float32)
    for grain in grains:
        # Coarse grains are made small and enlarged: filtering with a wide kernel takes long.
        step = max(1, int(grain / 2))
        small = rng.standard_normal([n // step + 2 for n in shape], dtype=np.float32)
        small = ndimage.gaussian_filter(small, grain / step, mode="wrap")
        small /= small.std()
        if step > 1:
            small = ndimage.zoom(small, step, order=1)
        total += small[tuple(slice(n) for n in shape)]
    return total / np.float32(np.sqrt(len(grains)))


@dataclass
class Look:
    """A contrast chosen for one sample, in the 0..1 of training.synthesis.contrast."""

    means: dict[str, float]  # of tissues
    named: dict[str, float]  # of structures whose name matches, instead of their tissue's
    variation: dict[str, float]  # standard deviation within a tissue
    shaft_marrow: float
    spread: float  # between structures of the same tissue


def paint_body(anatomy: Anatomy, look: Look, rng: np.random.Generator) -> Array:
    """The noise-free image [k, j, i] on the anatomy's own grid."""
    count = max(anatomy.tissues) + 1
    means, is_bone = np.zeros(count, np.float32), np.zeros(count, bool)
    variation = np.zeros(count, np.float32)
    means[AIR] = look.means["air"]
    for value, tissue in anatomy.tissues.items():
        is_bone[value] = tissue in HARD
        means[value] = look.means["marrow" if tissue == "bone" else tissue] + rng.normal(0, look.spread)
        variation[value] = look.variation.get(tissue, 0.0)
        for pattern, mean in look.named.items():
            if re.search(pattern, anatomy.names[value]):
                means[value] = mean
    shaft, cortex = shaft_and_cortex(anatomy)
    contrast = Contrast(
        means, np.zeros(count, np.float32), is_bone, look.means["cortex"], THIN_CORTEX_MM, 0.0, "fixed"
    )
    # `render` knows one thickness of the cortex: the depth is scaled so that it means the voxel's own.
    image = np.empty(anatomy.labels.shape, np.float32)
    for start in range(0, len(image), 6):
        part = slice(start, start + 6)
        depth = anatomy.depth_mm[part] * (THIN_CORTEX_MM / cortex[part])
        image[part] = render(anatomy.labels[part], depth, float(anatomy.spacing[0]), contrast, rng)
    inside = is_bone[anatomy.labels] * np.clip((anatomy.depth_mm - cortex) / anatomy.spacing[0], 0, 1)
    image += inside * shaft * np.float32(look.shaft_marrow - look.means["marrow"])
    bumps = texture(image.shape, (1.0, 3.0, 9.0), rng) * variation[anatomy.labels]
    image += np.where(is_bone[anatomy.labels], inside * (1 - 0.7 * shaft), 1.0) * bumps
    return image


# Slices --------------------------------------------------------------------------------------------


@dataclass
class Scan:
    """Grid of a scan in the body: k is across the slices, or along the rays of a radiograph."""

    ijk_to_ras: Affine
    size: tuple[int, int, int]  # i, j, k
    blur_mm: float  # standard deviation

    def acquire(self, image: Array, spacing: Vector, origin: Vector) -> Array:
        """An image [k, j, i] with spacing (i, j, k) and origin along the axes of RAS, as the scan sees it.

        What lies beyond the image is like its border.
        """
        blurred = ndimage.gaussian_filter(image, self.blur_mm / spacing[::-1], truncate=3.0)
        thickness = np.linalg.norm(self.ijk_to_ras[:3, 2])
        samples = int(np.ceil(thickness / spacing.min()))
        i, j = np.meshgrid(np.arange(self.size[0]), np.arange(self.size[1]))
        seen = np.zeros(self.size[::-1], np.float32)
        for k in range(self.size[2]):
            for offset in (np.arange(samples) + 0.5) / samples - 0.5:
                ijk = np.stack([i, j, np.full(i.shape, k + offset)], axis=-1)
                ras = ijk @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]
                kji = np.moveaxis(((ras - origin) / spacing)[..., ::-1], -1, 0)
                found = ndimage.map_coordinates(blurred, kji, order=1, output=np.float32, mode="nearest")
                seen[k] += found / np.float32(samples)
        return seen

    def shares(self, anatomy: Anatomy) -> Iterator[tuple[tuple[slice, slice, slice], Array]]:
        """For every bone, where on the grid it lies and its share of the voxels there, [k, j, i]."""
        boxes = ndimage.find_objects(anatomy.labels)
        for value in anatomy.bones:
            window = tuple(slice(max(s.start - 5, 0), s.stop + 5) for s in boxes[value - 1])
            mask = anatomy.labels[window] == value
            origin = anatomy.origin + [s.start for s in window[::-1]] * anatomy.spacing
            faces = [(0.0, n - 1.0) for n in mask.shape[::-1]]
            corners = np.array(list(itertools.product(*faces))) * anatomy.spacing + origin
            corners = (corners - self.ijk_to_ras[:3, 3]) @ np.linalg.inv(self.ijk_to_ras[:3, :3]).T
            low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, self.size)
            high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low, self.size)
            affine = self.ijk_to_ras.copy()
            affine[:3, 3] += affine[:3, :3] @ low
            i, j, k = (int(n) for n in high - low)
            part = Scan(affine, (i, j, k), self.blur_mm)
            share = part.acquire(mask.astype(np.float32), anatomy.spacing, origin)
            place = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
            yield (place[0], place[1], place[2]), share

    def truth(self, anatomy: Anatomy) -> NDArray[np.uint8]:
        """The bones on the scan's grid [k, j, i]; values are the bones' numbers."""
        truth = np.zeros(self.size[::-1], np.uint8)
        most = np.full(self.size[::-1], 0.5, np.float32)
        for number, (place, share) in enumerate(self.shares(anatomy), start=1):
            truth[place][share > most[place]] = number
            most[place] = np.maximum(most[place], share)
        return truth

    def projected_truth(self, anatomy: Anatomy) -> NDArray[np.uint8]:
        """The bones' shadows [1, j, i], values as in `truth`; the smaller of two lies on top."""
        shadows = []
        for number, (place, share) in enumerate(self.shares(anatomy), start=1):
            shadow = (share > 0.5).any(axis=0)
            shadows.append((int(shadow.sum()), number, place[1:], shadow))
        truth = np.zeros((1, self.size[1], self.size[0]), np.uint8)
        for _, number, window, shadow in sorted(shadows, key=lambda row: row[:2], reverse=True):
            truth[0][window][shadow] = number
        return truth


def rotation(axis: Sequence[float], degrees: float) -> Vector:
    """Rotation matrix around an axis."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: Vector = (
        np.eye(3) + np.sin(np.radians(degrees)) * cross + (1 - np.cos(np.radians(degrees))) * cross @ cross
    )
    return turned


def affine_around(
    directions: Vector, spacing: Sequence[float], size: Sequence[int], center: Vector
) -> Affine:
    """ijk_to_ras of a grid with unit columns `directions` whose middle lies at `center` (RAS mm)."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = center - affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return affine


# The three samples ---------------------------------------------------------------------------------

HIP_CT = Look(
    means={
        **MEANS["CT"],
        "air": (AIR_HU - CT_LOW_HU) / (CT_HIGH_HU - CT_LOW_HU),
        "fat": 0.095,
        "organ": 0.195,
        "vessel": 0.198,
        "skin": 0.19,
        "cartilage": 0.225,
        "marrow": 0.29,
    },
    named={"urinary bladder": 0.175, "sacrum|vertebra": 0.27},
    variation={"fat": 0.007, "muscle": 0.012, "organ": 0.012, "bone": 0.05},
    shaft_marrow=0.15,
    spread=0.004,
)
KNEE_T1 = Look(
    means={
        **MEANS["T1"],
        "air": 0.0,
        "muscle": 0.27,
        "vessel": 0.12,
        "ligament": 0.08,
        "skin": 0.45,
        "marrow": 0.74,
        "cortex": 0.06,
    },
    named={},
    variation={"fat": 0.05, "muscle": 0.03, "bone": 0.05, "cartilage": 0.03},
    shaft_marrow=0.80,
    spread=0.012,
)
# Attenuation in 1/cm; radiograph.ATTENUATION has one value for bone, here it has a dense shell.
HAND_XRAY = Look(
    means={**ATTENUATION, "marrow": 0.34, "cortex": 0.75},
    named={},
    variation={"bone": 0.14, "muscle": 0.01, "fat": 0.01},
    shaft_marrow=0.20,
    spread=0.002,
)


@dataclass
class Sample:
    """A rendered sample: the scan, the truth [k, j, i] and the name of each of its values."""

    volume: Volume
    truth: NDArray[np.uint8]
    bones: dict[int, str]


def hip_ct(store: Path) -> Sample:
    """CT of pelvis and hips, 1.5 x 1.5 x 3 mm; the patient lies turned by a few degrees."""
    rng = np.random.default_rng(1)
    anatomy = read_anatomy(store, "bp3d_v4_pelvis", low=0.06, high=0.92)
    # Fingers beside the thighs.
    body = cc3d.largest_k(anatomy.labels != AIR, k=1, connectivity=6) > 0
    anatomy.labels[~body] = AIR
    add_skin(anatomy)
    anatomy.add(between_bones(anatomy, anatomy.bones, 3.0), "articular cartilage", "cartilage")
    extent = np.array(anatomy.labels.shape[::-1]) * anatomy.spacing
    spacing = (1.5, 1.5, 3.0)
    size = (int(extent[0] / 1.5), int(extent[1] / 1.5), int((extent[2] - 12) / 3.0))
    directions = np.diag([-1.0, -1.0, 1.0])
    turned = rotation([0.3, 0.4, 1.0], 2.5) @ directions
    scan = Scan(affine_around(turned, spacing, size, anatomy.center), size, 0.75)
    image = scan.acquire(paint_body(anatomy, HIP_CT, rng), anatomy.spacing, anatomy.origin)
    hounsfield = image * (CT_HIGH_HU - CT_LOW_HU) + CT_LOW_HU
    body = ndimage.gaussian_filter((hounsfield > -500).astype(np.float32), (0, 12, 12))
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (0, 0.6, 0.6))
    hounsfield += noise / noise.std() * (3.0 + 8.0 * body)
    # Steps well below the noise, and no noise in air: the file becomes half as large.
    array = (np.rint(np.clip(hounsfield, AIR_HU, 3000) / 8) * 8).astype(np.int16)
    array[hounsfield < -960] = int(AIR_HU)
    affine = affine_around(directions, spacing, size, anatomy.center)
    return Sample(Volume(array, affine, "hip_ct", "CT"), scan.truth(anatomy), anatomy.numbered_bones)


def knee_mr(store: Path) -> Sample:
    """T1-weighted MR of a right knee: sagittal slices 4 mm thick, turned to follow the joint."""
    rng = np.random.default_rng(2)
    anatomy = read_anatomy(store, "bp3d_v4_knee_right")
    add_skin(anatomy)
    complete_knee(anatomy)
    spacing, size = (0.6, 0.6, 4.0), (240, 256, 25)
    # i to posterior, j to inferior, k to the left.
    directions = rotation([0.5, 0.2, 1.0], 9.0) @ np.array([[0.0, 0, -1], [-1, 0, 0], [0, -1, 0]])
    scan = Scan(affine_around(directions, spacing, size, anatomy.center), size, 0.35)
    image = scan.acquire(paint_body(anatomy, KNEE_T1, rng), anatomy.spacing, anatomy.origin)
    along = (np.arange(size[1]) - 0.5 * size[1]) * spacing[1]
    image *= np.exp(-0.5 * (along / 95.0) ** 2).astype(np.float32)[None, :, None]  # the coil's reach
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(1.2)
    array = np.rint(np.hypot(95 * image + real, imaginary)).astype(np.int16)
    return Sample(
        Volume(array, scan.ijk_to_ras, "knee_mr", "MR"), scan.truth(anatomy), anatomy.numbered_bones
    )


def hand_xray(store: Path) -> Sample:
    """Radiograph of a right hand, fingers up, pixels of 0.3 mm."""
    rng = np.random.default_rng(3)
    anatomy = read_anatomy(store, "bp3d_v4_hand_right")
    anatomy.labels[:, 0] = AIR  # the anatomy ends inside the back of the forearm; what lies beyond is air
    add_skin(anatomy)
    attenuation = np.clip(paint_body(anatomy, HAND_XRAY, rng), 0, None)
    # Columns run to the left, rows to superior, rays to anterior; all turned to the plane of the bent hand.
    directions = rotation([1.0, 0.0, 0.0], 24.0) @ np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    spacing, size = (0.3, 0.3, 0.45), (410, 670, 220)
    # Up by this much, rays leave the forearm before its end.
    center = anatomy.center - 5.8 * directions[:, 1]
    scan = Scan(affine_around(directions, spacing, size, center), size, 0.2)
    rays = scan.acquire(attenuation, anatomy.spacing, anatomy.origin)
    path = rays.sum(axis=0) * np.float32(spacing[2] / 10)
    path += 0.12 * ndimage.gaussian_filter(path, 40)  # scattered light veils the picture
    path += rng.standard_normal(path.shape, dtype=np.float32) * 0.012 * np.exp(path / 2)
    path = ndimage.gaussian_filter(path, 0.6)
    path += 0.7 * (path - ndimage.gaussian_filter(path, 12))  # as the makers' software sharpens
    brightness = 255 * (1 - np.exp(-0.8 * path)) / (1 - np.exp(-0.8 * np.percentile(path, 99.8)))
    array = np.clip(np.rint(brightness), 0, 255).astype(np.uint8)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # what a picture without a pixel size is read as
    volume = Volume(array[np.newaxis], affine, "hand_xray", "X-ray")
    return Sample(volume, scan.projected_truth(anatomy), anatomy.numbered_bones)


# Writing -------------------------------------------------------------------------------------------

# Each sample, and the bone of its prompt.
SAMPLES = ((hip_ct, "right femur"), (knee_mr, "right patella"), (hand_xray, "right third metacarpal bone"))
BOX_MARGIN_MM, BOX_MARGIN_PIXELS = 2.0, 4


def write_sample(sample: Sample, prompt: str, out: Path) -> dict[str, Any]:
    """Write scan and truth into the folder `out`; returns the sample's entry of samples.json."""
    volume = sample.volume
    ending = "png" if volume.is_projection else "nii.gz"
    image, truth = f"{volume.name}.{ending}", f"{volume.name}_bones.{ending}"
    number = next(number for number, name in sample.bones.items() if name == prompt)
    found = np.argwhere(sample.truth == number)[:, ::-1]
    if volume.is_projection:
        Image.fromarray(volume.array[0]).save(out / image, optimize=True)
        Image.fromarray(sample.truth[0]).save(out / truth, optimize=True)
        last = np.array(volume.size) - 1
        low = np.clip(found.min(axis=0) - BOX_MARGIN_PIXELS, 0, last)
        high = np.clip(found.max(axis=0) + BOX_MARGIN_PIXELS, 0, last)
        box = {"box_ijk": [*low.tolist(), *high.tolist()]}
    else:
        sitk.WriteImage(itk_image(volume), str(out / image), useCompression=True, compressionLevel=9)
        write_mask(sample.truth, volume, out / truth)
        ras = found @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
        low, high = np.floor(ras.min(axis=0) - BOX_MARGIN_MM), np.ceil(ras.max(axis=0) + BOX_MARGIN_MM)
        box = {"box_ras": [*low.astype(int).tolist(), *high.astype(int).tolist()]}
    bones = {str(number): name for number, name in sample.bones.items()}
    return {
        "image": image,
        "truth": truth,
        "modality": volume.modality,
        "bones": bones,
        "prompt": {"bone": prompt, "value": number, **box},
    }


def itk_image(volume: Volume) -> sitk.Image:
    """The volume with its geometry in LPS, ITK's convention."""
    image = sitk.GetImageFromArray(volume.array)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.ijk_to_ras
    image.SetSpacing(volume.spacing)
    image.SetDirection((lps[:3, :3] / np.array(volume.spacing)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def main(
    store: Annotated[
        Path, typer.Option(help="Training store with the BodyParts3D v4 anatomies.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the samples.")],
) -> None:
    """Render the sample scans, their truth and samples.json."""
    out.mkdir(parents=True, exist_ok=True)
    entries = {}
    for render_sample, prompt in SAMPLES:
        sample = render_sample(store)
        entries[sample.volume.name] = write_sample(sample, prompt, out)
        size = (out / entries[sample.volume.name]["image"]).stat().st_size
        print(f"{sample.volume.name}: shape {sample.volume.shape}, {size / 1e6:.2f} MB", flush=True)
    text = json.dumps(entries, indent=2)
    text = re.sub(
        r"\[[^]]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text
    )  # boxes on one line
    (out / "samples.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
