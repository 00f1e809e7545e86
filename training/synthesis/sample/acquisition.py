"""How a scan sees a body: its grid, the image and the bones on it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.volume import Affine
from training.synthesis.sample.body import Anatomy, Array, Vector


@dataclass
class Scan:
    """Grid of a scan in the body: k is across the slices, or along the rays of a radiograph."""

    ijk_to_ras: Affine
    size: tuple[int, int, int]  # i, j, k
    blur_mm: float  # standard deviation

    def acquire(self, image: Array, spacing: Vector, origin: Vector) -> Array:
        """An image [k, j, i] with spacing (i, j, k) and origin along the axes of RAS, as the scan sees it.

        What lies beyond the image is like its border.
        """
        blurred = ndimage.gaussian_filter(image, self.blur_mm / spacing[::-1], truncate=3.0)
        thickness = np.linalg.norm(self.ijk_to_ras[:3, 2])
        samples = int(np.ceil(thickness / spacing.min()))
        i, j = np.meshgrid(np.arange(self.size[0]), np.arange(self.size[1]))
        seen = np.zeros(self.size[::-1], np.float32)
        for k in range(self.size[2]):
            for offset in (np.arange(samples) + 0.5) / samples - 0.5:
                ijk = np.stack([i, j, np.full(i.shape, k + offset)], axis=-1)
                ras = ijk @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]
                kji = np.moveaxis(((ras - origin) / spacing)[..., ::-1], -1, 0)
                found = ndimage.map_coordinates(blurred, kji, order=1, output=np.float32, mode="nearest")
                seen[k] += found / np.float32(samples)
        return seen

    def shares(self, anatomy: Anatomy) -> Iterator[tuple[tuple[slice, slice, slice], Array]]:
        """For every bone, where on the grid it lies and its share of the voxels there, [k, j, i]."""
        boxes = ndimage.find_objects(anatomy.labels)
        for value in anatomy.bones:
            window = tuple(slice(max(s.start - 5, 0), s.stop + 5) for s in boxes[value - 1])
            mask = anatomy.labels[window] == value
            origin = anatomy.origin + [s.start for s in window[::-1]] * anatomy.spacing
            faces = [(0.0, n - 1.0) for n in mask.shape[::-1]]
            corners = np.array(list(itertools.product(*faces))) * anatomy.spacing + origin
            corners = (corners - self.ijk_to_ras[:3, 3]) @ np.linalg.inv(self.ijk_to_ras[:3, :3]).T
            low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, self.size)
            high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low, self.size)
            affine = self.ijk_to_ras.copy()
            affine[:3, 3] += affine[:3, :3] @ low
            i, j, k = (int(n) for n in high - low)
            part = Scan(affine, (i, j, k), self.blur_mm)
            share = part.acquire(mask.astype(np.float32), anatomy.spacing, origin)
            place = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
            yield (place[0], place[1], place[2]), share

    def truth(self, anatomy: Anatomy) -> NDArray[np.uint8]:
        """The bones on the scan's grid [k, j, i]; values are the bones' numbers."""
        truth = np.zeros(self.size[::-1], np.uint8)
        most = np.full(self.size[::-1], 0.5, np.float32)
        for number, (place, share) in enumerate(self.shares(anatomy), start=1):
            truth[place][share > most[place]] = number
            most[place] = np.maximum(most[place], share)
        return truth

    def projected_truth(self, anatomy: Anatomy) -> NDArray[np.uint8]:
        """The bones' shadows [1, j, i], values as in `truth`; the smaller of two lies on top."""
        shadows = []
        for number, (place, share) in enumerate(self.shares(anatomy), start=1):
            shadow = (share > 0.5).any(axis=0)
            shadows.append((int(shadow.sum()), number, place[1:], shadow))
        truth = np.zeros((1, self.size[1], self.size[0]), np.uint8)
        for _, number, window, shadow in sorted(shadows, key=lambda row: row[:2], reverse=True):
            truth[0][window][shadow] = number
        return truth


def rotation(axis: Sequence[float], degrees: float) -> Vector:
    """Rotation matrix around an axis."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: Vector = (
        np.eye(3) + np.sin(np.radians(degrees)) * cross + (1 - np.cos(np.radians(degrees))) * cross @ cross
    )
    return turned


def affine_around(
    directions: Vector, spacing: Sequence[float], size: Sequence[int], center: Vector
) -> Affine:
    """ijk_to_ras of a grid with unit columns `directions` whose middle lies at `center` (RAS mm)."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = center - affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return affine
