"""Simulated radiographs: straight rays through an anatomy, darkened by tissue, brightness from their sum."""

import numpy as np
from numpy.typing import NDArray

from training.synthesis.tissues import HARD

# Linear attenuation at about 60 keV, in 1/cm (NIST, rounded).
ATTENUATION = {
    "air": 0.0, "fat": 0.17, "muscle": 0.21, "organ": 0.21, "vessel": 0.21, "neural": 0.21,
    "cartilage": 0.22, "disc": 0.22, "ligament": 0.22, "lung_airway": 0.05, "skin": 0.20, "bone": 0.42,
    "tooth": 0.75,
}  # fmt: skip
CORTEX_FACTOR = 1.7


def project(
    labels: NDArray[np.integer], depth_mm: NDArray[np.float32], step_mm: float, tissues: dict[int, str],
    rng: np.random.Generator,
) -> NDArray[np.float32]:  # fmt: skip
    """Labels and depth below the bone surface [d, h, w] -> radiograph [h, w] in 0..1, bone bright.

    Rays run along the first axis, `step_mm` apart.
    """
    count = max(tissues, default=0) + 1
    table = np.zeros(count, np.float32)
    is_bone = np.zeros(count, bool)
    contrast = float(np.exp(rng.normal(0, 0.25)))  # of bone against soft tissue: the tube's voltage
    for value, tissue in tissues.items():
        bone = tissue in HARD
        is_bone[value] = bone
        table[value] = ATTENUATION[tissue] * (contrast if bone else 1.0) * np.exp(rng.normal(0, 0.05))
    attenuation = table[labels]
    cortex_mm = rng.uniform(0.5, 2.5)
    attenuation *= 1.0 + (CORTEX_FACTOR - 1.0) * ((depth_mm < cortex_mm) & is_bone[labels])
    path = attenuation.sum(axis=0) * (step_mm / 10.0)
    # Film and detectors respond to the logarithm within a latitude; both ends are lost.
    low, high = np.percentile(path, [rng.uniform(0, 8), rng.uniform(97, 100)])
    image = np.clip((path - low) / max(high - low, 1e-3), 0, 1)
    return image.astype(np.float32)
