"""A box that may be turned against the body's axes: a region of interest as drawn in a viewer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import Box, corners_in_voxels
from BoneSAMLib.volume import Affine, Float3, Int3, Volume

__all__ = ["AnyBox", "OrientedBox"]


@dataclass(frozen=True)
class OrientedBox:
    """A box around one bone with its own axes. Use `from_matrix`.

    Attributes:
        low, high: opposite corners in the box's own axes, in mm.
        object_to_ras: rows of the 4x4 affine from these axes to RAS mm.
    """

    low: Float3
    high: Float3
    object_to_ras: tuple[tuple[float, ...], ...]

    @classmethod
    def from_matrix(
        cls, corner: Sequence[float], opposite_corner: Sequence[float], object_to_ras: Any
    ) -> "OrientedBox":
        """Box between two opposite corners, in any order, in axes given by a 4x4 affine.

        Raises:
            BoneSAMError: numbers that are not finite, a singular affine, or no size along two or more axes.
        """
        corners = np.array([corner, opposite_corner], float)
        matrix = np.array(object_to_ras, float)
        if corners.shape != (2, 3) or matrix.shape != (4, 4):
            raise BoneSAMError("A box needs two corners of three numbers each and a 4x4 matrix.")
        if not (np.isfinite(corners).all() and np.isfinite(matrix).all()):
            raise BoneSAMError("The box has coordinates that are not finite numbers: draw it again.")
        if abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
            raise BoneSAMError("The box is squeezed flat by its transform: draw it again without one.")
        low, high = corners.min(0), corners.max(0)
        if (low == high).sum() >= 2:
            raise BoneSAMError("The box has no size: draw a larger box around the bone.")
        rows = tuple(tuple(float(value) for value in row) for row in matrix)
        return cls(_three(low), _three(high), rows)

    @property
    def matrix(self) -> Affine:
        """`object_to_ras` as an array."""
        return np.array(self.object_to_ras, np.float64)

    def to_box(self, volume: Volume) -> Box:
        """The box of voxels of `volume` (not clipped to it) that covers this one."""
        low, high = corners_in_voxels(self.low, self.high, volume.ras_to_ijk @ self.matrix, volume)
        # Box rounds fractions to the voxel centers inside.
        return Box(_three(low), _three(high), "IJK")

    def to_ijk(self, volume: Volume) -> tuple[Int3, Int3]:
        """Voxels of `volume` that cover the box: (low, high), each (i, j, k), inclusive and clipped to it.

        Raises:
            BoneSAMError: wholly outside the volume, or too small to hold more than a single row of voxels.
        """
        try:
            return self.to_box(volume).to_ijk(volume)
        except BoneSAMError as error:  # its numbers are voxels that nobody has drawn
            raise BoneSAMError(
                "The box lies outside the volume, or is too small: draw it around the bone. "
                f"The volume lies at {volume.bounds_text}."
            ) from error


AnyBox: TypeAlias = Box | OrientedBox


def _three(values: NDArray[np.float64]) -> Float3:
    x, y, z = (float(value) for value in values)
    return x, y, z
