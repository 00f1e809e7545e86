"""The bundled network, loaded before it is asked for."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from BoneSAMLib.interfaces import SegmenterLike
from BoneSAMLib.prompts import Box
from BoneSAMLib.session_cache import open_segmenter
from BoneSAMLib.slice_decoder import BATCH
from BoneSAMLib.volume import Volume

__all__ = ["PreparedNetwork"]


class PreparedNetwork:
    """The first mask is then not slower than others."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "BoneSAM network")
        self._loaded: Future[SegmenterLike] | None = None

    def prepare(self) -> None:
        """Begin loading."""
        self._loaded = self._pool.submit(_warmed_up_segmenter)

    def open(self, device: str, weights: str) -> SegmenterLike:
        """As `open_segmenter`; on the worker thread."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None and (device, weights) == ("auto", ""):
            return loaded.result()
        return open_segmenter(device, weights)


def _warmed_up_segmenter() -> SegmenterLike:
    """The bundled network after a first mask of nothing: that takes 1.7 s longer than the ones after it."""
    segmenter = open_segmenter("auto", "")
    nothing = Volume(np.zeros((2 * BATCH, 16, 16), np.float32), np.eye(4))
    segmenter.open(nothing, (), "average").segment(box=Box.from_ijk((0, 0, 0), (15, 15, 2 * BATCH - 1)))
    return segmenter
