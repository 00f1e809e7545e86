"""From what the naming network answers to bones with names: their cells, numbers, sides, and how sure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.bone_anatomy import sides
from BoneSAMLib.bone_kinds import KINDS, LEFT, NUMBER, PAIRED, ROWS, BonePlace, name_of
from BoneSAMLib.bone_scan import Array, ScanGrid

Cells = NDArray[np.bool_]  # [w, v, u]
LEAST_BONE = 0.7  # probability that a cell is bone
# The surest part of a bone gives its box, unless too little is left of it. Bone is learned with a third of
# its background, so that all cells above 0.5 give boxes that are too wide: on validation their IoU is 0.38 in
# pelvic MR and 0.59 in CT, with these numbers 0.47 and 0.64.
CORE_BONE, CORE_SHARE = 0.95, 0.25
SMALLEST_MM3 = 300.0
SMALLEST_CELLS = 4
SMALLEST_SHARE = 0.1  # of the largest part of a bone: a smaller part is something else
ONE_SIDED = 0.8  # of a part's cells on one side: the few others are mistaken
LEAST_SURE_SIDE = 0.65
# Numbers of a row should lie near whole ones. Where their common remainder is larger than this, or a number
# scatters by more, the next one up or down is about as likely.
LARGEST_REMAINDER, LARGEST_SCATTER = 0.35, 0.75
# Between neighbors in a row, on average: where a spine of six is counted as twelve, no number holds.
NEAREST_MM = {"vertebra": 14.0, "rib": 10.0}


@dataclass(frozen=True)
class FoundBone:
    """A bone that the naming network saw.

    Attributes:
        place: which one.
        probability: mean over its cells of the kind's probability, given that they are bone.
        sure: False where its number or side may be that of a neighbor.
        cells: the grid cells (w, v, u) [n, 3] that it covers.
        core: those of them that are bone for sure, unless these are few.
        grid: their grid.
        side_is_sure: False where it may be the one on the other side.
    """

    place: BonePlace
    probability: float
    sure: bool
    cells: NDArray[np.int64]
    core: NDArray[np.int64]
    grid: ScanGrid
    side_is_sure: bool = True

    @property
    def name(self) -> str:
        """Such as "left femur"; its kind alone where its number or side is unsure."""
        return name_of(self.place, self.sure)


def found_bones(outputs: Array, grid: ScanGrid) -> list[FoundBone]:
    """The bones in the network's answer [28, w, v, u], in the order of KINDS and then of their numbers."""
    likely = np.exp(outputs[:NUMBER] - outputs[:NUMBER].max(0))
    likely /= likely.sum(0)
    # Bone of which it is unsure whose it is, is bone.
    kinds = np.where(1 - likely[0] > LEAST_BONE, 1 + likely[1:].argmax(0), 0)
    probability = likely[1:].max(0) / np.maximum(1 - likely[0], 1e-6)
    number = outputs[NUMBER] * 10
    left = sides(kinds, 1 / (1 + np.exp(-np.clip(outputs[LEFT], -30, 30))), grid.spacing)
    smallest = max(SMALLEST_CELLS, SMALLEST_MM3 / grid.spacing**3)
    bones = []
    for value in np.flatnonzero(np.bincount(kinds.ravel(), minlength=NUMBER))[1:].tolist():
        kind = KINDS[value - 1]
        for side, sure_side, cells in _by_side(kinds == value, left, kind in PAIRED, smallest):
            for row_number, sure_number, part in _by_number(cells, number, kind, smallest, grid.spacing):
                place = BonePlace(kind, row_number, side)
                sure = sure_side and sure_number
                certain = part & (1 - likely[0] > CORE_BONE)
                core = certain if certain.sum() >= CORE_SHARE * part.sum() else part
                likelihood = float(probability[part].mean())
                bones.append(
                    FoundBone(place, likelihood, sure, np.argwhere(part), np.argwhere(core), grid, sure_side)
                )
    return bones


def _by_side(
    cells: Cells, left: Array, paired: bool, smallest: float
) -> Iterator[tuple[str | None, bool, Cells]]:
    """Side, whether it is sure, and cells; parts of one bone that the scan shows apart stay together."""
    parts, count = ndimage.label(cells, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = sizes >= smallest
    large[0] = False
    cells = np.asarray(large[parts])
    is_left = np.zeros(cells.shape, bool)
    for part in np.flatnonzero(large):
        inside = parts == part
        share = float((left[inside] > 0.5).mean())
        if share >= ONE_SIDED or share <= 1 - ONE_SIDED:
            is_left |= inside & (share > 0.5)
        else:
            is_left |= inside & (left > 0.5)  # hip bones that touch at the symphysis
    if not paired:
        if cells.any():
            # All of them: beside a spine in one piece, an atlas that stands apart is small.
            yield None, True, cells
        return
    for side, own in (("right", cells & ~is_left), ("left", cells & is_left)):
        if own.sum() >= smallest:
            certainty = float(np.abs(left[own] - 0.5).mean()) + 0.5
            yield side, certainty >= LEAST_SURE_SIDE, own


def _by_number(
    cells: Cells, number: Array, kind: str, smallest: float, spacing: float
) -> Iterator[tuple[int, bool, Cells]]:
    """Number in the row of a kind, whether it is sure, and cells; 0 and all cells without a row."""
    last = ROWS.get(kind, 0)
    if not last:
        yield 0, True, _main_parts(cells)
        return
    values = number[cells]
    # The mean remainder on a circle: all numbers of a row are too high or too low together.
    turn = np.exp(2j * np.pi * values).mean()
    remainder = float(np.angle(turn) / (2 * np.pi))
    rounded = np.clip(np.rint(number - remainder), 1, last) * cells
    row = []
    for value in np.unique(rounded[cells]).astype(int).tolist():
        own = _largest(rounded == value)
        if own.sum() >= smallest:
            scatter = float(np.abs(number[own] - value).mean())
            row.append((value, scatter, own))
    spaced = _is_spaced({value: own for value, _, own in row}, NEAREST_MM.get(kind, 0.0) / spacing)
    for value, scatter, own in row:
        sure = spaced and abs(remainder) <= LARGEST_REMAINDER and scatter <= LARGEST_SCATTER
        yield value, sure, own


def _is_spaced(row: dict[int, Cells], nearest: float) -> bool:
    """Whether neighbors in a row are as far apart as such bones are; one alone tells nothing."""
    centers = {value: np.argwhere(own).mean(0) for value, own in row.items()}
    steps = [np.linalg.norm(centers[n + 1] - centers[n]) for n in centers if n + 1 in centers]
    if not steps:
        return nearest == 0
    return bool(np.median(steps) >= nearest)


def _main_parts(cells: Cells) -> Cells:
    parts, count = ndimage.label(cells, np.ones((3, 3, 3)))
    if count <= 1:
        return cells
    sizes = np.bincount(parts.ravel())
    kept = sizes >= SMALLEST_SHARE * sizes[1:].max()
    kept[0] = False
    return np.asarray(kept[parts])


def _largest(cells: Cells) -> Cells:
    parts, _ = ndimage.label(cells, np.ones((3, 3, 3)))
    sizes: NDArray[Any] = np.bincount(parts.ravel())
    return np.asarray(parts == 1 + int(sizes[1:].argmax()))
