"""Where the true voxels of a mask [k, j, i] are."""

from typing import cast

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.volume import Int3, Volume

Mask = NDArray[np.bool_]


def bounding_slices(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest block of ``mask`` that holds all its true voxels; there must be one."""
    extents = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        extents.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return extents[0], extents[1], extents[2]


def bounds_ijk(mask: Mask) -> tuple[Int3, Int3]:
    """Lowest and highest true voxel along i, j, k, inclusive; there must be one."""
    k, j, i = bounding_slices(mask)
    return (i.start, j.start, k.start), (i.stop - 1, j.stop - 1, k.stop - 1)


def slice_view(array: NDArray[np.generic], axis: int, index: int) -> NDArray[np.generic]:
    """Slice ``index`` along IJK ``axis`` of an array [k, j, i]; a view, so that it can be written to."""
    return np.moveaxis(array, 2 - axis, 0)[index]


def middle_slice(mask: Mask, axis: int) -> int:
    """The slice along IJK ``axis`` with a part of ``mask`` that is nearest to the middle of its extent."""
    occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != 2 - axis)))
    middle = (int(occupied[0]) + int(occupied[-1])) / 2
    return int(occupied[np.argmin(np.abs(occupied - middle))])


def only_slice(mask: Mask, axis: int, index: int) -> Mask:
    """``mask`` with everything but slice ``index`` along IJK ``axis`` removed."""
    only = np.zeros_like(mask)
    slice_view(only, axis, index)[...] = slice_view(mask, axis, index)
    return only


def largest_component(mask: Mask) -> Mask:
    """The largest 26-connected part of ``mask``, which must have one."""
    region = bounding_slices(mask)
    components = cc3d.connected_components(mask[region], connectivity=26)
    largest = np.zeros_like(mask)
    largest[region] = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    return largest


def depth_mm(mask: Mask, volume: Volume, flat_axis: int | None = None) -> NDArray[np.float32]:
    """Distance (mm) of each true voxel of ``mask`` to the nearest one outside it, the volume's edge included.

    ``flat_axis`` is the IJK axis of a single slice, along which there is no border: seen in 3D all its voxels
    would be one voxel deep.
    """
    spacing_kji = list(reversed(volume.spacing))
    if flat_axis is None:
        depth = edt.edt(np.ascontiguousarray(mask), anisotropy=tuple(spacing_kji), black_border=True)
        return cast(NDArray[np.float32], depth)
    array_axis = 2 - flat_axis
    del spacing_kji[array_axis]
    flat = np.ascontiguousarray(mask.squeeze(array_axis))
    depth = edt.edt(flat, anisotropy=tuple(spacing_kji), black_border=True)
    return cast(NDArray[np.float32], np.expand_dims(depth, array_axis))


def grown(mask: Mask, distance_mm: float, volume: Volume) -> Mask:
    """``mask`` and all voxels whose centers are at most ``distance_mm`` from one of its."""
    margins = [int(distance_mm / length) + 1 for length in reversed(volume.spacing)]
    region = tuple(
        slice(max(0, extent.start - margin), extent.stop + margin)
        for extent, margin in zip(bounding_slices(mask), margins, strict=True)
    )
    outside = np.ascontiguousarray(~mask[region])
    distance = edt.edt(outside, anisotropy=tuple(reversed(volume.spacing)), black_border=False)
    band = np.zeros_like(mask)
    band[region] = distance <= distance_mm
    return band
