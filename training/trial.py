"""One measurement of a study: a bone under one condition at one level."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from training.annotator import OpensVolumes
from training.cases import BoneObject
from training.masks import Mask
from training.measure import LoadedCase
from training.metrics import compare, overlap


@dataclass(frozen=True)
class Trial:
    """One bone under one condition.

    ``level`` is the number that a curve is drawn over: a severity, a number of clicks, a gate. ``seconds`` is
    the time of all calls that led to the result. What a study does not measure is NaN.
    """

    case: str
    source: str
    location: str
    bone: str
    object: str
    condition: str
    level: float
    dice: float
    iou: float
    nsd_2mm: float = math.nan
    seconds: float = math.nan
    slices: float = math.nan  # with the bone; what an annotator would draw on
    contour_mm: float = math.nan  # length of the bone's outlines on all of them


_TEXT = ("case", "source", "location", "bone", "object", "condition")


def trial(
    loaded: LoadedCase,
    bone: BoneObject,
    condition: str,
    level: float,
    mask: Mask,
    seconds: float = math.nan,
    surface: bool = False,
    **facts: float,
) -> Trial:
    """Score ``mask`` [k, j, i] against the bone; ``surface`` adds the NSD, which takes much longer."""
    return scored(loaded, bone, condition, level, mask, bone.mask, seconds, surface, **facts)


def scored(
    loaded: LoadedCase,
    bone: BoneObject,
    condition: str,
    level: float,
    mask: Mask,
    truth: Mask,
    seconds: float = math.nan,
    surface: bool = False,
    **facts: float,
) -> Trial:
    """The same against another ``truth`` than the bone's own mask, such as a turned one."""
    dice, iou = overlap(mask, truth)
    nsd = compare(mask, truth, loaded.volume.spacing).nsd_2mm if surface else math.nan
    case = loaded.case
    return Trial(
        case.id, case.source, case.body_region, bone.bone, bone.name,
        condition, float(level), dice, iou, nsd, seconds, **facts,
    )  # fmt: skip


def trial_of(values: Mapping[str, Any]) -> Trial:
    """A trial from what a JSON file says of it, None meaning NaN."""
    known: dict[str, Any] = {field.name: values[field.name] for field in fields(Trial)}
    for name, value in known.items():
        if name not in _TEXT:
            known[name] = math.nan if value is None else float(value)
    return Trial(**known)


def write_trials(path: Path, trials: Iterable[Trial]) -> None:
    """Write trials to a CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Trial)])
        writer.writeheader()
        for one in trials:
            writer.writerow(
                {name: value if name in _TEXT else f"{value:.6g}" for name, value in asdict(one).items()}
            )


class Study(Protocol):
    """A question that is asked of every case, part by part."""

    @property
    def name(self) -> str:
        """One word, for the command line and for files."""

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """Names of the parts of the work on a case; each is kept when it is done."""

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """Do one part.

        Raises:
            BoneSAMError: the segmenter lacks what is asked for.
        """
