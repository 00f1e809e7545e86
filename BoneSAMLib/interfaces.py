"""What the presenter needs from its surroundings: a view, somewhere to keep segments, volumes, the network.

Protocols only. Their methods are called on the main thread, except for those of the network.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bone_finding import FoundBox
from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.panel import Message, Panel, SegmentEntry
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Float3, Volume
from BoneSAMLib.worker import Job

__all__ = [
    "AllBonesLike",
    "BundleLike",
    "JobRunner",
    "ResultLike",
    "SegmentStore",
    "SegmenterLike",
    "SessionLike",
    "SettingsStore",
    "View",
    "VolumeSource",
]

T = TypeVar("T")


class View(Protocol):
    """Shows what it is told and reports what the user does; decides nothing."""

    def post(self, call: Callable[[], None], /) -> None:
        """Run `call` on the main thread, soon, and do not wait for it. Called on the worker thread."""

    def render(self, panel: Panel, /) -> None:
        """Show all of `panel`. What the widgets report meanwhile is ignored."""

    def show_mask(self, mask: CroppedMask | None, /) -> None:
        """Show the mask that is not accepted yet, on the grid of the chosen volume; None hides it."""

    def show_message(self, message: Message, /) -> None:
        """Show a sentence, once."""

    def jump_to(self, axis: int, index: int, position: Float3, /) -> None:
        """Bring slice `index` along IJK axis `axis` into view; `position` (RAS mm) lies in it."""


class VolumeSource(Protocol):
    """A volume where it lives: a node of a scene, an uploaded file."""

    @property
    def identifier(self) -> str:
        """Stays the same while the volume exists."""

    @property
    def modified_time(self) -> int:
        """Differs after every change of voxels, geometry or parent transform."""

    def read(self) -> Volume:
        """The present voxels in world coordinates.

        The worker thread reads the array, so it must stay readable when the volume is changed or removed.

        Raises:
            BoneSAMError: nothing that can be segmented (vector or 4D image, non-linear transform).
        """


class SegmentStore(Protocol):
    """Where accepted segments live: a segmentation node, a dictionary. May raise BoneSAMError (read-only)."""

    def segments(self) -> Sequence[SegmentEntry]:
        """All segments in the order of the table."""

    def add(self, name: str, source: VolumeSource, /) -> str:
        """Add an empty segment with a color of its own; returns its identifier."""

    def add_all(
        self, bones: Sequence[tuple[str, CroppedMask]], source: VolumeSource, /
    ) -> Sequence[str | None]:
        """Add a segment for each named mask, or, after an error, none; returns their identifiers.

        None for one that nothing is left of: of voxels in two masks the first keeps them.
        """

    def remove(self, identifier: str, /) -> None:
        """Remove a segment."""

    def rename(self, identifier: str, name: str, /) -> None:
        """Give a segment another name."""

    def recolor(self, identifier: str, color: tuple[float, float, float], /) -> None:
        """Give a segment another color."""

    def show(self, identifier: str, visible: bool, /) -> None:
        """Show or hide a segment."""

    def read(self, identifier: str, source: VolumeSource, /) -> CroppedMask:
        """A segment's mask on the grid of a volume."""

    def is_empty(self, identifier: str, /) -> bool:
        """Whether a segment has no voxel anywhere."""

    def write(
        self, mask: CroppedMask, identifier: str, source: VolumeSource, base: CroppedMask | None = None, /
    ) -> None:
        """Replace a segment's mask by one on the grid of a volume. Other segments stay as they are.

        `base`: what was read of the segment before it was corrected; then only the difference is written, so
        that what the volume does not show of it stays. After an error the segment is as before.
        """


class SettingsStore(Protocol):
    """Where settings are kept, as text."""

    def load(self) -> Mapping[str, str]:
        """What was saved; missing names are defaults."""

    def save(self, values: Mapping[str, str], /) -> None:
        """Keep these."""


class JobRunner(Protocol):
    """`BoneSAMLib.worker.Worker`, or a test's own."""

    def submit(
        self,
        work: Callable[[Job], T],
        on_result: Callable[[T], None],
        on_error: Callable[[Exception], None],
        on_progress: Callable[[float, str], None],
        on_preview: Callable[[CroppedMask], None] = ...,
    ) -> Job:
        """See `Worker.submit`."""

    def close(self) -> bool:
        """See `Worker.close`."""


class BundleLike(Protocol):
    """`BoneSAMLib.bundle.Bundle`."""

    @property
    def digest(self) -> str:
        """Identifies the weights."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the weights say of themselves; "prompts" lists what they can do beyond boxes and points."""


class ResultLike(Protocol):
    """`BoneSAMLib.session.Result`."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool [k, j, i]."""

    @property
    def confidence(self) -> float:
        """Predicted IoU."""

    @property
    def axis(self) -> int:
        """IJK axis along which slices count."""

    @property
    def slice_confidence(self) -> Mapping[int, float]:
        """The same by slice."""

    @property
    def review(self) -> Sequence[int]:
        """Slices that most need a look, worst first."""


class AllBonesLike(Protocol):
    """`BoneSAMLib.session.AllBones`."""

    @property
    def labels(self) -> NDArray[np.unsignedinteger]:
        """[k, j, i], one number a bone."""

    @property
    def confidence(self) -> Mapping[int, float]:
        """Predicted IoU by number."""

    @property
    def names(self) -> Mapping[int, str]:
        """What numbers are called, where that is known."""


class SessionLike(Protocol):
    """`BoneSAMLib.session.Session`; used on the worker thread only."""

    def segment(
        self,
        box: Box | None = None,
        points: Sequence[Point] = (),
        mask: Any = None,
        depth_attention: bool = True,
        progress: Callable[[float, str], None] | None = None,
        cancel: Job | None = None,
        preview: Callable[[CroppedMask], None] | None = None,
        bone: str = "",
    ) -> ResultLike:
        """One bone from prompts. `mask`: an earlier result, or a bool array [k, j, i]; `bone`: its name."""

    def segment_all(
        self,
        depth_attention: bool = True,
        progress: Callable[[float, str], None] | None = None,
        cancel: Job | None = None,
        named: bool | None = False,
    ) -> AllBonesLike:
        """Every bone."""

    def find(self, phrase: str) -> tuple[Sequence[FoundBox], Sequence[str]]:
        """Named boxes of the bones that a phrase means, and the names of those that are not there."""


class SegmenterLike(Protocol):
    """`BoneSAMLib.session.Segmenter`; used on the worker thread only."""

    @property
    def bundle(self) -> BundleLike:
        """Its weights."""

    def open(self, volume: Volume, others: Sequence[Volume], fusion: str, /) -> SessionLike:
        """Start working on a volume, and on others of its study with it."""
