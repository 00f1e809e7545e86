"""Voxel grids along the axes of RAS, and the arrays on them, [k, j, i]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LARGEST_VOLUME_VOXELS = 45_000_000
Labels: TypeAlias = NDArray[np.uint16]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Voxel grid along the axes of RAS: mm of voxel (0, 0, 0), spacing in mm and size, in i, j, k order."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape [k, j, i] of an array on this grid."""
        i, j, k = self.size
        return k, j, i

    @property
    def sampling(self) -> tuple[float, float, float]:
        """Spacing in mm in the order of the array's axes: k, j, i."""
        i, j, k = self.spacing
        return k, j, i

    @staticmethod
    def around(low: Sequence[float], high: Sequence[float], spacing: float) -> "Grid":
        """Isotropic grid that covers the box from low to high (RAS mm), coarser than asked if too large."""
        extent = np.subtract(high, low)
        size = np.ceil(extent / spacing).astype(int) + 1
        while int(np.prod(size)) > LARGEST_VOLUME_VOXELS:
            spacing = round(spacing * 1.05, 3)
            size = np.ceil(extent / spacing).astype(int) + 1
        i, j, k = (int(n) for n in size)
        return Grid((float(low[0]), float(low[1]), float(low[2])), (spacing, spacing, spacing), (i, j, k))
