"""Everything that `training.evaluate` can measure beside its main tables, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from training import effort, interactive, prompt_studies, robustness
from training.cases import Case
from training.interactive import Interactive
from training.network_studies import Gate, Resolution
from training.prompt_studies import Jitter, Points
from training.robustness import Robustness
from training.sequence_fusion import Fusion
from training.summary import statistics_of
from training.trial import Study, Trial

TABLES = "tables"


def curves(trials: Sequence[Trial]) -> dict[str, Any]:
    """Dice by condition and level: over all bones and by source."""
    sources = list(dict.fromkeys(one.source for one in trials))
    return {
        "all": _curves(trials),
        "sources": {name: _curves([one for one in trials if one.source == name]) for name in sources},
    }


def _curves(trials: Sequence[Trial]) -> dict[str, Any]:
    table: dict[str, dict[str, Any]] = {}
    for condition in dict.fromkeys(one.condition for one in trials):
        chosen = [one for one in trials if one.condition == condition]
        table[condition] = {
            f"{level:g}": statistics_of((one.case, one.dice) for one in chosen if one.level == level)
            for level in sorted({one.level for one in chosen})
        }
    return table


@dataclass(frozen=True)
class Described:
    """A study with what readers are told about it.

    ``make`` takes all cases of the index and the severities that were asked for. ``summarize`` turns trials
    into plain values for JSON.
    """

    title: str
    text: str
    make: Callable[[Sequence[Case], Sequence[int]], Study]
    summarize: Callable[[Sequence[Trial]], dict[str, Any]]
    axis: str


def _interactive_summary(trials: Sequence[Trial]) -> dict[str, Any]:
    return {**interactive.summary(trials), "effort": effort.summary(trials)}


STUDIES: dict[str, Described] = {
    "interactive": Described(
        "Click by click",
        "Clicks alone: the first deepest inside the bone on its middle slice, then each in the middle of the "
        "largest error, to an IoU of 0.90 or 20 clicks; who stopped keeps the last result. NoC is the number "
        "of clicks to an IoU of 0.85 or 0.90, 20 where it was not reached. Box, then clicks: the jittered 3D "
        "box and five clicks as in the CVPR 2025 challenge, on to ten where the Dice is below 0.90. AUC is "
        "the mean over the five clicks by the trapezoid rule: a quarter of the challenge's own number.",
        lambda cases, severities: Interactive(),
        _interactive_summary,
        "clicks",
    ),
    "jitter": Described(
        "The same box drawn five times",
        "Each face of the box moved outward by U(-5 %, +10 %) of that side, five draws a bone. The standard "
        "deviation is that of a bone's Dice over the draws.",
        lambda cases, severities: Jitter(),
        prompt_studies.jitter_summary,
        "draw",
    ),
    "points": Described(
        "Many points at once",
        "So many random voxels of the bone as positive clicks, no box, no look at a result in between.",
        lambda cases, severities: Points(),
        curves,
        "points",
    ),
    "gate": Described(
        "Gate of the depth attention",
        "The 3D box with other values of the gate than the trained one; 0 is without depth attention.",
        lambda cases, severities: Gate(),
        curves,
        "gate",
    ),
    "resolution": Described(
        "Input resolution",
        "The 3D box with slices averaged to fewer pixels and interpolated back to the network's 256.",
        lambda cases, severities: Resolution(),
        curves,
        "pixels",
    ),
    "fusion": Described(
        "Several sequences",
        "The 3D box on one MR sequence and on several, their logits averaged or the larger one taken. Where "
        "the data hold no second sequence of a subject, it is simulated by another curve of brightness and "
        "noise, and can add nothing.",
        lambda cases, severities: Fusion(cases),
        curves,
        "sequences",
    ),
    "robustness": Described(
        "Corrupted scans",
        "The 3D box on scans made worse in five severities. The relative drop compares the mean Dice with "
        "that of the same bones on clean scans.",
        lambda cases, severities: Robustness(severities),
        robustness.summary,
        "severity",
    ),
}
