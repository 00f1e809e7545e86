"""The part of a volume that the network looks at: square slices around a prompt, and the way back.

A region is described in the slice frame: u and v lie in the slice, w counts slices along the stack; they are
the volume's own IJK axes in another order, so nothing is rotated or resampled along w. u and v run as on a
radiologist's screen, however the file stores them: the network need not learn every bone in eight poses. In
the slice, the region is a square of `width` mm sampled at 256 x 256 pixels, whatever the spacing: aspect is
kept, and a phalanx fills the network's view as a femur does.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import Volume

PIXELS = 256
CUBE = 64
Array = NDArray[np.float32]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class SliceFrame:
    """A volume seen as a stack of slices.

    Attributes:
        volume: the volume.
        axis: its IJK axis (0, 1 or 2) along which the slices are stacked, w.
    """

    volume: Volume
    axis: int

    @cached_property
    def order(self) -> tuple[int, int, int]:
        """IJK axes of u, v and w."""
        (u, _), (v, _) = screen_axes(self.volume.orientation, self.axis)
        return u, v, self.axis

    @cached_property
    def backward(self) -> tuple[bool, bool]:
        """Whether u and v run against their IJK axes."""
        (_, u), (_, v) = screen_axes(self.volume.orientation, self.axis)
        return u, v

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
        """The stored values that the network sees as 0 and 1."""
        return intensity_window(self.volume)

    def of_array(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array [k, j, i] of the volume's shape, seen as [w, v, u]: a view, not a copy."""
        u, v = (slice(None, None, -1 if backward else 1) for backward in self.backward)
        return array.transpose([2 - axis for axis in self.order[::-1]])[:, v, u]

    def from_ijk(self, ijk: Any) -> NDArray[np.float64]:
        """(i, j, k) coordinates [..., 3] as (u, v, w)."""
        uvw: NDArray[np.float64] = np.asarray(ijk, float)[..., list(self.order)]
        for axis, backward in enumerate(self.backward):
            if backward:
                uvw[..., axis] = self.size[axis] - 1 - uvw[..., axis]
        return uvw


def screen_axes(orientation: str, across: int) -> tuple[tuple[int, bool], tuple[int, bool]]:
    """IJK axes of u and v for slices across IJK axis `across`, and whether each runs against its axis.

    `orientation`: where i, j and k lead, as of `Volume`. u is to the right and v down on the screen: left and
    posterior in axial, left and inferior in coronal, posterior and inferior in sagittal slices.
    """
    in_plane = [axis for axis in range(3) if axis != across]
    u, v = sorted(in_plane, key=lambda axis: "LRPAIS".index(orientation[axis]))
    return (u, orientation[u] not in "LPI"), (v, orientation[v] not in "LPI")


@dataclass(frozen=True)
class Region:
    """A square of every slice, which may reach beyond the volume.

    Attributes:
        frame: the slices.
        center: middle of the square, u and v in mm from the center of the first voxel.
        width: side of the square in mm.
    """

    frame: SliceFrame
    center: tuple[float, float]
    width: float

    @property
    def scale(self) -> float:
        """Region pixels per mm."""
        return PIXELS / self.width

    def contains(self, low: Vector, high: Vector) -> bool:
        """Whether a box with the faces `low` and `high` (u, v, w in voxels) lies inside the square."""
        pixels = self.to_pixels(np.stack([low, high]))[:, :2]
        return bool((pixels >= 0).all() and (pixels <= PIXELS).all())

    def to_pixels(self, uvw: Any) -> Vector:
        """Voxel coordinates (u, v, w) [..., 3] as region pixels (x, y, depth) [..., 3].

        x and y run from 0 to 256 between the square's edges; depth counts from slice 0, in pixels too.
        """
        mm = np.asarray(uvw, float) * self.frame.spacing
        pixels: Vector = (mm - np.append(self._edge, 0.0)) * self.scale
        return pixels

    def to_voxel_faces(self, low: Any, high: Any, pixels: int) -> tuple[Vector, Vector]:
        """Faces (u, v in voxels) of a box of pixels from `low` to `high`, both (x, y) and inclusive.

        What reaches beyond the volume is cut off.
        """
        cell, spacing = self.width / pixels, np.array(self.frame.spacing[:2])
        border = np.array(self.frame.size[:2]) - 0.5
        first, last = ((self._edge + np.asarray(ends) * cell) / spacing for ends in (low, np.add(high, 1)))
        return np.clip(first, -0.5, border), np.clip(last, -0.5, border)

    def slices(self, indices: NDArray[np.int64]) -> Array:
        """Slices [n, 3, 256, 256] in 0..1: each between the one before and the one after it.

        Black beyond the volume; a single slice is its own neighbor.
        """
        last = self.frame.size[2] - 1
        wanted = np.stack([indices - 1, indices, indices + 1], axis=1)
        if last == 0:
            wanted = np.zeros_like(wanted)
        images = {int(w): self._image(int(w), PIXELS) for w in np.unique(wanted) if 0 <= w <= last}
        stack = np.zeros((*wanted.shape, PIXELS, PIXELS), np.float32)
        for place, w in np.ndenumerate(wanted):
            if w in images:
                stack[place] = images[w]
        return stack

    def cube(self, center: float) -> Array:
        """The cube [64, 64, 64] (w, v, u) of side `width` around slice `center`, in 0..1.

        Black beyond the volume.
        """
        step = self.width / CUBE / self.frame.spacing[2]
        places = np.asarray(center + (np.arange(CUBE) + 0.5 - CUBE / 2) * step, float)
        along = interpolation(places, self.frame.size[2], step)
        used = _used(along)
        images = np.stack([self._image(w, CUBE) for w in range(used.start, used.stop)])
        mixed: Array = csr_array(along[:, used]) @ images.reshape(len(images), -1)
        return mixed.reshape(CUBE, CUBE, CUBE)

    def to_voxels(self, values: Array) -> Array:
        """Values [n, h, h] over the square -> values at the voxel centers of `voxels`, [n, rows, columns].

        For logits: interpolating them, not masks, keeps outlines smooth at any resolution.
        """
        rows, columns = (
            self._between_pixels(axis, np.arange(part.start, part.stop) * spacing, spacing, values.shape[-1])
            for axis, part, spacing in (
                (1, self.voxels[0], self.frame.spacing[1]),
                (0, self.voxels[1], self.frame.spacing[0]),
            )
        )
        return _resampled(rows, values, columns)

    def to_region(self, values: Array, other: "Region", beyond: float) -> Array:
        """Values [n, h, h] over the square -> [n, h, h] over another square of these slices.

        Where that reaches outside this square, the value is `beyond`.
        """
        size = values.shape[-1]
        step = other.width / size
        rows, columns = (
            self._between_pixels(axis, other._edge[axis] + (np.arange(size) + 0.5) * step, step, size)
            for axis in (1, 0)
        )
        sampled: Array = _resampled(rows, values - np.float32(beyond), columns) + np.float32(beyond)
        return sampled

    def from_voxels(self, values: NDArray[Any], pixels: int) -> Array:
        """Values [v, u] of one whole slice -> [pixels, pixels] over the square; 0 beyond the volume."""
        rows, row_matrix, columns, column_matrix = self._between_voxels(pixels)
        seen = values[np.newaxis, rows, columns].astype(np.float32)
        sampled: Array = _resampled(row_matrix, seen, column_matrix)[0]
        return sampled

    @cached_property
    def voxels(self) -> tuple[slice, slice]:
        """The voxels of a slice whose centers lie in the square: rows (v) and columns (u)."""
        low = self._edge / self.frame.spacing[:2]
        high = (self._edge + self.width) / self.frame.spacing[:2]
        size = self.frame.size[:2]
        first = np.clip(np.ceil(low), 0, size).astype(int)
        last = np.clip(np.floor(high) + 1, 0, size).astype(int)
        return slice(int(first[1]), int(last[1])), slice(int(first[0]), int(last[0]))

    @property
    def _edge(self) -> Vector:
        """First edge of the square along u and v, in mm."""
        return np.array(self.center) - self.width / 2

    def _image(self, w: int, pixels: int) -> Array:
        """Slice `w` over the square [pixels, pixels], resampled and normalized to 0..1."""
        rows, row_matrix, columns, column_matrix = self._between_voxels(pixels)
        source = self.frame.of_array(self.frame.volume.array)[w, rows, columns]
        values = normalize(source, self.frame.window)[np.newaxis]
        image: Array = _resampled(row_matrix, values, column_matrix)[0]
        return image

    def _between_voxels(self, pixels: int) -> tuple[slice, csr_array, slice, csr_array]:
        """Rows that the square needs of a slice and the matrix from them to its pixels; columns likewise."""
        cache = self._matrix_cache
        if pixels not in cache:
            step = self.width / pixels
            ends: list[tuple[slice, csr_array]] = []
            for axis in (1, 0):
                spacing = self.frame.spacing[axis]
                places = (self._edge[axis] + (np.arange(pixels) + 0.5) * step) / spacing
                matrix = interpolation(places, self.frame.size[axis], step / spacing)
                used = _used(matrix)
                ends.append((used, csr_array(matrix[:, used])))
            cache[pixels] = (*ends[0], *ends[1])
        return cache[pixels]

    @cached_property
    def _matrix_cache(self) -> dict[int, tuple[slice, csr_array, slice, csr_array]]:
        return {}

    def _between_pixels(self, axis: int, mm: Vector, step: float, size: int) -> csr_array:
        """Matrix [len(mm), size] from `size` pixels along u (0) or v (1) to places `step` mm apart."""
        cell = self.width / size
        return csr_array(interpolation((mm - self._edge[axis]) / cell - 0.5, size, step / cell))


def interpolation(places: Vector, count: int, step: float) -> Array:
    """Matrix [len(places), count] that samples a row of `count` values at `places`.

    Linear interpolation; where samples are more than one value apart (`step` > 1) a triangle as wide as the
    step, so that nothing falls between samples. Places beyond half a value outside give 0.
    """
    reach = max(1.0, step)
    distance = np.abs(places[:, None] - np.arange(count)[None]) / reach
    weights = np.clip(1.0 - distance, 0.0, None)
    # A place that is inside has a value within half a step, so its total is never 0.
    inside = (places > -0.5 - 1e-6) & (places < count - 0.5 + 1e-6)
    weights[inside] /= weights[inside].sum(1, keepdims=True)
    weights[~inside] = 0.0
    return weights.astype(np.float32)


def _resampled(rows: csr_array, values: Array, columns: csr_array) -> Array:
    """Values [n, h, w] by the matrices [r, h] along their rows and [c, w] along their columns: [n, r, c].

    The matrices are nearly empty. Full ones took a fifth of the whole time of a 30-slice box, and BLAS rounds
    otherwise on another number of threads, which moved a voxel in one of 40 volumes.
    """
    n, height, width = values.shape
    r, c = rows.shape[0], columns.shape[0]
    half = rows @ values.transpose(1, 0, 2).reshape(height, n * width)
    half = half.reshape(r, n, width).transpose(2, 1, 0).reshape(width, n * r)
    sampled: Array = (columns @ half).reshape(c, n, r).transpose(1, 2, 0)
    return np.ascontiguousarray(sampled, np.float32)


def _used(matrix: Array) -> slice:
    """The columns from the first to the last that are not all 0; the first one of an empty matrix."""
    used = np.flatnonzero(matrix.any(0))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
