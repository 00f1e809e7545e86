"""Scans on the naming network's grid, however they lie."""

import numpy as np
import pytest

from BoneSAMLib.bone_scan import (
    COARSEST_MM,
    FINEST_MM,
    MULTIPLE,
    SIDE,
    ScanGrid,
    cells_to_voxels,
    grid_around,
    grid_between,
    grid_of,
    scan_on,
    spacing_channel,
)
from BoneSAMLib.volume import Volume

AXES = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
MIDDLE = np.array([10.0, -20.0, 300.0])  # RAS, of all volumes here
LOW, HIGH = np.array([22.0, -52.0, 290.0]), np.array([46.0, -24.0, 330.0])  # of a bright block, RAS


def turned(angle):
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]


def affine(orientation, spacing, size, rotation=None):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([AXES[letter] for letter in orientation]).T * np.array(spacing)
    if rotation is not None:
        matrix[:3, :3] = rotation @ matrix[:3, :3]
    matrix[:3, 3] = MIDDLE - matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    return matrix


def scan(orientation="RAS", spacing=(4.0, 4.0, 4.0), rotation=None, extent=(130.0, 130.0, 150.0)):
    """A dark CT with a block of bone between LOW and HIGH."""
    along = np.abs([AXES[letter] for letter in orientation]) @ np.array(extent)
    size = np.ceil(along / spacing).astype(int)
    matrix = affine(orientation, spacing, size, rotation)
    k, j, i = np.indices(size[::-1])
    ras = np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]
    inside = ((ras >= LOW) & (ras <= HIGH)).all(-1)
    return Volume(np.where(inside, 1250, -1000).astype(np.int16), matrix, modality="CT")


CASES = {
    "upright": scan(),
    "LPS": scan("LPS"),
    "sagittal": scan("ASL", (3.0, 3.0, 5.0)),
    "coronal": scan("RSP", (2.0, 2.0, 6.0)),
    "upside down": scan("RAI", (3.0, 3.0, 6.0)),
    "oblique": scan("LPS", (3.0, 3.0, 3.0), turned(20)),
    "oblique coronal": scan("LIA", (2.0, 2.0, 5.0), turned(-35)),
    "fine": scan("LPS", (1.3, 1.3, 2.0)),
}


@pytest.mark.parametrize("volume", CASES.values(), ids=CASES)
def test_a_bright_block_is_seen_where_it_lies_in_the_patient(volume):
    grid = grid_of(volume)
    seen = scan_on(volume, grid)
    assert seen.dtype == np.float32
    assert seen.shape == grid.shape
    cells = np.argwhere(seen > 0.5)[:, ::-1]
    # Half a voxel more or less at each end, and half a cell.
    slack = 0.5 * max(volume.spacing) * np.sqrt(3) + 0.5 * grid.spacing
    ras = grid.to_ras(cells)
    assert np.abs(ras.min(0) - LOW).max() < slack
    assert np.abs(ras.max(0) - HIGH).max() < slack
    bright = np.count_nonzero(volume.array > 0) * np.prod(volume.spacing)
    assert len(cells) * grid.spacing**3 == pytest.approx(bright, rel=0.25)


@pytest.mark.parametrize("volume", CASES.values(), ids=CASES)
def test_cells_voxels_and_patient_agree(volume):
    grid = grid_of(volume)
    cells = np.random.default_rng(0).uniform(0, 20, (30, 3))
    ras = grid.to_ras(cells)
    assert np.allclose(grid.to_cells(ras), cells)
    matrix = cells_to_voxels(volume, grid)
    voxels = cells @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.allclose(voxels @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3], ras)


@pytest.mark.parametrize("volume", CASES.values(), ids=CASES)
def test_the_grid_covers_the_volume(volume):
    grid = grid_of(volume)
    low, high = np.array(volume.bounds_ras).T
    first, last = np.sort([grid.to_ras(np.full(3, -0.5)), grid.to_ras(np.array(grid.shape[::-1]) - 0.5)], 0)
    assert (first <= low + 1e-6).all()
    assert (last >= high - 1e-6).all()
    assert all(n % MULTIPLE == 0 for n in grid.shape)
    assert FINEST_MM <= grid.spacing <= COARSEST_MM
    assert max(grid.shape) == SIDE  # none of these volumes is beyond the finest or coarsest grid


def test_axes_lead_to_left_posterior_and_superior():
    grid = ScanGrid(2.0, (10.0, 20.0, 30.0), (16, 16, 16))
    assert grid.to_ras(np.array([0, 0, 0])).tolist() == [10, 20, 30]
    assert grid.to_ras(np.array([1, 0, 0])).tolist() == [8, 20, 30]
    assert grid.to_ras(np.array([0, 1, 0])).tolist() == [10, 18, 30]
    assert grid.to_ras(np.array([0, 0, 1])).tolist() == [10, 20, 32]


def test_long_bodies_have_more_cells_and_small_parts_the_cube_of_training():
    body = Volume(np.zeros((20, 5, 5), np.int16), np.diag([100.0, 80.0, 90.0, 1.0]), modality="CT")
    grid = grid_of(body)
    assert grid.spacing == COARSEST_MM
    assert grid.shape == (304, 80, 96)
    finger = Volume(np.zeros((30, 10, 10), np.int16), np.eye(4), modality="CT")
    grid = grid_of(finger)
    assert grid.spacing == FINEST_MM
    assert grid.shape == (64, 64, 64)


def test_a_cube_around_a_box_has_half_of_its_size_to_spare():
    grid = grid_around(np.array([0.0, 10, 20]), np.array([100.0, 30, 60]))
    assert grid.shape == (SIDE,) * 3
    assert grid.spacing == pytest.approx(150 / SIDE)
    middle = (grid.to_ras(np.zeros(3)) + grid.to_ras(np.full(3, SIDE - 1))) / 2
    assert np.allclose(middle, [50, 20, 40])
    assert grid_around(np.zeros(3), np.ones(3)).spacing == FINEST_MM


def test_beyond_the_volume_is_nothing():
    bright = Volume(np.full((20, 20, 20), 1250, np.int16), np.diag([3.0, 3.0, 3.0, 1.0]), modality="CT")
    grid = grid_between(np.full(3, -60.0), np.full(3, 120.0), 4.0)
    seen = scan_on(bright, grid)
    w, v, u = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([u, v, w], -1))
    far = ((ras < -6) | (ras > 63)).any(-1)
    inside = ((ras > 3) & (ras < 54)).all(-1)
    assert not seen[far].any()
    assert np.allclose(seen[inside], 1)
    elsewhere = grid_between(np.full(3, 500.0), np.full(3, 560.0), 2.0)
    assert not scan_on(bright, elsewhere).any()


def test_a_cell_is_the_mean_of_finer_voxels():
    values = np.where(np.indices((64, 64, 64)).sum(0) % 2, 1250, -250).astype(np.int16)  # gray from afar
    fine = Volume(values, np.eye(4), modality="CT")
    coarse = scan_on(fine, ScanGrid(3.0, (54.5, 54.5, 9.5), (16, 16, 16)))
    assert np.abs(coarse - 0.5).max() < 0.05
    sharp = scan_on(fine, grid_between(np.full(3, 8.5), np.full(3, 24.5), 1.0))
    assert sharp.std() > 0.2


def test_a_part_of_the_volume_is_seen_as_in_the_whole():
    values = np.random.default_rng(0).integers(-200, 1200, (40, 40, 40)).astype(np.int16)
    volume = Volume(values, affine("LPS", (2.0, 2.0, 3.0), (40, 40, 40)), modality="CT")
    whole = grid_between(MIDDLE - 48, MIDDLE + 48, 3.0)
    part = ScanGrid(3.0, tuple(whole.to_ras(np.array([8, 9, 10])).tolist()), (16, 16, 16))
    seen = scan_on(volume, whole)[10:26, 9:25, 8:24]
    assert seen.std() > 0.1
    assert np.allclose(scan_on(volume, part), seen, atol=1e-4)


def test_the_network_is_told_the_spacing():
    assert spacing_channel(4.0) == 0
    assert spacing_channel(1.0) == pytest.approx(-0.125)
    assert spacing_channel(2.0).dtype == np.float32
