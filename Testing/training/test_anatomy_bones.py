"""Bones of label volumes: how deep their voxels lie, and which of their pieces become targets."""

import numpy as np
import pytest

from Testing.training.ball_meshes import GRID, sphere
from training.store import DEPTH_UNIT_MM
from training.synthesis.anatomy.bones import bone_depth, separate_objects
from training.synthesis.anatomy.voxelizing import paint


def test_depth_at_the_center_is_the_radius():
    depth = bone_depth(paint([sphere((0, 0, 0), 20.0)], GRID), GRID.sampling)
    assert depth.dtype == np.uint8
    assert depth[30, 30, 30] * DEPTH_UNIT_MM == pytest.approx(20.0, abs=1.0)
    assert depth[30, 30, 30 + 10] * DEPTH_UNIT_MM == pytest.approx(10.0, abs=1.0)
    assert depth[0, 0, 0] == 0


def test_touching_bones_each_have_a_surface():
    hard = np.zeros((20, 20, 20), np.uint16)
    hard[:, :, :10], hard[:, :, 10:] = 2, 3
    depth = bone_depth(hard, (1.0, 1.0, 1.0))
    assert depth[10, 10, 9] == depth[10, 10, 10] == 2
    assert depth[10, 10, 5] == depth[10, 10, 14] == 18
    # The border of the volume is no surface.
    assert depth[10, 10, 0] == depth[0, 0, 0] == 38


def test_depth_saturates():
    hard = np.zeros((3, 3, 50), np.uint16)
    hard[:, :, 1:] = 2
    assert bone_depth(hard, (1.0, 1.0, 3.0))[1, 1, 49] == 255


def test_pieces_of_one_label_become_objects_and_crumbs_do_not():
    labels = np.zeros((30, 30, 30), np.uint16)
    labels[5:15, 5:15, 5:15] = 2
    labels[5:15, 5:15, 20:30] = 2
    labels[25, 25, 5] = 2
    table = {0: ("air", "air"), 1: ("fat", "fat"), 2: ("pelvis", "bone")}
    first, second = separate_objects(labels, table)
    assert [first["label"], second["label"]] == [2, 3]
    assert {first["voxels"], second["voxels"]} == {1000}
    left, right = sorted((first, second), key=lambda row: row["low"][0])
    assert left["low"] == [5, 5, 5]
    assert left["high"] == [14, 14, 14]
    assert left["complete"]
    assert not right["complete"]
    assert table[3] == ("pelvis, piece 2", "bone")
    assert (labels == 3).sum() == 1000
