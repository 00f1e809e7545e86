"""Projections: brightness follows the length of the path through what attenuates."""

import numpy as np

from training.synthesis.radiograph import project

TISSUES = {1: "fat", 2: "bone", 3: "muscle"}
RADIUS = 20


def ball(value, size=64, radius=RADIUS):
    z, y, x = np.indices((size, size, size)) - (size - 1) / 2
    labels = np.where(x**2 + y**2 + z**2 <= radius**2, value, 0)
    depth = np.clip(radius - np.sqrt(x**2 + y**2 + z**2), 0, None).astype(np.float32)
    return labels, depth, 2 * np.sqrt(np.clip(radius**2 - x[0] ** 2 - y[0] ** 2, 0, None))


def test_a_ball_is_as_bright_as_the_path_through_it_is_long():
    labels, depth, chord = ball(3)
    for seed in range(5):
        image = project(labels, depth, 1.0, TISSUES, np.random.default_rng(seed))
        assert image.shape == (64, 64)
        assert image[0, 0] == 0
        assert image.max() == 1
        inside = (chord > 0.3 * RADIUS) & (image < 0.999)
        ratio = image[inside] / chord[inside]
        assert ratio.std() / ratio.mean() < 0.05


def test_bone_is_brighter_than_muscle_of_the_same_size():
    bone, depth, _ = ball(2)
    muscle, other, _ = ball(3)
    labels, depth = np.concatenate([bone, muscle], 2), np.concatenate([depth, other], 2)
    image = project(labels, depth, 1.0, TISSUES, np.random.default_rng(0))
    assert image[:, :64].mean() > 1.4 * image[:, 64:].mean()


def test_the_rim_of_a_bone_is_dense():
    labels, depth, chord = ball(2)
    shell = project(labels, depth, 1.0, TISSUES, np.random.default_rng(1))
    solid = project(labels, np.full_like(depth, 99.0), 1.0, TISSUES, np.random.default_rng(1))
    rim = (chord > 5) & (chord < 15)
    middle = chord > 1.9 * RADIUS
    assert shell[rim].mean() / shell[middle].mean() > 1.1 * solid[rim].mean() / solid[middle].mean()


def test_rays_add_up_whatever_they_are_spaced():
    labels, depth, _ = ball(3)
    coarse = project(labels[::2], depth[::2], 2.0, TISSUES, np.random.default_rng(2))
    fine = project(labels, depth, 1.0, TISSUES, np.random.default_rng(2))
    assert np.abs(coarse - fine).mean() < 0.02
