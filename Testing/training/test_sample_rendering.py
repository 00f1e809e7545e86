"""How the samples are rendered: the bone where it is, its cortex, the gaps between bones."""

import numpy as np
import pytest

from training.synthesis.sample.acquisition import Scan, affine_around, rotation
from training.synthesis.sample.body import Anatomy
from training.synthesis.sample.missing_tissues import between_bones
from training.synthesis.sample.painting import Look, paint_body


def ball_anatomy():
    """A ball of bone of radius 15 mm in fat, voxels of 1 mm, and its center in RAS."""
    k, j, i = np.indices((60, 64, 68))
    distance = np.sqrt((i - 34) ** 2 + (j - 30) ** 2 + (k - 28) ** 2)
    labels = np.where(distance <= 15, 2, 1).astype(np.uint16)
    depth = np.clip(15 - distance, 0, None).astype(np.float32)
    origin = np.array([100.0, -20.0, 300.0])
    names, tissues = {1: "fat", 2: "ball"}, {1: "fat", 2: "bone"}
    anatomy = Anatomy(labels, depth, names, tissues, np.ones(3), origin)
    return anatomy, origin + np.array([34.0, 30.0, 28.0])


def test_an_oblique_scan_shows_the_bone_where_it_is():
    anatomy, center = ball_anatomy()
    directions = rotation([1, 2, 3], 25) @ np.array([[0.0, 0, -1], [-1, 0, 0], [0, -1, 0]])
    size = (70, 80, 14)
    affine = affine_around(directions, (0.8, 0.8, 4.0), size, anatomy.center)
    truth = Scan(affine, size, 0.4).truth(anatomy)
    assert truth.shape == size[::-1]
    places = np.argwhere(truth)[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    assert np.allclose(places.mean(axis=0), center, atol=0.3)
    assert np.linalg.norm(places - center, axis=1).max() < 17.5
    volume = 4 / 3 * np.pi * 15**3
    assert truth.sum() * 0.8 * 0.8 * 4.0 == pytest.approx(volume, rel=0.05)


def test_a_painted_bone_has_a_shell():
    anatomy, _ = ball_anatomy()
    look = Look({"air": 0.0, "fat": 0.1, "marrow": 0.3, "cortex": 0.9}, {}, {}, 0.2, 0.0)
    image = paint_body(anatomy, look, np.random.default_rng(0))
    assert np.allclose(image[anatomy.labels == 1], 0.1)
    assert np.allclose(image[anatomy.depth_mm > 3], 0.3)
    assert (image[(anatomy.depth_mm > 0) & (anatomy.depth_mm < 0.4)] > 0.8).all()


def test_a_gap_between_bones_is_found_and_nothing_else():
    labels = np.ones((40, 40, 40), np.uint16)
    labels[5:35, 10:30, 5:18] = 2
    labels[5:35, 10:30, 22:35] = 3
    tissues = {1: "fat", 2: "bone", 3: "bone"}
    anatomy = Anatomy(labels, np.zeros(labels.shape, np.float32), tissues, tissues, np.ones(3), np.zeros(3))
    gap = between_bones(anatomy, [2, 3], 4.0)
    assert gap[15:25, 15:25, 18:22].all()
    assert not gap[:, :, :5].any()
    assert not gap[:, :, 35:].any()
    assert not between_bones(anatomy, [2, 3], 1.0).any()
