"""Smoothing, the box as a limit, islands; and the masks and boxes they work on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.oriented_box import OrientedBox
from BoneSAMLib.postprocess import keep_inside, postprocess, remove_small_islands, smooth
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Volume

SHAPE = (24, 30, 36)


def volume(shape=SHAPE, spacing=(1.0, 1.0, 1.0), turn=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = -7, 11, 5
    return Volume(np.zeros(shape, np.uint8), affine)


def full(shape=SHAPE):
    return CroppedMask.from_array(np.ones(shape, bool))


def ball(radius, shape=SHAPE, spacing=(1.0, 1.0, 1.0)):
    k, j, i = np.indices(shape)
    middle = [(n - 1) / 2 for n in shape]
    squared = sum(
        ((axis - m) * s) ** 2 for axis, m, s in zip((k, j, i), middle, reversed(spacing), strict=True)
    )
    return squared <= radius**2


def world(volume):
    """RAS of every voxel, [k, j, i, 3]."""
    k, j, i = np.indices(volume.shape)
    return np.stack([i, j, k, np.ones_like(i)], -1) @ volume.ijk_to_ras[:3].T


# ---------------------------------------------------------------------------------------------------- masks


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(1, 5)] * 3), elements=st.booleans()))
def test_a_cropped_mask_is_the_same_mask(array):
    mask = CroppedMask.from_array(array)
    assert np.array_equal(mask.to_array(), array)
    assert mask.is_empty == (not array.any())
    assert mask.crop.sum() == array.sum()
    assert mask == CroppedMask.from_array(array.copy())
    if not mask.is_empty:
        assert np.array_equal(array[mask.slices], mask.crop)
        for axis in range(3):  # no smaller box holds it
            assert mask.crop.take([0, -1], axis).any((axis - 1, axis - 2)).all()


def test_a_crop_lies_where_it_belongs():
    mask = CroppedMask.from_crop((9, 9, 9), (2, 3, 4), np.pad(np.ones((2, 2, 2), bool), 1))
    assert mask.start == (3, 4, 5)
    assert mask.start_ijk == (5, 4, 3)
    assert mask.to_array()[3:5, 4:6, 5:7].all()
    assert mask.to_array().sum() == 8


# ------------------------------------------------------------------------------------------------ smoothing


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 2.0)])
def test_smoothing_removes_noise_and_keeps_the_size(spacing):
    clean = ball(8.0, spacing=spacing)
    generator = np.random.default_rng(0)
    edge = ball(9.0, spacing=spacing) & ~ball(7.0, spacing=spacing)
    noisy = clean ^ (edge & (generator.random(SHAPE) < 0.3))
    smoothed = smooth(CroppedMask.from_array(noisy), volume(spacing=spacing), 1.5).to_array()
    assert (smoothed ^ clean).sum() < 0.6 * (noisy ^ clean).sum()
    assert abs(int(smoothed.sum()) - int(noisy.sum())) <= 0.01 * noisy.sum()


def test_a_thin_plate_does_not_vanish():
    plate = np.zeros(SHAPE, bool)
    plate[12, 5:25, 5:30] = True
    smoothed = smooth(CroppedMask.from_array(plate), volume(), 3.0)
    assert 0.8 < smoothed.to_array().sum() / plate.sum() < 1.3


def test_a_bone_cut_by_the_end_of_the_scan_stays_cut_there():
    bone = np.zeros(SHAPE, bool)
    bone[:, 8:22, 8:22] = True
    smoothed = smooth(CroppedMask.from_array(bone), volume(), 1.0).to_array()
    assert np.array_equal(smoothed[0], smoothed[12])


def test_smoothing_of_a_radiograph_and_of_nothing():
    flat = np.zeros((1, 30, 36), bool)
    flat[0, 5:20, 5:20] = True
    smoothed = smooth(CroppedMask.from_array(flat), volume(flat.shape, (0.1, 0.1, 1.0)), 0.2)
    assert smoothed.shape == flat.shape
    assert abs(int(smoothed.to_array().sum()) - 225) <= 0.05 * 225
    assert smooth(CroppedMask.from_array(np.zeros(SHAPE, bool)), volume(), 2.0).is_empty


# -------------------------------------------------------------------------------------------------- the box


@pytest.mark.parametrize("seed", range(6))
def test_inside_a_turned_box_of_an_oblique_volume(seed):
    turns = Rotation.random(2, random_state=seed).as_matrix()
    scan = volume(spacing=(0.8, 1.1, 1.7), turn=turns[0])
    to_ras = np.eye(4)
    to_ras[:3, :3], to_ras[:3, 3] = turns[1] * (1, -1, 1), scan.center_ras
    box = OrientedBox.from_matrix((6, -4, 9), (-5, 7, -8), to_ras)
    places = np.concatenate([world(scan), np.ones((*SHAPE, 1))], -1) @ np.linalg.inv(to_ras)[:3].T
    expected = ((places >= (-5, -4, -8)) & (places <= (6, 7, 9))).all(-1)
    assert np.array_equal(keep_inside(full(), scan, box).to_array(), expected)
    low, high = box.to_ijk(scan)
    found = np.argwhere(expected)[:, ::-1]
    assert (found >= low).all()
    assert (found <= high).all()


def test_inside_a_box_along_the_body_of_an_oblique_volume():
    scan = volume(turn=Rotation.from_euler("z", 30, degrees=True).as_matrix())
    center = np.array(scan.center_ras)
    box = Box.from_ras(center + 6, center - 6)
    expected = (np.abs(world(scan) - center) <= 6 + 1e-6).all(-1)
    assert np.array_equal(keep_inside(full(), scan, box).to_array(), expected)


def test_inside_a_box_of_voxels_is_inclusive():
    kept = keep_inside(full(), volume(), Box.from_ijk((9, 8, 7), (3, 4, 5))).to_array()
    assert kept[5:8, 4:9, 3:10].all()
    assert kept.sum() == 3 * 5 * 7


@pytest.mark.parametrize(
    "box",
    [
        Box.from_ijk((3, 3, 9), (20, 20, 9)),
        OrientedBox.from_matrix(
            (-5, -5, -0.1), (5, 5, 0.1), [[0.8, 0, 0.6, 10], [0, 1, 0, 25], [-0.6, 0, 0.8, 16], [0, 0, 0, 1]]
        ),
    ],
)
def test_a_box_on_one_slice_does_not_limit_the_bone(box):
    assert keep_inside(full(), volume(), box) == full()


def test_a_box_on_a_radiograph_limits_within_the_image():
    shape = (1, 30, 36)
    for box in (
        Box.from_ijk((3, 3, 0), (12, 9, 0)),
        OrientedBox.from_matrix((-4, 14, 60), (5, 20, 61), np.eye(4)),
    ):
        assert keep_inside(full(shape), volume(shape), box).to_array().sum() == 70


def test_a_turned_box_without_meaning_is_refused():
    for arguments in (
        ((0, 0, 0), (0, 0, 9), np.eye(4)),
        ((0, 0, 0), (9, 9, np.nan), np.eye(4)),
        ((0, 0, 0), (9, 9, 9), np.zeros((4, 4))),
        ((0, 0), (9, 9), np.eye(4)),
    ):
        with pytest.raises(BoneSAMError):
            OrientedBox.from_matrix(*arguments)
    with pytest.raises(BoneSAMError, match="The volume lies at R"):
        OrientedBox.from_matrix((900, 900, 900), (990, 990, 990), np.eye(4)).to_ijk(volume())


# -------------------------------------------------------------------------------------------------- islands


def test_only_the_largest_part_and_clicked_ones_stay():
    array = np.zeros(SHAPE, bool)
    array[2:10, 2:10, 2:10] = True
    array[15:17, 15:17, 15:17] = True
    array[20, 20, 20] = True
    mask = CroppedMask.from_array(array)
    kept = remove_small_islands(mask, volume()).to_array()
    assert kept.sum() == 512
    points = [
        Point.from_ijk((15.4, 16, 16)),
        Point.from_ijk((20, 20, 20), positive=False),
        Point.from_ijk((30, 1, 1)),
        Point.from_ijk((12, 12, 12)),
    ]
    assert remove_small_islands(mask, volume(), points).to_array().sum() == 512 + 8


def test_all_steps_together_and_none():
    array = ball(8.0)
    array[1, 1, 1] = True
    mask = CroppedMask.from_array(array)
    assert postprocess(mask, volume()) == mask
    done = postprocess(mask, volume(), 1.0, Box.from_ijk((0, 0, 0), (35, 29, 12)), []).to_array()
    assert not done[13:].any()
    assert not done[1, 1, 1]
    empty = CroppedMask.from_array(np.zeros(SHAPE, bool))
    assert postprocess(empty, volume(), 1.0, Box.from_ijk((0, 0, 0), (3, 3, 3)), []) == empty
