"""A mask kept as its bounding box, one bit a voxel: small enough for an undo history of large scans."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.volume import Int3

__all__ = ["CroppedMask"]


@dataclass(frozen=True)
class CroppedMask:
    """A mask on the grid of a volume. Use `from_array` or `from_crop`; equal masks compare equal.

    Attributes:
        shape: of the whole grid, (k, j, i).
        start: first voxel of the bounding box, (k, j, i).
        crop_shape: voxels of the bounding box, (k, j, i); all 0 for an empty mask.
        bits: its voxels, packed.
    """

    shape: Int3
    start: Int3
    crop_shape: Int3
    bits: bytes

    @classmethod
    def from_array(cls, array: NDArray[np.bool_]) -> "CroppedMask":
        """The mask [k, j, i] of a whole grid."""
        k, j, i = array.shape
        return cls.from_crop((k, j, i), (0, 0, 0), array)

    @classmethod
    def from_crop(cls, shape: Int3, start: Int3, crop: NDArray[np.bool_]) -> "CroppedMask":
        """A part [k, j, i] of the grid `shape`, from voxel `start` (k, j, i) on; background elsewhere."""
        first, last = [], []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            found = np.flatnonzero(crop.any(axis=others))
            if not len(found):
                return cls(shape, (0, 0, 0), (0, 0, 0), b"")
            first.append(int(found[0]))
            last.append(int(found[-1]) + 1)
            # The next axis then looks at less.
            crop = crop.take(range(first[-1], last[-1]), axis) if axis else crop[first[0] : last[0]]
        k, j, i = (begin + offset for begin, offset in zip(start, first, strict=True))
        depth, height, width = crop.shape
        return cls(shape, (k, j, i), (depth, height, width), np.packbits(crop).tobytes())

    @property
    def is_empty(self) -> bool:
        """Whether no voxel is set."""
        return not self.bits

    @property
    def start_ijk(self) -> Int3:
        """First voxel of the bounding box, (i, j, k)."""
        k, j, i = self.start
        return i, j, k

    @property
    def crop(self) -> NDArray[np.bool_]:
        """The voxels of the bounding box, bool [k, j, i]; a new array."""
        packed = np.frombuffer(self.bits, np.uint8)
        count = int(np.prod(self.crop_shape))
        return np.unpackbits(packed, count=count).astype(np.bool_).reshape(self.crop_shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the bounding box lies in the grid: `array[mask.slices]`."""
        k, j, i = (slice(a, a + n) for a, n in zip(self.start, self.crop_shape, strict=True))
        return k, j, i

    def to_array(self) -> NDArray[np.bool_]:
        """The whole grid, bool [k, j, i]; a new array."""
        array = np.zeros(self.shape, np.bool_)
        if not self.is_empty:
            array[self.slices] = self.crop
        return array
