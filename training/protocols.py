"""How an annotator prompts, imitated from the annotation, the same in every run.

Everything random is drawn from a generator seeded by case and object, so that two models, or one model with
and without depth attention, get the same prompts. Only corrective clicks differ: they depend on the result
that they correct.
"""

import zlib

import numpy as np

from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Int3, Volume
from training.masks import (
    Mask,
    bounding_slices,
    bounds_ijk,
    depth_mm,
    largest_component,
    middle_slice,
    only_slice,
)

SEED = 2025
# How far a face of a drawn box lies from the bone's own, as a share of that side: people cut a little off,
# or leave room.
JITTER_INWARD = 0.05
JITTER_OUTWARD = 0.10


def generator(case_id: str, object_name: str, purpose: str) -> np.random.Generator:
    """The random numbers for one purpose ("box", "clicks") on one object."""
    return np.random.default_rng([SEED, zlib.crc32(f"{case_id}/{object_name}/{purpose}".encode())])


def jittered_box(truth: Mask, volume: Volume, rng: np.random.Generator) -> Box:
    """The box of ``truth`` [k, j, i], each face moved outward by U(-5 %, +10 %) of that side's length."""
    return _jittered(*bounds_ijk(truth), volume, rng, still_axis=None)


def slice_box(truth: Mask, volume: Volume, rng: np.random.Generator) -> Box:
    """A box one slice thin: that of ``truth`` on its middle slice, jittered within this slice only."""
    axis = volume.through_plane_axis
    only = only_slice(truth, axis, middle_slice(truth, axis))
    return _jittered(*bounds_ijk(only), volume, rng, still_axis=axis)


def _jittered(low: Int3, high: Int3, volume: Volume, rng: np.random.Generator, still_axis: int | None) -> Box:
    first, last = list(low), list(high)
    for axis in range(3):
        side = high[axis] - low[axis] + 1
        before, after = rng.uniform(-JITTER_INWARD, JITTER_OUTWARD, size=2) * side
        if axis == still_axis:
            continue
        first[axis] = max(0, low[axis] - round(before))
        last[axis] = min(volume.size[axis] - 1, high[axis] + round(after))
    return Box.from_ijk(first, last)


def first_click(truth: Mask, volume: Volume, rng: np.random.Generator) -> Point:
    """A click where people start: deepest inside the largest part of the bone on its middle slice."""
    axis = volume.through_plane_axis
    part = largest_component(only_slice(truth, axis, middle_slice(truth, axis)))
    return Point.from_ijk(_deepest_voxel(part, volume, rng, flat_axis=axis))


def corrective_click(prediction: Mask, truth: Mask, volume: Volume, rng: np.random.Generator) -> Point | None:
    """The next click of the CVPR 2025 interactive challenge: in the middle of the largest connected error.

    Positive when that voxel was missed, negative when it is falsely marked. None when nothing is wrong.
    """
    errors = prediction ^ truth
    if not errors.any():
        return None
    flat_axis = volume.through_plane_axis if volume.is_projection else None
    i, j, k = _deepest_voxel(largest_component(errors), volume, rng, flat_axis)
    return Point.from_ijk((i, j, k), positive=bool(truth[k, j, i]))


def _deepest_voxel(mask: Mask, volume: Volume, rng: np.random.Generator, flat_axis: int | None) -> Int3:
    """The voxel (i, j, k) of ``mask`` farthest from its border; ties are drawn."""
    region = bounding_slices(mask)
    depth = depth_mm(mask[region], volume, flat_axis)
    # Rounding in the distances must not decide between voxels that are equally deep.
    ties = np.argwhere(depth >= depth.max() * (1 - 1e-6))
    k, j, i = ties[rng.integers(len(ties))] + [extent.start for extent in region]
    return int(i), int(j), int(k)
