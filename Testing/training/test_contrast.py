"""Drawn contrasts look like the modality they are named after, and bone has a cortex."""

import numpy as np
import pytest

from Testing.training.spheres import FAT, LARGE, MUSCLE, SMALL, TISSUES, labels_and_depth
from training.store import DEPTH_UNIT_MM
from training.synthesis.contrast import REGIMES, Contrast, random_contrast, render, smooth_noise

BODY = TISSUES | {5: "vessel", 6: "tooth"}


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    contrasts = [random_contrast(BODY, rng) for _ in range(500)]
    return {regime: [c for c in contrasts if c.regime == regime] for regime in REGIMES}


def brightness(contrasts):
    """Mean brightness of air, fat, muscle, marrow and cortex."""
    means = np.mean([contrast.means for contrast in contrasts], axis=0)
    cortex = np.mean([contrast.cortex_mean for contrast in contrasts])
    return means[0], means[FAT], means[MUSCLE], means[LARGE], cortex


def test_every_regime_is_drawn(drawn):
    assert all(len(contrasts) > 30 for contrasts in drawn.values())


def test_ct_is_ordered_like_hounsfield_units(drawn):
    air, fat, muscle, marrow, cortex = brightness(drawn["CT"])
    assert air < fat < muscle < marrow < cortex
    assert all(contrast.cortex_mean > contrast.means[LARGE] - 0.1 for contrast in drawn["CT"])


def test_t1_has_bright_fat_and_marrow_and_dark_cortex(drawn):
    air, fat, muscle, marrow, cortex = brightness(drawn["T1"])
    assert air < muscle < marrow < fat
    assert cortex < muscle


def test_t2_has_dark_muscle_and_cortex(drawn):
    _, fat, muscle, marrow, cortex = brightness(drawn["T2"])
    assert cortex < muscle < marrow < fat


def test_fat_saturation_darkens_fat_and_marrow(drawn):
    _, fat, muscle, marrow, cortex = brightness(drawn["fat-saturated"])
    assert max(fat, marrow) < muscle
    assert cortex < marrow


def test_bones_and_teeth_are_known_as_bone(drawn):
    for contrast in drawn["random"]:
        assert np.flatnonzero(contrast.is_bone).tolist() == [LARGE, SMALL, 6]


def plain(cortex_mm):
    means = np.array([0.0, 0.1, 0.3, 0.35, 0.2], np.float32)
    is_bone = np.array([False, False, True, True, False])
    return Contrast(means, np.zeros(5, np.float32), is_bone, 0.9, cortex_mm, 0.0, "CT")


def test_cortex_is_as_thick_as_it_says():
    labels, depth = labels_and_depth()
    depth_mm = depth.astype(np.float32) * DEPTH_UNIT_MM
    image = render(labels, depth_mm, 1.0, plain(3.0), np.random.default_rng(0))
    bone = labels == LARGE
    assert np.allclose(image[bone & (depth_mm <= 2.5)], 0.9)
    assert np.allclose(image[bone & (depth_mm >= 3.5)], 0.3)
    assert np.allclose(image[labels == MUSCLE], 0.2)
    assert np.allclose(image[labels == 0], 0.0)


def test_bone_may_have_no_cortex():
    labels, depth = labels_and_depth()
    image = render(labels, depth * np.float32(DEPTH_UNIT_MM), 1.0, plain(0.0), np.random.default_rng(0))
    assert np.allclose(image, plain(0.0).means[labels])


def test_texture_is_inside_the_tissue_it_belongs_to():
    labels, depth = labels_and_depth()
    contrast = plain(0.0)
    contrast.texture = 0.1
    image = render(labels, depth * np.float32(DEPTH_UNIT_MM), 1.0, contrast, np.random.default_rng(0))
    assert image[labels == LARGE].std() > 0.02
    assert image[labels == FAT].std() < 1e-6


def test_noise_is_one_texture_for_a_few_slices_and_changes_along_a_cube():
    rng = np.random.default_rng(0)
    assert smooth_noise((6, 50, 60), rng).shape == (1, 50, 60)
    cube = smooth_noise((64, 64, 64), rng)
    assert cube.shape == (64, 64, 64)
    assert np.abs(cube[0] - cube[-1]).mean() > 0.1
    deviations = [smooth_noise((1, 192, 192), rng).std() for _ in range(40)]
    assert 0.5 < np.mean(deviations) < 2.0
