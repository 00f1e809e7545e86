"""Outputs of the naming network that were put together by hand, and the bones in them."""

import numpy as np
import pytest

from BoneSAMLib.bone_kinds import KINDS, LEFT, BonePlace
from BoneSAMLib.bone_map import found_bones
from BoneSAMLib.bone_scan import ScanGrid
from Testing.lib.hand_built_naming import Block, outputs_of

# Cells of 4 mm; RAS from about -62 to 62, the left half has R below 0.
GRID = ScanGrid(4.0, (62.0, 62.0, 0.0), (32, 32, 32))
RIGHT_FEMUR = Block("femur", (20, 0, 10), (40, 20, 90), "right")
LEFT_FEMUR = Block("femur", (-40, 0, 10), (-20, 20, 90), "left")


def found(*blocks):
    return found_bones(outputs_of(GRID, blocks), GRID)


def ras(bone):
    return bone.grid.to_ras(bone.cells[:, ::-1])


def spine(count, first=1, shift=0.0):
    """Vertebrae that touch, from the top down; the network reads numbers too high by `shift`."""
    return [
        Block("vertebra", (-12, -12, 112 - 18 * n), (12, 12, 129 - 18 * n), number=first + n + shift)
        for n in range(count)
    ]


def test_nothing_found():
    assert found() == []


def test_two_femurs_have_their_sides_and_places():
    right, left = found(RIGHT_FEMUR, LEFT_FEMUR)
    assert (right.name, left.name) == ("right femur", "left femur")
    assert right.place == BonePlace("femur", 0, "right")
    assert ras(right).min(0).tolist() == [22, 2, 12]
    assert ras(left).max(0).tolist() == [-22, 18, 88]
    assert right.sure
    assert right.probability == pytest.approx(1, abs=0.01)


def test_bones_come_in_the_order_of_their_kinds():
    skull = Block("skull", (-30, -30, 90), (30, 30, 120))
    sacrum = Block("sacrum", (-10, -30, 0), (10, -10, 20))
    assert [bone.name for bone in found(LEFT_FEMUR, sacrum, skull)] == ["skull", "sacrum", "left femur"]


def test_how_likely_a_bone_is():
    faint = Block("femur", (20, 0, 10), (40, 20, 90), "right", logit=1.0)
    (bone,) = found(faint)
    assert bone.probability == pytest.approx(np.e / (np.e + len(KINDS) - 1), rel=1e-3)


def test_hip_bones_that_touch_part_in_the_middle():
    right = Block("hip bone", (0, 0, 10), (50, 30, 60), "right")
    left = Block("hip bone", (-50, 0, 10), (0, 30, 60), "left")
    bones = found(right, left)
    assert [bone.name for bone in bones] == ["right hip bone", "left hip bone"]
    assert (ras(bones[0])[:, 0] > 0).all()
    assert (ras(bones[1])[:, 0] < 0).all()


def test_few_cells_with_the_other_side_do_not_split_a_bone():
    outputs = outputs_of(GRID, [LEFT_FEMUR])
    outputs[LEFT, :5] = -8.0  # the network is wrong about its lower end
    (bone,) = found_bones(outputs, GRID)
    assert bone.name == "left femur"
    assert ras(bone)[:, 2].min() == 12


def test_an_unsure_side_is_said():
    outputs = outputs_of(GRID, [LEFT_FEMUR])
    outputs[LEFT] = 0.2
    (bone,) = found_bones(outputs, GRID)
    assert not bone.sure
    assert bone.name == "femur"


def test_vertebrae_that_touch_have_their_numbers():
    bones = found(*spine(6, first=18))
    assert [bone.name for bone in bones] == ["T11 vertebra", "T12 vertebra"] + [
        f"L{n} vertebra" for n in (1, 2, 3, 4)
    ]
    heights = [ras(bone)[:, 2].mean() for bone in bones]
    assert heights == sorted(heights, reverse=True)
    assert all(bone.sure for bone in bones)


@pytest.mark.parametrize(("shift", "sure"), [(0.2, True), (-0.25, True), (0.42, False), (-0.45, False)])
def test_a_remainder_that_all_share_counts_for_all(shift, sure):
    bones = found(*spine(6, first=10, shift=shift))
    assert [bone.place.number for bone in bones] == [10, 11, 12, 13, 14, 15]
    assert [bone.sure for bone in bones] == [sure] * 6
    assert (bones[0].name == "vertebra") is not sure


def test_a_number_beyond_the_row_is_unsure():
    (bone,) = found(*spine(1, first=26))
    assert (bone.place.number, bone.sure) == (24, False)


def test_a_vertebra_apart_from_a_long_spine_is_not_lost():
    atlas = Block("vertebra", (-8, -8, 112), (8, 8, 121), number=1)
    rest = [Block("vertebra", (-28, -28, 88 - 12 * n), (28, 28, 99 - 12 * n), number=2 + n) for n in range(8)]
    assert [bone.place.number for bone in found(atlas, *rest)] == list(range(1, 10))


def test_ribs_have_side_and_number():
    ribs = [
        Block("rib", (18 * way - 16, -40, 20 * n), (18 * way + 16, 20, 20 * n + 8), side, n)
        for n in (1, 2, 3)
        for way, side in ((1.5, "right"), (-1.5, "left"))
    ]
    assert [bone.name for bone in found(*ribs)] == [
        f"{side} {number} rib" for side in ("right", "left") for number in ("first", "second", "third")
    ]


def test_specks_are_dropped():
    speck = Block("patella", (-30, -30, 100), (-26, -26, 102), "left")
    assert [bone.name for bone in found(RIGHT_FEMUR, speck)] == ["right femur"]


def test_a_small_part_far_from_a_skull_is_something_else():
    skull = Block("skull", (-30, -30, 60), (30, 30, 120))
    mistaken = Block("skull", (-10, -10, 0), (10, 10, 12))
    (bone,) = found(skull, mistaken)
    assert ras(bone)[:, 2].min() > 55


def test_a_spine_that_is_counted_too_finely_is_unsure():
    blocks = [
        Block("vertebra", (-12, -12, 100 - 8 * n), (12, 12, 107 - 8 * n), number=10 + n) for n in range(6)
    ]
    bones = found(*blocks)
    assert [bone.place.number for bone in bones] == [10, 11, 12, 13, 14, 15]
    assert {bone.name for bone in bones} == {"vertebra"}


def test_a_vertebra_without_a_neighbor_is_unsure():
    (bone,) = found(*spine(1, 20))
    assert (bone.place.number, bone.sure) == (20, False)
