"""What a subject of the training store has at given places: labels, depth in bones, brightness."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.store import DEPTH_UNIT_MM, Subject


def labels_at(subject: Subject, voxels: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Nearest labels and depth below the bone surface in mm, at voxel coordinates [..., 3].

    Both are 0 beyond the subject, and the depth in a subject that knows none.
    """
    labels = subject.labels
    assert labels is not None
    flat, inside = _flat_index(subject, voxels)
    found = labels.reshape(-1)[flat] * inside
    if subject.depth is None:
        return found, np.zeros(found.shape, np.float32)
    depth = subject.depth.reshape(-1)[flat].astype(np.float32)
    return found, depth * np.float32(DEPTH_UNIT_MM)


def brightness_at(
    subject: Subject, voxels: NDArray[np.floating], cell: float, across: int | None = None
) -> NDArray[np.float32]:
    """Brightness in 0..1 at voxel coordinates [..., 3] of samples `cell` mm apart; 0 beyond the image.

    As in use, a sample is the mean of the voxels that fall to it; not along the axis `across` slices.
    """
    factors = np.maximum(1, (cell / subject.spacing).astype(int))
    factors = np.minimum(factors, subject.size)
    if across is not None:
        factors[across] = 1
    coordinates = np.moveaxis(((voxels - (factors - 1) / 2) / factors)[..., ::-1], -1, 0)
    image = subject.averaged(tuple(factors.tolist()))
    values: NDArray[np.float32] = ndimage.map_coordinates(
        image, coordinates, order=1, output=np.float32, mode="grid-constant"
    )
    return values / np.float32(255)


def _flat_index(
    subject: Subject, voxels: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    size = subject.size
    index = np.zeros(voxels.shape[:-1], np.int64)
    inside = np.ones(voxels.shape[:-1], bool)
    for axis in (2, 1, 0):
        rounded = np.rint(voxels[..., axis]).astype(np.int32)
        clipped = np.clip(rounded, 0, size[axis] - 1)
        inside &= rounded == clipped
        index *= size[axis]
        index += clipped
    return index, inside
