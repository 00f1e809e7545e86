"""A mask on other grids: shifted, cut off, refined, turned, far away."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.labelmap import Labelmap

SHAPE = (9, 11, 13)
MASK = np.random.default_rng(0).random(SHAPE) < 0.4


def turned(seed=0):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() * [0.7, 1.1, 2.3]
    affine[:3, 3] = 30, -20, 10
    return affine


@pytest.mark.parametrize("affine", [np.eye(4), turned()])
def test_same_grid_is_exact(affine):
    labelmap = Labelmap.from_mask(CroppedMask.from_array(MASK), affine)
    np.testing.assert_array_equal(labelmap.sampled((0, 0, 0), SHAPE, affine), MASK)


@pytest.mark.parametrize("shift", [(2, 0, 0), (-3, 1, 4), (0, -8, 0), (12, 10, 8), (40, 0, 0), (-13, 0, 0)])
@pytest.mark.parametrize("noise", [0, 1e-9])
def test_grid_that_begins_elsewhere(shift, noise):
    """As in a segmentation, which keeps the bounding box only, or after saving, which rounds."""
    affine = turned()
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ shift
    labelmap = Labelmap.from_mask(CroppedMask.from_array(MASK), affine)
    i, j, k = shift
    padded = np.pad(MASK, 50)
    expected = padded[50 + k : 59 + k, 50 + j : 61 + j, 50 + i : 63 + i]
    np.testing.assert_array_equal(
        labelmap.sampled((0, 0, 0), SHAPE, moved + noise * np.eye(4, k=3)), expected
    )
    # The same, said by the first index.
    np.testing.assert_array_equal(labelmap.sampled(shift, SHAPE, affine), expected)


def test_every_voxel_of_another_grid_takes_the_nearest():
    own, other = turned(1), turned(2)
    origin, shape = (-4, 3, -2), (12, 10, 14)
    # The middle of one is near the middle of the other.
    other[:3, 3] = (own @ [7, 3, 7, 1])[:3] - other[:3, :3] @ [3, 8, 4]
    found = Labelmap(MASK, (1, -2, 3), own).sampled(origin, shape, other)
    assert 50 < found.sum() < found.size / 2
    for index in np.ndindex(*shape):
        ijk = np.linalg.inv(own) @ other @ [*np.add(index[::-1], origin), 1]
        place = tuple((np.rint(ijk[:3]).astype(int) - (1, -2, 3))[::-1])
        inside = all(0 <= n < size for n, size in zip(place, SHAPE, strict=True))
        assert found[index] == (inside and MASK[place]), index


def test_refined_grid():
    finer = np.diag([0.5, 0.5, 0.5, 1.0])
    finer[:3, 3] = -0.25
    found = Labelmap(MASK, (0, 0, 0), np.eye(4)).sampled((0, 0, 0), (18, 22, 26), finer)
    np.testing.assert_array_equal(found, MASK.repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_nothing_far_away_or_of_nothing():
    far = turned() + np.eye(4, k=3) * 1e4
    assert not Labelmap(MASK, (0, 0, 0), turned(3)).sampled((0, 0, 0), SHAPE, far).any()
    empty = Labelmap.from_mask(CroppedMask.from_array(np.zeros(SHAPE, bool)), np.eye(4))
    assert empty.is_empty
    assert not empty.sampled((0, 0, 0), SHAPE, turned()).any()
    assert Labelmap(MASK, (0, 0, 0), np.eye(4)).sampled((0, 0, 0), (0, 0, 0), turned()).shape == (0, 0, 0)


def test_a_change_on_another_grid_leaves_the_rest():
    """A segment of 1 mm, corrected on slices of 4 mm that end before it does."""
    own = Labelmap(np.ones((40, 6, 6), bool), (10, 10, 0), np.eye(4))
    coarse = np.diag([1.0, 1.0, 4.0, 1.0])
    coarse[2, 3] = 1.5  # voxel k holds 4 k to 4 k + 3
    one = np.ones((1, 2, 2), bool)
    nothing = Labelmap(np.zeros((0, 0, 0), bool), (0, 0, 0), coarse)
    removed = own.changed(nothing, Labelmap(one, (10, 10, 2), coarse))
    assert removed.voxels.sum() == own.voxels.sum() - 2 * 2 * 4
    assert not removed.sampled((10, 10, 8), (4, 2, 2), np.eye(4)).any()
    added = own.changed(Labelmap(one, (16, 10, 2), coarse), nothing)
    assert added.voxels.sum() == own.voxels.sum() + 2 * 2 * 4
    assert added.sampled((16, 10, 8), (4, 2, 2), np.eye(4)).all()
    both = own.changed(Labelmap(one, (-9, 10, 2), coarse), Labelmap(one, (15, 10, 2), coarse))
    assert both.sampled((-9, 10, 8), (4, 2, 2), np.eye(4)).all()
    assert both.voxels.sum() == own.voxels.sum() + 16 - 8


def test_a_change_on_the_same_grid_is_exact():
    affine = turned()
    other = np.random.default_rng(1).random(SHAPE) < 0.4
    maps = [
        Labelmap.from_mask(CroppedMask.from_array(one), affine)
        for one in (MASK, other & ~MASK, MASK & ~other)
    ]
    found = maps[0].changed(maps[1], maps[2])
    np.testing.assert_array_equal(found.sampled((0, 0, 0), SHAPE, affine), other)
