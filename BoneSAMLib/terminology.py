"""What a bone is called in SNOMED CT, for segments that other programs understand.

3D Slicer keeps a segment's meaning as one line of text, the terminology entry: list, category, type, modifier
(here the side) and region, each code as "scheme^value^meaning". It goes into .seg.nrrd, scenes and DICOM SEG.
Names, codes and colors are those of the anatomy table (see `bone_table`).
"""

from dataclasses import dataclass

from BoneSAMLib.bone_table import Ask, Bone, BoneGroup, Named, Side, bone_table
from BoneSAMLib.bone_words import Token, key_of, tokens, words
from BoneSAMLib.writing import BONE_TERMINOLOGY, Color

__all__ = ["BoneMeaning", "Side", "bone_meaning"]

# Category and laterality as in the DICOM master list of segment types that 3D Slicer ships.
_LIST = "Segmentation category and type - DICOM master list"
_CATEGORY = "SCT^123037004^Anatomical Structure"
_SIDES: dict[Side, str] = {"left": "SCT^7771000^Left", "right": "SCT^24028007^Right"}
_NO_REGION = "Anatomic codes - DICOM master list~^^~^^"


@dataclass(frozen=True)
class BoneMeaning:
    """Terminology entry and standard color (red, green, blue, each 0 to 1) of a bone.

    `color` is None for "some bone": several of them should not look the same.
    """

    terminology: str
    color: Color | None


def bone_meaning(name: str) -> BoneMeaning:
    """What a name such as "left femur", "Femur L", "vertebrae_L5" or "3rd rib, right" means.

    The name must be spelled as in the anatomy table, in any of its languages: a name that somebody typed is
    coded only if it is certain. An unknown name is a bone, no matter which. A side is coded only for bones
    that come in pairs. A bone for which the table has no code is coded as its group, such as "Carpal bone".
    """
    bone, sides = _bone_and_sides(name)
    if bone is None or isinstance(bone, Ask) or bone.id == "skeleton":
        return BoneMeaning(BONE_TERMINOLOGY, None)
    code, meaning = bone_table().code(bone)
    paired = all(one.paired for one in bone.bones) if isinstance(bone, BoneGroup) else bone.paired
    side = _SIDES[sides.pop()] if paired and len(sides) == 1 else "^^"
    meaning = meaning[:1].upper() + meaning[1:]
    red, green, blue = (part / 255 for part in bone.color)
    return BoneMeaning(f"{_LIST}~{_CATEGORY}~SCT^{code}^{meaning}~{side}~{_NO_REGION}", (red, green, blue))


def _bone_and_sides(name: str) -> tuple[Bone | BoneGroup | Ask | None, set[Side]]:
    """The bone, and the sides; "l" and "r" are sides only where they are no part of the bone's name."""
    read = [token for token in tokens(name) if token.kind not in ("filler", "all")]
    letters = words().side_letters
    sides: set[Side] = set()
    rest = []
    for token in read:
        if token.kind == "left" or token.kind == "right":
            sides.add(token.kind)
        else:
            rest.append(token)
    bone = _named(rest)
    if bone is None:
        sides |= {letters[token.text] for token in rest if token.text in letters}
        bone = _named([token for token in rest if token.text not in letters])
    return bone, sides


def _named(read: list[Token]) -> Named | None:
    texts = [
        str(token.number) if token.kind == "number" else token.text
        for token in read
        if token.kind != "join" or token.text.isalnum()
    ]
    found = bone_table().named.get(key_of(texts), ())
    return found[0] if len(found) == 1 else None
