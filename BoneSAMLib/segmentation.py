"""One call, from prompts to a mask: which slices are looked at, with which prompts, and what comes of it."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.components import bounding_box, numbered, without_specks
from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.marrow import close_marrow
from BoneSAMLib.prompt_tokens import Clicks, SlicePrompts
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.region import PIXELS, Array, Region, SliceFrame, Vector, interpolation
from BoneSAMLib.result import AllBones, Mask, Result, Stack
from BoneSAMLib.slice_decoder import BATCH, SliceDecoder
from BoneSAMLib.volume import Int3, Volume

Progress = Callable[[float, str], None]
Preview = Callable[[CroppedMask], None]

CONTEXT = 1.5  # width of a region, in sides of its box
MOST_CONTEXT = (
    2.2  # as wide as in training; a region up to here is used again, its slices are encoded already
)
SMALLEST_WIDTH = 12  # of a region, in voxels
CLICK_SCALES = (0.32, 0.6, 1.0)  # widths tried for a click alone, in parts of the slice
STABILITY = 2.0  # of a mask, in units of its predicted IoU: which mask a click alone means
CUT_OFF = 0.15  # the same of one that touches the region's edge: more of it may lie outside
CORRECTION_REACH = 48.0  # region pixels along the stack over which a correction is redone
CARRIED_MARGIN = 1.3  # of the regions in which a bone is followed
EDGE = 16  # region pixels: a bone that comes nearer to the edge is followed in another region
SMALLEST_SIDE = 56  # region pixels: so does one that has become smaller
MOST_GROWTH = 3.0  # of a region while a bone is followed: a mask that leaks must not end as the whole scan
LOGIT_SIZE = 128
NOTHING = -8.0  # logit of what was never looked at
SMALLEST_PART = 0.1  # of the largest component: smaller ones are specks beside the bone
SMALLEST_BONE_MM3 = 150.0  # without a prompt, anything smaller is noise (a pisiform has 1000 mm3)
SMALLEST_BONE_PIXELS = 30  # the same in a single slice
OBEYED = 3.0  # cells of the logits around a click that the network does not follow
REVIEWED = 10
FIRST_LOOK = 5  # slices of a box whose masks are shown before all the others are looked at


class Cancel(Protocol):
    """Anything that can be asked whether to stop, such as `threading.Event`."""

    def is_set(self) -> bool:
        """True to stop at the next batch of slices."""


class Segmentation:
    """The work of one call.

    Args:
        frames: the volume as stacks of slices along its IJK axes 0, 1 and 2.
        decoder: the network.
        depth_attention: whether the 3D network helps.
        kind: what the bone is, as in `engine.DecoderInputs`.
        progress, cancel, preview: as in `Session.segment`.
    """

    def __init__(
        self,
        frames: Sequence[SliceFrame],
        decoder: SliceDecoder,
        depth_attention: bool,
        progress: Progress | None,
        cancel: Cancel | None,
        preview: Preview | None = None,
        kind: int = 0,
    ) -> None:
        self.frames, self.decoder = frames, decoder
        self.volume = frames[0].volume
        self.frame = frames[self.volume.through_plane_axis]
        self.depth_attention = depth_attention
        self.kind = kind
        self.progress, self.cancel, self.preview = progress, cancel, preview
        self.stage = (0.0, 1.0)  # the share of the whole work that is being done
        self.done = 0.0
        self.start = time.perf_counter()

    # From prompts to a stack of logits.

    def from_box(self, box: Box, points: tuple[Point, ...]) -> Stack:
        """A 3D box, or a 2D box, which is drawn on one slice and carried from there through the bone."""
        low_ijk, high_ijk = box.to_ijk(self.volume)
        thin = box.thin_axis(self.volume)
        if thin is None or self.volume.is_projection:
            low, high = self.faces(low_ijk, high_ijk)
            clicks = self.clicks(points)
            self.show_first_look(low, high, clicks)
            return self.in_box(low, high, clicks)
        if thin != self.frame.axis and _serves_as_stack(self.volume, thin):
            self.frame = self.frames[thin]
        low, high = self.faces(low_ijk, high_ijk)
        clicks = self.clicks(points)
        if thin == self.frame.axis:
            return self.carried(int(low_ijk[thin]), low, high, clicks)
        # Drawn across a stack of thick slices, its depth is unknown: as deep as wide, then as it turns out.
        axis = self.frame.order.index(thin)
        across = 1 - axis
        reach = 0.5 * (high - low)[across] * self.frame.spacing[across] / self.frame.spacing[axis]
        middle = (low[axis] + high[axis]) / 2
        low[axis], high[axis] = middle - reach, middle + reach
        self.stage = (0.0, 0.5)
        stack = self.in_box(*self.within_volume(low, high), clicks)
        self.stage = (0.5, 1.0)
        return self.in_box_of(stack.region, stack.indices, stack.logits, clicks) or stack

    def from_click(self, points: tuple[Point, ...]) -> Stack:
        """Clicks alone: find the size of the bone on the clicked slice, then carry it through the volume."""
        clicks = self.clicks(points)
        first = clicks.places[int(np.argmax(clicks.positive))]
        seed = int(first[2])
        spacing = np.array(self.frame.spacing[:2])
        longest = float((np.array(self.frame.size[:2]) * spacing).max())
        self.stage = (0.0, 0.1)
        best: tuple[float, Vector, Vector] | None = None
        for scale in CLICK_SCALES:
            side = max(scale * longest, 2 * SMALLEST_WIDTH * float(spacing.min())) / spacing / CONTEXT
            found = self.click_extent(first, side, seed, clicks)
            if found is not None and (best is None or found[0] > best[0]):
                best = found
        if best is None:
            side = 0.1 * longest / spacing
            best = (0.0, *self.within_volume(*_slab(first[:2] - side / 2, first[:2] + side / 2, seed, seed)))
        _, low, high = best
        if self.volume.is_projection:
            self.stage = (0.1, 1.0)
            return self.in_box(low, high, clicks)
        return self.carried(seed, low, high, clicks)

    def click_extent(
        self, place: Vector, side: Vector, seed: int, clicks: Clicks
    ) -> tuple[float, Vector, Vector] | None:
        """What a click means at one zoom: how sure that is, and box faces; None for nothing.

        `side`: width (u, v) in voxels of the box that the zoom would suit. Seen once more at its own size, it
        would shrink to a part of itself (a vertebra from a Dice of 0.77 to 0.32).
        """
        region = self.region_of(place[:2] - side / 2, place[:2] + side / 2)
        logits, iou = self.decode(region, np.array([seed]), self.asked(clicks))
        sure = iou[0] + STABILITY * _stability(logits[0])
        choice = int(sure.argmax()) if len(clicks.places) == 1 else 0
        inside = np.argwhere(logits[0, choice] > 0)
        box = self.faces_of(region, np.array([seed]), logits[:, choice])
        if box is None or len(inside) < 12:
            return None
        touches = inside.min() <= 1 or inside.max() >= LOGIT_SIZE - 2
        return (float(sure[choice]) - (CUT_OFF if touches else 0.0), *box)

    def carried(self, seed: int, low: Vector, high: Vector, clicks: Clicks) -> Stack:
        """From a 2D box on slice `seed` in both directions, a few slices at a time, each batch prompted by
        the last mask and its bounds; then once more in the 3D box that this gave.
        """
        begin = self.done
        self.stage = (begin, begin)
        start = self.region_of(low, high, margin=CARRIED_MARGIN)
        logits, _ = self.decode(start, np.array([seed]), self.asked(clicks, (low, high), seed))
        box = self.faces_of(start, np.array([seed]), logits[:, 0])
        if box is None:
            self.stage = (begin, 1.0)
            return self.in_box(low, high, clicks)
        self.show(start, np.array([seed]), logits[:, 0])
        found = {seed: box}
        fronts = dict.fromkeys((1, -1), (seed, start, logits[0, 0]))
        while fronts:
            for direction, (at, region, plane) in list(fronts.items()):
                if region.width <= MOST_GROWTH * start.width:
                    region, plane = self.followed(region, plane, found[at])
                # Small steps keep the last mask similar: a tenth of the region, at most half a batch.
                steps = int(np.clip(0.1 * region.width / self.frame.spacing[2], 1, BATCH // 2))
                indices = at + direction * np.arange(1, steps + 1)
                indices = indices[(indices >= 0) & (indices < self.frame.size[2])]
                del fronts[direction]
                if not len(indices):
                    continue
                previous = np.repeat(_pooled(plane[None]), len(indices), axis=0)
                logits, _ = self.decode(region, indices, self.asked(clicks, found[at], at), previous)
                for index, plane in zip(indices.tolist(), logits[:, 0], strict=True):
                    box = self.faces_of(region, np.array([index]), plane[None])
                    if box is None or (plane > 0).sum() < 4:
                        break
                    found[index] = box
                else:
                    fronts[direction] = (index, region, plane)
            # How far it goes is unknown; the fraction nears a half.
            self.report(begin + (0.5 - begin) * len(found) / (len(found) + 20), "following the bone")
        self.stage = (0.5, 1.0)
        lows, highs = zip(*found.values(), strict=True)
        return self.in_box(np.min(lows, axis=0), np.max(highs, axis=0), clicks, start)

    def followed(self, region: Region, plane: Array, box: tuple[Vector, Vector]) -> tuple[Region, Array]:
        """The region in which a bone with the `box` is carried on, and its last logits [128, 128] there.

        Another one than the last where the bone nears its edge, or has become small in it.
        """
        places = region.to_pixels(np.stack(box))[:, :2]
        inside = (places >= EDGE).all() and (places <= PIXELS - EDGE).all()
        if inside and (places[1] - places[0]).max() >= SMALLEST_SIDE:
            return region, plane
        other = self.region_of(*box, margin=CARRIED_MARGIN)
        return other, region.to_region(plane[None], other, NOTHING)[0]

    def in_box(self, low: Vector, high: Vector, clicks: Clicks, known: Region | None = None) -> Stack:
        """All slices of a 3D box, a little beyond its ends; in a region that is `known` if that suits."""
        low, high = _including(low, high, clicks)
        region = self.region_of(low, high)
        widest = MOST_CONTEXT / CONTEXT * region.width
        if known is not None and known.contains(low, high) and known.width <= widest:
            region = known
        prompts = self.boxed(low, high, clicks)
        first, last = prompts.reach(self.frame)
        indices = np.arange(first, last + 1)
        logits, iou = self.decode(region, indices, prompts)
        # A copy, or the result would hold on to the three masks that it does not use.
        return Stack(region, indices, logits[:, 0].copy(), iou[:, 0], low, high, self.kind)

    def in_box_of(
        self, region: Region, indices: NDArray[np.int64], logits: Array, clicks: Clicks
    ) -> Stack | None:
        """The same in the box around what was found so far; None if that is nothing."""
        box = self.faces_of(region, indices, logits)
        return None if box is None else self.in_box(*box, clicks, region)

    # Corrections.

    def corrected(self, mask: Result | Mask, box: Box | None, points: tuple[Point, ...]) -> Result:
        """An earlier result, or a mask, with new clicks."""
        if isinstance(mask, Result):
            stack, known, earlier = mask._stack, set(mask.points), mask.mask
            if stack.region.frame.volume is not self.volume:
                raise BoneSAMError("The result to correct is of another volume: pass one of this session.")
            self.frame = self.frames[stack.region.frame.axis]
            self.kind = self.kind or stack.kind
        else:
            earlier = self.checked(mask)
            stack, known = self.stack_of_mask(earlier), set()
        clicks = self.clicks(points)
        new = np.array([point not in known for point in points], bool)
        low, high = stack.low, stack.high
        if box is not None:
            low_ijk, high_ijk = box.to_ijk(self.volume)
            # What a 2D box means is known better by now.
            if box.thin_axis(self.volume) is None or self.volume.is_projection:
                low, high = self.faces(low_ijk, high_ijk)
        low, high = _including(low, high, clicks)
        before = stack
        stack = self.extended(stack, low, high)
        # Beyond the earlier box nothing was looked for, even where it was looked at.
        unseen = ~np.isin(stack.indices, before.indices)
        unseen |= (stack.indices < before.low[2]) & (low[2] < before.low[2])
        unseen |= (stack.indices > before.high[2]) & (high[2] > before.high[2])
        # Without a new click everything is seen again, with the mask as its prompt.
        redone = unseen | (not new.any())
        for w in clicks.places[new, 2]:
            reach = max(CORRECTION_REACH / (self.frame.spacing[2] * stack.region.scale), 0.5)
            redone |= np.abs(stack.indices - w) <= reach
        previous = _pooled(stack.logits)
        previous[unseen] = 0.0  # no mask is known there, which is not to know that there is none
        logits, iou = self.decode(
            stack.region, stack.indices[redone], self.boxed(low, high, clicks), previous[redone]
        )
        stack.logits[redone], stack.iou[redone] = logits[:, 0], iou[:, 0]
        return self.result(stack, points, earlier, redone, new)

    def extended(self, stack: Stack, low: Vector, high: Vector) -> Stack:
        """A copy that holds all slices of the box from `low` to `high`, over a region that holds it too."""
        first, last = stack.first, int(stack.indices[-1])
        beyond_first, beyond_last = self.boxed(low, high, Clicks.none()).reach(self.frame)
        if low[2] < stack.low[2]:
            first = min(first, beyond_first)
        if high[2] > stack.high[2]:
            last = max(last, beyond_last)
        indices = np.arange(first, last + 1)
        region = stack.region if stack.region.contains(low, high) else self.region_of(low, high)
        logits = np.full((len(indices), LOGIT_SIZE, LOGIT_SIZE), NOTHING, np.float32)
        iou = np.ones(len(indices), np.float32)
        kept = stack.indices - first
        logits[kept] = (
            stack.logits if region is stack.region else stack.region.to_region(stack.logits, region, NOTHING)
        )
        iou[kept] = stack.iou
        return Stack(region, indices, logits, iou, low, high, self.kind)

    def checked(self, mask: Mask) -> Mask:
        """A mask given by the user as bool [k, j, i]."""
        mask = np.asarray(mask)
        if mask.ndim == 2:
            mask = mask[np.newaxis]
        self.volume.check_same_shape(mask)
        return mask.astype(bool)

    def stack_of_mask(self, mask: Mask) -> Stack:
        """A mask as if the network had answered it, sure of itself."""
        view = self.frame.of_array(mask)
        block = bounding_box(view)
        if block is None:
            raise BoneSAMError("The mask to correct is empty: give a box or a point instead.")
        low = np.array([part.start for part in block[::-1]]) - 0.5
        high = np.array([part.stop for part in block[::-1]]) - 0.5
        region = self.region_of(low, high)
        indices = np.arange(block[0].start, block[0].stop)
        planes = np.stack([region.from_voxels(view[w], LOGIT_SIZE) for w in indices])
        iou = np.ones(len(indices), np.float32)
        return Stack(region, indices, (planes * 2 - 1) * 6, iou, low, high, self.kind)

    # Without prompts.

    def everything(self) -> AllBones:
        """Every slice as a whole, then numbers for what is connected."""
        size, spacing = np.array(self.frame.size), np.array(self.frame.spacing)
        region = self.region_of(np.full(2, -0.5), size[:2] - 0.5, margin=1 / CONTEXT)
        found = np.zeros(self.volume.shape, bool)
        view = self.frame.of_array(found)
        rows, columns = region.voxels
        slice_iou = np.zeros(size[2], np.float32)
        self.stage = (0.0, 0.97)
        attention = self.depth_attention and attends_without_prompts(self.volume)
        # Of all slices, 64 kB each, because a shaft's marrow is told by its ends.
        logits = np.empty((size[2], LOGIT_SIZE, LOGIT_SIZE), np.float32)
        batches = self.decoder.batches(
            region, np.arange(size[2]), SlicePrompts(Clicks.none()), attention, self.step
        )
        for part, answers, iou in batches:
            logits[part] = answers[:, 0]
            slice_iou[part] = np.clip(iou[:, 0], 0, 1)
        if not self.volume.is_projection:
            close_marrow(logits, np.ones(len(logits), bool), Clicks.none())
        self.threshold(region, logits, view[:, rows, columns])
        smallest = float(SMALLEST_BONE_PIXELS)
        if not self.volume.is_projection:
            smallest = max(SMALLEST_BONE_MM3 / float(np.prod(spacing)), 8)
        labels, sizes = numbered(found, smallest)
        planes = self.frame.of_array(labels)
        areas = np.stack([np.bincount(plane.ravel(), minlength=len(sizes) + 1) for plane in planes])[:, 1:]
        confidence = dict(enumerate((slice_iou @ areas / sizes).tolist(), start=1))
        self.stage = (0.97, 1.0)
        self.step(1.0)
        slice_confidence = {int(w): float(slice_iou[w]) for w in np.flatnonzero(areas.any(axis=1))}
        return AllBones(labels, len(sizes), confidence, time.perf_counter() - self.start, slice_confidence)

    # Results.

    def result(
        self,
        stack: Stack,
        points: tuple[Point, ...],
        earlier: Mask | None = None,
        redone: Mask | None = None,
        new: Mask | None = None,
    ) -> Result:
        """The mask on the volume's grid, and how sure the network is of it.

        Where slices of the stack were not `redone`, they are those of the `earlier` mask, which follows all
        points but the `new` ones.
        """
        self.step(1.0)
        rows, columns = stack.region.voxels
        clicks = self.clicks(points)
        changed = np.ones(len(stack.indices), bool) if redone is None else redone
        cells = Clicks(_cells(stack, clicks), clicks.positive)
        if not self.volume.is_projection:
            fresh = cells if new is None else Clicks(cells.places[new], cells.positive[new])
            before = None if earlier is None else self.in_cells(earlier, stack, changed)
            close_marrow(stack.logits, changed, fresh, before)
        _obey(stack.logits, cells)
        inside = np.empty((len(changed), rows.stop - rows.start, columns.stop - columns.start), bool)
        self.threshold(stack.region, stack.logits, inside)
        clicked = np.rint(clicks.places[clicks.positive]).astype(int)
        places = clicked - [columns.start, rows.start, stack.first]
        specks = None
        if earlier is not None:  # what was a part of its own in it, somebody has drawn or clicked
            known = self.frame.of_array(earlier)[stack.indices, rows, columns]
            specks = known & ~without_specks(known, places[:0], SMALLEST_PART)
        inside = without_specks(inside, places, SMALLEST_PART, specks)
        mask = np.zeros(self.volume.shape, bool) if earlier is None else earlier.copy()
        view = self.frame.of_array(mask)
        view[stack.indices[changed]] = False
        for n in np.flatnonzero(changed):
            view[stack.indices[n], rows, columns] = inside[n]
        areas = np.array([np.count_nonzero(view[w]) for w in stack.indices])
        iou = np.clip(stack.iou, 0, 1)
        seen = np.flatnonzero(areas)
        slice_confidence = {int(stack.indices[n]): float(iou[n]) for n in seen}
        confidence = float(np.average(iou, weights=areas)) if len(seen) else 0.0
        review = sorted(slice_confidence, key=lambda w: slice_confidence[w])[:REVIEWED]
        seconds = time.perf_counter() - self.start
        return Result(mask, confidence, self.frame.axis, slice_confidence, review, points, seconds, stack)

    def threshold(self, region: Region, logits: Array, masks: Mask) -> None:
        """Write `masks` [n, rows, columns] of the region's voxels from logits [n, 128, 128] of slices."""
        for begin in range(0, len(logits), BATCH):  # logits at full resolution take much memory
            self.step(0.0)  # may be cancelled
            part = slice(begin, begin + BATCH)
            masks[part] = region.to_voxels(logits[part]) > 0

    def in_cells(self, mask: Mask, stack: Stack, chosen: NDArray[np.bool_]) -> Mask:
        """A mask on the volume's grid in the cells of a stack's logits [n, 128, 128], on `chosen` slices."""
        view = self.frame.of_array(mask)
        cells = np.zeros(stack.logits.shape, bool)
        for n in np.flatnonzero(chosen):
            cells[n] = stack.region.from_voxels(view[stack.indices[n]], LOGIT_SIZE) > 0.5
        return cells

    # The network, progress and cancelling.

    def decode(
        self,
        region: Region,
        indices: NDArray[np.int64],
        prompts: SlicePrompts,
        previous: Array | None = None,
    ) -> tuple[Array, Array]:
        """Logits [n, 4, 128, 128] and predicted IoU [n, 4] of slices; `previous` logits [n, 1, 64, 64]."""
        return self.decoder.decode(region, indices, prompts, self.depth_attention, self.step, previous)

    def step(self, fraction: float) -> None:
        """Between two pieces of work: `fraction` of the stage is done. Raises Cancelled when asked to."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled
        begin, end = self.stage
        self.report(begin + (end - begin) * fraction, "segmenting")

    def show_first_look(self, low: Vector, high: Vector, clicks: Clicks) -> None:
        """Hand out a mask from a few slices of a 3D box, interpolated between them."""
        low, high = _including(low, high, clicks)
        indices = np.arange(round(low[2] + 0.5), round(high[2] - 0.5) + 1)
        if self.preview is None or len(indices) < 2 * FIRST_LOOK:
            return
        region = self.region_of(low, high)
        few = np.rint(np.linspace(indices[0], indices[-1], FIRST_LOOK)).astype(np.int64)
        stage, self.stage = self.stage, (0.0, 0.0)
        logits, _ = self.decode(region, few, self.boxed(low, high, clicks))
        self.stage = stage
        along = interpolation(np.interp(indices, few, np.arange(FIRST_LOOK)), FIRST_LOOK, 1.0)
        planes = along @ logits[:, 0].reshape(FIRST_LOOK, -1)
        self.show(region, indices, planes.reshape(-1, LOGIT_SIZE, LOGIT_SIZE))

    def show(self, region: Region, indices: NDArray[np.int64], logits: Array) -> None:
        """Hand out the mask that logits [n, 128, 128] of neighboring slices show."""
        if self.preview is None:
            return
        shape, start = list(self.volume.shape), [0, 0, 0]
        across = 2 - self.frame.axis
        shape[across], start[across] = len(indices), int(indices[0])
        slab = np.zeros(shape, bool)
        rows, columns = region.voxels
        self.threshold(region, logits, self.frame.of_array(slab)[:, rows, columns])
        k, j, i = start
        self.preview(CroppedMask.from_crop(self.volume.shape, (k, j, i), slab))

    def report(self, done: float, text: str) -> None:
        """Tell how much of the whole is done; later stages may know less well, so it never falls."""
        self.done = max(self.done, done)
        if self.progress is not None:
            self.progress(self.done, text)

    # Geometry of prompts.

    def faces(self, low_ijk: Int3, high_ijk: Int3) -> tuple[Vector, Vector]:
        """Faces (u, v, w) of a box of voxels."""
        ends = self.frame.from_ijk([low_ijk, high_ijk])
        return ends.min(0) - 0.5, ends.max(0) + 0.5

    def faces_of(
        self, region: Region, indices: NDArray[np.int64], logits: Array
    ) -> tuple[Vector, Vector] | None:
        """Faces (u, v, w) of the box around the mask that logits [n, 128, 128] of slices show, if any."""
        block = bounding_box(logits > 0)
        if block is None:
            return None
        w, rows, columns = block
        low, high = region.to_voxel_faces(
            (columns.start, rows.start), (columns.stop - 1, rows.stop - 1), LOGIT_SIZE
        )
        return _slab(low, high, int(indices[w.start]), int(indices[w.stop - 1]))

    def within_volume(self, low: Vector, high: Vector) -> tuple[Vector, Vector]:
        """Box faces (u, v, w), cut off at the volume's."""
        return np.maximum(low, -0.5), np.minimum(high, np.array(self.frame.size) - 0.5)

    def boxed(self, low: Vector, high: Vector, clicks: Clicks) -> SlicePrompts:
        """A 3D box, or the only box that a single slice can have."""
        return self.asked(clicks, (low, high), 0 if self.volume.is_projection else None)

    def asked(
        self, clicks: Clicks, box: tuple[Vector, Vector] | None = None, drawn_on: int | None = None
    ) -> SlicePrompts:
        """The prompts, with what the bone is said to be."""
        return SlicePrompts(clicks, box, drawn_on, self.kind)

    def clicks(self, points: tuple[Point, ...]) -> Clicks:
        """Points in slice coordinates, on the nearest slice. Raises BoneSAMError outside the volume."""
        places = np.array([self.frame.from_ijk(point.to_ijk(self.volume)) for point in points]).reshape(-1, 3)
        places[:, 2] = np.clip(np.rint(places[:, 2]), 0, self.frame.size[2] - 1)
        return Clicks(places, np.array([point.positive for point in points], bool))

    def region_of(self, low: Vector, high: Vector, margin: float = 1.0) -> Region:
        """The region that suits a box with the faces `low` and `high` (u, v, ... in voxels)."""
        spacing = np.array(self.frame.spacing[:2])
        low_mm, high_mm = low[:2] * spacing, high[:2] * spacing
        u, v = ((low_mm + high_mm) / 2).tolist()
        width = max(CONTEXT * margin * float((high_mm - low_mm).max()), SMALLEST_WIDTH * float(spacing.min()))
        return Region(self.frame, (u, v), width)


def attends_without_prompts(volume: Volume) -> bool:
    """Whether the depth attention helps to find every bone of a volume.

    Without a box it hides bone in MR (F2 on validation with and without it: pelvic-mr 0.71, 0.84; spine-mr
    0.17, 0.36), in CT soft tissue (the sample had 2 bones with it, 34 without: fourth bundle).
    """
    return volume.modality_guess == "CT"


def _serves_as_stack(volume: Volume, axis: int) -> bool:
    """Whether slices across any axis would do: their pixels are about square."""
    spacing = volume.spacing
    return spacing[axis] <= 1.25 * min(spacing) and max(spacing) <= 1.5 * min(spacing)


def _slab(low: Vector, high: Vector, first: int, last: int) -> tuple[Vector, Vector]:
    """Faces (u, v) with those of slices: faces (u, v, w)."""
    return np.append(low, first - 0.5), np.append(high, last + 0.5)


def _including(low: Vector, high: Vector, clicks: Clicks) -> tuple[Vector, Vector]:
    """Box faces moved outward to hold the voxels that were clicked as bone."""
    places = clicks.places[clicks.positive]
    return np.minimum(low, (places - 0.5).min(0, initial=np.inf)), np.maximum(
        high, (places + 0.5).max(0, initial=-np.inf)
    )


def _cells(stack: Stack, clicks: Clicks) -> Vector:
    """Clicks' places in cells (column, row, slice) [n, 3] of a stack's logits, counted from their corner."""
    cells = stack.region.to_pixels(clicks.places) * (LOGIT_SIZE / PIXELS)
    cells[:, 2] = np.rint(clicks.places[:, 2]) - stack.first
    return cells


def _obey(logits: Array, clicks: Clicks) -> None:
    """Where the network does not follow a click, a small disk of its slice does: no click is without effect.

    Of 24 negative clicks deep inside of the samples' bones, the sixth bundle ignored 9.
    """
    middles = np.arange(LOGIT_SIZE) + 0.5
    for (x, y, w), positive in zip(clicks.places, clicks.positive, strict=True):
        if not (0 <= w < len(logits) and 0 <= x < LOGIT_SIZE and 0 <= y < LOGIT_SIZE):
            continue
        plane = logits[int(w)]
        if (plane[int(y), int(x)] > 0) != positive:
            disk = np.hypot(middles[None] - x, middles[:, None] - y) <= OBEYED
            plane[disk] = np.maximum(plane[disk], 1) if positive else np.minimum(plane[disk], -1)


def _stability(logits: Array) -> Array:
    """Of masks [n, h, w]: how little depends on the threshold (Kirillov et al. 2023, sec. 5), 0 to 1 [n].

    By the predicted IoU alone a click often meant a small part of its bone.
    """
    inner, outer = ((logits > level).sum((1, 2)) for level in (1.0, -1.0))
    stable: Array = (inner / np.maximum(outer, 1)).astype(np.float32)
    return stable


def _pooled(logits: Array) -> Array:
    """Logits [n, 128, 128] as mask prompts [n, 1, 64, 64]."""
    size = LOGIT_SIZE // 2
    pooled: Array = logits.reshape(-1, 1, size, 2, size, 2).mean((3, 5))
    return pooled
