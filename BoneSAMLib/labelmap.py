"""A mask on a grid of its own, and what it is on another grid."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.volume import Affine, Int3

__all__ = ["Labelmap"]

# Two grids are the same when no voxel of one is farther than this from a voxel of the other, in voxels.
_SAME_GRID = 1e-3
# Halfway between two voxels rounding errors would decide which is nearest: this much more makes it the lower.
_HALFWAY = 1e-6


@dataclass(frozen=True)
class Labelmap:
    """A block of voxels somewhere in an endless grid.

    Attributes:
        voxels: bool [k, j, i].
        origin: index (i, j, k) of the first of them; may be negative.
        affine: 4x4, from indices (i, j, k) to the coordinates in which labelmaps are compared.
    """

    voxels: NDArray[np.bool_]
    origin: Int3
    affine: Affine

    @classmethod
    def from_mask(cls, mask: CroppedMask, affine: Affine, origin: Int3 = (0, 0, 0)) -> "Labelmap":
        """The bounding box of a mask whose grid begins at index `origin`."""
        i, j, k = (first + start for first, start in zip(origin, mask.start_ijk, strict=True))
        return cls(mask.crop, (i, j, k), affine)

    @property
    def is_empty(self) -> bool:
        """Whether no voxel is set."""
        return not self.voxels.any()

    def changed(self, added: "Labelmap", removed: "Labelmap") -> "Labelmap":
        """This with what `added` and without what `removed` holds, on its own grid."""
        low = np.array(self.origin)
        high = low + self.voxels.shape[::-1]
        if not added.is_empty:
            from_added: Affine = np.linalg.inv(self.affine) @ added.affine
            # A face of the added voxels lies half a voxel beyond their centers, here as there.
            faces = [
                (a - 0.5, a + n - 0.5) for a, n in zip(added.origin, added.voxels.shape[::-1], strict=True)
            ]
            corners = np.array([[*corner, 1.0] for corner in product(*faces)]) @ from_added[:3].T
            low = np.minimum(low, np.floor(corners.min(0) + 0.5).astype(np.intp))
            high = np.maximum(high, np.ceil(corners.max(0) + 0.5).astype(np.intp))
        i, j, k = (int(one) for one in low)
        width, height, depth = (int(one) for one in high - low)
        origin, shape = (i, j, k), (depth, height, width)
        voxels = self.sampled(origin, shape, self.affine)
        voxels |= added.sampled(origin, shape, self.affine)
        voxels &= ~removed.sampled(origin, shape, self.affine)
        return Labelmap(voxels, origin, self.affine)

    def sampled(self, origin: Int3, shape: Int3, affine: Affine) -> NDArray[np.bool_]:
        """The same on a block of another grid, bool [k, j, i] of `shape`, given as in the attributes.

        Each voxel takes the nearest one here, and those outside take False.
        """
        found = np.zeros(shape, np.bool_)
        if self.is_empty or not found.size:
            return found
        to_own: Affine = np.linalg.inv(self.affine) @ affine
        # Nearly always the grids are the same but for a shift by whole voxels: exact, and without arithmetic.
        turn = to_own[:3, :3] - np.eye(3)
        shift = turn @ origin + to_own[:3, 3]
        if (np.abs(turn) @ shape[::-1] + np.abs(shift - np.rint(shift))).max() < _SAME_GRID:
            self._paste(found, np.subtract(self.origin, origin) - np.rint(shift).astype(np.intp))
        else:
            self._resample(found, origin, to_own)
        return found

    def _paste(self, found: NDArray[np.bool_], start: NDArray[np.intp]) -> None:
        """`start`: where in `found` these voxels begin, (i, j, k)."""
        first = np.maximum(start, 0)
        stop = np.minimum(start + self.voxels.shape[::-1], found.shape[::-1])
        if (first < stop).all():
            found[_block(first, stop)] = self.voxels[_block(first - start, stop - start)]

    def _resample(self, found: NDArray[np.bool_], origin: Int3, to_own: Affine) -> None:
        """One slice at a time: the indices of a whole volume would take gigabytes."""
        from_own: Affine = np.linalg.inv(to_own).astype(np.float64)
        low, high = self._reach(found, origin, from_own)
        columns, rows, slices = (np.arange(a, b + 1) for a, b in zip(low, high, strict=True))
        for k in slices if len(columns) and len(rows) else ():
            places = []
            for along, down, through, offset in to_own[:3]:
                exact = along * columns + (down * rows + (through * k + offset))[:, np.newaxis]
                places.append(np.ceil(exact - 0.5 - _HALFWAY).astype(np.intp))
            i, j, k_own = (place - first for place, first in zip(places, self.origin, strict=True))
            depth, height, width = self.voxels.shape
            inside = (i >= 0) & (i < width) & (j >= 0) & (j < height) & (k_own >= 0) & (k_own < depth)
            plane = found[k - origin[2], rows[0] - origin[1] :, columns[0] - origin[0] :]
            plane = plane[: len(rows), : len(columns)]
            plane[inside] = self.voxels[k_own[inside], j[inside], i[inside]]

    def _reach(
        self, found: NDArray[np.bool_], origin: Int3, from_own: Affine
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First and last index (i, j, k) in the other grid of what these voxels may cover of `found`."""
        faces = [(a - 0.5, a + n - 0.5) for a, n in zip(self.origin, self.voxels.shape[::-1], strict=True)]
        corners = np.array([[*corner, 1.0] for corner in product(*faces)]) @ from_own[:3].T
        low = np.maximum(np.floor(corners.min(0)).astype(np.intp), origin)
        high = np.minimum(np.ceil(corners.max(0)).astype(np.intp), np.add(origin, found.shape[::-1]) - 1)
        return low, high


def _block(first: NDArray[np.intp], stop: NDArray[np.intp]) -> tuple[slice, ...]:
    """Slices [k, j, i] from indices (i, j, k)."""
    return tuple(slice(int(a), int(b)) for a, b in zip(first[::-1], stop[::-1], strict=True))
