"""Masks parted by the bones that were recognized in a scan, so that touching bones have a label each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.bone_map import FoundBone
from BoneSAMLib.bone_scan import ScanGrid, cells_to_voxels
from BoneSAMLib.components import counted
from BoneSAMLib.segmentation import SMALLEST_BONE_MM3
from BoneSAMLib.volume import Volume

__all__ = ["Split", "parted", "row_of", "without_slivers"]

REACH_MM, REACH_CELLS = 8.0, 1.5  # how far beyond the coarse cells of a bone its outline can lie


@dataclass(frozen=True)
class Split:
    """Labels [k, j, i] parted by bone, and the bone of each value that has a name."""

    labels: NDArray[Any]
    bones: dict[int, FoundBone]


def parted(labels: NDArray[Any], volume: Volume, bones: Sequence[FoundBone], grid: ScanGrid) -> Split:
    """Give every voxel that is labelled [k, j, i] to the nearest of the bones that were seen on the grid.

    What is near no bone keeps its own labels. Numbers are new, and without gaps.
    """
    owner = np.zeros(grid.shape, np.int32)
    for number, bone in enumerate(bones, start=1):
        w, v, u = bone.cells.T
        owner[w, v, u] = number
    if bones:
        reach = max(REACH_MM / grid.spacing, REACH_CELLS)
        far, nearest = ndimage.distance_transform_edt(owner == 0, return_indices=True)
        owner = np.where(far <= reach, owner[tuple(nearest)], 0).astype(np.int32)
    to_cells = np.linalg.inv(cells_to_voxels(volume, grid))
    count, others = len(bones) + 1, 1 + int(labels.max(initial=0))
    # Where the numbers of a row are unsure, so is where its bones part: its own labels do that better.
    unsure = {row_of(bone): bone for bone in bones if not bone.sure and bone.place.number}
    rows = list(unsure)
    row_number = np.zeros(count, np.int64)
    for number, bone in enumerate(bones, start=1):
        sure = bone.sure or not bone.place.number
        row_number[number] = -1 if sure else 1 + rows.index(row_of(bone))
    largest = count + (len(rows) + 1) * others
    combined = np.zeros(labels.shape, np.min_scalar_type(largest))
    is_used = np.zeros(largest + 1, np.bool_)
    for k, plane in enumerate(labels):
        j, i = np.nonzero(plane)
        if len(i):
            places = to_cells[:3, :3] @ np.stack([i, j, np.full_like(i, k)]) + to_cells[:3, 3:]
            u, v, w = np.rint(places).astype(int)
            owners = owner[
                np.clip(w, 0, grid.shape[0] - 1),
                np.clip(v, 0, grid.shape[1] - 1),
                np.clip(u, 0, grid.shape[2] - 1),
            ]
            # A bone with a name is one, whatever parts it was seen in.
            own = count + row_number[owners] * others + plane[j, i].astype(np.int64)
            values = np.where(row_number[owners] < 0, owners, own)
            combined[k, j, i] = values
            is_used[values] = True
    used = np.flatnonzero(is_used)
    numbers = np.zeros(largest + 1, np.min_scalar_type(len(used)))
    numbers[used] = np.arange(1, len(used) + 1)
    seen = {}
    for one in used.tolist():
        row = (one - count) // others
        if one < count:
            seen[int(numbers[one])] = bones[one - 1]
        elif row > 0:
            seen[int(numbers[one])] = unsure[rows[row - 1]]
    return Split(numbers[combined], seen)


def without_slivers(split: Split, voxel_mm3: float) -> Split:
    """Without what is too small for a bone: where a mask reaches a little into its neighbor's cells."""
    kept = counted(split.labels, int(split.labels.max(initial=0)) + 1) * voxel_mm3 >= SMALLEST_BONE_MM3
    kept[0] = False
    numbers = np.cumsum(kept, dtype=split.labels.dtype) * kept
    bones = {int(numbers[value]): bone for value, bone in split.bones.items() if kept[value]}
    return Split(numbers[split.labels], bones)


def row_of(bone: FoundBone) -> tuple[str, str | None]:
    """The kind and side that bones of a row share."""
    return bone.place.kind, bone.place.side
