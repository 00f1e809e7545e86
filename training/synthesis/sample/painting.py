"""From a body to its noise-free image: tissues with texture, bones with cortex, marrow and shafts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.synthesis.contrast import Contrast, render
from training.synthesis.sample.body import Anatomy, Array
from training.synthesis.tissues import AIR, HARD

LONG_BONES = re.compile(r"femur|tibia|fibula|radius|ulna|metacarpal|phalanx")
# Cortex at the ends of long bones and around all others; in the shaft a share of the radius.
THIN_CORTEX_MM, SHAFT_CORTEX = 1.0, 0.4
# Of a long bone's width at its end: how far from there cortex begins to thicken, and where it is a shaft.
SHAFT_BEGINS, SHAFT_REACHED = 0.6, 1.5


@dataclass
class Look:
    """A contrast chosen for one sample, in the 0..1 of training.synthesis.contrast."""

    means: dict[str, float]  # of tissues
    named: dict[str, float]  # of structures whose name matches, instead of their tissue's
    variation: dict[str, float]  # standard deviation within a tissue
    shaft_marrow: float
    spread: float  # between structures of the same tissue


def paint_body(anatomy: Anatomy, look: Look, rng: np.random.Generator) -> Array:
    """The noise-free image [k, j, i] on the anatomy's own grid."""
    count = max(anatomy.tissues) + 1
    means, is_bone = np.zeros(count, np.float32), np.zeros(count, bool)
    variation = np.zeros(count, np.float32)
    means[AIR] = look.means["air"]
    for value, tissue in anatomy.tissues.items():
        is_bone[value] = tissue in HARD
        means[value] = look.means["marrow" if tissue == "bone" else tissue] + rng.normal(0, look.spread)
        variation[value] = look.variation.get(tissue, 0.0)
        for pattern, mean in look.named.items():
            if re.search(pattern, anatomy.names[value]):
                means[value] = mean
    shaft, cortex = shaft_and_cortex(anatomy)
    contrast = Contrast(
        means, np.zeros(count, np.float32), is_bone, look.means["cortex"], THIN_CORTEX_MM, 0.0, "fixed"
    )
    # `render` knows one thickness of the cortex: the depth is scaled so that it means the voxel's own.
    image = np.empty(anatomy.labels.shape, np.float32)
    for start in range(0, len(image), 6):
        part = slice(start, start + 6)
        depth = anatomy.depth_mm[part] * (THIN_CORTEX_MM / cortex[part])
        image[part] = render(anatomy.labels[part], depth, float(anatomy.spacing[0]), contrast, rng)
    inside = is_bone[anatomy.labels] * np.clip((anatomy.depth_mm - cortex) / anatomy.spacing[0], 0, 1)
    image += inside * shaft * np.float32(look.shaft_marrow - look.means["marrow"])
    bumps = texture(image.shape, (1.0, 3.0, 9.0), rng) * variation[anatomy.labels]
    image += np.where(is_bone[anatomy.labels], inside * (1 - 0.7 * shaft), 1.0) * bumps
    return image


def shaft_and_cortex(anatomy: Anatomy) -> tuple[Array, Array]:
    """How much of a shaft a bone is at each voxel (0 at its ends, 1 in the shaft), and its cortex in mm.

    In shafts the cortex is thick and the canal holds fat; ends have a thin shell around trabeculae. An end
    that the volume cuts off is shaft.
    """
    shaft = np.zeros(anatomy.labels.shape, np.float32)
    cortex = np.full(anatomy.labels.shape, THIN_CORTEX_MM, np.float32)
    size = np.array(anatomy.labels.shape)
    for value in anatomy.bones:
        if not LONG_BONES.search(anatomy.names[value]):
            continue
        found = np.nonzero(anatomy.labels == value)
        points = np.stack(found, axis=1) * np.array(anatomy.sampling)
        axes = np.linalg.svd(points[::37] - points.mean(axis=0), full_matrices=False)[2]
        along, across = points @ axes[0], points @ axes[1]
        depth = anatomy.depth_mm[found]
        from_end = np.full(len(points), np.inf)
        for end in (along - along.min(), along.max() - along):
            tip = np.stack(found, axis=1)[end < 2.0 * max(anatomy.sampling)]
            if (tip.min(axis=0) > 0).all() and (tip.max(axis=0) < size - 1).all():
                width = np.ptp(across[end < 0.3 * np.ptp(along)])
                from_end = np.minimum(from_end, (end / width - SHAFT_BEGINS) / (SHAFT_REACHED - SHAFT_BEGINS))
        part = np.clip(from_end, 0, 1)
        part = part * part * (3 - 2 * part)
        level = (along - along.min()).astype(int)
        radius = ndimage.maximum(depth, level, np.arange(level.max() + 1))
        radius = ndimage.gaussian_filter1d(np.asarray(radius), 3.0)[level]
        shaft[found] = part
        cortex[found] = THIN_CORTEX_MM + part * np.maximum(SHAFT_CORTEX * radius - THIN_CORTEX_MM, 0.0)
    return shaft, cortex


def texture(shape: tuple[int, ...], grains: Sequence[float], rng: np.random.Generator) -> Array:
    """Noise of unit variance with grains of several sizes (voxels)."""
    total = np.zeros(shape, np.float32)
    for grain in grains:
        # Coarse grains are made small and enlarged: filtering with a wide kernel takes long.
        step = max(1, int(grain / 2))
        small = rng.standard_normal([n // step + 2 for n in shape], dtype=np.float32)
        small = ndimage.gaussian_filter(small, grain / step, mode="wrap")
        small /= small.std()
        if step > 1:
            small = ndimage.zoom(small, step, order=1)
        total += small[tuple(slice(n) for n in shape)]
    return total / np.float32(np.sqrt(len(grains)))
