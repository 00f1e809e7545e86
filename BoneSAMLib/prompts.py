"""Boxes and points that say which bone is meant, in RAS millimeters or in voxel indices.

A prompt keeps the coordinates as given and is turned into voxels only against a `Volume`, so that the same
prompt serves scans of different geometry.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Affine, Float3, Int3, Volume

__all__ = ["Box", "Point", "Space", "corners_in_voxels", "parse_box", "parse_point"]

Space: TypeAlias = Literal["RAS", "IJK"]
Vector: TypeAlias = NDArray[np.float64]

# Corners drawn exactly on voxel centers must count as inside after rounding errors of the affine (in voxels).
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Box:
    """A box around one bone, given by two opposite corners in any order.

    Use `from_ras` or `from_ijk`. In RAS the sides are parallel to the body's axes and the corners are the
    box's surface; in IJK they are parallel to the voxel grid and the corners are the outermost voxels that
    belong to it. A box without thickness along one axis is a 2D box.
    """

    first: Float3
    second: Float3
    space: Space

    def __post_init__(self) -> None:
        if self.space not in get_args(Space):
            raise BoneSAMError(f"Unknown coordinate space {self.space!r} of a box: use RAS or IJK.")
        object.__setattr__(self, "first", _three_numbers(self.first, "corner of the box"))
        object.__setattr__(self, "second", _three_numbers(self.second, "corner of the box"))
        if sum(a == b for a, b in zip(self.first, self.second, strict=True)) >= 2:
            raise BoneSAMError(
                f"The box {self} has no size: its corners must differ along at least two axes. "
                "Draw a larger box around the bone."
            )

    @classmethod
    def from_ras(cls, corner: Sequence[float], opposite_corner: Sequence[float]) -> "Box":
        """Box between two opposite corners (R, A, S) in mm, in any order.

        Raises:
            BoneSAMError: not three finite numbers each, or equal along two or more axes.
        """
        return cls(
            _three_numbers(corner, "corner of the box"),
            _three_numbers(opposite_corner, "corner of the box"),
            "RAS",
        )

    @classmethod
    def from_ijk(cls, low: Sequence[int], high: Sequence[int]) -> "Box":
        """Box of whole voxels from `low` to `high`, both (i, j, k) and both inclusive, in any order.

        Raises:
            BoneSAMError: not three whole numbers each, or equal along two or more axes.
        """
        corners = [_three_numbers(corner, "corner of the box") for corner in (low, high)]
        for corner in corners:
            if any(value != round(value) for value in corner):
                raise BoneSAMError(
                    f"The corner {_listed(corner)} of the box is in voxels: use whole numbers."
                )
        return cls(corners[0], corners[1], "IJK")

    def __str__(self) -> str:
        unit = " mm" if self.space == "RAS" else ""
        return f"{self.space} {_listed(self.first)} to {_listed(self.second)}{unit}"

    def to_ijk(self, volume: Volume) -> tuple[Int3, Int3]:
        """Voxels of `volume` that the box covers: (low, high), each (i, j, k), inclusive and clipped to it.

        A RAS box in an oblique volume covers more than itself: the smallest voxel box that holds all voxel
        centers inside it. A box so thin that it lies between two slices takes the nearer slice, and one
        without thickness the slice through its middle, however it lies to the slices.

        Raises:
            BoneSAMError: wholly outside the volume (the message says where that lies), or within it only a
                single row of voxels.
        """
        low_exact, high_exact = self._extremes(volume)
        size = volume.size
        # Outside is decided before clipping, which would turn any box outside into one on the border.
        if any(
            high_exact[axis] < -0.5 - _TOLERANCE or low_exact[axis] > size[axis] - 0.5 + _TOLERANCE
            for axis in range(3)
        ):
            raise BoneSAMError(f"The box {self} lies outside the volume, which lies at {_extent(volume)}.")
        low, high = [0, 0, 0], [0, 0, 0]
        for axis in range(3):
            first, last = _voxels_between(low_exact[axis], high_exact[axis])
            low[axis] = min(max(first, 0), size[axis] - 1)
            high[axis] = min(max(last, 0), size[axis] - 1)
        if sum(low[axis] == high[axis] for axis in range(3)) >= 2:
            raise BoneSAMError(
                f"The box {self} covers only a single row of voxels, i, j, k = {_listed(low)} to "
                f"{_listed(high)}: draw a larger box. The volume lies at {_extent(volume)}."
            )
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def thin_axis(self, volume: Volume) -> int | None:
        """IJK axis along which this is a 2D box, drawn on a slice of `volume`; None for a 3D box.

        A 3D box of which a slice alone is inside the volume is one still.
        """
        for axis, (low, high) in enumerate(zip(*self._extremes(volume), strict=True)):
            first, last = _voxels_between(low, high)
            if first == last or volume.size[axis] == 1:
                return axis
        return None

    def _extremes(self, volume: Volume) -> tuple[Vector, Vector]:
        """Lowest and highest (i, j, k) of the corners."""
        if self.space == "IJK":
            corners = np.array([self.first, self.second])
            return corners.min(axis=0), corners.max(axis=0)
        return corners_in_voxels(self.first, self.second, volume.ras_to_ijk, volume)


def corners_in_voxels(
    corner: Float3, opposite_corner: Float3, to_ijk: Affine, volume: Volume
) -> tuple[Vector, Vector]:
    """Lowest and highest (i, j, k) of a box, given by its corners in axes that `to_ijk` maps to voxels.

    A box without thickness, which is less than the finest spacing of `volume`, has none in voxels either:
    along the axis that its normal is nearest to.
    """
    sides = list(zip(corner, opposite_corner, strict=True))
    corners = np.array([[*one, 1.0] for one in itertools.product(*sides)]) @ to_ijk[:3].T
    low, high = corners.min(axis=0), corners.max(axis=0)
    directions = to_ijk[:3, :3] * np.array(volume.spacing)[:, None]  # columns: mm along i, j and k
    thickness = np.abs(np.subtract(corner, opposite_corner)) * np.linalg.norm(directions, axis=0)
    side = int(thickness.argmin())
    if thickness[side] < min(volume.spacing):
        normal = np.cross(*np.delete(directions, side, axis=1).T)
        axis = int(np.abs(normal).argmax())
        low[axis] = high[axis] = corners[:, axis].mean()
    return low, high


def _voxels_between(low: float, high: float) -> tuple[int, int]:
    """First and last voxel center between two places along an axis, or twice the nearest one."""
    first, last = math.ceil(low - _TOLERANCE), math.floor(high + _TOLERANCE)
    if first > last:
        first = last = math.floor((low + high) / 2 + 0.5)
    return first, last


@dataclass(frozen=True)
class Point:
    """A click on the bone (`positive`) or on something that must not belong to it.

    Use `from_ras` or `from_ijk`.
    """

    position: Float3
    positive: bool
    space: Space

    def __post_init__(self) -> None:
        if self.space not in get_args(Space):
            raise BoneSAMError(f"Unknown coordinate space {self.space!r} of a point: use RAS or IJK.")
        object.__setattr__(self, "position", _three_numbers(self.position, "point"))

    @classmethod
    def from_ras(cls, position: Sequence[float], positive: bool = True) -> "Point":
        """Point at (R, A, S) in mm. Raises BoneSAMError unless these are three finite numbers."""
        return cls(_three_numbers(position, "point"), positive, "RAS")

    @classmethod
    def from_ijk(cls, position: Sequence[float], positive: bool = True) -> "Point":
        """Point at voxel indices (i, j, k), fractions allowed.

        Raises BoneSAMError unless these are three finite numbers.
        """
        return cls(_three_numbers(position, "point"), positive, "IJK")

    def __str__(self) -> str:
        unit = " mm" if self.space == "RAS" else ""
        return f"{self.space} {_listed(self.position)}{unit}"

    def to_ijk(self, volume: Volume) -> Float3:
        """Fractional voxel indices (i, j, k) of the point in `volume`; voxel centers are whole numbers.

        Raises:
            BoneSAMError: outside the volume; the message says where that lies.
        """
        if self.space == "RAS":
            i, j, k = (float(value) for value in volume.ras_to_ijk[:3] @ [*self.position, 1.0])
        else:
            i, j, k = self.position
        if not all(
            -0.5 - _TOLERANCE <= value <= n - 0.5 + _TOLERANCE
            for value, n in zip((i, j, k), volume.size, strict=True)
        ):
            raise BoneSAMError(f"The point {self} lies outside the volume, which lies at {_extent(volume)}.")
        return i, j, k


def parse_box(text: str, space: Space = "RAS") -> Box:
    """Read "R,A,S,R,A,S" in mm (or "i,j,k,i,j,k" in voxels with space="IJK"): two opposite corners.

    Raises:
        BoneSAMError: not six numbers, not whole numbers in IJK, or a box without size.
    """
    example = "R,A,S,R,A,S in mm" if space == "RAS" else "i,j,k,i,j,k in voxels"
    values = _parse_numbers(text, 6, f"box {text!r}", example)
    if space == "RAS":
        return Box.from_ras(values[:3], values[3:])
    if any(value != round(value) for value in values):
        raise BoneSAMError(f"The box {text!r} is in voxels: use whole numbers, such as 10,20,5,90,80,25.")
    whole = [round(value) for value in values]
    return Box.from_ijk(whole[:3], whole[3:])


def parse_point(text: str, positive: bool = True, space: Space = "RAS") -> Point:
    """Read "R,A,S" in mm (or "i,j,k" in voxels with space="IJK").

    Raises:
        BoneSAMError: not three numbers.
    """
    example = "R,A,S in mm" if space == "RAS" else "i,j,k in voxels"
    values = _parse_numbers(text, 3, f"point {text!r}", example)
    return Point.from_ras(values, positive) if space == "RAS" else Point.from_ijk(values, positive)


def _parse_numbers(text: str, count: int, what: str, example: str) -> list[float]:
    parts = [part.strip() for part in text.split(",")]
    try:
        # Python reads 1_0 as ten; who types that means something else.
        values = [] if "_" in text else [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise BoneSAMError(
            f"Cannot read the {what}: {count} numbers separated by commas are needed ({example})."
        )
    return values


def _three_numbers(values: Sequence[float], what: str) -> Float3:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise BoneSAMError(f"A {what} must be three finite numbers, not {values!r}.")
    return numbers[0], numbers[1], numbers[2]


def _listed(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4f}".rstrip("0").rstrip(".") for value in values) + ")"


def _extent(volume: Volume) -> str:
    indices = ", ".join(f"{axis} 0 to {n - 1}" for axis, n in zip("ijk", volume.size, strict=True))
    return f"{volume.bounds_text} ({indices})"
