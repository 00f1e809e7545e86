"""Meshes of anatomy, read and voxelized, on spheres whose answers are known."""

import numpy as np
import pytest

from BoneSAMLib.errors import BoneSAMError
from Testing.training.ball_meshes import GRID, sphere, write_meshes
from training.synthesis.anatomy.grid import Grid
from training.synthesis.anatomy.meshes import missing_organs, read_structures
from training.synthesis.anatomy.voxelizing import paint
from training.synthesis.tissues import FIRST_STRUCTURE


def test_meshes_are_turned_from_lps_to_ras(tmp_path):
    path = write_meshes(
        tmp_path, [sphere((-50.0, -20.0, 7.0), 5.0, name="First"), sphere((20.0, 30.0, -8.0), 5.0)]
    )
    first, second = read_structures(path)
    assert first.name == "first"
    assert first.points.mean(axis=0) == pytest.approx((-50.0, -20.0, 7.0), abs=0.1)
    assert second.points.mean(axis=0) == pytest.approx((20.0, 30.0, -8.0), abs=0.1)
    stored = np.load(tmp_path / "body.npz")["points_50th_mm"][:3000].mean(axis=0) / 50
    assert stored == pytest.approx((50.0, 20.0, 7.0), abs=0.1)


def test_missing_meshes_are_named(tmp_path):
    with pytest.raises(BoneSAMError, match=r"body\.json is missing"):
        read_structures(tmp_path / "body")


def test_lungs_are_made_from_airways_only_where_they_are_missing():
    airways = [sphere((side * 40.0, 0, 0), 20.0, "apical bronchial tree", "lung_airway") for side in (1, -1)]
    hulls = missing_organs(airways)
    assert [hull.name for hull in hulls] == ["right lung", "left lung"]
    assert hulls[0].low[0] > 0 > hulls[1].high[0]
    assert not missing_organs([*airways, sphere((0, 0, 0), 5.0, "upper lobe of left lung")])


@pytest.mark.parametrize("spacing", [1.0, 0.7])
def test_a_sphere_has_its_volume(spacing):
    ball = sphere((1.3, -2.2, 0.4), 17.0)
    exact = 4.0 / 3.0 * np.pi * 17.0**3
    grid = Grid.around((-25, -25, -25), (25, 25, 25), spacing)
    assert ball.volume == pytest.approx(exact, rel=0.01)
    assert (paint([ball], grid) > 0).sum() * spacing**3 == pytest.approx(exact, rel=0.02)


def test_voxels_lie_where_the_sphere_is():
    labels = paint([sphere((10.0, -5.0, 3.0), 8.0)], GRID)
    k, j, i = np.argwhere(labels).mean(axis=0)
    assert (i, j, k) == pytest.approx((40.0, 25.0, 33.0), abs=0.1)


def test_a_sphere_beyond_the_border_is_cut_and_one_outside_left_out():
    labels = paint([sphere((30.0, 0.0, 0.0), 10.0), sphere((100.0, 0.0, 0.0), 10.0)], GRID)
    assert set(np.unique(labels)) == {0, FIRST_STRUCTURE}
    assert labels[30, 30, 60]
    assert not labels[30, 30, 45]


def test_bones_win_over_soft_structures_and_teeth_over_bones():
    soft, bone = sphere((0, 0, 0), 5.0, tissue="muscle"), sphere((0, 0, 0), 15.0)
    tooth, small = sphere((0, 0, 0), 12.0, tissue="tooth"), sphere((25, 0, 0), 3.0, tissue="vessel")
    labels = paint([tooth, soft, bone, small, sphere((25, 0, 0), 5.0, tissue="organ")], GRID)
    assert labels[30, 30, 30] == FIRST_STRUCTURE
    assert labels[30, 30, 43] == FIRST_STRUCTURE + 2
    assert labels[30, 30, 55] == FIRST_STRUCTURE + 3
