"""Random frames: there and back, lattices, and slices that stay slices."""

import numpy as np
import pytest

from training.warp import MISORIENTED, Slicing, lattice, random_frame

OBJECT_MM = 100.0
TILTED = 0.5
THIN = Slicing(2, False, "RAS")


def warped_frames(count, slicing=THIN, spacing=(0.8, 1.0, 2.5)):
    rng = np.random.default_rng(4)
    frames = []
    while len(frames) < count:
        frame = random_frame(np.array(spacing), slicing, OBJECT_MM, TILTED, rng)
        if len(frame.phases):
            frames.append(frame)
    return frames


def test_from_voxels_is_the_inverse_of_to_voxels():
    voxels = np.random.default_rng(0).uniform(0, OBJECT_MM, (200, 3)) / (0.8, 1.0, 2.5)
    errors = []
    for frame in warped_frames(60):
        back = frame.to_voxels(frame.from_voxels(voxels))
        errors.append(np.linalg.norm((back - voxels) * frame.spacing, axis=1).max())
    # Strong warps need more steps than are taken; a box is drawn less exactly than that.
    assert np.median(errors) < 0.02
    assert np.percentile(errors, 85) < 0.1
    assert max(errors) < 0.02 * OBJECT_MM


def test_a_frame_without_a_warp_is_exact():
    rng = np.random.default_rng(5)
    frames = (random_frame(np.ones(3), THIN, 50, TILTED, rng) for _ in range(100))
    frame = next(frame for frame in frames if not len(frame.phases))
    voxels = rng.uniform(0, 50, (100, 3))
    assert np.allclose(frame.to_voxels(frame.from_voxels(voxels)), voxels, atol=1e-9)
    assert np.allclose(frame.axes.T @ frame.axes, np.eye(3))


def test_the_warp_does_not_fold_space():
    step = 1e-3
    points = np.random.default_rng(1).uniform(-OBJECT_MM, OBJECT_MM, (200, 3))
    for frame in warped_frames(40):
        columns = [
            (frame.to_voxels(points + step * e) - frame.to_voxels(points - step * e)) / (2 * step)
            for e in np.eye(3)
        ]
        determinant = np.linalg.det(np.stack(columns, -1))
        rigid = np.linalg.det(frame.axes) / np.prod(frame.spacing * frame.scale)
        assert (determinant / rigid > 0.2).all()


@pytest.mark.parametrize("size", [48, 64, 192])
def test_a_lattice_is_what_the_frame_says_to_a_part_of_a_pixel(size):
    pixel = 1.6 * OBJECT_MM / size
    offsets = (np.arange(size) - (size - 1) / 2) * pixel
    errors = []
    for frame in warped_frames(20):
        u, v, w = offsets + 20, offsets - 10, np.array([3.0, 4.0, 5.0])
        nodes = np.stack(np.meshgrid(w, v, u, indexing="ij")[::-1], axis=-1)
        fast = lattice(frame, u, v, w)
        assert fast.shape == (3, size, size, 3)
        errors.append(np.abs((fast - frame.to_voxels(nodes)) * frame.spacing).max())
    assert np.median(errors) < 0.3 * pixel
    assert max(errors) < 1.0 * pixel


def test_a_short_lattice_is_exact():
    for frame in warped_frames(5):
        u, v, w = np.linspace(-20, 30, 8), np.linspace(5, 40, 6), np.array([3.0])
        nodes = np.stack(np.meshgrid(w, v, u, indexing="ij")[::-1], axis=-1)
        assert np.allclose(lattice(frame, u, v, w), frame.to_voxels(nodes), atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_are_kept(axis):
    spacing = np.array([0.7, 0.9, 1.1])
    spacing[axis] = 4.0
    points = np.random.default_rng(2).uniform(-60, 60, (50, 3))
    for frame in warped_frames(10, Slicing(axis, True, "RAS"), spacing):
        points[:, 2] = 5 * spacing[axis]
        along = frame.to_voxels(points)[:, axis]
        assert np.allclose(np.abs(along), 5, atol=1e-9)


@pytest.mark.parametrize("tilted", [0.0, 0.3])
def test_as_many_frames_as_asked_for_follow_no_voxel_axis(tilted):
    rng = np.random.default_rng(6)
    frames = [random_frame(np.ones(3), THIN, OBJECT_MM, tilted, rng) for _ in range(300)]
    along = [np.abs(frame.axes[:, 2]).max() > 0.9999 for frame in frames]
    assert np.mean(along) == pytest.approx(1 - tilted, abs=0.08)


def test_most_frames_lie_as_on_the_screen_or_mirrored():
    rng = np.random.default_rng(7)
    frames = [random_frame(np.ones(3), Slicing(0, True, "PIR"), OBJECT_MM, 0.0, rng) for _ in range(600)]
    # Slices across P-A: u leads to the left (against k) or, in the mirror, to the right; v to inferior (j).
    down = np.mean([frame.axes[1, 1] > 0.5 for frame in frames])
    left = np.mean([frame.axes[2, 0] < -0.5 for frame in frames])
    assert down == pytest.approx(1 - 0.75 * MISORIENTED, abs=0.08)
    assert left == pytest.approx(0.5, abs=0.08)
