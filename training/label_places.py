"""Which kind of bone, which one of its row and which side the labels of a subject mean."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bone_kinds import KINDS, BonePlace, kind_alone, place_of
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.errors import BoneSAMError
from training.synthesis.tissues import HARD

UNKNOWN = 255
LEFT, RIGHT, NO_SIDE = 1, 0, UNKNOWN
SIDES = {"left": LEFT, "right": RIGHT, None: NO_SIDE}
# What an annotation names after a bone though it is a part of one: those voxels are right, others unknown.
PARTS = ("vertebral_bod",)


@dataclass(frozen=True)
class LabelPlaces:
    """Tables by label value of one subject: kind (0 none, UNKNOWN), number (0 unknown), side.

    `complete` [26] says of each kind whether no voxel beyond the labels can be of it.
    """

    kind: NDArray[np.uint8]
    number: NDArray[np.uint8]
    side: NDArray[np.uint8]
    complete: NDArray[np.bool_]


def places_of(tissues: Mapping[int, str], names: Mapping[int, str], partial: bool) -> LabelPlaces:
    """What labels mean, given their tissues and names; `partial`: not all bones have one."""
    count = 1 + max(tissues, default=0)
    kind, number = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    side = np.full(count, NO_SIDE, np.uint8)
    complete = np.full(1 + len(KINDS), not partial)
    for value, tissue in tissues.items():
        if tissue not in HARD:
            continue
        kind[value] = UNKNOWN
        name = names.get(value, "")
        found = label_place(name)
        if found is None:
            continue
        kind[value], number[value], side[value] = 1 + KINDS.index(found.kind), found.number, SIDES[found.side]
        complete[kind[value]] |= not name.startswith(PARTS)
    if partial:
        kind[0] = UNKNOWN
    return LabelPlaces(kind, number, side, complete)


def label_place(name: str) -> BonePlace | None:
    """The place that a label's name means; what its candidates do not share is left open. None: no bone."""
    name = name.split(", piece")[0]
    if name.startswith(PARTS):
        return BonePlace("vertebra")
    alone = kind_alone(name)
    if alone is not None:
        return alone
    try:
        targets = understand(name.replace("ilium", "hip bone")).targets
    except BoneSAMError:
        return None
    places = [place_of(target) for target in targets]
    known = [place for place in places if place is not None]
    if not known or len({place.kind for place in known}) > 1:
        return None
    numbers, sides = {place.number for place in known}, {place.side for place in known}
    return BonePlace(
        known[0].kind,
        numbers.pop() if len(numbers) == 1 else 0,
        sides.pop() if len(sides) == 1 else None,
    )
