"""The one path from a volume and prompts to a mask: `Segmenter`, `Session` and `Result`."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cc3d
import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bundle import Bundle, open_bundle
from BoneSAMLib.engine import Engine, OnnxEngine
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.region import CUBE, PIXELS, Region, SliceFrame
from BoneSAMLib.volume import Volume

Array = NDArray[np.float32]
Vector = NDArray[np.float64]
Progress = Callable[[float, str], None]

BATCH = 8  # slices a call: larger ones are no faster on two cores and delay cancelling
CACHED_SLICES = 160  # at 2 MB each
CONTEXT = 1.5  # width of a region, in sides of its box
CLICK_SCALES = (0.18, 0.32, 0.6)  # widths tried for a click alone, in parts of the slice
CLICK_REACH = 48.0  # region pixels along the stack over which a correction is redone
PROMPT_SLOTS = 8  # as in training: two box corners and six clicks
LOGIT_SIZE = 128
SMALLEST_PART = 0.1  # of the largest component: smaller ones are specks beside the bone
SMALLEST_BONE_MM3 = 150.0  # without a prompt, anything smaller is noise (a pisiform has 1000 mm3)
REVIEWED = 10
PADDING, NEGATIVE, POSITIVE, BOX_LOW, BOX_HIGH = -1, 0, 1, 2, 3


class Cancel(Protocol):
    """Anything that can be asked whether to stop, such as `threading.Event`."""

    def is_set(self) -> bool:
        """True to stop at the next batch of slices."""


@dataclass(frozen=True)
class Result:
    """One segmented bone.

    Attributes:
        mask: bool [k, j, i], of the volume's shape.
        confidence: predicted IoU of the whole mask, 0..1; 0 for an empty mask.
        slice_confidence: the same for each slice with mask, by its index along the through-plane axis.
        review: slices that most need a look, worst first.
        points: the clicks it was made from.
        seconds: time it took.
    """

    mask: NDArray[np.bool_]
    confidence: float
    slice_confidence: dict[int, float]
    review: list[int]
    points: tuple[Point, ...]
    seconds: float
    _stack: "_Stack" = field(repr=False)


@dataclass(frozen=True)
class AllBones:
    """Everything that was found without a prompt.

    Attributes:
        labels: [k, j, i], one number per connected bone from 1 to `count`, largest first; 0 is no bone.
        count: how many.
        confidence: predicted IoU of each number.
        seconds: time it took.
    """

    labels: NDArray[np.unsignedinteger]
    count: int
    confidence: dict[int, float]
    seconds: float


class Segmenter:
    """A loaded network; opens volumes.

    Args:
        device: "auto" takes CUDA where onnxruntime-gpu finds it, else the CPU; or "cpu", "cuda".
        weights: folder of a bundle; None for the bundled weights.

    Raises:
        BoneSAMError: unknown or missing device, missing or damaged weights.
    """

    def __init__(self, device: str = "auto", weights: str | Path | None = None) -> None:
        self.bundle: Bundle = open_bundle(weights)
        self.engine: Engine = OnnxEngine(self.bundle, device)

    def open(self, volume: Volume) -> "Session":
        """Start working on a volume. Nothing is computed yet."""
        return Session(volume, self.engine)


@dataclass(frozen=True)
class _Clicks:
    """Clicks in slice coordinates: places [n, 3] (u, v, w), positive [n]."""

    places: Vector
    positive: NDArray[np.bool_]


@dataclass(frozen=True)
class _Stack:
    """Logits of neighboring slices of a region, and the box they came from."""

    region: Region
    indices: NDArray[np.int64]
    logits: Array  # [n, 128, 128]
    iou: Array  # [n]
    low: Vector  # box faces (u, v, w) in voxels
    high: Vector


class Session:
    """Segments bones in one volume; keeps slice embeddings between calls."""

    def __init__(self, volume: Volume, engine: Engine) -> None:
        self.volume = volume
        self._engine = engine
        self._embeddings: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()
        self._attention_maps: OrderedDict[Any, Array] = OrderedDict()

    def segment(
        self,
        box: Box | None = None,
        points: Sequence[Point] = (),
        mask: Result | NDArray[np.bool_] | None = None,
        depth_attention: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Result:
        """Segment the one bone that the prompts mean.

        Args:
            box: around the bone. Thin along one axis: drawn on that slice, and carried through the bone.
            points: clicks on the bone and, negative, beside it.
            mask: an earlier result, or a mask [k, j, i], to be corrected by the points; slices far from new
                points stay as they are. Pass all points, old and new.
            depth_attention: False looks at each slice and its neighbors only.
            progress: called with a fraction and a word.
            cancel: asked between batches of slices.

        Raises:
            BoneSAMError: no prompt, or a prompt outside of the volume.
            Cancelled: `cancel` was set; nothing has changed.
        """
        job = _Job(self, depth_attention, progress or _silent, cancel or threading.Event())
        points = tuple(points)
        if mask is not None:
            stack = job.corrected(mask, box, points)
        elif box is not None:
            stack = job.from_box(box, points)
        elif any(point.positive for point in points):
            stack = job.from_click(points)
        else:
            raise BoneSAMError(
                "There is no prompt: give a box or a point on the bone, or use segment_all for every bone."
            )
        return job.result(stack, points)

    def segment_all(
        self,
        depth_attention: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> AllBones:
        """Segment every bone, without a prompt; touching bones share a number.

        Raises:
            Cancelled: `cancel` was set.
        """
        job = _Job(self, depth_attention, progress or _silent, cancel or threading.Event())
        return job.everything()


class _Job:
    """One call: its options and the steps from prompts to logits."""

    def __init__(self, session: Session, attention: bool, progress: Progress, cancel: Cancel) -> None:
        self.session, self.volume, self.engine = session, session.volume, session._engine
        self.use_attention = attention
        self.progress, self.cancel = progress, cancel
        self.start = time.perf_counter()

    @cached_property
    def frame(self) -> SliceFrame:
        return SliceFrame(self.volume, self.volume.through_plane_axis)

    # From prompts to a stack of logits.

    def from_box(self, box: Box, points: tuple[Point, ...]) -> _Stack:
        low_ijk, high_ijk = box.to_ijk(self.volume)
        thin = [axis for axis in range(3) if low_ijk[axis] == high_ijk[axis]]
        if thin and not self.volume.is_projection:
            return self._from_slice_box(thin[0], low_ijk, high_ijk, points)
        low, high = self._faces(low_ijk, high_ijk)
        return self.in_box(low, high, self._clicks(points))

    def _from_slice_box(self, thin: int, low_ijk: Any, high_ijk: Any, points: tuple[Point, ...]) -> _Stack:
        """A box drawn on one slice: carried from there through the bone."""
        spacing = self.volume.spacing
        if (
            thin != self.frame.axis
            and spacing[thin] <= 1.25 * min(spacing)
            and max(spacing) <= 1.5 * min(spacing)
        ):
            self.frame = SliceFrame(self.volume, thin)
        low, high = self._faces(low_ijk, high_ijk)
        if thin == self.frame.axis:
            seed = int(low_ijk[thin])
            return self._carried(seed, low, high, self._clicks(points))
        # Drawn across a stack of thick slices: its depth is unknown, so as deep as it is wide.
        axis = self.frame.order.index(thin)
        across = 1 - axis
        reach = 0.5 * (high - low)[across] * self.frame.spacing[across] / self.frame.spacing[axis]
        middle = (low[axis] + high[axis]) / 2
        low[axis], high[axis] = middle - reach, middle + reach
        low, high = np.maximum(low, -0.5), np.minimum(high, np.array(self.frame.size) - 0.5)
        return self.in_box(low, high, self._clicks(points))

    def from_click(self, points: tuple[Point, ...]) -> _Stack:
        """Clicks alone: find the size of the bone on the clicked slice, then carry it through the volume."""
        clicks = self._clicks(points)
        first = clicks.places[int(np.argmax(clicks.positive))]
        seed = int(np.clip(np.rint(first[2]), 0, self.frame.size[2] - 1))
        extent = np.array(self.frame.size[:2]) * np.array(self.frame.spacing[:2])
        best: tuple[float, Vector, Vector] | None = None
        for scale in CLICK_SCALES:
            width = float(max(scale * extent.max(), 24 * min(self.frame.spacing[:2])))
            center = first[:2] * np.array(self.frame.spacing[:2])
            found = self._click_extent(center, width, seed, clicks)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
        if best is None:
            side = 0.1 * float(extent.max()) / np.array(self.frame.spacing[:2])
            best = (0.0, first[:2] - side / 2, first[:2] + side / 2)
        low, high = np.append(best[1], seed - 0.5), np.append(best[2], seed + 0.5)
        if self.volume.is_projection:
            return self.in_box(low, high, clicks)
        return self._carried(seed, low, high, clicks)

    def _click_extent(
        self, center: Vector, width: float, seed: int, clicks: _Clicks
    ) -> tuple[float, Vector, Vector] | None:
        """Predicted IoU and (u, v) faces of what a click means at one zoom, seen once more at its own size."""
        outcome = None
        for _ in range(2):
            region = Region(self.frame, (float(center[0]), float(center[1])), width)
            logits, iou = self._decode(region, np.array([seed]), None, None, clicks, None)
            choice = 1 + int(iou[0, 1:].argmax()) if len(clicks.places) == 1 else 0
            inside = np.argwhere(logits[0, choice] > 0)
            if len(inside) < 12:
                return outcome
            cell = width / LOGIT_SIZE
            low_mm = center - width / 2 + inside.min(0)[::-1] * cell
            high_mm = center - width / 2 + (inside.max(0)[::-1] + 1) * cell
            touches = inside.min() <= 1 or inside.max() >= LOGIT_SIZE - 2
            spacing = np.array(self.frame.spacing[:2])
            score = float(iou[0, choice]) - (0.15 if touches else 0.0)
            outcome = (score, low_mm / spacing, high_mm / spacing)
            center = (low_mm + high_mm) / 2
            width = float(CONTEXT * (high_mm - low_mm).max() * (1.3 if touches else 1.0))
        return outcome

    def _carried(self, seed: int, low: Vector, high: Vector, clicks: _Clicks) -> _Stack:
        """From a box on slice `seed` along the stack in both directions, a few slices at a time, each batch
        prompted by the last mask and its bounds; then once more from the box that this gave.
        """
        region = self._region_of(low, high, margin=1.3)
        logits, iou = self._decode(region, np.array([seed]), low, high, clicks, None, flat=seed)
        found: dict[int, Array] = {seed: logits[0, 0]}
        last = {1: logits[0, 0], -1: logits[0, 0]}
        at = {1: seed, -1: seed}
        # Small steps keep the last mask similar: a tenth of the region, at most half a batch.
        steps = int(np.clip(0.1 * region.width / self.frame.spacing[2], 1, BATCH // 2))
        active = {1, -1}
        while active:
            self._check_cancel()
            for direction in sorted(active):
                indices = at[direction] + direction * np.arange(1, steps + 1)
                indices = indices[(indices >= 0) & (indices < self.frame.size[2])]
                bounds = _bounds(last[direction])
                if not len(indices) or bounds is None:
                    active.discard(direction)
                    continue
                box_low, box_high = self._bounds_to_voxels(region, bounds, at[direction])
                previous = np.repeat(_pooled(last[direction])[None, None], len(indices), axis=0)
                logits, _ = self._decode(
                    region, indices, box_low, box_high, clicks, previous, flat=at[direction]
                )
                for index, slice_logits in zip(indices.tolist(), logits[:, 0], strict=True):
                    if (slice_logits > 0).sum() < 4:
                        active.discard(direction)
                        break
                    found[index] = slice_logits
                    last[direction], at[direction] = slice_logits, index
            self.progress(min(0.5, len(found) / 100), "following the bone")
        indices = np.array(sorted(found))
        inside = np.stack([found[int(index)] for index in indices]) > 0
        _, rows, columns = np.nonzero(inside)
        if not len(rows):
            return self.in_box(low, high, clicks)
        bounds = (rows.min(), columns.min(), rows.max(), columns.max())
        low, high = self._bounds_to_voxels(region, bounds, 0)
        low[2], high[2] = indices[0] - 0.5, indices[-1] + 0.5
        return self.in_box(low, high, clicks)

    def in_box(self, low: Vector, high: Vector, clicks: _Clicks) -> _Stack:
        """All slices of a 3D box, a little beyond its ends."""
        region = self._region_of(low, high)
        margin = max(1.0, 0.08 * (high[2] - low[2])) if self.frame.size[2] > 1 else 0
        first = int(np.clip(np.ceil(low[2] - margin), 0, self.frame.size[2] - 1))
        last = int(np.clip(np.floor(high[2] + margin), 0, self.frame.size[2] - 1))
        indices = np.arange(first, last + 1)
        logits, iou = self._decode(region, indices, low, high, clicks, None)
        return _Stack(region, indices, logits[:, 0], iou[:, 0], low, high)

    def corrected(
        self, mask: Result | NDArray[np.bool_], box: Box | None, points: tuple[Point, ...]
    ) -> _Stack:
        """An earlier result with new clicks."""
        if isinstance(mask, Result):
            stack, known = mask._stack, set(mask.points)
            self.frame = stack.region.frame
        else:
            stack, known = self._stack_of_mask(np.asarray(mask)), set()
        clicks = self._clicks(points)
        new = np.array([point not in known for point in points], bool)
        low, high = stack.low.copy(), stack.high.copy()
        if box is not None:
            low, high = self._faces(*box.to_ijk(self.volume))
            if high[2] - low[2] <= 1.0 < stack.high[2] - stack.low[2]:
                low, high = stack.low.copy(), stack.high.copy()
        inside = clicks.places[clicks.positive]
        if len(inside):
            low, high = np.minimum(low, inside.min(0) - 0.5), np.maximum(high, inside.max(0) + 0.5)
        stack = replace(self._extended(stack, low, high), low=low, high=high)
        if not new.any():
            near = np.ones(len(stack.indices), bool)
        else:
            offsets = stack.indices[:, None] - clicks.places[new][None, :, 2]
            distance = np.abs(offsets) * self.frame.spacing[2] * stack.region.scale
            near = (distance <= CLICK_REACH).any(1) | (np.abs(offsets) < 1).any(1)
        previous = np.stack([_pooled(plane) for plane in stack.logits[near]])[:, None]
        logits, iou = self._decode(stack.region, stack.indices[near], low, high, clicks, previous)
        all_logits, all_iou = stack.logits.copy(), stack.iou.copy()
        all_logits[near], all_iou[near] = logits[:, 0], iou[:, 0]
        return replace(stack, logits=all_logits, iou=all_iou)

    def _extended(self, stack: _Stack, low: Vector, high: Vector) -> _Stack:
        """The stack over a region and slices that reach from `low` to `high`; what is new is background."""
        first = min(int(stack.indices[0]), max(0, int(np.floor(low[2]))))
        last = max(int(stack.indices[-1]), min(self.frame.size[2] - 1, int(np.ceil(high[2]))))
        indices = np.arange(first, last + 1)
        region = stack.region if stack.region.contains(low, high) else self._region_of(low, high)
        logits = np.full((len(indices), LOGIT_SIZE, LOGIT_SIZE), -8.0, np.float32)
        iou = np.ones(len(indices), np.float32)
        kept = slice(int(stack.indices[0]) - first, int(stack.indices[-1]) - first + 1)
        iou[kept] = stack.iou
        if region is stack.region:
            logits[kept] = stack.logits
        else:
            whole = np.full((len(stack.indices), self.frame.size[1], self.frame.size[0]), -8.0, np.float32)
            rows, columns = stack.region.voxels
            whole[:, rows, columns] = stack.region.to_voxels(stack.logits)
            logits[kept] = region.from_voxels(whole, LOGIT_SIZE)
        return replace(stack, region=region, indices=indices, logits=logits, iou=iou)

    def _stack_of_mask(self, mask: NDArray[np.bool_]) -> _Stack:
        if mask.shape != self.volume.shape:
            raise BoneSAMError(
                f"The mask has shape {mask.shape} and the volume {self.volume.shape}: both must be on the same grid."
            )
        view = self.frame.of_array(mask.astype(bool))
        found = np.argwhere(view)
        if not len(found):
            raise BoneSAMError("The mask to correct is empty: give a box or a point instead.")
        low, high = found.min(0)[::-1] - 0.5, found.max(0)[::-1] + 0.5
        region = self._region_of(low, high)
        indices = np.arange(int(found[:, 0].min()), int(found[:, 0].max()) + 1)
        planes = region.from_voxels(view[indices].astype(np.float32), LOGIT_SIZE)
        return _Stack(region, indices, (planes * 2 - 1) * 6, np.ones(len(indices), np.float32), low, high)

    # The network.

    def _decode(
        self,
        region: Region,
        indices: NDArray[np.int64],
        low: Vector | None,
        high: Vector | None,
        clicks: _Clicks,
        previous: Array | None,
        flat: int | None = None,
    ) -> tuple[Array, Array]:
        """Logits [n, 4, 128, 128] and IoU [n, 4] of slices. `flat`: the box was drawn on that slice."""
        has_box = low is not None and high is not None
        boxed = (low, high) if has_box and flat is None and self.frame.size[2] > 1 else None
        attention, use = self._attention(region, indices, boxed)
        all_logits, all_iou = [], []
        for begin in range(0, len(indices), BATCH):
            self._check_cancel()
            part = slice(begin, begin + BATCH)
            embedding, skip = self._embed(region, indices[part])
            points, labels = self._tokens(region, indices[part], low, high, clicks, flat)
            masks = np.zeros((len(embedding), 1, 64, 64), np.float32) if previous is None else previous[part]
            logits, iou = self.engine.decode(
                embedding, skip, attention[part], use[part], points, labels, masks.astype(np.float32)
            )
            all_logits.append(logits)
            all_iou.append(iou)
            if len(indices) > BATCH:
                self.progress((begin + len(embedding)) / len(indices), "segmenting")
        return np.concatenate(all_logits), np.concatenate(all_iou)

    def _embed(self, region: Region, indices: NDArray[np.int64]) -> tuple[Array, Array]:
        """Embeddings of slices, from the cache where they are there."""
        cache = self.session._embeddings
        keys = [(region.frame.axis, region.center, region.width, int(index)) for index in indices]
        missing = [n for n, key in enumerate(keys) if key not in cache]
        if missing:
            embedding, skip = self.engine.encode(region.slices(indices[missing]))
            for row, n in enumerate(missing):
                cache[keys[n]] = (embedding[row].astype(np.float16), skip[row].astype(np.float16))
        for key in keys:
            cache.move_to_end(key)
        parts = [cache[key] for key in keys]
        while len(cache) > CACHED_SLICES:
            cache.popitem(last=False)
        return np.stack([p[0] for p in parts]).astype(np.float32), np.stack([p[1] for p in parts]).astype(
            np.float32
        )

    def _attention(
        self, region: Region, indices: NDArray[np.int64], box: tuple[Any, Any] | None
    ) -> tuple[Array, Array]:
        """Attention maps [n, 2, 64, 64] of slices and whether there is one [n].

        One cube covers a region's width along the stack; a longer stack takes several.
        """
        count = len(indices)
        if not self.use_attention or self.frame.size[2] == 1:
            return np.zeros((count, 2, CUBE, CUBE), np.float32), np.zeros(count, np.float32)
        spacing = self.frame.spacing[2]
        span = (indices.max() - indices.min()) * spacing
        number = max(1, int(np.ceil(span / (0.75 * region.width))))
        edges = np.linspace(indices.min(), indices.max(), 2 * number + 1)
        centers = edges[1::2]
        nearest = np.abs(indices[:, None] - centers[None]).argmin(1)
        maps = np.zeros((count, 2, CUBE, CUBE), np.float32)
        for n, center in enumerate(centers):
            chosen = nearest == n
            if not chosen.any():
                continue
            self._check_cancel()
            probability = self._cube(region, float(center), box)
            place = (indices[chosen] - center) * spacing / region.width * CUBE + CUBE / 2 - 0.5
            below = np.clip(np.floor(place), 0, CUBE - 1).astype(int)
            above = np.minimum(below + 1, CUBE - 1)
            share = np.clip(place - below, 0, 1)[:, None, None, None].astype(np.float32)
            planes = probability.transpose(1, 0, 2, 3)
            maps[chosen] = planes[below] * (1 - share) + planes[above] * share
        return maps, np.ones(count, np.float32)

    def _cube(self, region: Region, center: float, box: tuple[Any, Any] | None) -> Array:
        """The depth attention's answer [2, 64, 64, 64] for the cube around slice `center`."""
        cache = self.session._attention_maps
        faces = None if box is None else (*box[0], *box[1])
        key = (region.frame.axis, region.center, region.width, center, faces)
        if key not in cache:
            channel = np.zeros((CUBE, CUBE, CUBE), np.float32)
            if box is not None:
                cell = PIXELS / CUBE
                low, high = region.to_pixels(box[0]), region.to_pixels(box[1])
                offset = center * self.frame.spacing[2] * region.scale
                places = (np.arange(CUBE) + 0.5) * cell
                along = places - PIXELS / 2
                inside = [(places >= low[axis]) & (places <= high[axis]) for axis in (0, 1)]
                depth = (along >= low[2] - offset) & (along <= high[2] - offset)
                channel = (depth[:, None, None] & inside[1][:, None] & inside[0]).astype(np.float32)
            cache[key] = self.engine.attend(np.stack([region.cube(center), channel])[None])[0]
            while len(cache) > 8:
                cache.popitem(last=False)
        return cache[key]

    def _tokens(
        self,
        region: Region,
        indices: NDArray[np.int64],
        low: Vector | None,
        high: Vector | None,
        clicks: _Clicks,
        flat: int | None,
    ) -> tuple[Array, NDArray[np.int64]]:
        """Points [n, 8, 3] and labels [n, 8]; each slice gets the clicks nearest to it."""
        count = len(indices)
        points = np.zeros((count, PROMPT_SLOTS, 3), np.float32)
        labels = np.full((count, PROMPT_SLOTS), PADDING, np.int64)
        depth = indices[:, None] * self.frame.spacing[2] * region.scale
        used = 0
        if low is not None and high is not None:
            corners = region.to_pixels(np.stack([low, high]))
            if flat is not None or self.frame.size[2] == 1:
                corners[:, 2] = (flat or 0) * self.frame.spacing[2] * region.scale
            points[:, :2] = corners[None]
            points[:, :2, 2] -= depth
            labels[:, :2] = BOX_LOW, BOX_HIGH
            used = 2
        if len(clicks.places):
            places = region.to_pixels(clicks.places)
            offsets = places[None, :, 2] - depth
            order = np.argsort(np.abs(offsets), axis=1, kind="stable")[:, : PROMPT_SLOTS - used]
            for row in range(count):
                # Beyond its reach a click says nothing about a slice and would only take a place.
                chosen = [n for n in order[row] if abs(offsets[row, n]) <= 2 * CLICK_REACH]
                end = used + len(chosen)
                points[row, used:end, :2] = places[chosen, :2]
                points[row, used:end, 2] = offsets[row, chosen]
                labels[row, used:end] = np.where(clicks.positive[chosen], POSITIVE, NEGATIVE)
        return points, labels

    # Without prompts.

    def everything(self) -> AllBones:
        size, spacing = np.array(self.frame.size), np.array(self.frame.spacing)
        extent = size[:2] * spacing[:2]
        center = (size[:2] - 1) * spacing[:2] / 2
        region = Region(self.frame, (float(center[0]), float(center[1])), float(extent.max()))
        found = np.zeros(self.volume.shape, bool)
        view = self.frame.of_array(found)
        rows, columns = region.voxels
        none = _Clicks(np.zeros((0, 3)), np.zeros(0, bool))
        slice_iou = np.zeros(size[2], np.float32)
        # In runs of slices, so that memory does not grow with the length of the volume.
        run = 64
        for begin in range(0, int(size[2]), run):
            indices = np.arange(begin, min(begin + run, int(size[2])))
            logits, iou = self._decode(region, indices, None, None, none, None)
            view[indices, rows, columns] = region.to_voxels(logits[:, 0]) > 0
            slice_iou[indices] = iou[:, 0]
            self.progress((begin + len(indices)) / int(size[2]), "segmenting")
        smallest = SMALLEST_BONE_MM3 / float(np.prod(spacing)) if size[2] > 1 else 30
        labels, counts = _numbered(found, max(smallest, 8))
        confidence = {}
        planes = self.frame.of_array(labels)
        weights = np.stack([np.bincount(plane.ravel(), minlength=len(counts) + 1) for plane in planes])
        for number in range(1, len(counts) + 1):
            confidence[number] = float(np.average(slice_iou, weights=weights[:, number]))
        return AllBones(labels, len(counts), confidence, time.perf_counter() - self.start)

    # Results.

    def result(self, stack: _Stack, points: tuple[Point, ...]) -> Result:
        """The mask on the volume's grid, and how sure the network is of it."""
        self._check_cancel()
        mask = np.zeros(self.volume.shape, bool)
        rows, columns = stack.region.voxels
        view = self.frame.of_array(mask)
        inside = stack.region.to_voxels(stack.logits) > 0
        clicks = self._clicks(points)
        places = np.rint(clicks.places[clicks.positive]).astype(int)
        places -= [columns.start, rows.start, int(stack.indices[0])]
        view[stack.indices[0] : stack.indices[-1] + 1, rows, columns] = _without_specks(inside, places)
        areas = view[stack.indices].sum((1, 2))
        slice_confidence = {
            int(index): float(iou)
            for index, iou, area in zip(stack.indices, np.clip(stack.iou, 0, 1), areas, strict=True)
            if area
        }
        confidence = float(np.average(np.clip(stack.iou, 0, 1), weights=areas)) if areas.any() else 0.0
        review = sorted(slice_confidence, key=lambda index: slice_confidence[index])[:REVIEWED]
        return Result(
            mask, confidence, slice_confidence, review, points, time.perf_counter() - self.start, stack
        )

    # Geometry of prompts.

    def _faces(self, low_ijk: Any, high_ijk: Any) -> tuple[Vector, Vector]:
        """Faces of a voxel box, (u, v, w)."""
        return self.frame.from_ijk(low_ijk) - 0.5, self.frame.from_ijk(high_ijk) + 0.5

    def _clicks(self, points: tuple[Point, ...]) -> _Clicks:
        places = [self.frame.from_ijk(point.to_ijk(self.volume)) for point in points]
        positive = np.array([point.positive for point in points], bool)
        return _Clicks(np.array(places, float).reshape(-1, 3), positive)

    def _region_of(self, low: Vector, high: Vector, margin: float = 1.0) -> Region:
        spacing = np.array(self.frame.spacing[:2])
        low_mm, high_mm = low[:2] * spacing, high[:2] * spacing
        center = (low_mm + high_mm) / 2
        width = max(CONTEXT * margin * float((high_mm - low_mm).max()), 12 * float(spacing.min()))
        return Region(self.frame, (float(center[0]), float(center[1])), width)

    def _bounds_to_voxels(
        self, region: Region, bounds: tuple[int, int, int, int], w: int
    ) -> tuple[Vector, Vector]:
        """Rows and columns of a logit plane (inclusive) as faces (u, v, w)."""
        spacing = np.array(self.frame.spacing[:2])
        cell = region.width / LOGIT_SIZE
        origin = np.array(region.center) - region.width / 2
        low = (origin + np.array([bounds[1], bounds[0]]) * cell) / spacing
        high = (origin + (np.array([bounds[3], bounds[2]]) + 1) * cell) / spacing
        return np.append(low, w - 0.5), np.append(high, w + 0.5)

    def _check_cancel(self) -> None:
        if self.cancel.is_set():
            raise Cancelled


def _silent(fraction: float, text: str) -> None:
    """No progress wanted."""


def _pooled(logits: Array) -> Array:
    """A logit plane [128, 128] as mask prompt [64, 64]."""
    size = LOGIT_SIZE // 2
    pooled: Array = logits.reshape(size, 2, size, 2).mean((1, 3))
    return pooled


def _bounds(logits: Array) -> tuple[int, int, int, int] | None:
    """First row, first column, last row, last column of the mask in a logit plane."""
    rows, columns = np.nonzero(logits > 0)
    if not len(rows):
        return None
    return int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max())


def _without_specks(mask: NDArray[np.bool_], clicked: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The largest component, others of at least a tenth of it, and those that were clicked (u, v, w)."""
    components = cc3d.connected_components(mask, connectivity=26)
    sizes = np.bincount(components.ravel())
    if len(sizes) <= 2:
        return mask
    keep = sizes >= SMALLEST_PART * sizes[1:].max()
    keep[0] = False
    for u, v, w in clicked:
        if 0 <= w < mask.shape[0] and 0 <= v < mask.shape[1] and 0 <= u < mask.shape[2]:
            keep[components[w, v, u]] |= bool(components[w, v, u])
    kept: NDArray[np.bool_] = keep[components]
    return kept


def _numbered(
    mask: NDArray[np.bool_], smallest: float
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
    """Components numbered from the largest, without those below `smallest` voxels, and their sizes."""
    components = cc3d.connected_components(mask, connectivity=26)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    order = [int(n) for n in np.argsort(-sizes, kind="stable") if sizes[n] >= smallest]
    table = np.zeros(len(sizes), np.min_scalar_type(len(order)) if order else np.uint8)
    table[order] = np.arange(1, len(order) + 1)
    return table[components], sizes[order]
