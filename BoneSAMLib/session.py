"""The door to everything: a `Segmenter` holds the network, its `Session` segments bones in one volume."""

from collections.abc import Sequence
from pathlib import Path

from BoneSAMLib.bundle import Bundle, open_bundle
from BoneSAMLib.companion import Companion, check_fusion
from BoneSAMLib.engine import Engine, OnnxEngine
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.region import SliceFrame
from BoneSAMLib.result import AllBones, Mask, Result
from BoneSAMLib.segmentation import Cancel, Progress, Segmentation
from BoneSAMLib.slice_decoder import SliceDecoder
from BoneSAMLib.volume import Volume

__all__ = ["AllBones", "Cancel", "Progress", "Result", "Segmenter", "Session"]


class Segmenter:
    """A loaded network; opens volumes.

    Args:
        device: "auto" takes CUDA where onnxruntime-gpu finds it, else the CPU; or "cpu", "cuda".
        weights: folder of a bundle; None for the bundled weights.
        threads: how many the network computes on; None for one per core.

    Raises:
        BoneSAMError: unknown or missing device, missing or damaged weights.
    """

    def __init__(
        self, device: str = "auto", weights: str | Path | None = None, threads: int | None = None
    ) -> None:
        self.bundle: Bundle = open_bundle(weights)
        self.engine: Engine = OnnxEngine(self.bundle, device, threads)

    def open(self, volume: Volume, others: Sequence[Volume] = (), fusion: str = "average") -> "Session":
        """Start working on a volume. Nothing is computed yet.

        A session is not for use from several threads at once. `others` and `fusion`: as for `Session`.

        Raises:
            BoneSAMError: as `Session`.
        """
        return Session(volume, self.engine, others, fusion)


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

    Raises:
        BoneSAMError: an unknown fusion, another volume that does not overlap, or a radiograph among several.
    """

    def __init__(
        self, volume: Volume, engine: Engine, others: Sequence[Volume] = (), fusion: str = "average"
    ) -> None:
        check_fusion(fusion)
        self.volume = volume
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

        Raises:
            BoneSAMError: no prompt, a prompt outside of the volume, a mask that is empty or of another shape.
            Cancelled: `cancel` was set; nothing has changed.
        """
        work = self._start(depth_attention, progress, cancel)
        points = tuple(points)
        if mask is not None:
            return work.corrected(mask, box, points)
        if box is not None:
            return work.result(work.from_box(box, points), points)
        if any(point.positive for point in points):
            return work.result(work.from_click(points), points)
        raise BoneSAMError(
            "There is no prompt: give a box or a point on the bone, or use segment_all for every bone."
        )

    def segment_all(
        self,
        depth_attention: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> AllBones:
        """Segment every bone, without a prompt; touching bones share a number.

        Arguments as for `segment`.

        Raises:
            Cancelled: `cancel` was set.
        """
        return self._start(depth_attention, progress, cancel).everything()

    def _start(self, depth_attention: bool, progress: Progress | None, cancel: Cancel | None) -> Segmentation:
        return Segmentation(self._frames, self._decoder, depth_attention, progress, cancel)
