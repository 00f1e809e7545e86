"""Voxel values to what the network sees."""

import numpy as np
import pytest

from BoneSAMLib import intensity
from BoneSAMLib.intensity import CT_HIGH_HU, CT_LOW_HU, intensity_window, normalize
from BoneSAMLib.volume import Volume


def volume(array, modality):
    return Volume(np.asarray(array), np.eye(4), modality=modality)


def test_ct_has_a_fixed_window():
    array = np.full((4, 8, 8), -1000, np.int16)
    array[1] = 3000
    window = intensity_window(volume(array, "CT"))
    assert window == (CT_LOW_HU, CT_HIGH_HU)
    assert normalize(np.array([-1000, CT_LOW_HU, 500, 3000]), window).tolist() == [0, 0, 0.5, 1]


def test_mr_ignores_padding_and_hot_pixels():
    rng = np.random.default_rng(0)
    array = np.zeros((20, 50, 50), np.float32)
    array[5:15] = rng.uniform(100, 300, (10, 50, 50))
    array[7, 3, 3] = 1e6
    low, high = intensity_window(volume(array, "MR"))
    assert 99 < low < 105
    assert 295 < high < 301


def test_two_values_stay_apart():
    array = np.zeros((3, 8, 8), np.uint8)
    array[1, 2:6, 2:6] = 7
    image = normalize(array, intensity_window(volume(array, "MR")))
    assert image[1, 3, 3] == 1
    assert image[0, 0, 0] == 0


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_the_unit_of_values_does_not_matter(scale):
    array = np.random.default_rng(0).uniform(100, 300, (6, 20, 20))
    plain, scaled = (volume(one.astype(np.float32), "MR") for one in (array, array * scale))
    image, same = (normalize(one.array, intensity_window(one)) for one in (plain, scaled))
    assert np.allclose(image, same, atol=1e-5)
    assert image.std() > 0.2


def test_a_mask_as_a_volume():
    array = np.zeros((4, 8, 8), bool)
    array[1:3, 2:6, 2:6] = True
    made = volume(array, "MR")
    assert np.array_equal(normalize(made.array, intensity_window(made)), array)


def test_no_row_of_voxels_stands_for_all(monkeypatch):
    monkeypatch.setattr(intensity, "_SAMPLE_SIZE", 64)
    array = np.random.default_rng(0).uniform(100, 300, (32, 32, 16)).astype(np.float32)
    array[..., 0] = 1000  # every 256th value is in this column
    _, high = intensity_window(volume(array, "MR"))
    assert high > 250
    array[..., 0] = 0
    low, _ = intensity_window(volume(array, "MR"))
    assert low > 90


def test_one_value_is_finite():
    array = np.full((3, 8, 8), 5, np.uint8)
    assert np.isfinite(normalize(array, intensity_window(volume(array, "MR")))).all()
