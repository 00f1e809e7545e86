"""The metrics against what geometry says of spheres and disks."""

import math

import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_distance import compute_average_surface_distance

from training.metrics import Agreement, compare, diagonal_mm, overlap

RADIUS = 20.0


def ball(spacing, center_mm, radius, shape=(70, 70, 70)):
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    x, y, z = (index * length - c for index, length, c in zip((i, j, k), spacing, center_mm, strict=True))
    return x**2 + y**2 + z**2 <= radius**2


def shifted_surface_distances(shift):
    """Distances from evenly spread points of a sphere to the same sphere shifted by ``shift`` mm."""
    cosines = np.linspace(-1, 1, 20001)
    return np.abs(np.sqrt(RADIUS**2 + shift**2 - 2 * RADIUS * shift * cosines) - RADIUS)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (0.4, 0.6, 0.8)])
def test_shifted_spheres(spacing, axis):
    shift = 4.0
    shape = tuple(int(56 / length) for length in reversed(spacing))
    center = [26.1, 26.2, 26.3]
    moved = list(center)
    moved[axis] += shift
    agreement = compare(ball(spacing, moved, RADIUS, shape), ball(spacing, center, RADIUS, shape), spacing)
    shared = math.pi * (4 * RADIUS + shift) * (2 * RADIUS - shift) ** 2 / 12
    dice = shared / (4 / 3 * math.pi * RADIUS**3)
    distances = shifted_surface_distances(shift)
    assert agreement.dice == pytest.approx(dice, abs=0.005)
    assert agreement.iou == pytest.approx(dice / (2 - dice), abs=0.008)
    assert agreement.precision == pytest.approx(dice, abs=0.01)
    assert agreement.recall == pytest.approx(dice, abs=0.01)
    # Voxel surfaces are stairs, and the nearest stair is never farther than the smooth surface.
    assert agreement.hd95_mm == pytest.approx(np.percentile(distances, 95), abs=0.4)
    assert -0.4 < agreement.assd_mm - np.mean(distances) < 0.1
    assert 0 <= agreement.nsd_2mm - np.mean(distances <= 2) < 0.12
    assert agreement.empty == ""


def test_distances_are_those_of_monai():
    spacing = (1.0, 0.8, 2.0)
    truth = ball(spacing, (20, 16, 30), 12, (30, 40, 40))
    other = ball(spacing, (23, 17, 32), 10, (30, 40, 40))
    agreement = compare(other, truth, spacing)
    tensors = [torch.from_numpy(mask)[None, None] for mask in (other, truth)]
    same = {"include_background": True, "spacing": list(reversed(spacing))}
    hd95 = compute_hausdorff_distance(*tensors, percentile=95, **same)
    assd = compute_average_surface_distance(*tensors, symmetric=True, **same)
    assert agreement.hd95_mm == pytest.approx(hd95.item())
    assert agreement.assd_mm == pytest.approx(assd.item())


def test_sphere_in_a_larger_one():
    spacing = (0.5, 0.5, 0.5)
    shape = (104, 104, 104)
    truth = ball(spacing, (26, 26, 26), RADIUS, shape)
    near = compare(ball(spacing, (26, 26, 26), RADIUS + 1, shape), truth, spacing)
    assert near.recall == 1
    assert near.precision == pytest.approx((RADIUS / (RADIUS + 1)) ** 3, abs=0.005)
    assert near.hd95_mm == pytest.approx(1, abs=0.4)
    assert near.assd_mm == pytest.approx(1, abs=0.25)
    assert near.nsd_2mm == 1
    far = compare(ball(spacing, (26, 26, 26), RADIUS + 3.5, shape), truth, spacing)
    assert far.nsd_2mm == 0
    assert far.hd95_mm == pytest.approx(3.5, abs=0.4)
    assert far.assd_mm == pytest.approx(3.5, abs=0.25)


def test_single_slice_is_scored_in_two_dimensions():
    truth = ball((0.5, 0.5, 9.0), (20, 20, 0), 15, (1, 90, 90))
    larger = ball((0.5, 0.5, 9.0), (20, 20, 0), 18, (1, 90, 90))
    agreement = compare(larger, truth, (0.5, 0.5, 9.0))
    assert agreement.precision == pytest.approx((15 / 18) ** 2, abs=0.01)
    assert agreement.hd95_mm == pytest.approx(3, abs=0.4)
    # In 3D the two faces of the slice would be surface that agrees everywhere.
    assert agreement.nsd_2mm == 0
    assert compare(truth, truth, (0.5, 0.5, 9.0)) == Agreement(1, 1, 1, 1, 0, 0, 1)


def test_room_around_changes_nothing():
    spacing = (1.0, 1.0, 3.0)
    truth = ball(spacing, (15, 15, 30), 12, (20, 30, 30))
    prediction = ball(spacing, (17, 15, 30), 12, (20, 30, 30))
    padded = [np.pad(mask, ((5, 9), (30, 2), (0, 40))) for mask in (prediction, truth)]
    assert compare(*padded, spacing) == compare(prediction, truth, spacing)


def test_masks_cut_by_the_edge_of_the_volume_agree_with_themselves():
    truth = np.zeros((8, 20, 20), dtype=bool)
    truth[:, 5:15, :10] = True
    assert compare(truth, truth, (1, 1, 2)) == Agreement(1, 1, 1, 1, 0, 0, 1)


def test_empty_masks():
    full = np.zeros((3, 10, 20), dtype=bool)
    full[1, 2:5, 2:5] = True
    none = np.zeros_like(full)
    spacing = (1.0, 2.0, 5.0)
    missed = compare(none, full, spacing)
    assert (missed.dice, missed.iou, missed.recall, missed.nsd_2mm, missed.empty) == (
        0,
        0,
        0,
        0,
        "prediction",
    )
    assert math.isnan(missed.precision)
    assert missed.hd95_mm == missed.assd_mm == pytest.approx(math.sqrt(20**2 + 20**2 + 15**2))
    invented = compare(full, none, spacing)
    assert (invented.dice, invented.precision, invented.empty) == (0, 0, "truth")
    assert math.isnan(invented.recall)
    nothing = compare(none, none, spacing)
    assert nothing.empty == "both"
    assert math.isnan(nothing.dice)
    assert math.isnan(nothing.hd95_mm)


def test_within_counts_only_that_region():
    truth = np.zeros((1, 10, 10), dtype=bool)
    truth[0, 2:6, 2:6] = True
    prediction = truth.copy()
    prediction[0, 8:, 8:] = True
    near = np.zeros_like(truth)
    near[0, :7, :7] = True
    agreement = compare(prediction, truth, (1, 1, 1), within=near)
    assert (agreement.dice, agreement.precision, agreement.recall) == (1, 1, 1)
    assert math.isnan(agreement.hd95_mm)
    assert math.isnan(agreement.nsd_2mm)


def test_overlap_is_that_of_the_whole_comparison():
    spacing = (1.0, 1.0, 1.0)
    truth = ball(spacing, (20, 20, 20), 8, (40, 40, 40))
    other = ball(spacing, (24, 20, 20), 9, (40, 40, 40))
    whole = compare(other, truth, spacing)
    assert overlap(other, truth) == (pytest.approx(whole.dice), pytest.approx(whole.iou))
    none = np.zeros_like(truth)
    assert overlap(none, truth) == overlap(truth, none) == (0, 0)
    assert math.isnan(overlap(none, none)[0])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(np.ones((1, 2, 3), dtype=bool), np.ones((1, 3, 2), dtype=bool), (1, 1, 1))


def test_diagonal_ignores_the_thickness_of_a_single_slice():
    assert diagonal_mm((1, 30, 40), (1.0, 1.0, 100.0)) == pytest.approx(50)
