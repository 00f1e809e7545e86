"""A whole scan, or a part of one, on the coarse upright grid on which the naming network sees it.

The grid runs along the patient's axes, however the scan lies: only so can left be told from right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import Volume

Array = NDArray[np.float32]
Vector = NDArray[np.float64]
SIDE = 64  # grid cells across what is looked at
MULTIPLE = 16  # the network halves its grid four times
FINEST_MM, COARSEST_MM = 1.2, 6.0
TO_RAS = np.array([-1.0, -1.0, 1.0])  # of the grid's axes: left, posterior, superior


@dataclass(frozen=True)
class ScanGrid:
    """Cells `spacing` mm apart; `origin_ras` is the center of the first, `shape` counts them (w, v, u).

    u leads to the left, v to posterior, w to superior.
    """

    spacing: float
    origin_ras: tuple[float, float, float]
    shape: tuple[int, int, int]

    def to_ras(self, uvw: NDArray[Any]) -> Vector:
        """Cells (u, v, w) [..., 3] to RAS in mm."""
        return np.asarray(np.asarray(self.origin_ras) + uvw * (self.spacing * TO_RAS))

    def to_cells(self, ras: NDArray[Any]) -> Vector:
        """RAS in mm [..., 3] to cells (u, v, w)."""
        return np.asarray((ras - np.asarray(self.origin_ras)) * TO_RAS / self.spacing)


def grid_of(volume: Volume) -> ScanGrid:
    """The grid of the whole volume: 64 cells along its longest side, within 1.2 to 6 mm."""
    low, high = np.array(volume.bounds_ras).T
    return grid_between(low, high, float(np.clip((high - low).max() / SIDE, FINEST_MM, COARSEST_MM)))


def grid_around(low: Vector, high: Vector) -> ScanGrid:
    """A cube of 64 cells around a box between two RAS corners, with half of its size to spare."""
    middle = (low + high) / 2
    half = max(0.75 * float((high - low).max()), FINEST_MM * SIDE / 2)
    return grid_between(middle - half, middle + half, 2 * half / SIDE)


def grid_between(low: Vector, high: Vector, spacing: float) -> ScanGrid:
    """The grid that covers a box between two RAS corners; never less than the cube of training."""
    # The network's norms count what lies beyond the scan.
    blocks = np.ceil(np.round((high - low) / spacing / MULTIPLE, 6)).astype(int)
    cells = blocks.clip(SIDE // MULTIPLE) * MULTIPLE
    first = (low + high) / 2 - (cells - 1) / 2 * spacing * TO_RAS
    x, y, z = first.tolist()
    u, v, w = cells.tolist()
    return ScanGrid(spacing, (x, y, z), (w, v, u))


def cells_to_voxels(volume: Volume, grid: ScanGrid) -> NDArray[np.float64]:
    """The matrix [4, 4] from cells (u, v, w) to voxels (i, j, k)."""
    to_ras = np.eye(4)
    to_ras[:3, :3] = np.diag(grid.spacing * TO_RAS)
    to_ras[:3, 3] = grid.origin_ras
    return np.asarray(np.linalg.inv(volume.ijk_to_ras) @ to_ras)


def scan_on(volume: Volume, grid: ScanGrid) -> Array:
    """Brightness in 0..1 of a volume on a grid [w, v, u]; 0 beyond the volume.

    A cell is the mean of the voxels that fall to it, as in training.
    """
    factors = np.clip((grid.spacing / np.array(volume.spacing)).astype(int), 1, volume.size)
    matrix = cells_to_voxels(volume, grid)
    # Only the voxels that the grid needs: a grid around a patella needs few of those of a leg.
    corners = np.array(np.meshgrid(*[(-1, n) for n in grid.shape[::-1]])).reshape(3, -1).T
    needed = corners @ matrix[:3, :3].T + matrix[:3, 3]
    first = np.clip(np.floor(needed.min(0)).astype(int) // factors * factors, 0, volume.size)
    last = np.clip(np.ceil(needed.max(0)).astype(int) + 1, first, volume.size)
    blocks = (last - first) // factors
    if (blocks < 1).any():
        return np.zeros(grid.shape, np.float32)
    part = tuple(slice(a, a + n * f) for a, n, f in zip(first, blocks, factors, strict=True))[::-1]
    values = normalize(volume.array[part], intensity_window(volume))
    shape = [number for n, f in zip(blocks[::-1], factors[::-1], strict=True) for number in (n, f)]
    means = values.reshape(shape).mean((1, 3, 5), dtype=np.float32)
    shrunk = np.diag(1 / factors.astype(float)) @ matrix[:3, :3]
    offset = (matrix[:3, 3] - first - (factors - 1) / 2) / factors
    scan: Array = ndimage.affine_transform(
        means, shrunk[::-1, ::-1], offset[::-1], grid.shape, np.float32, order=1, mode="grid-constant"
    )
    return scan


def spacing_channel(spacing: float) -> np.float32:
    """How the network is told the size of a cell: a hand and a leg look alike."""
    # Small: as large as intensities it drowned them (sides of eight cubes: 73 % right, 99 % without it).
    return np.float32((np.log2(spacing) - 2) / 16)
