"""Connected parts of masks: which belong to a bone, and numbers for all of them.

Voxels that touch at a corner are connected (26 neighbors). Work is confined to the mask's bounding box, since
the labels of a whole scan would take four bytes a voxel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """The smallest block that holds all of a mask, as slices of its three axes; None for an empty mask."""
    parts = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(used):
            return None
        parts.append(slice(int(used[0]), int(used[-1]) + 1))
    return parts[0], parts[1], parts[2]


def without_specks(
    mask: Mask, clicked: NDArray[np.int64], smallest_share: float, wanted: Mask | None = None
) -> Mask:
    """The largest part of a mask [w, v, u], others of at least `smallest_share` of it, and clicked ones.

    `clicked`: voxels (u, v, w) [n, 3]; those beyond the mask are ignored. `wanted`: a mask; parts that reach
    into it stay, too.
    """
    block = bounding_box(mask)
    if block is None:
        return mask
    components, sizes = _components(mask[block])
    if len(sizes) <= 2:
        return mask
    keep = sizes >= smallest_share * sizes[1:].max()
    keep[0] = False
    offset = [part.start for part in block]
    for place in clicked[:, ::-1] - offset:
        if (place >= 0).all() and (place < components.shape).all():
            number = components[tuple(place)]
            keep[number] = number > 0
    if wanted is not None:
        keep[np.unique(components[wanted[block]])] = True
        keep[0] = False
    kept = np.zeros_like(mask)
    kept[block] = keep[components]
    return kept


def counted(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """How many voxels [count] have each number below `count`."""
    # Plane by plane: bincount converts its whole input to 64 bit.
    sizes = np.zeros(count, np.int64)
    for plane in labels:
        sizes += np.bincount(plane.ravel(), minlength=count)
    return sizes


def numbered(mask: Mask, smallest: float) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Parts of a mask numbered from the largest, without those below `smallest` voxels.

    Returns the numbers, of the mask's shape and of the smallest unsigned type that holds them, and the parts'
    sizes in voxels, that of number 1 first.
    """
    block = bounding_box(mask)
    if block is None:
        return np.zeros(mask.shape, np.uint8), np.zeros(0, np.int64)
    components, sizes = _components(mask[block])
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(smallest, 1)]
    table = np.zeros(len(sizes), np.min_scalar_type(len(order)))
    table[order] = np.arange(1, len(order) + 1)
    labels: NDArray[Any] = np.zeros(mask.shape, table.dtype)
    labels[block] = table[components]
    return labels, sizes[order]


def _components(mask: Mask) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Arbitrary numbers of the parts, 0 outside, and how many voxels have each number."""
    # SciPy is part of 3D Slicer, faster libraries for this are not.
    components, last = ndimage.label(mask, np.ones((3, 3, 3)))
    return components, counted(components, last + 1)
