"""What a bone is called in SNOMED CT, for segments that other programs understand.

3D Slicer keeps a segment's meaning as one line of text, the terminology entry: list, category, type, modifier
(here the side) and region, each code as "scheme^value^meaning". It goes into .seg.nrrd, scenes and DICOM SEG.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from BoneSAMLib.writing import BONE_TERMINOLOGY, Color

__all__ = ["BoneMeaning", "Side", "bone_meaning"]

Side: TypeAlias = Literal["left", "right"]

# Codes and laterality as in the DICOM master list of segment types that 3D Slicer ships, with more SNOMED CT
# codes for what it lacks (radius, ulna, tibia, hip bone, single vertebrae and ribs). Colors as in 3D Slicer's
# color table "GenericAnatomyColors"; what has none there takes that of "bone".
_LIST = "Segmentation category and type - DICOM master list"
_CATEGORY = "SCT^123037004^Anatomical Structure"
_SIDES: dict[Side, str] = {"left": "SCT^7771000^Left", "right": "SCT^24028007^Right"}
_NO_REGION = "Anatomic codes - DICOM master list~^^~^^"

_BONE = (241, 214, 145)
_CERVICAL, _THORACIC, _LUMBAR = (255, 255, 207), (226, 202, 134), (212, 188, 102)
_RIB = (253, 232, 158)


@dataclass(frozen=True)
class BoneMeaning:
    """Terminology entry and standard color (red, green, blue, each 0 to 1) of a bone.

    `color` is None for "some bone": several of them should not look the same.
    """

    terminology: str
    color: Color | None


@dataclass(frozen=True)
class _Bone:
    code: str
    meaning: str
    paired: bool = False
    color: tuple[int, int, int] = _BONE


_BONES = {
    "skull": _Bone("89546000", "Skull", color=(241, 213, 144)),
    "maxilla": _Bone("70925003", "Maxilla", True, (196, 172, 68)),
    "mandible": _Bone("91609006", "Mandible", color=(222, 198, 101)),
    "hyoid bone": _Bone("21387005", "Hyoid bone", color=(250, 210, 139)),
    "vertebra": _Bone("51282000", "Vertebra"),
    "sacrum": _Bone("54735007", "Sacrum"),
    "coccyx": _Bone("64688005", "Coccyx"),
    "sternum": _Bone("56873002", "Sternum", color=(244, 217, 154)),
    "rib": _Bone("113197003", "Rib", True, _RIB),
    "clavicle": _Bone("51299004", "Clavicle", True, (205, 179, 108)),
    "scapula": _Bone("79601000", "Scapula", True),
    "humerus": _Bone("85050009", "Humerus", True),
    "radius": _Bone("62413002", "Radius", True),
    "ulna": _Bone("23416004", "Ulna", True),
    "hip bone": _Bone("29836001", "Hip bone", True),
    "femur": _Bone("71341001", "Femur", True),
    "patella": _Bone("64234005", "Patella", True),
    "tibia": _Bone("12611008", "Tibia", True),
    "fibula": _Bone("87342007", "Fibula", True),
    "calcaneus": _Bone("80144004", "Calcaneus", True),
}
_BONES |= {
    f"{region}{number}": _Bone(code, f"{region.upper()}{number} vertebra", color=color)
    for region, color, codes in (
        ("c", _CERVICAL, "14806007 39976000 113205007 5329002 36978003 36054005 87391001"),
        (
            "t",
            _THORACIC,
            "64864005 53733008 1626008 73071006 56401006 45296009 62487009 11068009 82687006 7610001 "
            "12989004 23215003",
        ),
        ("l", _LUMBAR, "66794005 14293000 36470004 11994002 49668003"),
    )
    for number, code in enumerate(codes.split(), 1)
}
_BONES |= {
    f"rib {number}": _Bone(code, f"{ordinal} rib", True, _RIB)
    for number, (ordinal, code) in enumerate(
        (
            ("First", "48535007"),
            ("Second", "78247007"),
            ("Third", "25888004"),
            ("Fourth", "25523003"),
            ("Fifth", "15339008"),
            ("Sixth", "59558009"),
            ("Seventh", "24915002"),
            ("Eighth", "5953002"),
            ("Ninth", "22565002"),
            ("Tenth", "77644006"),
            ("Eleventh", "58830002"),
            ("Twelfth", "43993008"),
        ),
        1,
    )
}
_OTHER_NAMES = {
    "clavicula": "clavicle",
    "collarbone": "clavicle",
    "breastbone": "sternum",
    "heel bone": "calcaneus",
    "hip": "hip bone",
    "hyoid": "hyoid bone",
    "jaw": "mandible",
    "kneecap": "patella",
    "shoulder blade": "scapula",
}


def bone_meaning(name: str) -> BoneMeaning:
    """What a name such as "left femur", "Femur L", "vertebrae_L5" or "3rd rib, right" means.

    An unknown name is a bone, no matter which. A side is coded only for bones that come in pairs.
    """
    words = re.findall(r"[a-z]+[0-9]*|[0-9]+", name.lower())
    sides: set[Side] = set()
    bone = None
    for left, right in (("left", "right"), ("l", "r")):
        sides |= {"left"} if left in words else set()
        sides |= {"right"} if right in words else set()
        words = [word for word in words if word not in (left, right)]
        bone = bone or _bone_of(words)
    if bone is None:
        return BoneMeaning(BONE_TERMINOLOGY, None)
    side = _SIDES[sides.pop()] if bone.paired and len(sides) == 1 else "^^"
    entry = f"{_LIST}~{_CATEGORY}~SCT^{bone.code}^{bone.meaning}~{side}~{_NO_REGION}"
    red, green, blue = (part / 255 for part in bone.color)
    return BoneMeaning(entry, (red, green, blue))


def _bone_of(words: list[str]) -> _Bone | None:
    words = [word for word in words if word not in ("st", "nd", "rd", "th")]
    text = " ".join(words)
    level = [word for word in words if word not in ("vertebra", "vertebrae")]
    if len(level) < len(words) <= 2:
        text = " ".join(level) or "vertebra"
    elif "rib" in words and len(words) == 2:
        text = "rib " + next(word for word in words if word != "rib")
    return _BONES.get(_OTHER_NAMES.get(text, text))
