"""What the naming network tells apart: kinds of bones, a bone's number in its row, and its side.

A bone of the anatomy table is at one place among these. Single carpals, tarsals beside talus and calcaneus,
phalanges and bones of the skull share a place: on a grid of a whole scan they are a voxel or two.
"""

import functools
from dataclasses import dataclass

from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_table import Bone, BoneTarget, bone_table
from BoneSAMLib.errors import BoneSAMError

__all__ = [
    "KINDS",
    "LEFT",
    "NUMBER",
    "OUTPUTS",
    "PAIRED",
    "ROWS",
    "BonePlace",
    "bones_at",
    "kind_alone",
    "kind_called",
    "name_of",
    "place_of",
]

# Their order is that of the network's outputs.
KINDS = (
    "skull",
    "mandible",
    "hyoid",
    "vertebra",
    "sacrum",
    "sternum",
    "rib",
    "clavicle",
    "scapula",
    "humerus",
    "radius",
    "ulna",
    "carpal",
    "metacarpal",
    "hand phalanx",
    "hip bone",
    "femur",
    "patella",
    "tibia",
    "fibula",
    "talus",
    "calcaneus",
    "midfoot",
    "metatarsal",
    "foot phalanx",
)
# The network's outputs: no bone, the kinds, then the number in a row in tens, then the logit of a left bone.
NUMBER, LEFT = 1 + len(KINDS), 2 + len(KINDS)
OUTPUTS = 3 + len(KINDS)
PAIRED = frozenset(KINDS) - {"skull", "mandible", "hyoid", "vertebra", "sacrum", "sternum"}
# Kinds that stand in a row, and its highest number.
ROWS = {"vertebra": 24, "rib": 12, "metacarpal": 5, "hand phalanx": 5, "metatarsal": 5, "foot phalanx": 5}
_BY_ID = {
    "mandible": "mandible",
    "hyoid_bone": "hyoid",
    "sacrum": "sacrum",
    "sternum": "sternum",
    "clavicle": "clavicle",
    "scapula": "scapula",
    "humerus": "humerus",
    "radius": "radius",
    "ulna": "ulna",
    "hip_bone": "hip bone",
    "femur": "femur",
    "patella": "patella",
    "tibia": "tibia",
    "fibula": "fibula",
    "talus": "talus",
    "calcaneus": "calcaneus",
}
_BY_GROUP = {
    "skull": "skull",
    "carpals": "carpal",
    "hand_phalanges": "hand phalanx",
    "midfoot": "midfoot",
    "foot_phalanges": "foot phalanx",
}
_VERTEBRAE = tuple(
    f"{region}{number}" for region, count in (("c", 7), ("t", 12), ("l", 5)) for number in range(1, count + 1)
)


@dataclass(frozen=True)
class BonePlace:
    """Where a bone stands among what the network tells apart.

    Attributes:
        kind: one of KINDS.
        number: 1 to 24 for vertebrae from C1, 1 to 12 for ribs, a digit for the rays of hand and foot;
            0 for what stands in no row.
        side: "left", "right", or None for what the body has once.
    """

    kind: str
    number: int = 0
    side: str | None = None


def place_of(target: BoneTarget) -> BonePlace | None:
    """The place of a bone; None for one that the network does not know, such as a sesamoid."""
    bone = target.bone
    whole = bone_table().bones[bone.part_of] if bone.part_of else bone
    place = _place_of_bone(whole)
    if place is None:
        return None
    kind, number = place
    # A skull is one object, though half of its bones are paired.
    side = None if kind == "skull" else target.side
    return BonePlace(kind, number, side)


@functools.cache
def bones_at(place: BonePlace) -> tuple[BoneTarget, ...]:
    """The bones, parts left out, that share a place; one, where the network knows the bone itself."""
    targets = (BoneTarget(bone, side) for bone in bone_table().bones.values() for side in bone.sides)
    return tuple(t for t in targets if not t.bone.part_of and place_of(t) == place)


def name_of(place: BonePlace, sure: bool = True) -> str:
    """What to call what is at a place: "left femur", "left carpals", "left index finger".

    Where the number or side is not `sure`, what is known without it: "vertebra", "rib".
    """
    if not sure:
        return place.kind
    bones = bones_at(place)
    if len(bones) == 1:
        return bones[0].name
    group = next(id for id, kind in _BY_GROUP.items() if kind == place.kind)
    if place.number:
        group = f"{place.kind.split()[0]}_digit_{place.number}"
    name = bone_table().groups[group].name
    return f"{place.side} {name}" if place.side else name


def kind_alone(phrase: str) -> BonePlace | None:
    """The skull, if a phrase is that word alone: among other words, the mandible goes with it."""
    return BonePlace("skull") if phrase.strip().lower() == "skull" else None


def kind_called(name: str) -> int:
    """What is told to the network of a bone with a name: 1 + the place of its kind in KINDS.

    0, which is no name, where bones of several kinds are meant, or none that is known.
    """
    alone = kind_alone(name)
    if alone is not None:
        return 1 + KINDS.index(alone.kind)
    try:
        read = understand(name)
    except BoneSAMError:
        return 0
    targets = () if read.corrected else read.targets  # a guess is not to lead the network astray
    places = [place_of(target) for target in targets]
    kinds = {None if place is None else place.kind for place in places}
    kind = kinds.pop() if len(kinds) == 1 else None
    return 0 if kind is None else 1 + KINDS.index(kind)


@functools.cache
def _place_of_bone(bone: Bone) -> tuple[str, int] | None:
    if bone.id in _VERTEBRAE:
        return "vertebra", 1 + _VERTEBRAE.index(bone.id)
    for row, kind in (("rib_", "rib"), ("metacarpal_", "metacarpal"), ("metatarsal_", "metatarsal")):
        if bone.id.startswith(row):
            return kind, int(bone.id.removeprefix(row))
    for row in ("hand_phalanx_", "foot_phalanx_"):
        if bone.id.startswith(row):
            return row.replace("_", " ").strip(), int(bone.id.removeprefix(row)[0])
    if bone.id in _BY_ID:
        return _BY_ID[bone.id], 0
    for group, kind in _BY_GROUP.items():
        if group in bone.groups and "auditory_ossicles" not in bone.groups:
            return kind, 0
    return None
