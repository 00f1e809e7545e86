"""The network and the one open session, made when first needed and dropped when they no longer fit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from BoneSAMLib.interfaces import SegmenterLike, SessionLike
from BoneSAMLib.volume import Volume

__all__ = ["OpenSegmenter", "SessionCache", "VolumeKey", "open_segmenter"]

OpenSegmenter = Callable[[str, str], SegmenterLike]


@dataclass(frozen=True)
class VolumeKey:
    """One state of one volume: embeddings of another state must not be used."""

    identifier: str
    modified_time: int


def open_segmenter(device: str, weights: str) -> SegmenterLike:
    """The real network. `weights`: folder of a bundle, "" for the bundled weights.

    Raises:
        BoneSAMError: as `Segmenter`.
    """
    from BoneSAMLib.session import Segmenter

    return Segmenter(device, weights or None)


class SessionCache:
    """Slow to fill: on the worker thread. `drop_session` may be called on any thread."""

    def __init__(self, open_segmenter: OpenSegmenter) -> None:
        self._open = open_segmenter
        self._lock = threading.Lock()
        self._segmenter: SegmenterLike | None = None
        self._made_for: tuple[str, str] | None = None
        self._session: SessionLike | None = None
        self._key: tuple[VolumeKey, str, str] | None = None

    def load(self, device: str, weights: str) -> SegmenterLike:
        """Load a network, even again: its files may have changed. After an error the old one stays."""
        segmenter = self._open(device, weights)
        with self._lock:
            self._segmenter, self._made_for = segmenter, (device, weights)
        return segmenter

    def segmenter(self, device: str, weights: str) -> SegmenterLike:
        """The network, loaded if it is not."""
        with self._lock:
            segmenter = self._segmenter if self._made_for == (device, weights) else None
        return segmenter or self.load(device, weights)

    def session(self, key: VolumeKey, volume: Volume, device: str, weights: str) -> SessionLike:
        """The session for a state of a volume; the same one while volume, weights and device stay."""
        segmenter = self.segmenter(device, weights)
        wanted = (key, segmenter.bundle.digest, device)
        with self._lock:
            if self._session is not None and self._key == wanted:
                return self._session
        session = segmenter.open(volume)
        with self._lock:
            self._session, self._key = session, wanted
        return session

    def drop_session(self) -> None:
        """Forget the embeddings, which take hundreds of megabytes."""
        with self._lock:
            self._session, self._key = None, None
