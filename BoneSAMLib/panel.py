"""What a view shows at one moment: plain, unchanging values, and the rule which buttons are enabled."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from BoneSAMLib.oriented_box import AnyBox
from BoneSAMLib.prompts import Point
from BoneSAMLib.settings import Settings

__all__ = [
    "Action",
    "Facts",
    "Message",
    "Panel",
    "ReviewSlice",
    "SegmentEntry",
    "State",
    "Tool",
    "Work",
    "enabled_actions",
]


class State(StrEnum):
    """Where the user is."""

    NO_VOLUME = "no volume"
    READY = "ready"  # nothing is drawn yet
    DRAWING = "drawing"  # prompts without a mask
    PREVIEW = "preview"  # a mask that is not accepted yet
    RUNNING = "running"
    CLOSED = "closed"


class Work(StrEnum):
    """What is running."""

    SEGMENT = "segment"
    ALL_BONES = "all bones"
    TEXT = "text"
    LOAD = "load"  # other weights or another device


class Tool(StrEnum):
    """What the next mouse press in a slice draws."""

    BOX = "box"
    POSITIVE_POINT = "positive point"
    NEGATIVE_POINT = "negative point"


class Action(StrEnum):
    """Everything a user can do; a view disables the controls of those not in `Panel.enabled`."""

    CHOOSE_VOLUME = "choose volume"
    BOX = "box"
    POSITIVE_POINT = "positive point"
    NEGATIVE_POINT = "negative point"
    TEXT = "text"
    ALL_BONES = "all bones"
    SEGMENT = "segment"
    UNDO = "undo"
    REDO = "redo"
    ACCEPT = "accept"
    NEXT_BONE = "next bone"
    CANCEL = "cancel"
    REVIEW = "review"
    ADD_SEGMENT = "add segment"
    SELECT_SEGMENT = "select segment"
    EDIT_SEGMENT = "edit segment"  # rename, color, show or hide
    REMOVE_SEGMENT = "remove segment"
    OPTIONS = "options"  # settings other than those of MODEL
    MODEL = "model"  # device and weights


@dataclass(frozen=True)
class Message:
    """A sentence to be shown once."""

    kind: Literal["error", "info"]
    text: str


@dataclass(frozen=True)
class SegmentEntry:
    """A row of the segment table. `color`: red, green, blue, each 0 to 1."""

    identifier: str
    name: str
    color: tuple[float, float, float]
    visible: bool = True


@dataclass(frozen=True)
class ReviewSlice:
    """A slice worth a look. `confidence`: predicted IoU there."""

    index: int
    confidence: float


@dataclass(frozen=True)
class Panel:
    """The whole picture.

    Attributes:
        state: where the user is.
        work: what is running, or None.
        progress: 0 to 1 and a word while something runs, else None.
        enabled: what may be done now.
        tool: what is being drawn.
        volume_name: "" for no volume.
        box, points: the prompts; the view draws these and no others.
        segments: the segment table.
        active_segment: identifier of the segment that Accept writes to; None for a new one.
        correcting: whether the shown mask is a correction of the active segment (hide that one meanwhile).
        bone_count: how many bones the shown mask holds; 0 for no mask.
        confidence: predicted IoU of the shown mask, or None.
        seconds: time the mask took, or None.
        review_axis: IJK axis that `review` counts along.
        review: slices that most need a look, worst first.
        settings: as they are in force.
    """

    state: State
    work: Work | None
    progress: tuple[float, str] | None
    enabled: frozenset[Action]
    tool: Tool | None
    volume_name: str
    box: AnyBox | None
    points: tuple[Point, ...]
    segments: tuple[SegmentEntry, ...]
    active_segment: str | None
    correcting: bool
    bone_count: int
    confidence: float | None
    seconds: float | None
    review_axis: int
    review: tuple[ReviewSlice, ...]
    settings: Settings


@dataclass(frozen=True)
class Facts:
    """All that the buttons depend on.

    Attributes:
        has_volume: a volume is chosen.
        work: what is running.
        has_prompts: a box or point is drawn.
        has_outcome: a mask is shown that is not accepted; it may be empty.
        has_mask: and it is not empty.
        has_review: and it has slices to review.
        due: the prompts can be segmented, and the shown mask is not their answer.
        correcting: the prompts correct the active segment.
        has_active: there is an active segment.
        has_segments: there is any.
        can_undo, can_redo: the history has a step before or after.
    """

    has_volume: bool = False
    work: Work | None = None
    has_prompts: bool = False
    has_outcome: bool = False
    has_mask: bool = False
    has_review: bool = False
    due: bool = False
    correcting: bool = False
    has_active: bool = False
    has_segments: bool = False
    can_undo: bool = False
    can_redo: bool = False


def enabled_actions(facts: Facts) -> frozenset[Action]:
    """The actions that make sense now."""
    idle = facts.work is None
    # Prompts go on while a mask is computed; the next answer takes them in.
    drawing = facts.has_volume and facts.work in (None, Work.SEGMENT)
    unfinished = facts.has_prompts or facts.has_outcome
    rules = {
        Action.CHOOSE_VOLUME: True,
        # A box starts a bone from nothing, which would throw away the segment that is being corrected.
        Action.BOX: drawing and not facts.correcting,
        Action.POSITIVE_POINT: drawing,
        Action.NEGATIVE_POINT: drawing,
        Action.TEXT: facts.has_volume and idle and not facts.correcting,
        Action.ALL_BONES: facts.has_volume and idle and not facts.correcting,
        Action.SEGMENT: facts.has_volume and idle and facts.due,
        Action.UNDO: drawing and facts.can_undo,
        Action.REDO: facts.has_volume and idle and facts.can_redo,
        Action.ACCEPT: idle and facts.has_mask,
        Action.NEXT_BONE: idle and (facts.has_mask or (facts.has_active and not unfinished)),
        Action.CANCEL: not idle or unfinished,
        Action.REVIEW: facts.has_review,
        Action.ADD_SEGMENT: facts.has_volume and idle and not unfinished,
        Action.SELECT_SEGMENT: facts.has_volume and facts.has_segments and idle and not unfinished,
        Action.EDIT_SEGMENT: facts.has_segments,
        Action.REMOVE_SEGMENT: facts.has_segments and idle,
        Action.OPTIONS: True,
        Action.MODEL: idle,
    }
    return frozenset(action for action, enabled in rules.items() if enabled)
