"""The door to everything: a `Segmenter` holds the network, its `Session` segments bones in one volume."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bone_finding import BoneFinder, FoundBox, Naming
from BoneSAMLib.bone_kinds import kind_called
from BoneSAMLib.bundle import Bundle, open_bundle
from BoneSAMLib.companion import Companion, check_fusion
from BoneSAMLib.engine import Engine, OnnxEngine
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.naming_engine import NamingEngine
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.region import SliceFrame
from BoneSAMLib.result import AllBones, Mask, Result
from BoneSAMLib.segmentation import Cancel, Preview, Progress, Segmentation
from BoneSAMLib.slice_decoder import SliceDecoder
from BoneSAMLib.volume import Volume

__all__ = ["AllBones", "Cancel", "Progress", "Result", "Segmenter", "Session"]


class Segmenter:
    """A loaded network; opens volumes.

    Args:
        device: "auto" takes CUDA where onnxruntime-gpu finds it, else the CPU; or "cpu", "cuda".
        weights: folder of a bundle; None for the bundled weights.
        threads: how many the network computes on; None for one per core.
        naming: folder of a naming network, see training/README.md; None for the bundled one.

    Raises:
        BoneSAMError: unknown or missing device, missing or damaged weights.
    """

    def __init__(
        self,
        device: str = "auto",
        weights: str | Path | None = None,
        threads: int | None = None,
        naming: str | Path | None = None,
    ) -> None:
        self.bundle: Bundle = open_bundle(weights)
        self.engine: Engine = OnnxEngine(self.bundle, device, threads)
        self.naming: Naming = NamingEngine(device, threads, naming)

    def open(self, volume: Volume, others: Sequence[Volume] = (), fusion: str = "average") -> "Session":
        """Start working on a volume. Nothing is computed yet.

        A session is not for use from several threads at once. `others` and `fusion`: as for `Session`.

        Raises:
            BoneSAMError: as `Session`.
        """
        return Session(volume, self.engine, others, fusion, self.naming)


class Session:
    """Segments bones in one volume; keeps slice embeddings between calls.

    Further volumes of the study, such as T2 beside T1, may be looked at with it. They need not have its grid:
    they are resampled to it, so prompts and masks are those of the first volume. The network runs on each,
    and where a volume has voxels its logits count. With n volumes everything takes n times the time, and each
    takes the memory of the first (320 MB of embeddings at most) and, on another grid, a copy on that grid.

    Args:
        volume: the scan.
        engine: what runs the network.
        others: co-registered volumes, in the same physical space.
        fusion: "average", or "maximum", which finds what is bone in any of them.
        naming: what finds bones by name in the first volume; None where nothing is asked by name.

    Raises:
        BoneSAMError: an unknown fusion, another volume that does not overlap, or a radiograph among several.
    """

    def __init__(
        self,
        volume: Volume,
        engine: Engine,
        others: Sequence[Volume] = (),
        fusion: str = "average",
        naming: Naming | None = None,
    ) -> None:
        check_fusion(fusion)
        self.volume = volume
        self._naming = naming
        self._decoder = SliceDecoder(engine, [Companion(volume, other) for other in others], fusion)
        self._frames = [SliceFrame(volume, axis) for axis in range(3)]

    def segment(
        self,
        box: Box | None = None,
        points: Sequence[Point] = (),
        mask: Result | Mask | None = None,
        depth_attention: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        preview: Preview | None = None,
        bone: str = "",
    ) -> Result:
        """Segment the one bone that the prompts mean.

        Args:
            box: around the bone. Thin along one axis: drawn on that slice, and carried through the bone.
            points: clicks on the bone and, negative, beside it. Clicks on the bone enlarge the box.
            mask: an earlier result of this session, or a mask [k, j, i], to be corrected by the points.
                Slices far from new points stay as they are. Pass all points, old and new.
            depth_attention: False looks at each slice and its neighbors only.
            progress: called with a fraction, never falling and 1 at the end, and a word.
            cancel: asked between batches of slices.
            preview: called with a mask to look at meanwhile: that of the slice that prompts were drawn on, or
                what a few slices of a 3D box tell. Not for a correction.
            bone: what it is called, such as "left femur". Alone, the bone is looked for; with other prompts,
                the network is told the kind of bone, where it knows that.

        Raises:
            BoneSAMError: no prompt, a prompt outside of the volume, a mask that is empty or of another shape,
                or a name alone that means several bones or none that can be found.
            BoneNotFound: a name alone is of a bone that is not in the scan.
            Cancelled: `cancel` was set; nothing has changed.
        """
        points = tuple(points)
        work = self._start(depth_attention, progress, cancel, preview, kind_called(bone) if bone else 0)
        if bone and box is None and mask is None and not any(point.positive for point in points):
            work.step(0.0)  # may be cancelled already
            box = self._box_of(bone)
        if mask is not None:
            return work.corrected(mask, box, points)
        if box is not None:
            return work.result(work.from_box(box, points), points)
        if any(point.positive for point in points):
            return work.result(work.from_click(points), points)
        raise BoneSAMError(
            "There is no prompt: give a box, a point on the bone, or its name, or use segment_all for every "
            "bone."
        )

    def segment_all(
        self,
        depth_attention: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        named: bool | None = False,
    ) -> AllBones:
        """Segment every bone, without a prompt; touching bones share a number.

        Arguments as for `segment`. `named`: also say what the bones are called, part those that touch, and
        look again, in its box, for each bone that is recognized and was missed. None: where that is possible.
        `depth_attention` is for CT and those boxes.

        Raises:
            BoneSAMError: names are asked for in a radiograph.
            Cancelled: `cancel` was set.
        """
        if named is None:
            named = self._naming is not None and not self.volume.is_projection
        if not named:
            return self._start(depth_attention, progress, cancel).everything()
        missed_begin = 0.6
        finder = self._finder  # says at once what cannot be named
        first = _part(progress, 0.0, missed_begin)
        found = self._start(depth_attention, first, cancel).everything()
        missed = finder.missed(found)
        for n, one in enumerate(missed):
            share = (1 - missed_begin) / len(missed)
            part = _part(progress, missed_begin + n * share, missed_begin + (n + 1) * share)
            again = self.segment(one.box, (), None, depth_attention, part, cancel, bone=one.name)
            found = found.with_bone(again)
        if cancel is not None and cancel.is_set():
            raise Cancelled
        named_bones = finder.named(found)
        if progress is not None:
            progress(1.0, "naming")
        return named_bones

    def find(self, phrase: str) -> tuple[list[FoundBox], list[str]]:
        """Where the bones are that a phrase means, such as "left femur and L2-L4".

        Returns a named box for each, to be given to `segment`, and the names of those that are not there.

        Raises:
            BoneSAMError: the phrase is unclear, means bones that cannot be found alone, or the volume is a
                radiograph.
            BoneNotFound: the scan shows none of them.
        """
        return self._finder.find(phrase)

    def name_of(self, mask: NDArray[np.bool_]) -> str | None:
        """What a mask [k, j, i] shows, its kind alone where the rest is unsure; None for no bone with a name.

        Raises:
            BoneSAMError: the mask has another shape, or the volume is a radiograph.
        """
        self.volume.check_same_shape(mask)
        return self._finder.name_of_mask(mask)

    def _box_of(self, bone: str) -> Box:
        found, missing = self.find(bone)
        if len(found) + len(missing) > 1:
            raise BoneSAMError(
                f'"{bone}" means several bones: name one, or give each box that `find` returns to `segment`.'
            )
        return found[0].box

    @cached_property
    def _finder(self) -> BoneFinder:
        if self._naming is None:
            raise BoneSAMError(
                "Bones cannot be found by name: this session was given no network for that. "
                "Draw a box around the bone, or click on it."
            )
        return BoneFinder(self.volume, self._naming)

    def _start(
        self,
        depth_attention: bool,
        progress: Progress | None,
        cancel: Cancel | None,
        preview: Preview | None = None,
        kind: int = 0,
    ) -> Segmentation:
        return Segmentation(self._frames, self._decoder, depth_attention, progress, cancel, preview, kind)


def _part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """Progress of one of several steps, as that of the whole from `begin` to `end`."""
    if progress is None:
        return None
    return lambda fraction, text: progress(begin + (end - begin) * fraction, text)
