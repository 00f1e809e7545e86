"""How much the answer depends on how a person prompts: the same bone prompted several times, or more."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from BoneSAMLib.prompts import Point
from training.annotator import OpensVolumes, timed
from training.measure import LoadedCase
from training.protocols import generator, jittered_box
from training.summary import statistics_of
from training.trial import Trial, trial

DRAWS = 5
NUMBERS_OF_POINTS = (1, 5, 10, 20)


class Jitter:
    """The box of every bone drawn five times."""

    name = "jitter"

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """All draws at once: a case has them all or none."""
        return ("box",)

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial a draw; the first draw is the box of all other tables."""
        session = segmenter.open(loaded.volume)
        for bone in loaded.bones:
            rng = generator(loaded.case.id, bone.name, "box")
            for draw in range(DRAWS):
                box = jittered_box(bone.mask, loaded.volume, rng)
                result, seconds = timed(partial(session.segment, box=box))
                yield trial(loaded, bone, part, draw, result.mask, seconds)


def jitter_summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Standard deviation and range of the Dice over the draws, of each bone: means, and the worst bone."""
    sources = list(dict.fromkeys(one.source for one in trials))
    return {
        "all": _spread(trials),
        "sources": {name: _spread([one for one in trials if one.source == name]) for name in sources},
    }


def _spread(trials: Sequence[Trial]) -> dict[str, Any]:
    bones: dict[tuple[str, str], list[float]] = {}
    for one in trials:
        bones.setdefault((one.case, one.object), []).append(one.dice)
    deviations = [(case, float(np.std(dice, ddof=1))) for (case, _), dice in bones.items() if len(dice) > 1]
    return {
        "bones": len(bones),
        "Dice": statistics_of((one.case, one.dice) for one in trials),
        "standard deviation": statistics_of(deviations),
        "largest standard deviation": max((value for _, value in deviations), default=None),
        "range": statistics_of((case, float(np.ptp(dice))) for (case, _), dice in bones.items()),
    }


class Points:
    """1, 5, 10 and 20 clicks inside the bone at once, without a look at a result in between."""

    name = "points"

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """All numbers at once."""
        return ("points at once",)

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial a number of points; more points include the fewer ones."""
        session = segmenter.open(loaded.volume)
        for bone in loaded.bones:
            rng = generator(loaded.case.id, bone.name, part)
            voxels = np.argwhere(bone.mask)[:, ::-1]
            chosen = rng.choice(len(voxels), min(max(NUMBERS_OF_POINTS), len(voxels)), replace=False)
            points = tuple(Point.from_ijk(voxels[index].tolist()) for index in chosen)
            for number in NUMBERS_OF_POINTS:
                result, seconds = timed(partial(session.segment, points=points[:number]))
                yield trial(loaded, bone, part, number, result.mask, seconds)
