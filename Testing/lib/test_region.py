"""Region: what is sampled where, and the way back."""

import itertools

import numpy as np
import pytest

from BoneSAMLib.region import CUBE, PIXELS, Region, SliceFrame, interpolation
from BoneSAMLib.volume import Volume


def ct(array, spacing=(1.0, 1.0, 1.0)):
    """A volume whose values v are seen as v / 1000 by the network; axes to L, P and I, as on the screen."""
    affine = np.diag([*np.negative(spacing), 1.0])
    return Volume((np.asarray(array) * 1.5 - 250).astype(np.float32), affine, modality="CT")


def ramp(size, spacing, axis, axis_of_stack=2):
    """A frame over a volume whose values (0..1000) rise along an IJK axis."""
    shape = size[::-1]
    values = np.linspace(0, 1000, size[axis])
    array = np.broadcast_to(values.reshape([-1 if 2 - axis == a else 1 for a in range(3)]), shape)
    return SliceFrame(ct(array, spacing), axis_of_stack)


# ------------------------------------------------------------------------------------------- interpolation


def test_the_same_grid_is_left_alone():
    np.testing.assert_allclose(interpolation(np.arange(7.0), 7, 1.0), np.eye(7), atol=1e-7)


@pytest.mark.parametrize("step", [0.1, 0.7, 1.0, 1.7, 6.0])
def test_rows_sum_to_one_inside_and_to_zero_outside(step):
    places = np.array([-3.0, -0.51, -0.5, 0.0, 3.3, 8.9, 9.5, 9.51, 40.0])
    total = interpolation(places, 10, step).sum(1)
    np.testing.assert_allclose(total, [0, 0, 1, 1, 1, 1, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("step", [0.3, 1.0, 2.5, 7.0])
def test_straight_lines_are_kept_away_from_the_ends(step):
    places = np.arange(20, 80, step)
    sampled = interpolation(places, 100, step) @ np.arange(100, dtype=np.float32)
    np.testing.assert_allclose(sampled, places, atol=0.02 * step)


def test_a_coarser_grid_keeps_the_mean_and_misses_nothing():
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    step = 1000 / 32
    sampled = interpolation((np.arange(32) + 0.5) * step - 0.5, 1000, step) @ values
    assert sampled.mean() == pytest.approx(values.mean(), abs=0.005)
    for place in range(0, 1000, 37):
        spike = np.zeros(1000, np.float32)
        spike[place] = 1
        assert (interpolation((np.arange(32) + 0.5) * step - 0.5, 1000, step) @ spike).max() > 0


def test_one_value_is_the_same_everywhere_in_its_voxel():
    np.testing.assert_allclose(interpolation(np.array([-0.4, 0, 0.5, 0.6]), 1, 0.3)[:, 0], [1, 1, 1, 0])


# --------------------------------------------------------------------------------------------- coordinates


@pytest.mark.parametrize(("axis", "order"), [(0, (1, 2, 0)), (1, (0, 2, 1)), (2, (0, 1, 2))])
def test_a_frame_is_the_volume_in_another_order(axis, order):
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    frame = SliceFrame(ct(array, (1.0, 2.0, 3.0)), axis)
    assert frame.order == order
    assert frame.size == tuple((4, 3, 2)[a] for a in order)
    assert frame.spacing == tuple((1.0, 2.0, 3.0)[a] for a in order)
    u, v, w = frame.from_ijk((3, 1, 0)).astype(int)
    assert frame.of_array(array)[w, v, u] == array[0, 1, 3]
    assert np.shares_memory(frame.of_array(array), array)


ORIENTATIONS = [
    "".join(pair[n] for pair, n in zip(pairs, ends, strict=True))
    for pairs in itertools.permutations(("LR", "PA", "IS"))
    for ends in itertools.product((0, 1), repeat=3)
]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("across", ["LR", "PA", "IS"])
def test_slices_look_the_same_however_the_file_stores_them(orientation, across):
    body = np.random.default_rng(3).random((6, 7, 8)).astype(np.float32)  # axes to R, A and S
    rows = ["LPI".index(letter) if letter in "LPI" else "RAS".index(letter) for letter in orientation]
    signs = [1.0 if letter in "RAS" else -1.0 for letter in orientation]
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, rows] * signs
    affine[:3, 3] = [body.shape[row] - 1 if signs[rows.index(row)] < 0 else 0 for row in range(3)]
    stored = body.transpose(rows)[tuple(slice(None, None, int(sign)) for sign in signs)]
    volume = Volume(stored.transpose(2, 1, 0), affine)
    assert volume.orientation == orientation
    axis = next(n for n, letter in enumerate(orientation) if letter in across)
    frame = SliceFrame(volume, axis)
    seen = frame.of_array(volume.array)
    # To the right and down on the screen: L and P, L and I, or P and I.
    on_screen = {"IS": body[::-1, ::-1].transpose(2, 1, 0), "PA": body[::-1, :, ::-1].transpose(1, 2, 0)}
    on_screen["LR"] = body[:, ::-1, ::-1].transpose(0, 2, 1)
    forward = signs[axis] > 0
    np.testing.assert_array_equal(seen if forward else seen[::-1], on_screen[across])
    ijk = np.argwhere(volume.array == body[1, 2, 5])[0, ::-1]
    u, v, w = frame.from_ijk(ijk).astype(int)
    assert seen[w, v, u] == body[1, 2, 5]
    assert np.shares_memory(seen, volume.array)


def test_pixels_run_from_edge_to_edge():
    region = Region(ramp((40, 30, 20), (0.5, 1.0, 4.0), 0), (10.0, 12.0), 16.0)
    assert region.scale == 16
    np.testing.assert_allclose(region.to_pixels([20, 12, 0]), [128, 128, 0])  # the center
    np.testing.assert_allclose(region.to_pixels([4, 4, 2]), [0, 0, 128])  # first edge, 8 mm deep
    np.testing.assert_allclose(region.to_pixels([[36, 20, -1]]), [[256, 256, -64]])


def test_contains():
    region = Region(ramp((40, 30, 20), (1.0, 1.0, 1.0), 0), (10.0, 12.0), 16.0)
    assert region.contains(np.array([2.0, 4.0, -9.0]), np.array([18.0, 20.0, 99.0]))
    assert not region.contains(np.array([1.9, 4.0, 0.0]), np.array([18.0, 20.0, 0.0]))
    assert not region.contains(np.array([2.0, 4.0, 0.0]), np.array([18.0, 20.1, 0.0]))


def test_pixel_boxes_become_voxel_faces():
    region = Region(ramp((40, 30, 20), (0.5, 1.0, 4.0), 0), (10.0, 12.0), 16.0)
    low, high = region.to_voxel_faces((0, 0), (127, 127), 128)
    np.testing.assert_allclose([low, high], [[4, 4], [36, 20]])
    low, high = region.to_voxel_faces((64, 0), (64, 0), 128)
    np.testing.assert_allclose([low, high], [[20, 4], [20.25, 4.125]])
    beyond = Region(region.frame, (0.0, 0.0), 100.0)
    low, high = beyond.to_voxel_faces((0, 0), (127, 127), 128)
    np.testing.assert_allclose([low, high], [[-0.5, -0.5], [39.5, 29.5]])


# ----------------------------------------------------------------------------------------------- to pixels


@pytest.mark.parametrize("stack", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_show_what_is_there(axis, stack):
    size, spacing = (60, 50, 40), (0.5, 0.8, 3.0)
    frame = ramp(size, spacing, axis, stack)
    center = [0.4 * n * s for n, s in zip(frame.size[:2], frame.spacing[:2], strict=True)]
    region = Region(frame, (center[0], center[1]), 9.0)
    slices = region.slices(np.array([17]))
    assert slices.shape == (1, 3, PIXELS, PIXELS)
    offset = (np.arange(PIXELS) + 0.5) / PIXELS * 9.0 - 4.5
    place = frame.order.index(axis)
    if place == 2:
        expected = np.broadcast_to(np.array([16.0, 17, 18])[:, None, None], slices.shape[1:])
    else:
        voxels = (center[place] + offset) / frame.spacing[place]
        expected = np.broadcast_to(
            voxels[None, None] if place == 0 else voxels[None, :, None], slices.shape[1:]
        )
    np.testing.assert_allclose(slices[0] * (size[axis] - 1), expected, atol=0.02)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_cube_shows_what_is_there(axis):
    frame = ramp((120, 100, 60), (0.5, 0.6, 1.5), axis)
    cube = Region(frame, (30.0, 30.0), 40.0).cube(30.0)
    assert cube.shape == (CUBE, CUBE, CUBE)
    assert cube.dtype == np.float32
    middle = (30.0 / 0.5, 30.0 / 0.6, 30.0)[axis]
    offset = ((np.arange(CUBE) + 0.5) / CUBE - 0.5) * 40.0
    expected = middle + offset / frame.spacing[axis]
    line = np.moveaxis(cube, 2 - axis, 0)[:, CUBE // 2, CUBE // 2] * (frame.size[axis] - 1)
    np.testing.assert_allclose(line, expected, atol=0.1)


def test_pixels_are_square_whatever_the_spacing():
    j, i = np.mgrid[:100, :200]
    disk = np.hypot(i * 0.5 - 50, j * 1.0 - 50) < 20
    frame = SliceFrame(ct(1000.0 * disk[None].repeat(3, 0), (0.5, 1.0, 5.0)), 2)
    image = Region(frame, (50.0, 50.0), 80.0).slices(np.array([1]))[0, 1] > 0.5
    rows, columns = np.nonzero(image)
    assert np.ptp(rows) == pytest.approx(126, abs=4)
    assert np.ptp(columns) == pytest.approx(126, abs=4)
    assert image.sum() == pytest.approx(np.pi * 64**2, rel=0.04)


def test_neighbors_come_in_order_and_are_black_beyond_the_stack():
    array = np.full((4, 8, 8), 0.0) + 100.0 * np.arange(1, 5)[:, None, None]
    region = Region(SliceFrame(ct(array), 2), (3.5, 3.5), 8.0)
    seen = region.slices(np.array([3, 0, 2])).mean((2, 3))
    np.testing.assert_allclose(seen, [[0.3, 0.4, 0.0], [0.0, 0.1, 0.2], [0.2, 0.3, 0.4]], atol=1e-3)


def test_a_single_slice_is_its_own_neighbor():
    region = Region(SliceFrame(ct(np.full((1, 8, 8), 700.0)), 2), (3.5, 3.5), 8.0)
    np.testing.assert_allclose(region.slices(np.array([0])), 0.7, atol=1e-3)


def test_beyond_the_volume_is_black():
    region = Region(SliceFrame(ct(np.full((3, 8, 8), 1000.0)), 2), (-0.5, 3.5), 16.0)
    image = region.slices(np.array([1]))[0, 1]
    assert (image[:, :128] == 0).all()
    assert (image[64:192, 128:] > 0.999).all()
    assert (image[:64] == 0).all()
    cube = region.cube(1.0)
    assert (cube[:, :, :32] == 0).all()
    assert (cube[27:37, 20:40, 34:60] > 0.99).all()
    assert (cube[:25] == 0).all()


def test_a_region_without_any_voxel_is_black_and_has_no_voxels():
    region = Region(SliceFrame(ct(np.full((3, 8, 8), 1000.0)), 2), (-50.0, 3.5), 16.0)
    assert not region.slices(np.array([1])).any()
    assert not region.cube(1.0).any()
    assert region.to_voxels(np.ones((1, 128, 128), np.float32)).shape[2] == 0


def test_fine_pixels_are_averaged_not_skipped():
    array = np.zeros((3, 1024, 1024))
    array[:, ::2] = 1000.0
    image = Region(SliceFrame(ct(array), 2), (511.5, 511.5), 900.0).slices(np.array([1]))[0, 1]
    np.testing.assert_allclose(image, 0.5, atol=0.05)


# ------------------------------------------------------------------------------------------------ and back


def smooth(h):
    y, x = (np.mgrid[:h, :h] + 0.5) / h
    return (np.sin(5 * x) + np.cos(4 * y) + x * y).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 5.0), (0.4, 0.7, 1.0), (2.0, 0.3, 1.0)])
def test_there_and_back(spacing):
    size = (round(90 / spacing[0]), round(80 / spacing[1]), 3)
    region = Region(ramp(size, spacing, 0), (44.0, 41.0), 60.0)
    values = smooth(128)
    voxels = region.to_voxels(values[None])[0]
    rows, columns = region.voxels
    assert voxels.shape == (rows.stop - rows.start, columns.stop - columns.start)
    x = (np.arange(columns.start, columns.stop) * spacing[0] - 14.0) / 60.0
    y = (np.arange(rows.start, rows.stop) * spacing[1] - 11.0) / 60.0
    expected = np.sin(5 * x)[None] + np.cos(4 * y)[:, None] + x[None] * y[:, None]
    inside = (np.abs(y - 0.5) < 0.45)[:, None] & (np.abs(x - 0.5) < 0.45)
    np.testing.assert_allclose(voxels[inside], expected[inside], atol=0.02)
    np.testing.assert_allclose(voxels, expected, atol=0.1)
    whole = np.zeros((size[1], size[0]), np.float32)
    whole[rows, columns] = voxels
    again = region.from_voxels(whole, 128)
    np.testing.assert_allclose(again[8:-8, 8:-8], values[8:-8, 8:-8], atol=0.04)


def test_voxels_are_those_whose_centers_lie_in_the_square():
    region = Region(ramp((40, 30, 3), (1.0, 2.0, 1.0), 0), (3.0, 31.0), 12.0)
    rows, columns = region.voxels
    assert (columns.start, columns.stop) == (0, 10)  # -3 to 9 mm
    assert (rows.start, rows.stop) == (13, 19)  # 25 to 37 mm: 26 to 36
    assert region.to_voxels(np.zeros((5, 128, 128), np.float32)).shape == (5, 6, 10)


def test_every_voxel_of_the_square_gets_a_value():
    region = Region(ramp((40, 30, 3), (0.7, 1.3, 1.0), 0), (3.0, 31.0), 12.0)
    np.testing.assert_allclose(region.to_voxels(np.ones((2, 128, 128), np.float32)), 1.0, atol=1e-5)


def test_values_move_to_another_square():
    frame = ramp((90, 80, 3), (1.0, 1.0, 1.0), 0)
    region, other = Region(frame, (40.0, 40.0), 40.0), Region(frame, (50.0, 45.0), 60.0)
    moved = region.to_region(smooth(128)[None], other, -8.0)[0]
    mm = (np.arange(128) + 0.5) / 128 * 60
    x, y = (20 + mm - 20) / 40, (15 + mm - 20) / 40
    inside = ((y > 0.02) & (y < 0.98))[:, None] & ((x > 0.02) & (x < 0.98))
    expected = np.sin(5 * x)[None] + np.cos(4 * y)[:, None] + x[None] * y[:, None]
    np.testing.assert_allclose(moved[inside], expected[inside], atol=0.03)
    outside = ((y < -0.02) | (y > 1.02))[:, None] | ((x < -0.02) | (x > 1.02))
    np.testing.assert_allclose(moved[outside], -8.0, atol=1e-5)
    np.testing.assert_allclose(region.to_region(smooth(128)[None], region, -8.0)[0], smooth(128), atol=1e-5)
