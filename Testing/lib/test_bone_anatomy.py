"""Sides by the midline, whatever the network says of them."""

import pytest

from BoneSAMLib.bone_map import found_bones
from BoneSAMLib.bone_scan import ScanGrid
from Testing.lib.hand_built_naming import Block, outputs_of

# Cells of 4 mm; RAS from about -62 to 62, the left half has R below 0.
GRID = ScanGrid(4.0, (62.0, 62.0, 0.0), (48, 32, 32))
SACRUM = Block("sacrum", (-24, -30, 40), (24, 0, 80))


def names(*blocks):
    return [bone.name for bone in found_bones(outputs_of(GRID, blocks), GRID)]


def pair(right_says, left_says, across=20.0):
    """Two femurs, and what the network says of their sides."""
    return (
        Block("femur", (across, 0, 4), (across + 20, 20, 36), right_says),
        Block("femur", (-across - 20, 0, 4), (-across, 20, 36), left_says),
    )


@pytest.mark.parametrize(("right_says", "left_says"), [("left", "left"), ("left", "right"), (None, None)])
def test_what_is_left_of_the_sacrum_is_a_left_bone(right_says, left_says):
    right, left = pair(right_says, left_says)
    assert names(SACRUM, right, left) == ["sacrum", "right femur", "left femur"]
    assert names(SACRUM, right) == ["sacrum", "right femur"]
    assert names(SACRUM, left) == ["sacrum", "left femur"]


def test_a_pair_tells_its_own_midline():
    assert names(*pair("left", "left", 40)) == ["right femur", "left femur"]


def test_one_bone_alone_or_parts_of_one_have_the_side_that_the_network_says():
    right, left = pair("left", "left", 12)
    assert names(right) == ["left femur"]
    assert names(left) == ["left femur"]
    near = Block("femur", (12, 0, 4), (20, 8, 12), "left")
    assert names(right, near) == ["left femur"]


def test_a_little_of_the_midline_says_nothing():
    right, _ = pair("left", "left")
    speck = Block("vertebra", (40, 0, 100), (60, 20, 112))
    assert "left femur" in names(speck, right)


def test_a_body_that_lies_aslant():
    """The spine leans to the left by 48 mm; a right bone at its top is left of its foot."""
    spine = [Block("vertebra", (-n * 6 - 30, -20, n * 20), (-n * 6 + 6, 16, n * 20 + 18)) for n in range(9)]
    clavicle = Block("clavicle", (-26, 20, 164), (-4, 30, 178), "left")
    assert "right clavicle" in names(*spine, clavicle)
