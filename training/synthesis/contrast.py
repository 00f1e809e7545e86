"""From anatomy to image: random contrasts, weighted towards those that scanners make.

After SynthSeg (Billot et al. 2023), with two changes for bone: cortex and marrow differ, with a random cortex
thickness, and the contrast regimes of CT, T1, T2 and fat-saturated sequences are drawn on purpose, because
independent random intensities rarely make dark cortex around bright marrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.synthesis.tissues import AIR, HARD

GRAINS = (1.0, 4.0, 12.0)  # pixels
REGIMES = ("CT", "T1", "T2", "fat-saturated", "random")
REGIME_SHARES = (0.28, 0.22, 0.12, 0.13, 0.25)
# Mean brightness of each tissue in 0..1, for CT through the window of BoneSAMLib.intensity.
MEANS: dict[str, dict[str, float]] = {
    "CT": {
        "air": 0.0, "fat": 0.10, "muscle": 0.205, "organ": 0.20, "vessel": 0.20, "neural": 0.19,
        "cartilage": 0.24, "disc": 0.22, "ligament": 0.22, "lung_airway": 0.0, "skin": 0.18, "marrow": 0.30,
        "cortex": 0.85, "tooth": 1.0,
    },
    "T1": {
        "air": 0.02, "fat": 0.85, "muscle": 0.32, "organ": 0.38, "vessel": 0.15, "neural": 0.42,
        "cartilage": 0.40, "disc": 0.35, "ligament": 0.10, "lung_airway": 0.03, "skin": 0.55,
        "marrow": 0.70, "cortex": 0.08, "tooth": 0.05,
    },
    "T2": {
        "air": 0.02, "fat": 0.60, "muscle": 0.18, "organ": 0.40, "vessel": 0.20, "neural": 0.50,
        "cartilage": 0.35, "disc": 0.60, "ligament": 0.08, "lung_airway": 0.03, "skin": 0.35,
        "marrow": 0.45, "cortex": 0.05, "tooth": 0.04,
    },
    "fat-saturated": {
        "air": 0.02, "fat": 0.12, "muscle": 0.30, "organ": 0.50, "vessel": 0.60, "neural": 0.50,
        "cartilage": 0.55, "disc": 0.60, "ligament": 0.12, "lung_airway": 0.03, "skin": 0.30,
        "marrow": 0.15, "cortex": 0.05, "tooth": 0.04,
    },
}  # fmt: skip


@dataclass
class Contrast:
    """One scanner setting for one body: what brightness every structure has."""

    means: NDArray[np.float32]  # per label value
    deviations: NDArray[np.float32]
    is_bone: NDArray[np.bool_]
    cortex_mean: float
    cortex_mm: float
    texture: float
    regime: str


def random_contrast(
    tissues: dict[int, str], rng: np.random.Generator, shares: Sequence[float] = REGIME_SHARES
) -> Contrast:
    """Draw a contrast for the labels of one anatomy (label value -> tissue); `shares` of the REGIMES."""
    regime = str(rng.choice(REGIMES, p=shares))
    count = max(tissues, default=0) + 1
    means = np.zeros(count, np.float32)
    is_bone = np.zeros(count, bool)
    if regime == "random":
        table = {tissue: float(rng.uniform(0, 1)) for tissue in MEANS["CT"]}
        if rng.random() < 0.5:
            table["air"] = 0.0
        if rng.random() < 0.2:  # bone as bright as a neighbor: only its cortex and its shape tell it
            table["marrow"] = table[str(rng.choice(["muscle", "fat"]))]
    else:
        spread = 0.03 if regime == "CT" else 0.10
        table = {tissue: mean + float(rng.normal(0, spread)) for tissue, mean in MEANS[regime].items()}
        if regime == "CT":
            table["marrow"] = float(rng.uniform(0.18, 0.55))
            table["cortex"] = float(np.clip(rng.normal(0.8, 0.2), table["marrow"] + 0.05, 1.3))
            if rng.random() < 0.3:
                table["vessel"] = float(rng.uniform(0.25, 0.45))  # contrast agent: as bright as marrow
            if rng.random() < 0.3:
                table["organ"] += float(rng.uniform(0.0, 0.08))
    means[AIR] = max(table["air"], 0.0)
    structure_spread = 0.015 if regime == "CT" else 0.06
    for value, tissue in tissues.items():
        bone = tissue in HARD
        is_bone[value] = bone
        mean = table["marrow"] if tissue == "bone" else table[tissue]
        means[value] = mean + rng.normal(0, structure_spread * (2.0 if bone else 1.0))
    deviations = np.abs(rng.normal(0, 0.02 if regime == "CT" else 0.04, count)).astype(np.float32)
    return Contrast(
        means,
        deviations,
        is_bone,
        cortex_mean=table["cortex"],
        cortex_mm=float(np.exp(rng.normal(np.log(1.3), 0.6))) * (rng.random() > 0.08),
        texture=float(rng.uniform(0.0, 0.08 if regime == "CT" else 0.12)),
        regime=regime,
    )


def render(
    labels: NDArray[np.integer], depth_mm: NDArray[np.float32], pixel_mm: float, contrast: Contrast,
    rng: np.random.Generator,
) -> NDArray[np.float32]:  # fmt: skip
    """Labels and depth below the bone surface [n, h, w] -> noise-free image in about 0..1, same shape.

    The first axis is the stack, of neighboring slices or of a cube; `pixel_mm` is the size of a pixel.
    """
    image = contrast.means[labels]
    bone = contrast.is_bone[labels]
    # Trabeculae, fascia, vessels: structure inside a tissue at several scales.
    texture = smooth_noise(labels.shape, rng)
    image += texture * (contrast.deviations[labels] + contrast.texture * bone)
    shell = np.clip((contrast.cortex_mm - depth_mm) / max(pixel_mm, 0.3) + 0.5, 0.0, 1.0) * bone
    if contrast.cortex_mm > 0:
        image += shell * (contrast.cortex_mean - image)
    return image


def smooth_noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise [n, h, w] of about unit variance with a mixture of grains; a stack of few slices shares it."""
    bank = _cube_noise() if shape[0] > 6 else _plane_noise()
    total = np.zeros(shape if shape[0] > 6 else (1, *shape[1:]), np.float32)
    for grain in range(len(GRAINS)):
        corner = [
            int(rng.integers(0, room - need + 1))
            for room, need in zip(bank.shape[1:], total.shape, strict=True)
        ]
        window = tuple(slice(start, start + need) for start, need in zip(corner, total.shape, strict=True))
        total += bank[grain][window] * np.float32(rng.normal(0, 0.7))
    return total


@cache
def _plane_noise() -> NDArray[np.float32]:
    return _bank((1, 640, 640), (0.0, 1.0, 1.0))


@cache
def _cube_noise() -> NDArray[np.float32]:
    return _bank((96, 96, 96), (0.3, 0.3, 0.3))


def _bank(shape: tuple[int, ...], stretch: tuple[float, ...]) -> NDArray[np.float32]:
    """One noise array per grain, filtered once: filtering for every sample took half of its time."""
    rng = np.random.default_rng(0)
    arrays = []
    for grain in GRAINS:
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), [grain * s for s in stretch], mode="wrap")
        arrays.append((smooth / smooth.std()).astype(np.float32))
    return np.stack(arrays)
