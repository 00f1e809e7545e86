"""Which bones share a place of the naming network, and what places are called."""

import pytest

from BoneSAMLib.bone_kinds import KINDS, PAIRED, ROWS, BonePlace, bones_at, kind_called, name_of, place_of
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_table import BoneTarget, bone_table

TARGETS = [BoneTarget(bone, side) for bone in bone_table().bones.values() for side in bone.sides]
PLACES = sorted({place for place in map(place_of, TARGETS) if place is not None}, key=str)
WITHOUT_PLACE = {"malleus", "incus", "stapes", "coccyx", "hand_sesamoids", "foot_sesamoids", "fabella"}


def place(phrase):
    (found,) = {place_of(target) for target in understand(phrase).targets}
    return found


def test_only_what_is_too_small_to_be_seen_has_no_place():
    assert {target.bone.id for target in TARGETS if place_of(target) is None} == WITHOUT_PLACE


def test_every_kind_and_every_number_of_a_row_is_a_place():
    assert {one.kind for one in PLACES} == set(KINDS)
    for kind in KINDS:
        numbers = {one.number for one in PLACES if one.kind == kind}
        assert numbers == (set(range(1, ROWS[kind] + 1)) if kind in ROWS else {0})
        sides = {one.side for one in PLACES if one.kind == kind}
        assert sides == ({"left", "right"} if kind in PAIRED else {None})


@pytest.mark.parametrize("one", PLACES, ids=name_of)
def test_the_name_of_a_place_leads_back_to_it(one):
    targets = understand(name_of(one)).targets
    # Who says skull means the jaw too, and the ossicles, which have no place.
    others = {None, BonePlace("mandible")} if one.kind == "skull" else set()
    assert {place_of(target) for target in targets} == {one} | others
    assert set(bones_at(one)) <= set(targets)


def test_names_are_different():
    assert len({name_of(one) for one in PLACES}) == len(PLACES) == 121


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("C1", BonePlace("vertebra", 1)),
        ("C7", BonePlace("vertebra", 7)),
        ("T1", BonePlace("vertebra", 8)),
        ("T12", BonePlace("vertebra", 19)),
        ("L1", BonePlace("vertebra", 20)),
        ("L5", BonePlace("vertebra", 24)),
        ("left tenth rib", BonePlace("rib", 10, "left")),
        ("right femur", BonePlace("femur", 0, "right")),
        ("left fifth metacarpal", BonePlace("metacarpal", 5, "left")),
        ("left thumb", BonePlace("hand phalanx", 1, "left")),
        ("right big toe", BonePlace("foot phalanx", 1, "right")),
        ("left scaphoid", BonePlace("carpal", 0, "left")),
        ("right cuboid", BonePlace("midfoot", 0, "right")),
        ("left ilium", BonePlace("hip bone", 0, "left")),  # a part is where its whole is
        ("manubrium", BonePlace("sternum")),
        ("left parietal bone", BonePlace("skull")),  # one object, though its bones are paired
    ],
)
def test_places_of_bones(phrase, expected):
    assert place(phrase) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("left femur", "femur"),
        ("Oberschenkelknochen", "femur"),
        ("both patellae", "patella"),
        ("L3 vertebra", "vertebra"),
        ("left carpals", "carpal"),
        ("skull", "skull"),
        ("vertebra", "vertebra"),
        ("femur and tibia", None),
        ("left index finger", "hand phalanx"),
        ("Bone 3", None),
        ("tumor", None),
        ("left malleus", None),
    ],
)
def test_what_the_network_is_told_of_a_name(name, kind):
    assert kind_called(name) == (0 if kind is None else 1 + KINDS.index(kind))


def test_bones_that_share_a_place():
    assert [target.name for target in bones_at(BonePlace("femur", 0, "left"))] == ["left femur"]
    assert len(bones_at(BonePlace("carpal", 0, "right"))) == 8
    assert len(bones_at(BonePlace("midfoot", 0, "left"))) == 5
    assert len(bones_at(BonePlace("hand phalanx", 1, "left"))) == 2
    assert len(bones_at(BonePlace("hand phalanx", 2, "left"))) == 3
    assert bones_at(BonePlace("femur")) == ()  # without a side it is no bone


@pytest.mark.parametrize(
    ("one", "sure", "name"),
    [
        (BonePlace("femur", 0, "left"), True, "left femur"),
        (BonePlace("carpal", 0, "right"), True, "right carpals"),
        (BonePlace("skull"), True, "skull"),
        (BonePlace("vertebra", 22), True, "L3 vertebra"),
        (BonePlace("hand phalanx", 2, "left"), True, "left index finger"),
        (BonePlace("vertebra", 22), False, "vertebra"),
        (BonePlace("rib", 4, "left"), False, "rib"),
    ],
)
def test_names_of_places(one, sure, name):
    assert name_of(one, sure) == name
