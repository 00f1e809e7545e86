"""The part of a volume that the network looks at: square slices around a prompt, and the way back.

A region is described in the slice frame: u and v lie in the slice, w counts slices along the stack; they are the
volume's own IJK axes in another order, so nothing is rotated or resampled along w. In the slice, the region
is a square of `width` mm sampled at 256 x 256 pixels, whatever the spacing: aspect is kept, and a phalanx
fills the network's view as a femur does.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import Volume

PIXELS = 256
CUBE = 64
Array = NDArray[np.float32]


@dataclass(frozen=True)
class SliceFrame:
    """A volume seen as a stack of slices along one of its IJK axes."""

    volume: Volume
    axis: int  # IJK axis of the stack, w

    @cached_property
    def order(self) -> tuple[int, int, int]:
        """IJK axes of u, v and w."""
        u, v = (axis for axis in range(3) if axis != self.axis)
        return u, v, self.axis

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """mm along u, v and w."""
        u, v, w = (self.volume.spacing[axis] for axis in self.order)
        return u, v, w

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Voxels along u, v and w."""
        u, v, w = (self.volume.size[axis] for axis in self.order)
        return u, v, w

    @cached_property
    def window(self) -> tuple[float, float]:
        return intensity_window(self.volume)

    def of_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array [k, j, i] of the volume's shape, viewed as [w, v, u]."""
        return array.transpose([2 - axis for axis in self.order[::-1]])

    def from_ijk(self, ijk: Any) -> NDArray[np.float64]:
        """(i, j, k) coordinates [..., 3] as (u, v, w)."""
        return np.asarray(ijk, float)[..., list(self.order)]


@dataclass(frozen=True)
class Region:
    """A square of `width` mm around `center` (u, v in mm from the first voxel's center) in every slice."""

    frame: SliceFrame
    center: tuple[float, float]
    width: float

    @property
    def scale(self) -> float:
        """Region pixels per mm."""
        return PIXELS / self.width

    def contains(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
        """Whether a box (u, v, ... voxel coordinates) lies inside the square."""
        pixels = np.array([self.to_pixels(low), self.to_pixels(high)])[:, :2]
        return bool((pixels >= 0).all() and (pixels <= PIXELS).all())

    def to_pixels(self, uvw: Any) -> NDArray[np.float64]:
        """Voxel coordinates (u, v, w) [..., 3] as region pixels (x, y, depth) [..., 3], depth from slice 0."""
        mm = np.asarray(uvw, float) * self.frame.spacing
        origin = np.array([self.center[0] - self.width / 2, self.center[1] - self.width / 2, 0.0])
        pixels: NDArray[np.float64] = (mm - origin) * self.scale
        return pixels

    def slices(self, indices: NDArray[np.int64]) -> Array:
        """Slices [n, 3, 256, 256] in 0..1: each with the ones below and above it; black beyond the volume."""
        needed = np.unique(np.concatenate([indices - 1, indices, indices + 1]))
        images = {int(w): self._image(int(w), PIXELS) for w in needed}
        if self.frame.size[2] == 1:
            images = {w: images[0] for w in (-1, 0, 1)}
        return np.stack([np.stack([images[int(w) + step] for step in (-1, 0, 1)]) for w in indices])

    def cube(self, center_w: float) -> Array:
        """The isotropic cube [64, 64, 64] (w, v, u) of side `width` around slice `center_w`, in 0..1."""
        places = center_w + ((np.arange(CUBE) + 0.5) / CUBE - 0.5) * self.width / self.frame.spacing[2]
        step = self.width / CUBE / self.frame.spacing[2]
        along = interpolation(places, self.frame.size[2], step)
        used = np.flatnonzero(along.any(0))
        images = (
            np.stack([self._image(int(w), CUBE) for w in used]) if len(used) else np.zeros((1, CUBE, CUBE))
        )
        matrix = along[:, used] if len(used) else np.zeros((CUBE, 1))
        return np.tensordot(matrix, images, axes=(1, 0)).astype(np.float32)

    def _image(self, w: int, pixels: int) -> Array:
        """One slice [pixels, pixels], resampled and normalized."""
        if not 0 <= w < self.frame.size[2]:
            return np.zeros((pixels, pixels), np.float32)
        rows, row_matrix, columns, column_matrix = self._matrices(pixels)
        source = self.frame.of_array(self.frame.volume.array)[w, rows, columns]
        return (row_matrix @ normalize(source, self.frame.window) @ column_matrix.T).astype(np.float32)

    def _matrices(self, pixels: int) -> tuple[slice, Array, slice, Array]:
        cache: dict[int, tuple[slice, Array, slice, Array]] = self._matrix_cache
        if pixels not in cache:
            parts: list[Any] = []
            for axis in (1, 0):
                places = self._places(axis, pixels)
                step = self.width / pixels / self.frame.spacing[axis]
                matrix = interpolation(places, self.frame.size[axis], step)
                used = np.flatnonzero(matrix.any(0))
                window = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
                parts += [window, matrix[:, window]]
            cache[pixels] = (parts[0], parts[1], parts[2], parts[3])
        return cache[pixels]

    @cached_property
    def _matrix_cache(self) -> dict[int, tuple[slice, Array, slice, Array]]:
        return {}

    def _places(self, axis: int, pixels: int) -> NDArray[np.float64]:
        """Voxel coordinates of the centers of `pixels` region pixels along u (0) or v (1)."""
        offsets = ((np.arange(pixels) + 0.5) / pixels - 0.5) * self.width
        return (self.center[axis] + offsets) / self.frame.spacing[axis]

    @cached_property
    def voxels(self) -> tuple[slice, slice]:
        """The voxels of a slice whose centers lie in the square: rows (v) and columns (u)."""
        parts = []
        for axis in (1, 0):
            low = (self.center[axis] - self.width / 2) / self.frame.spacing[axis]
            high = (self.center[axis] + self.width / 2) / self.frame.spacing[axis]
            size = self.frame.size[axis]
            parts.append(
                slice(int(np.clip(np.ceil(low), 0, size)), int(np.clip(np.floor(high) + 1, 0, size)))
            )
        return parts[0], parts[1]

    def to_voxels(self, logits: Array) -> Array:
        """Logits [n, h, w] over the square -> logits at the voxel centers of `voxels`, [n, rows, columns].

        Logits, not masks, are interpolated, so outlines stay smooth at any resolution.
        """
        matrices = []
        for axis, window in ((1, self.voxels[0]), (0, self.voxels[1])):
            centers = np.arange(window.start, window.stop) * self.frame.spacing[axis]
            cell = self.width / logits.shape[1]
            places = (centers - (self.center[axis] - self.width / 2)) / cell - 0.5
            step = self.frame.spacing[axis] / cell
            matrices.append(interpolation(np.clip(places, 0, logits.shape[1] - 1), logits.shape[1], step))
        return np.matmul(np.matmul(matrices[0], logits), matrices[1].T).astype(np.float32)

    def from_voxels(self, values: NDArray[Any], pixels: int) -> Array:
        """Values [n, v, u] on whole slices -> [n, pixels, pixels] over the square."""
        rows, row_matrix, columns, column_matrix = self._matrices(pixels)
        source = values[:, rows, columns].astype(np.float32)
        return np.matmul(np.matmul(row_matrix, source), column_matrix.T).astype(np.float32)


def interpolation(places: NDArray[np.float64], count: int, step: float) -> Array:
    """Matrix [len(places), count] that samples a row of `count` values at `places`.

    Linear interpolation; where samples are more than one value apart (`step` > 1) a triangle as wide as the
    step, so that nothing falls between samples. Places beyond half a value outside give 0.
    """
    reach = max(1.0, step)
    distance = np.abs(places[:, None] - np.arange(count)[None]) / reach
    weights = np.clip(1.0 - distance, 0.0, None)
    total = weights.sum(1, keepdims=True)
    inside = (places > -0.5 - 1e-6) & (places < count - 0.5 + 1e-6)
    weights = np.where(inside[:, None] & (total > 0), weights / np.maximum(total, 1e-6), 0.0)
    return weights.astype(np.float32)
