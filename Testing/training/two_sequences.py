"""A made-up thigh in two sequences, the second one moved and bent in a known way, for tests."""

import numpy as np
import SimpleITK
from scipy import ndimage

SHAPE, SPACING = (26, 44, 48), np.array([4.0, 4.0, 6.0])  # k, j, i; i, j, k in mm
T1 = np.array([0.0, 0.95, 0.45, 0.8, 0.1, 0.75])  # air, fat, muscle, marrow, cortex, cyst
T2 = np.array([0.0, 0.45, 0.3, 0.35, 0.05, 1.0])


def tissues_at(points, seed):
    """Tissue and bone (1 or 2; 0 for none) at points [..., 3] in mm; a seed is a person."""
    rng = np.random.default_rng(seed)
    middle = (np.array(SHAPE[::-1]) - 1) * SPACING / 2
    x, y, z = np.moveaxis(points - middle, -1, 0)
    wide, deep = rng.uniform(68, 84), rng.uniform(58, 74)
    tissue = np.where((x / wide) ** 2 + (y / deep) ** 2 + (z / 120) ** 4 < 1, 1, 0)
    for _ in range(9):
        center, radius = rng.uniform((-45, -38, -60), (45, 38, 60)), rng.uniform((14, 12, 35), (24, 22, 70))
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), center, radius, strict=True)) < 1
        tissue = np.where(inside & (tissue == 1), 2, tissue)
    bone = np.zeros(tissue.shape, np.uint8)
    for value in (1, 2):
        center, radius = rng.uniform((-30, -20, -25), (30, 20, 25)), rng.uniform((12, 12, 26), (18, 18, 40))
        if value == 2:
            center = -center
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), center, radius, strict=True))
        tissue = np.where(inside < 1, np.where(inside < 0.7, 3, 4), tissue)
        bone[inside < 1] = value
    cyst = (x - 30) ** 2 + (y + 30) ** 2 + (z - 20) ** 2 < 60
    return np.where(cyst & (tissue == 2), 5, tissue), bone


def moved(points):
    """Where in the body a point [..., 3] of the second scan is: turned by 5 degrees, moved, bent by 4 mm."""
    angle = np.radians(5)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    middle = (np.array(SHAPE[::-1]) - 1) * SPACING / 2
    turned = (points - middle) @ turn.T + middle + (5.0, -4.0, 6.0)
    return turned + 4.0 * np.sin(points[..., [1, 2, 0]] * 2 * np.pi / 150)


def scan(values, seed, move=None):
    """Image and bones [k, j, i] of a person in a sequence, with noise."""
    places = np.stack(np.indices(SHAPE)[::-1], axis=-1) * SPACING
    tissue, bone = tissues_at(move(places) if move else places, seed)
    image = ndimage.gaussian_filter(values[tissue], [0.0, 0.6, 0.6])
    noise = np.random.default_rng(seed + 100).normal(0, 0.02, SHAPE)
    return (np.abs(image + noise) * 1000).astype(np.int16), bone


def write(array, path):
    """Write an array [k, j, i] with the spacing of the scans."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING.tolist())
    SimpleITK.WriteImage(image, path)
