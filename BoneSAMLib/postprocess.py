"""What may be done to a mask after the network: smooth it, keep it inside the box, remove islands.

Pure functions on `CroppedMask`; they work on the bounding box only: a larger scan takes no longer.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.oriented_box import AnyBox, OrientedBox
from BoneSAMLib.prompts import Point
from BoneSAMLib.volume import Affine, Int3, Volume

__all__ = ["keep_inside", "postprocess", "remove_small_islands", "smooth"]

_REACH = 3.0  # standard deviations of the Gaussian that are looked at
_TOLERANCE = 1e-6  # voxels: rounding errors, for boxes drawn exactly on voxel centers


def postprocess(
    mask: CroppedMask,
    volume: Volume,
    smoothing_mm: float = 0.0,
    inside: AnyBox | None = None,
    points: Sequence[Point] | None = None,
) -> CroppedMask:
    """All steps in the order in which they do not undo each other.

    Args:
        mask: on the grid of `volume`.
        volume: gives the geometry.
        smoothing_mm: as in `smooth`; 0 for none.
        inside: a box that the mask must not leave; None for no limit.
        points: removes islands, as in `remove_small_islands`; None keeps them.
    """
    if smoothing_mm > 0:
        mask = smooth(mask, volume, smoothing_mm)
    if inside is not None:
        mask = keep_inside(mask, volume, inside)
    if points is not None:
        mask = remove_small_islands(mask, volume, points)
    return mask


def smooth(mask: CroppedMask, volume: Volume, smoothing_mm: float) -> CroppedMask:
    """Smooth the surface with a Gaussian of standard deviation `smoothing_mm`, whatever the spacing.

    The number of voxels stays (but for ties): the level is chosen so. At the usual level of one half, bones
    shrink, and plates as thin as a scapula vanish.
    """
    if mask.is_empty:
        return mask
    sigma = [smoothing_mm / spacing for spacing in reversed(volume.spacing)]
    # A slice of its own has no neighbors to be smoothed with.
    sigma = [0.0 if n == 1 else s for s, n in zip(sigma, mask.shape, strict=True)]
    start, stop = [], []
    for axis, box in enumerate(mask.slices):
        margin = int(np.ceil(_REACH * sigma[axis]))
        start.append(max(0, box.start - margin))
        stop.append(min(mask.shape[axis], box.stop + margin))
    padding = [(box.start - a, b - box.stop) for box, a, b in zip(mask.slices, start, stop, strict=True)]
    values = np.pad(mask.crop, padding).astype(np.float32)
    count = int(values.sum())
    # "nearest": a bone cut by the end of the scan goes on there.
    blurred = ndimage.gaussian_filter(values, sigma, mode="nearest", truncate=_REACH)
    level = np.partition(blurred.ravel(), blurred.size - count)[blurred.size - count]
    smoothed = blurred >= max(float(level), 1e-6)
    k, j, i = start
    return CroppedMask.from_crop(mask.shape, (k, j, i), smoothed)


def keep_inside(mask: CroppedMask, volume: Volume, box: AnyBox) -> CroppedMask:
    """The part of the mask whose voxel centers lie inside a box, turned or not.

    A box drawn on one slice of a stack says nothing about the depth of the bone, and does not limit it.
    """
    if mask.is_empty or _is_flat(box, volume):
        return mask
    if isinstance(box, OrientedBox):
        to_object = np.linalg.inv(box.matrix) @ volume.ijk_to_ras
        low, high = np.array(box.low), np.array(box.high)
    else:
        corners = np.array([box.first, box.second])
        to_object = volume.ijk_to_ras if box.space == "RAS" else np.eye(4)
        low, high = corners.min(0), corners.max(0)
    crop = mask.crop
    k, j, i = (
        np.arange(part.start, part.stop, dtype=np.float64).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, part in enumerate(mask.slices)
    )
    for axis in range(3):
        if volume.is_projection and _is_across(to_object, axis, volume):
            continue  # the depth of a radiograph means nothing
        row = to_object[axis]
        tolerance = _TOLERANCE * float(np.abs(row[:3]).max())
        place = row[0] * i + row[1] * j + row[2] * k + row[3]
        crop &= (place >= low[axis] - tolerance) & (place <= high[axis] + tolerance)
    return CroppedMask.from_crop(mask.shape, mask.start, crop)


def remove_small_islands(mask: CroppedMask, volume: Volume, points: Sequence[Point] = ()) -> CroppedMask:
    """The largest connected part, and every part with a positive point on it."""
    if mask.is_empty:
        return mask
    parts, _ = ndimage.label(mask.crop, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    keep = np.zeros(len(sizes), np.bool_)
    keep[int(sizes.argmax())] = True
    for point in points:
        voxel = np.rint(point.to_ijk(volume))[::-1].astype(int) - mask.start
        if point.positive and all(0 <= n < size for n, size in zip(voxel, parts.shape, strict=True)):
            keep[parts[tuple(voxel)]] = True
    keep[0] = False
    kept: NDArray[np.bool_] = keep[parts]
    return CroppedMask.from_crop(mask.shape, mask.start, kept)


def _is_flat(box: AnyBox, volume: Volume) -> bool:
    """Whether a box lies on one slice of a stack."""
    if volume.is_projection:
        return False
    if isinstance(box, OrientedBox):
        box = box.to_box(volume)
    return box.thin_axis(volume) is not None


def _is_across(to_object: Affine, axis: int, volume: Volume) -> bool:
    """Whether an axis of the box points along the axis of which a projection has one voxel only."""
    size: Int3 = volume.size
    row = to_object[axis, :3] / volume.spacing
    return int(np.abs(row).argmax()) == size.index(1)
