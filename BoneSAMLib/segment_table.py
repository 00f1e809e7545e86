"""The accepted segments: the table as it was last read, and what is written to it."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.interfaces import SegmentStore, VolumeSource
from BoneSAMLib.panel import SegmentEntry
from BoneSAMLib.prompt_history import Outcome, Step

__all__ = ["SegmentTable"]


class SegmentTable:
    """Segments of a store.

    Args:
        store: where they live.
        translate: turns an English text into the user's language.
    """

    def __init__(self, store: SegmentStore, translate: Callable[[str], str]) -> None:
        self.store = store
        self.entries: tuple[SegmentEntry, ...] = ()
        self._translate = translate
        self._changing = False

    def __contains__(self, identifier: str) -> bool:
        return identifier in self.identifiers

    @property
    def identifiers(self) -> frozenset[str]:
        """Of all segments."""
        return frozenset(entry.identifier for entry in self.entries)

    @property
    def is_changing(self) -> bool:
        """Whether what the store now tells is the echo of a change made here."""
        return self._changing

    def use(self, store: SegmentStore) -> None:
        """Segments live elsewhere from now on. After an error they live where they did."""
        entries = tuple(store.segments())
        self.store, self.entries = store, entries

    def read(self) -> None:
        """Read the table anew."""
        self.entries = tuple(self.store.segments())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Changes to the store are made within this; the table is read anew in the end."""
        self._changing = True
        try:
            yield
        finally:
            self._changing = False
            self.read()

    def mask_of(self, identifier: str, source: VolumeSource) -> CroppedMask | None:
        """A segment's mask on the grid of a volume; None if it has no voxel there."""
        mask = self.store.read(identifier, source)
        return None if mask.is_empty else mask

    def name_of(self, identifier: str | None) -> str:
        """What a segment is called; "" for none."""
        return next((entry.name for entry in self.entries if entry.identifier == identifier), "")

    def is_empty(self, identifier: str) -> bool:
        """Whether a segment has no voxel, on this volume or elsewhere."""
        return self.store.is_empty(identifier)

    def add(self, name: str, source: VolumeSource) -> str:
        """Add an empty segment, named so or the first free "Bone 1", "Bone 2"; returns its identifier."""
        return self.store.add(next(self._new_names([name])), source)

    def write(self, outcome: Outcome, step: Step, source: VolumeSource, name: str) -> str | None:
        """Write the segment of a step; or, if it has none, a new one for each bone. After an error, none.

        Returns the identifier of the one segment that was written; None if there are several. `name`: for
        one new segment.
        """
        if step.segment is not None:
            self.store.write(outcome.mask, step.segment, source, step.base)
            return step.segment
        if len(outcome.bones) != 1:
            names = self._new_names([bone.name for bone in outcome.bones])
            masks = (bone.mask for bone in outcome.bones)
            if outcome.bones:
                self.store.add_all(list(zip(names, masks, strict=True)), source)
            return None
        (bone,) = outcome.bones
        added = self.add(name or bone.name, source)
        try:
            self.store.write(bone.mask, added, source)
        except Exception:
            self.store.remove(added)
            raise
        return added

    def _new_names(self, wanted: Iterable[str]) -> Iterator[str]:
        """Each name as wanted, or for "" the next free "Bone 1", "Bone 2"."""
        taken = {entry.name for entry in self.entries}
        names = (self._translate("Bone {number}").format(number=number) for number in itertools.count(1))
        free = (name for name in names if name not in taken)
        for name in wanted:
            yield name.strip() or next(free)
