"""Bones by name in a scan, with a naming network whose answers were put together by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from BoneSAMLib.bone_finding import BoneFinder, BoneNotFound, asked_places, phrase_places
from BoneSAMLib.bone_kinds import KINDS, BonePlace, name_of
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.many_bones import BonePrompts, find_bones
from BoneSAMLib.prompts import Point
from BoneSAMLib.result import AllBones
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from Testing.lib.fake_engine import FakeEngine
from Testing.lib.hand_built_naming import Block, HandBuiltNaming

RIGHT = Block("femur", (20, -20, -60), (44, 4, 60), "right")
LEFT = Block("femur", (-44, -20, -60), (-20, 4, 60), "left")
PATELLA = Block("patella", (-36, 20, -60), (-24, 32, -45), "left")
BLOCKS = (RIGHT, LEFT, PATELLA)
FEMUR = 1 + KINDS.index("femur")


def scan(spacing=(5.0, 5.0, 6.0), size=(28, 26, 30), rotation=None):
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.array(spacing)
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    return Volume(np.zeros(size[::-1], np.int16), matrix, modality="CT")


def finder(*blocks, volume=None):
    return BoneFinder(volume or scan(), HandBuiltNaming(*blocks))


def voxels_of(volume, block):
    """Voxels (i, j, k) [n, 3] whose centers lie in a block."""
    k, j, i = np.indices(volume.shape)
    ijk = np.stack([i, j, k], -1)
    ras = ijk @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
    return ijk[((ras >= block.low) & (ras <= block.high)).all(-1)]


def mask_of(volume, block):
    mask = np.zeros(volume.shape, bool)
    mask[tuple(voxels_of(volume, block).T[::-1])] = True
    return mask


def rotation(angle):
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]]


# ------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("phrase", "word"),
    [
        ("left scaphoid", 'write "left carpals"'),
        ("frontal bone", 'write "skull"'),
        ("left ilium", 'write "left hip bone"'),
        ("left proximal phalanx of the thumb", 'write "left thumb"'),
        ("coccyx", "draw a box"),
        ("left femur and coccyx", "The coccyx cannot"),
        ("left stapes", "draw a box"),
    ],
)
def test_bones_that_cannot_be_found_alone(phrase, word):
    with pytest.raises(BoneSAMError, match=word) as caught:
        finder(*BLOCKS).find(phrase)
    assert not isinstance(caught.value, BoneNotFound)


@pytest.mark.parametrize(
    ("phrase", "count"),
    [
        ("left femur", 1),
        ("both femurs and L2-L4", 5),
        ("skull", 2),  # with the mandible
        ("left hand", 11),
        ("left foot", 13),
        ("pelvis", 3),
        ("spine", 25),
        ("skeleton", 121),
        ("right hand except thumb", 10),
        ("left foot without toes", 8),
        ("skull without mandible", 1),
    ],
)
def test_groups_are_asked_for_without_what_is_too_small(phrase, count):
    places = asked_places(understand(phrase).targets)
    assert len(places) == len(set(places)) == count


def test_an_unclear_phrase_is_answered_before_the_scan_is_looked_at():
    one = finder(*BLOCKS)
    with pytest.raises(BoneSAMError, match="liver"):
        one.find("liver")
    assert one._naming.grids == []


# ---------------------------------------------------------------------------------------------- finding it


def test_a_bone_is_found_with_its_box():
    one = finder(*BLOCKS)
    (bone,), missing = one.find("left femur")
    assert (bone.name, bone.sure, missing) == ("left femur", True, [])
    assert bone.probability > 0.99
    low, high = bone.box.to_ijk(one.volume)
    inside = voxels_of(one.volume, LEFT)
    assert np.abs(np.array(low) - inside.min(0)).max() <= 1
    assert np.abs(np.array(high) - inside.max(0)).max() <= 1


def test_the_scan_is_looked_at_once_for_all_bones():
    one = finder(*BLOCKS)
    one.find("left femur")
    first = len(one._naming.grids)
    one.find("left femur")
    assert len(one._naming.grids) == 2 * first - 1  # the second look is at the bone alone


def test_several_bones_and_those_that_are_missing():
    found, missing = finder(*BLOCKS).find("both femurs, both patellas and the sacrum")
    assert {bone.name for bone in found} == {"left femur", "right femur", "left patella"}
    assert set(missing) == {"right patella", "sacrum"}


def test_none_of_them_is_in_the_scan():
    with pytest.raises(BoneNotFound, match="does not show the left tibia or the right tibia") as caught:
        finder(*BLOCKS).find("both tibias")
    assert caught.value.missing == ("left tibia", "right tibia")


def test_the_skull_alone_goes_without_the_mandible():
    assert phrase_places("skull") == [BonePlace("skull")]
    assert [place.kind for place in phrase_places("whole skull")] == ["skull", "mandible"]
    head = Block("skull", (-40, -40, 0), (40, 40, 60))
    jaw = Block("mandible", (-20, 10, -40), (20, 40, -10))
    volume = scan()
    session = Session(volume, FakeEngine(), naming=HandBuiltNaming(head, jaw))
    assert [bone.name for bone in session.find("skull")[0]] == ["skull"]
    session.segment(bone="skull")


def test_which_of_several_unsure_bones_is_meant_is_not_said_to_be_absent():
    spine = [Block("vertebra", (-20, -20, 20 * n), (20, 20, 20 * n + 19), number=20.44 - n) for n in range(3)]
    session = Session(scan(), FakeEngine(), naming=HandBuiltNaming(*spine))
    for phrase in ("L3", "L5"):  # one that may be seen, and one whose number none of them seems to have
        with pytest.raises(BoneNotFound, match="cannot be told"):
            find_bones(session, [BonePrompts(name=phrase)])
    with pytest.raises(BoneNotFound, match="cannot be told in this scan which one is the L3"):
        session.find("left tibia and L3")
    with pytest.raises(BoneNotFound, match=r"does not show the L3 vertebra or the left tibia"):
        find_bones(session, [BonePrompts(name="L3"), BonePrompts(name="left tibia")])


def test_a_guess_is_not_shown():
    faint = Block("tibia", (-44, -20, -60), (-20, 4, 60), "left", logit=1.0)
    with pytest.raises(BoneNotFound):
        finder(faint).find("left tibia")


def test_a_bone_whose_number_is_unsure_says_so():
    blocks = [
        Block("vertebra", (-20, -20, 20 * n), (20, 20, 20 * n + 19), number=20.44 - n) for n in range(3)
    ]
    with pytest.raises(BoneNotFound, match="cannot be told in this scan which one is the L1 vertebra"):
        finder(*blocks).find("L1")
    bones, _ = finder(*blocks).find("all vertebrae")
    assert [(bone.name, bone.sure) for bone in bones] == [("vertebra", False)] * 3


def test_where_numbers_are_unsure_the_parts_of_the_mask_part_the_bones():
    blocks = [
        Block("vertebra", (-20, -20, 20 * n), (20, 20, 20 * n + 19), number=20.44 - n) for n in range(3)
    ]
    one = finder(*blocks)
    lower, upper = (
        mask_of(one.volume, Block("vertebra", (-15, -15, low), (15, 15, high)))
        for low, high in ((2, 26), (26.1, 50))
    )
    split = one.split(lower + 2 * upper.astype(np.uint8))
    assert [bone.name for bone in split.bones.values()] == ["vertebra", "vertebra"]
    for part in (lower, upper):
        assert len(np.unique(split.labels[part])) == 1


@pytest.mark.parametrize("angle", [-40, 15, 30])
def test_in_a_turned_volume_the_box_holds_the_bone(angle):
    volume = scan((4.0, 4.0, 4.0), (44, 44, 44), rotation(angle))
    for block in (RIGHT, LEFT):
        one = finder(*BLOCKS, volume=volume)
        (bone,), _ = one.find(f"{block.side} femur")
        inside = voxels_of(volume, block)
        low, high = bone.box.to_ijk(volume)
        assert (np.array(low) <= inside.min(0)).all()
        assert (np.array(high) >= inside.max(0)).all()
        assert (np.array(high) - low <= np.ptp(inside, axis=0) + 6).all()


def test_a_small_bone_gets_a_second_look_that_makes_its_box_exact():
    volume = scan((2.0, 2.0, 2.0), (100, 100, 150))
    one = finder(*BLOCKS, volume=volume)
    (bone,), _ = one.find("left patella")
    coarse, fine = one._naming.grids
    assert fine.spacing < 0.5 * coarse.spacing
    inside = voxels_of(volume, PATELLA)
    low, high = bone.box.to_ijk(volume)
    assert np.abs(np.array(low) - inside.min(0)).max() <= 1
    assert np.abs(np.array(high) - inside.max(0)).max() <= 1


class Fickle(HandBuiltNaming):
    """On the finer grid it sees something else."""

    def __init__(self, first, second):
        super().__init__(first)
        self.second = second

    def answer(self, volume, grid):
        answer = super().answer(volume, grid)
        self.blocks = (self.second,)
        return answer


def test_a_second_look_that_sees_another_bone_is_not_believed():
    volume = scan((2.0, 2.0, 2.0), (100, 100, 150))
    elsewhere = Block("patella", (-20, 20, -40), (-8, 32, -28), "left")
    (bone,), _ = BoneFinder(volume, Fickle(PATELLA, elsewhere)).find("left patella")
    inside = voxels_of(volume, PATELLA)
    low, high = bone.box.to_ijk(volume)
    assert np.abs(np.array(low) - inside.min(0)).max() <= 2
    assert np.abs(np.array(high) - inside.max(0)).max() <= 2


def test_a_radiograph_is_refused():
    flat = Volume(np.zeros((1, 20, 20), np.int16), np.eye(4), modality="X-ray")
    with pytest.raises(BoneSAMError, match="radiograph"):
        BoneFinder(flat, HandBuiltNaming())
    session = Session(flat, FakeEngine(), naming=HandBuiltNaming())
    for ask in (lambda: session.find("left femur"), lambda: session.segment_all(named=True)):
        with pytest.raises(BoneSAMError, match="radiograph"):
            ask()
    with pytest.raises(BoneSAMError, match="given no network for that"):
        Session(scan(), FakeEngine()).find("left femur")


# ---------------------------------------------------------------------------------------------- naming it


def test_what_a_mask_is_called():
    one = finder(*BLOCKS)
    assert one.name_of_mask(mask_of(one.volume, LEFT)) == "left femur"
    assert one.name_of_mask(mask_of(one.volume, PATELLA)) == "left patella"
    far = Block("rib", (50, 40, 40), (65, 60, 80))
    assert mask_of(one.volume, far).any()
    assert one.name_of_mask(mask_of(one.volume, far)) is None
    assert one.name_of_mask(np.zeros(one.volume.shape, bool)) is None
    assert finder().name_of_mask(mask_of(one.volume, LEFT)) is None
    session = Session(one.volume, FakeEngine(), naming=HandBuiltNaming(*BLOCKS))
    assert session.name_of(mask_of(one.volume, RIGHT)) == "right femur"
    with pytest.raises(BoneSAMError, match="shape"):
        session.name_of(np.zeros((2, 2, 2), bool))


def labelled(volume):
    """Both femurs as one object, the patella in two parts, and something without a name."""
    labels = np.zeros(volume.shape, np.uint8)
    labels[mask_of(volume, RIGHT) | mask_of(volume, LEFT)] = 5
    labels[mask_of(volume, PATELLA)] = 9
    labels[0, mask_of(volume, PATELLA)[0]] = 3
    labels[28, 1:4, 1:4] = 255
    return labels


def test_objects_are_parted_by_bone():
    one = finder(*BLOCKS)
    labels = labelled(one.volume)
    split = one.split(labels)
    assert np.array_equal(split.labels > 0, labels > 0)
    assert np.unique(split.labels).tolist() == [0, 1, 2, 3, 4]
    assert split.labels.dtype == np.uint8
    names = {bone.name: value for value, bone in split.bones.items()}
    assert set(names) == {"left femur", "right femur", "left patella"}
    assert (split.labels[mask_of(one.volume, LEFT)] == names["left femur"]).all()
    assert (split.labels[mask_of(one.volume, RIGHT)] == names["right femur"]).all()
    assert (split.labels[mask_of(one.volume, PATELLA)] == names["left patella"]).all()
    # 255 and three bones are more than eight bits hold: it must not become one of them.
    assert len(set(split.labels[28, 1:4, 1:4].ravel().tolist()) & set(names.values())) == 0


def test_many_objects_without_a_name_keep_apart():
    one = finder(PATELLA)
    labels = np.zeros(one.volume.shape, np.uint16)
    labels[:20, :20, ::2] = np.arange(1, 401).reshape(20, 20, 1)
    split = one.split(labels)
    assert split.labels.dtype == np.uint16
    kept = split.labels[:20, :20, ::2]
    free = ~np.isin(kept, list(split.bones))
    assert free.sum() > 3000
    assert len(np.unique(kept[free])) == len(np.unique(labels[:20, :20, ::2][free]))


def test_all_bones_get_names_and_their_confidence():
    one = finder(*BLOCKS)
    labels = labelled(one.volume)
    found = AllBones(labels, 4, {3: 0.5, 5: 0.5, 9: 0.5, 255: 0.5}, 2.0, {k: k / 100 for k in range(30)})
    named = one.named(found)
    assert named.count == 4
    assert sorted(named.names.values()) == ["left femur", "left patella", "right femur"]
    assert list(named.confidence) == [1, 2, 3, 4]
    assert named.seconds > 2
    assert named.slice_confidence == found.slice_confidence
    for value, confidence in named.confidence.items():
        slices = np.nonzero(named.labels == value)[0]
        assert confidence == pytest.approx(slices.mean() / 100)


def test_no_bone_at_all_can_be_named():
    one = finder(*BLOCKS)
    named = one.named(AllBones(np.zeros(one.volume.shape, np.uint8), 0, {}, 1.0))
    assert (named.count, named.confidence, named.names) == (0, {}, {})


def test_bones_that_were_recognized_but_have_no_mask():
    one = finder(*BLOCKS)
    found = AllBones(mask_of(one.volume, RIGHT).astype(np.uint8), 1, {1: 0.9}, 1.0)
    assert {bone.name for bone in one.missed(found)} == {"left femur", "left patella"}


def test_all_bones_of_a_scan_with_names():
    """The whole way, with an engine that finds what is bright: bones that touch become one each."""
    upper = Block("femur", (-20, -20, 0), (20, 20, 60), "left")
    lower = Block("tibia", (-20, -20, -60), (20, 20, -1), "left")
    dark = scan()
    array = np.full(dark.shape, -1000, np.int16)
    for block in (upper, lower):
        array[mask_of(dark, block)] = 1250
    volume = Volume(array, dark.ijk_to_ras, modality="CT")
    session = Session(volume, FakeEngine(), naming=HandBuiltNaming(upper, lower))
    assert session.segment_all().count == 1
    named = session.segment_all(named=True)
    assert {named.names[value] for value in (1, 2)} == {"left femur", "left tibia"}
    of = {name: named.labels == value for value, name in named.names.items()}
    assert of["left femur"][mask_of(volume, upper)].mean() > 0.8
    assert of["left tibia"][mask_of(volume, lower)].mean() > 0.8


def one_femur():
    """A session with a left femur in it, and the femur's mask."""
    femur = Block("femur", (-20, -20, -40), (20, 20, 40), "left")
    dark = scan()
    mask = mask_of(dark, femur)
    volume = Volume(np.where(mask, 1250, -1000).astype(np.int16), dark.ijk_to_ras, modality="CT")
    return Session(volume, FakeEngine(), naming=HandBuiltNaming(femur)), mask


def test_a_name_alone_is_a_prompt():
    session, mask = one_femur()
    found = session.segment(bone="left femur").mask
    assert found[mask].mean() > 0.9
    assert found[~mask].mean() < 0.01
    assert set(session._decoder._engine.kinds) == {FEMUR}
    with pytest.raises(BoneNotFound, match="left tibia"):
        session.segment(bone="left tibia")
    with pytest.raises(BoneSAMError, match=r"both femurs.*several"):
        session.segment(bone="both femurs")


def test_the_network_is_told_the_name_beside_other_prompts():
    session, mask = one_femur()
    engine = session._decoder._engine
    k, j, i = (int(n) for n in np.argwhere(mask).mean(0))
    inside = Point.from_ijk((i, j, k))
    box = session.find("left femur")[0][0].box
    for prompts in ({"box": box}, {"points": [inside]}, {"mask": mask, "points": [inside]}):
        for bone, kind in (("femur", FEMUR), ("", 0), ("my favorite", 0)):
            engine.kinds.clear()
            session.segment(**prompts, bone=bone)
            assert set(engine.kinds) == {kind}
    first = session.segment(box=box, bone="left femur")
    engine.kinds.clear()
    session.segment(mask=first, points=[inside])
    assert set(engine.kinds) == {FEMUR}


def test_cancelled_before_the_scan_is_looked_at():
    session, _ = one_femur()
    for ask in (session.segment_all, session.segment):
        options = {"named": True} if ask == session.segment_all else {"bone": "left femur"}
        with pytest.raises(Cancelled):
            ask(**options, cancel=SimpleNamespace(is_set=lambda: True))
    assert session._naming.grids == []


def test_a_bone_as_small_as_a_voxel_has_a_box():
    small = Block("patella", (-8, -8, -8), (8, 8, 8), "left")
    volume = scan(spacing=(20.0, 20.0, 20.0), size=(8, 8, 8))
    (found,), _ = finder(small, volume=volume).find("left patella")
    low, high = found.box.to_ijk(volume)
    assert sum(a < b for a, b in zip(low, high, strict=True)) >= 2


def test_every_asked_place_has_a_name_for_the_sentence():
    assert all(name_of(place) for place in asked_places(understand("skeleton").targets))


def test_what_a_mask_reaches_into_its_neighbor_is_no_bone():
    volume = scan((4.0, 4.0, 4.0), (36, 34, 44))
    mask = mask_of(volume, RIGHT)
    labels = mask.astype(np.uint8)
    labels[0, 0, 0] = 2  # a voxel far from all
    found = AllBones(labels, 2, {1: 0.9, 2: 0.9}, 1.0, dict.fromkeys(range(44), 0.9))
    named = finder(*BLOCKS, volume=volume).named(found)
    assert (named.count, named.names) == (1, {1: "right femur"})
    assert np.array_equal(named.labels, mask)


def test_an_unsure_side_is_no_answer_to_one_side():
    """One femur, of which the network does not know the side."""
    one = finder(Block("femur", (20, -20, -60), (44, 4, 60)))
    said = []
    for side in ("left", "right"):
        with pytest.raises(BoneNotFound) as problem:
            one.find(f"{side} femur")
        said.append(str(problem.value))
    assert any("It cannot be told in this scan which one is the" in text for text in said)
    (bone,), _ = one.find("both femurs")
    assert (bone.name, bone.sure) == ("femur", False)
