"""The network and the one open session, made when first needed and dropped when they no longer fit."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.interfaces import SegmenterLike, SessionLike
from BoneSAMLib.prompt_history import Outcome
from BoneSAMLib.volume import Volume

__all__ = ["OpenSegmenter", "SessionCache", "VolumeKey", "open_segmenter"]

OpenSegmenter = Callable[[str, str], SegmenterLike]
# A session's own result takes up to 64 kB a slice.
_ACCEPTED = 3


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
    """Slow to fill: on the worker thread. `keep` and `drop_session` may be called on any thread."""

    def __init__(self, open_segmenter: OpenSegmenter) -> None:
        self._open = open_segmenter
        self._lock = threading.Lock()
        self._segmenter: SegmenterLike | None = None
        self._made_for: tuple[str, str] | None = None
        self._session: SessionLike | None = None
        self._key: tuple[object, ...] | None = None
        self._accepted: deque[Outcome] = deque(maxlen=_ACCEPTED)
        self._drops = 0

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

    def session(
        self,
        key: VolumeKey,
        volume: Volume,
        device: str,
        weights: str,
        others: Sequence[tuple[VolumeKey, Volume]] = (),
        fusion: str = "average",
    ) -> SessionLike:
        """The session for a state of a volume; the same one while volumes, weights and device stay.

        `others`: further volumes of the study and their states; `fusion`: see `Session`.
        """
        segmenter = self.segmenter(device, weights)
        states = tuple(other_key for other_key, _ in others)
        wanted = (key, segmenter.bundle.digest, device, states, fusion if others else "")
        with self._lock:
            if self._session is not None and self._key == wanted:
                return self._session
            drops = self._drops
        session = segmenter.open(volume, [other for _, other in others], fusion)
        with self._lock:
            if self._drops == drops:  # else nobody works on this volume any more, and it would stay in memory
                self._session, self._key = session, wanted
            self._accepted.clear()
        return session

    def keep(self, outcome: Outcome) -> None:
        """An outcome was accepted: its mask is a segment's now. The last few are kept with their session."""
        if outcome.result is not None:
            with self._lock:
                self._accepted.append(outcome)

    def accepted(self, mask: CroppedMask, session: SessionLike) -> Outcome | None:
        """The outcome of `session` that was accepted with exactly this mask, if it is kept.

        Looked up by the mask, so that a segment that was changed by whatever means finds nothing.
        """
        with self._lock:
            kept = list(self._accepted)
        return next((one for one in reversed(kept) if one.is_of(session) and one.mask == mask), None)

    def drop_session(self) -> None:
        """Forget the embeddings, which take hundreds of megabytes, and what was accepted."""
        with self._lock:
            self._session, self._key = None, None
            self._drops += 1
            self._accepted.clear()
