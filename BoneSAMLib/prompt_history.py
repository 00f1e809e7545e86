"""Undo and redo: one step a prompt, each with the mask as it then was."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from weakref import ReferenceType

import numpy as np

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.oriented_box import AnyBox
from BoneSAMLib.panel import ReviewSlice
from BoneSAMLib.prompts import Point
from BoneSAMLib.settings import Recipe
from BoneSAMLib.volume import Float3, Volume

__all__ = ["LIMIT", "Found", "History", "Outcome", "Prompts", "Step"]

LIMIT = 50
# A session's own result takes up to 64 kB a slice, its mask as bits much less: only the newest steps keep it.
_DETAILED = 8


@dataclass(frozen=True)
class Prompts:
    """What is drawn."""

    box: AnyBox | None = None
    points: tuple[Point, ...] = ()

    def __bool__(self) -> bool:
        return self.box is not None or bool(self.points)

    def include(self, earlier: "Prompts") -> bool:
        """Whether these are `earlier` with more points."""
        return self.box == earlier.box and set(earlier.points) <= set(self.points)


@dataclass(frozen=True)
class Found:
    """One bone of an outcome. `name`: "" if it has none yet."""

    mask: CroppedMask
    confidence: float
    name: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the network answered.

    Attributes:
        mask: everything found, as shown.
        bones: the same, one by one; none if nothing was found.
        raw: before post-processing.
        confidence: predicted IoU.
        review: slices that most need a look, worst first.
        review_axis: IJK axis that they count along.
        seconds: time it took.
        prompts: that it answers.
        recipe: it was made by; None once volume or weights have changed.
        result: the session's own result without its mask, for the next correction; None if no longer kept.
        session: the one that made `result`: no other can go on from it. Its embeddings are not kept by this.
        missing: names that were asked for and that the volume does not show.
        name: what the one bone is called that was found by it.
    """

    mask: CroppedMask
    bones: tuple[Found, ...]
    raw: CroppedMask
    confidence: float
    review: tuple[ReviewSlice, ...]
    review_axis: int
    seconds: float
    prompts: Prompts
    recipe: Recipe | None
    result: Any = None
    session: ReferenceType[Any] | None = None
    missing: tuple[str, ...] = ()
    name: str = ""

    def is_of(self, session: object) -> bool:
        """Whether `session` can go on from `result`."""
        return self.result is not None and self.session is not None and self.session() is session

    def middle_of_slice(self, index: int, volume: Volume) -> Float3:
        """Where (R, A, S in mm) the mask is in slice `index` along `review_axis` of its volume."""
        found = np.argwhere(self.mask.crop)[:, ::-1] + self.mask.start_ijk
        inside = found[found[:, self.review_axis] == index]
        # Slices of a mask with a gap have no voxels of their own.
        i, j, k = (inside if len(inside) else found).mean(0)
        place = [i, j, k]
        place[self.review_axis] = index
        r, a, s = (float(value) for value in volume.ijk_to_ras[:3] @ [*place, 1.0])
        return r, a, s

    def outdated(self) -> "Outcome":
        """The same mask, no longer to be built upon."""
        return replace(self, recipe=None, result=None)


@dataclass(frozen=True)
class Step:
    """One moment that undo can go back to.

    Attributes:
        prompts: drawn then.
        outcome: shown then; None for no mask.
        segment: identifier of the active segment; None for a new one.
        base: the active segment's mask, if the prompts correct it.
    """

    prompts: Prompts = Prompts()
    outcome: Outcome | None = None
    segment: str | None = None
    base: CroppedMask | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether there is anything that is not accepted."""
        return bool(self.prompts) or self.outcome is not None

    @property
    def can_be_segmented(self) -> bool:
        """Whether the prompts say which bone is meant."""
        prompts = self.prompts
        if self.base is not None:
            return bool(prompts.points)
        return prompts.box is not None or any(point.positive for point in prompts.points)

    @property
    def is_answered(self) -> bool:
        """Whether the shown mask is the answer to the prompts."""
        return self.outcome is not None and self.outcome.prompts == self.prompts

    def is_due(self, recipe: Recipe) -> bool:
        """Whether segmenting would give another mask than the one shown."""
        answered = self.is_answered and self.outcome is not None and self.outcome.recipe == recipe
        return self.can_be_segmented and not answered


class History:
    """The steps of the bone at work; at most `LIMIT`."""

    def __init__(self) -> None:
        self._steps = [Step()]
        self._at = 0
        self._dropped = 0  # steps that were too old to keep

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps)

    @property
    def current(self) -> Step:
        """The present moment."""
        return self._steps[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step before."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether there is a step after."""
        return self._at < len(self._steps) - 1

    def clear(self, step: Step) -> None:
        """Begin anew."""
        self._steps, self._at, self._dropped = [step], 0, 0

    def push(self, step: Step) -> None:
        """A new step after the present one; what was undone is forgotten."""
        self._steps = [*self._steps[: self._at + 1], step]
        if len(self._steps) > LIMIT:
            del self._steps[0]
            self._dropped += 1
        self._at = len(self._steps) - 1
        old = self._at - _DETAILED
        if old >= 0:
            outcome = self._steps[old].outcome
            if outcome is not None and outcome.result is not None:
                self._steps[old] = replace(self._steps[old], outcome=replace(outcome, result=None))

    def answer(self, outcome: Outcome) -> None:
        """The mask of the present step has arrived."""
        self._steps[self._at] = replace(self.current, outcome=outcome)

    def undo(self) -> None:
        """One step back."""
        self._at = max(0, self._at - 1)

    def redo(self) -> None:
        """One step forward."""
        self._at = min(len(self._steps) - 1, self._at + 1)

    @property
    def mark(self) -> int:
        """The present moment, for `go_back_to`; good until `clear`."""
        return self._dropped + self._at

    def go_back_to(self, mark: int, forget: bool) -> None:
        """Back to an earlier moment. `forget`: the steps made since cannot be redone."""
        # If more than LIMIT steps came since, the oldest is the nearest to it.
        place = min(max(0, mark - self._dropped), self._at)
        if forget and place < self._at:
            del self._steps[place + 1 :]
        self._at = place

    def change_all(self, change: Callable[[Step], Step]) -> None:
        """Rewrite every step."""
        self._steps = [change(step) for step in self._steps]
