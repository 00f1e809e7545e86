"""Imitated prompts: where boxes and clicks land, and that they are the same in every run."""

import numpy as np
import pytest

from BoneSAMLib.volume import Volume
from training.masks import bounds_ijk, depth_mm, grown, middle_slice
from training.protocols import (
    corrective_click,
    first_click,
    generator,
    jittered_box,
    slice_box,
)
from training.reference_methods import FILLED_BOX, HU_THRESHOLDS, reference_masks


def volume_of(array, spacing=(1.0, 1.0, 1.0), modality="MR"):
    return Volume(array, np.diag([*spacing, 1.0]), "test", modality)


@pytest.fixture
def stack():
    """A stack of 12 thick slices with a block of bone 40 x 20 x 6 voxels (i, j, k)."""
    truth = np.zeros((12, 60, 80), dtype=bool)
    truth[3:9, 20:40, 10:50] = True
    return volume_of(truth.astype(np.int16), (0.8, 0.8, 4.0)), truth


def test_box_faces_move_by_their_share(stack):
    volume, truth = stack
    seen = set()
    for number in range(200):
        low, high = jittered_box(truth, volume, np.random.default_rng(number)).to_ijk(volume)
        assert 6 <= low[0] <= 12
        assert 47 <= high[0] <= 53
        assert 18 <= low[1] <= 21
        assert 38 <= high[1] <= 41
        assert 2 <= low[2] <= 3
        assert 8 <= high[2] <= 9
        seen.add(low[0])
    assert seen >= {7, 8, 9, 10, 11}


def test_box_stays_in_the_volume():
    truth = np.ones((4, 30, 30), dtype=bool)
    volume = volume_of(truth.astype(np.uint8))
    for number in range(20):
        low, high = bounds_ijk(truth)
        box_low, box_high = jittered_box(truth, volume, np.random.default_rng(number)).to_ijk(volume)
        assert all(a >= b for a, b in zip(box_low, low, strict=True))
        assert all(a <= b for a, b in zip(box_high, high, strict=True))


def test_prompts_are_seeded_by_case_and_object(stack):
    volume, truth = stack
    boxes = {jittered_box(truth, volume, generator("a", name, "box")) for name in ("x", "x", "y")}
    assert len(boxes) == 2
    assert generator("a", "x", "box").random() != generator("b", "x", "box").random()
    assert generator("a", "x", "box").random() != generator("a", "x", "clicks").random()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_box_is_thin_along_the_through_plane_axis(axis):
    truth = np.zeros((40, 40, 40), dtype=bool)
    truth[10:30, 10:30, 10:30] = True
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    volume = volume_of(truth.astype(np.uint8), spacing)
    low, high = slice_box(truth, volume, np.random.default_rng(0)).to_ijk(volume)
    assert low[axis] == high[axis] == 19
    assert all(high[other] - low[other] > 15 for other in range(3) if other != axis)


def test_middle_slice_holds_bone():
    mask = np.zeros((20, 5, 5), dtype=bool)
    mask[[2, 3, 12, 17]] = True
    assert middle_slice(mask, 2) == 12


def test_first_click_is_in_the_middle_of_the_largest_part():
    truth = np.zeros((9, 50, 50), dtype=bool)
    truth[2:7, 5:10, 5:10] = True
    truth[2:7, 20:41, 20:31] = True
    volume = volume_of(truth.astype(np.uint8), (1.0, 1.0, 5.0))
    click = first_click(truth, volume, np.random.default_rng(0))
    i, j, k = click.to_ijk(volume)
    assert click.positive
    assert (i, k) == (25, 4)
    assert 25 <= j <= 35
    assert first_click(truth, volume, np.random.default_rng(0)) == click


def test_corrective_clicks_go_to_the_largest_error():
    truth = np.zeros((9, 60, 60), dtype=bool)
    truth[2:7, 5:26, 5:26] = True
    volume = volume_of(truth.astype(np.uint8))
    rng = np.random.default_rng(0)
    missed = corrective_click(np.zeros_like(truth), truth, volume, rng)
    assert missed is not None
    assert missed.positive
    assert missed.to_ijk(volume)[2] == 4
    spill = truth.copy()
    spill[1:8, 40:55, 40:55] = True
    spill[2, 5, 5] = False
    false = corrective_click(spill, truth, volume, rng)
    assert false is not None
    assert not false.positive
    assert 43 <= false.to_ijk(volume)[0] <= 51
    assert corrective_click(truth, truth, volume, rng) is None


def test_corrective_click_on_a_radiograph_is_deep_in_the_plane():
    truth = np.zeros((1, 60, 60), dtype=bool)
    truth[0, 10:31, 10:51] = True
    volume = volume_of(truth.astype(np.uint8), modality="X-ray")
    for seed in range(10):
        click = corrective_click(np.zeros_like(truth), truth, volume, np.random.default_rng(seed))
        assert click is not None
        i, j, k = click.to_ijk(volume)
        assert (j, k) == (20, 0)
        assert 20 <= i <= 40


def test_depth_is_in_millimetres():
    volume = volume_of(np.zeros((7, 7, 7)), (1.0, 1.0, 3.0))
    mask = np.zeros((7, 7, 7), dtype=bool)
    mask[:, 2:5, 2:5] = True
    assert depth_mm(mask, volume)[3, 3, 3] == pytest.approx(2)
    assert depth_mm(mask, volume)[0, 3, 3] == pytest.approx(2)
    flat = mask.copy()
    flat[:3] = flat[4:] = False
    assert depth_mm(flat, volume)[3, 3, 3] == pytest.approx(2)
    assert depth_mm(flat[3:4], volume, flat_axis=2)[0, 3, 3] == pytest.approx(2)


def test_grown_reaches_as_far_in_every_direction():
    volume = volume_of(np.zeros((21, 41, 41)), (0.5, 1.0, 2.0))
    mask = np.zeros(volume.shape, dtype=bool)
    mask[10, 20, 20] = True
    band = grown(mask, 5.0, volume)
    low, high = bounds_ijk(band)
    assert (low, high) == ((10, 15, 8), (30, 25, 12))
    at_the_edge = np.zeros(volume.shape, dtype=bool)
    at_the_edge[0, 0, 0] = True
    assert bounds_ijk(grown(at_the_edge, 5.0, volume)) == ((0, 0, 0), (10, 5, 2))


def test_references_on_ct_use_stated_hounsfield_values(stack):
    volume, truth = stack
    array = np.full(volume.shape, -800, dtype=np.int16)
    array[truth] = 220
    ct = volume_of(array, modality="CT")
    box = jittered_box(truth, ct, np.random.default_rng(3))
    masks = reference_masks(ct, box)
    assert set(masks) == {FILLED_BOX, *(f"above {value} HU" for value in HU_THRESHOLDS)}
    low, high = box.to_ijk(ct)
    assert bounds_ijk(masks[FILLED_BOX]) == (low, high)
    assert masks["above 200 HU"].sum() == (masks[FILLED_BOX] & truth).sum()
    assert not masks["above 250 HU"].any()


def test_references_elsewhere_use_both_sides_of_otsu(stack):
    volume, truth = stack
    masks = reference_masks(volume, jittered_box(truth, volume, np.random.default_rng(3)))
    bright, dark = masks["Otsu, bright side"], masks["Otsu, dark side"]
    assert np.array_equal(bright, masks[FILLED_BOX] & truth)
    assert np.array_equal(bright | dark, masks[FILLED_BOX])
    assert not (bright & dark).any()
