"""Names of bones as people, and other programs, write them."""

import pytest

from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.writing import BONE_TERMINOLOGY


@pytest.mark.parametrize(
    ("name", "bone", "side"),
    [
        ("left femur", "SCT^71341001^Femur", "SCT^7771000^Left"),
        ("Femur, right", "SCT^71341001^Femur", "SCT^24028007^Right"),
        ("femur_left", "SCT^71341001^Femur", "SCT^7771000^Left"),
        ("Femur", "SCT^71341001^Femur", "^^"),
        ("R. tibia", "SCT^12611008^Tibia", "SCT^24028007^Right"),
        ("Hip L", "SCT^29836001^Hip bone", "SCT^7771000^Left"),
        ("shoulder blade", "SCT^79601000^Scapula", "^^"),
        ("left and right femur", "SCT^272673000^Bone", "^^"),
        ("L5", "SCT^49668003^L5 vertebra", "^^"),
        ("vertebrae_T12", "SCT^23215003^T12 vertebra", "^^"),
        ("C1 vertebra", "SCT^14806007^C1 vertebra", "^^"),
        ("Vertebra", "SCT^51282000^Vertebra", "^^"),
        ("rib_left_3", "SCT^25888004^Third rib", "SCT^7771000^Left"),
        ("12th rib, right", "SCT^43993008^Twelfth rib", "SCT^24028007^Right"),
        ("rib", "SCT^113197003^Rib", "^^"),
        ("left sacrum", "SCT^54735007^Sacrum", "^^"),
        ("rib 13", "SCT^272673000^Bone", "^^"),
        ("T13", "SCT^272673000^Bone", "^^"),
        ("femur fragment", "SCT^272673000^Bone", "^^"),
        ("left", "SCT^272673000^Bone", "^^"),
        ("Bone 3", "SCT^272673000^Bone", "^^"),
        ("", "SCT^272673000^Bone", "^^"),
    ],
)
def test_bone_and_side(name, bone, side):
    parts = bone_meaning(name).terminology.split("~")
    assert len(parts) == 7
    assert parts[2:4] == [bone, side]


def test_unknown_bone_has_the_common_code_and_no_color():
    assert bone_meaning("left ankle thing").terminology == BONE_TERMINOLOGY
    assert bone_meaning("left ankle thing").color is None


def test_standard_colors():
    assert bone_meaning("mandible").color == pytest.approx((222 / 255, 198 / 255, 101 / 255))
    assert bone_meaning("femur").color == pytest.approx((241 / 255, 214 / 255, 145 / 255))
    assert bone_meaning("L1").color != bone_meaning("T1").color != bone_meaning("C1").color
