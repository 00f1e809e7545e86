"""The door to everything: a `Segmenter` holds the network, its `Session` segments bones in one volume."""

from collections.abc import Sequence
from pathlib import Path

from BoneSAMLib.bundle import Bundle, open_bundle
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

    def open(self, volume: Volume) -> "Session":
        """Start working on a volume. Nothing is computed yet.

        A session is not for use from several threads at once.
        """
        return Session(volume, self.engine)


class Session:
    """Segments bones in one volume; keeps slice embeddings between calls.

    Args:
        volume: the scan.
        engine: what runs the network.
    """

    def __init__(self, volume: Volume, engine: Engine) -> None:
        self.volume = volume
        self._decoder = SliceDecoder(engine)
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
