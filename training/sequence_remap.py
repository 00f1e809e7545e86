"""Show an image as another sequence might: a random curve from brightness to brightness.

A nonlinear, not always rising curve keeps every edge and changes which tissue is bright, as between T1 and
fat-suppressed images (Zhou et al. 2019, "Models Genesis", sec. 3.2: nonlinear intensity transformation).
Masks drawn on one sequence so teach the others, beside scans whose masks were carried over by registration.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NODES = (3, 6)  # fewest and most bends
STAY = 0.5  # share of curves that only rise


def random_curve(rng: np.random.Generator) -> NDArray[np.float32]:
    """A curve of brightness [256] in 0..1; black, which is air, stays black."""
    count = int(rng.integers(NODES[0], NODES[1] + 1))
    places = np.sort(np.concatenate([[0.0, 1.0], rng.uniform(0.05, 0.95, count)]))
    values = rng.uniform(0.0, 1.0, count + 2)
    values[0] = 0.0
    if rng.random() < STAY:
        values = np.sort(values)
    values /= values.max()
    return np.interp(np.linspace(0, 1, 256), places, values).astype(np.float32)


def remap_sample(sample: dict[str, Any], rng: np.random.Generator) -> None:
    """Show a sample's slices and cube through one random curve."""
    curve = random_curve(rng)
    grid = np.linspace(0, 1, 256, dtype=np.float32)
    for name in ("slices", "cube"):
        seen = np.clip(sample[name].astype(np.float32), 0, 1)
        sample[name] = np.interp(seen, grid, curve).astype(sample[name].dtype)
