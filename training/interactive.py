"""Click by click: how far corrections bring a bone, from a first click and from a box."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from training.annotator import Annotator, OpensVolumes, Segmented
from training.cases import BoneObject
from training.masks import Mask, bounding_slices, slice_view
from training.measure import LoadedCase
from training.protocols import first_click, generator, jittered_box
from training.summary import statistics_of
from training.trial import Trial, trial

CLICKS, BOX = "clicks", "box, then clicks"
MOST_CLICKS = 20
SHOWN_CLICKS = (1, 3, 5, 10, 20)
TARGETS_IOU = (0.85, 0.90)
# The challenge gives a box and five clicks; afterwards only bones short of the target are clicked further.
CHALLENGE_CLICKS = 5
MOST_AFTER_BOX = 10
TARGET_DICE = 0.90


class Interactive:
    """Two annotators a bone: one who only clicks, one who draws a box and then clicks.

    The first stops at 20 clicks or at an IoU of 0.90, the second at ten, or after the challenge's five once
    the Dice is 0.90: what could only repeat itself is not computed.
    """

    name = "interactive"

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """Both annotators."""
        return CLICKS, BOX

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial after the box and after every click."""
        session = segmenter.open(loaded.volume)
        for bone in loaded.bones:
            purpose = "clicks" if part == CLICKS else "clicks after box"
            rng = generator(loaded.case.id, bone.name, purpose)
            annotator = Annotator(session, loaded.volume, bone.mask, rng)
            if part == CLICKS:
                annotator.points = [first_click(bone.mask, loaded.volume, rng)]
                yield from _clicked(loaded, bone, annotator)
            else:
                of_box = generator(loaded.case.id, bone.name, "box")
                annotator.box = jittered_box(bone.mask, loaded.volume, of_box)
                yield from _boxed(loaded, bone, annotator)


def _clicked(loaded: LoadedCase, bone: BoneObject, annotator: Annotator) -> Iterator[Trial]:
    result = annotator.start()
    while True:
        clicks = len(annotator.points)
        one = trial(loaded, bone, CLICKS, clicks, result.mask, annotator.seconds)
        yield one
        if clicks == MOST_CLICKS or one.iou >= max(TARGETS_IOU):
            return
        result = annotator.correct(result)
        if len(annotator.points) == clicks:
            return


def _boxed(loaded: LoadedCase, bone: BoneObject, annotator: Annotator) -> Iterator[Trial]:
    facts = by_hand(bone.mask, loaded)
    result: Segmented = annotator.start()
    while True:
        clicks = len(annotator.points)
        surface = clicks <= CHALLENGE_CLICKS
        one = trial(loaded, bone, BOX, clicks, result.mask, annotator.seconds, surface, **facts)
        yield one
        if clicks == MOST_AFTER_BOX or (clicks >= CHALLENGE_CLICKS and one.dice >= TARGET_DICE):
            return
        result = annotator.correct(result)
        if len(annotator.points) == clicks:
            return


def by_hand(mask: Mask, loaded: LoadedCase) -> dict[str, float]:
    """What drawing the bone on every slice means: how many slices, and how long the outlines are in mm."""
    volume = loaded.volume
    axis = volume.through_plane_axis
    region = bounding_slices(mask)
    inside = np.pad(mask[region], 1)
    # Faces between bone and background, counted along each in-plane axis: the outline with its stairs.
    length = 0.0
    in_plane = [other for other in range(3) if other != axis]
    for along in in_plane:
        across = next(other for other in in_plane if other != along)
        faces = np.count_nonzero(np.diff(inside.astype(np.int8), axis=2 - along))
        length += faces * volume.spacing[across]
    slices = sum(
        bool(slice_view(mask[region], axis, index).any()) for index in range(mask[region].shape[2 - axis])
    )
    # A smooth outline in any direction is on average pi / 4 of its stairs.
    return {"slices": float(slices), "contour_mm": float(length * math.pi / 4)}


# Tables.

Track = list[Trial]


def tracks(trials: Sequence[Trial], condition: str) -> dict[tuple[str, str], Track]:
    """The trials of one annotator by bone, in the order of the clicks."""
    found: dict[tuple[str, str], Track] = {}
    for one in sorted(trials, key=lambda one: one.level):
        if one.condition == condition:
            found.setdefault((one.case, one.object), []).append(one)
    return found


def at(track: Track, clicks: int) -> Trial:
    """The trial after so many clicks; the last one of an annotator who stopped before."""
    return next((one for one in reversed(track) if one.level <= clicks), track[0])


def clicks_to(track: Track, iou: float) -> int | None:
    """The number of clicks to an IoU; None where it was not reached."""
    return next((int(one.level) for one in track if one.iou >= iou), None)


def area_under_curve(track: Track, metric: str) -> float:
    """Mean of a metric over the challenge's five clicks by the trapezoid rule, 0 to 1.

    The challenge itself gives the area from the first to the fifth click, which is at most 4, and leaves the
    box out; this is a quarter of it.
    """
    values = [getattr(at(track, clicks), metric) for clicks in range(1, CHALLENGE_CLICKS + 1)]
    return float(np.trapezoid(values) / (CHALLENGE_CLICKS - 1))


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """The numbers of both annotators: over all bones and by source."""
    sources = list(dict.fromkeys(one.source for one in trials))
    return {
        "all": _numbers(trials),
        "sources": {name: _numbers([one for one in trials if one.source == name]) for name in sources},
    }


def _numbers(trials: Sequence[Trial]) -> dict[str, Any]:
    clicked, boxed = tracks(trials, CLICKS), tracks(trials, BOX)
    numbers: dict[str, Any] = {"bones_clicked": len(clicked), "bones_boxed": len(boxed)}
    for target in TARGETS_IOU:
        needed = [(case, clicks_to(track, target)) for (case, _), track in clicked.items()]
        name = f"{target * 100:.0f}"
        # As is usual, a bone that never got there counts with the most clicks.
        numbers[f"NoC@{name}"] = statistics_of((case, float(n or MOST_CLICKS)) for case, n in needed)
        numbers[f"not reached@{name}"] = sum(n is None for _, n in needed)
    for clicks in SHOWN_CLICKS:
        numbers[f"Dice after {clicks} clicks"] = statistics_of(
            (case, at(track, clicks).dice) for (case, _), track in clicked.items()
        )
    for clicks in (0, 3, CHALLENGE_CLICKS):
        for metric in ("dice", "nsd_2mm"):
            name = "Dice" if metric == "dice" else "NSD"
            numbers[f"{name} after box and {clicks} clicks"] = statistics_of(
                (case, getattr(at(track, clicks), metric)) for (case, _), track in boxed.items()
            )
    for metric, name in (("dice", "AUC of Dice"), ("nsd_2mm", "AUC of NSD")):
        numbers[name] = statistics_of(
            (case, area_under_curve(track, metric)) for (case, _), track in boxed.items()
        )
    return numbers
