"""What an annotator would save: box and clicks to 0.90 Dice against drawing every slice, by simulation.

No person was timed. The seconds below are assumptions, meant to be replaced by one's own; the computing time
is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.interactive import BOX, TARGET_DICE, Track, tracks
from training.summary import statistics_of
from training.trial import Trial


@dataclass(frozen=True)
class Pace:
    """Seconds that a person takes, assumed."""

    box: float = 12.0  # to find the bone's ends in three views and draw the box
    click: float = 4.0  # to look for the worst error and click on it
    look: float = 0.5  # at each slice of the result, once
    slice: float = 2.0  # to go to the next slice and begin to draw
    outline: float = 0.12  # to draw a millimeter of outline


@dataclass(frozen=True)
class Effort:
    """One bone. Seconds; ``clicks`` None where clicks did not suffice and slices were drawn after them."""

    case: str
    source: str
    clicks: int | None
    with_prompts: float
    computing: float
    by_hand: float


def effort(track: Track, pace: Pace) -> Effort:
    """The time of one bone with prompts and by hand.

    Where the Dice of 0.90 is not reached, the part of the drawing that would still be needed is added: the
    share of the bone that is wrong, 1 - Dice.
    """
    reached = next((one for one in track if one.dice >= TARGET_DICE), None)
    last = reached or track[-1]
    by_hand = last.slices * pace.slice + last.contour_mm * pace.outline
    seconds = pace.box + last.level * pace.click + last.seconds + last.slices * pace.look
    if reached is None:
        seconds += (1 - last.dice) * by_hand
    clicks = int(last.level) if reached is not None else None
    return Effort(last.case, last.source, clicks, seconds, last.seconds, by_hand)


def summary(trials: Sequence[Trial], pace: Pace | None = None) -> dict[str, Any]:
    """Clicks, seconds and the share of time saved: over all bones and by source; with the assumptions."""
    pace = pace or Pace()
    efforts = [effort(track, pace) for track in tracks(trials, BOX).values()]
    sources = list(dict.fromkeys(one.source for one in efforts))
    return {
        "assumed seconds": asdict(pace),
        "all": _numbers(efforts),
        "sources": {name: _numbers([one for one in efforts if one.source == name]) for name in sources},
    }


def _numbers(efforts: Sequence[Effort]) -> dict[str, Any]:
    by_hand = sum(one.by_hand for one in efforts)
    return {
        "bones": len(efforts),
        "clicks sufficed": sum(one.clicks is not None for one in efforts),
        "clicks where they sufficed": statistics_of(
            (one.case, math.nan if one.clicks is None else float(one.clicks)) for one in efforts
        ),
        "seconds with prompts": statistics_of((one.case, one.with_prompts) for one in efforts),
        "of these computing": statistics_of((one.case, one.computing) for one in efforts),
        "seconds by hand": statistics_of((one.case, one.by_hand) for one in efforts),
        "time saved": 1 - sum(one.with_prompts for one in efforts) / by_hand if by_hand else None,
    }
