"""Voxel values to the 0..1 range that the network sees; the same rule in training and in use."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.volume import Volume

# One fixed window for CT, so that bone has the same brightness in every scan: 150-200 HU, where bone starts,
# lies at 0.27-0.30, and dense cortex just saturates.
CT_LOW_HU, CT_HIGH_HU = -250.0, 1250.0
# Elsewhere the unit is arbitrary: percentiles of the volume, which ignore a few hot pixels.
PERCENTILES = (0.5, 99.5)
_SAMPLE_SIZE = 500_000
_NARROWEST = 1e-30  # some scans have values of 1e-9; what is smaller than this has no reciprocal in float32


def intensity_window(volume: Volume) -> tuple[float, float]:
    """The stored values that map to 0 and 1."""
    if volume.modality_guess == "CT":
        return CT_LOW_HU - volume.intensity_offset, CT_HIGH_HU - volume.intensity_offset
    values = volume.array.ravel()
    step = max(1, values.size // _SAMPLE_SIZE)
    row = volume.array.shape[2]
    if step > 1 and math.gcd(step, row) > row // 8:
        step += 1  # else a few columns of the volume would stand for all
    sample = values[::step].astype(np.float64)
    # Padding around the scan is one value repeated; counting it would stretch the window.
    inside = sample[sample != sample.min()]
    if inside.size < 2:
        return float(sample.min()), float(sample.min()) + 1.0
    low, high = np.percentile(inside, PERCENTILES)
    if low == high:
        low = sample.min()  # two values: the brighter one must not turn black
    return float(low), float(max(high, low + _NARROWEST))


def normalize(values: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    """`values` mapped linearly so that `window` becomes 0..1, and clipped."""
    low, high = window
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(1.0 / (high - low))
    return np.clip(scaled, 0.0, 1.0, out=scaled)
