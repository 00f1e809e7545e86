"""Marrow: holes in a mask at which the network hesitates, and which of them belong to the bone."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.prompt_tokens import Clicks
from BoneSAMLib.region import Array
from BoneSAMLib.result import Mask

# Logit of a hole in a mask above which it is marrow that was missed: of nine such holes on validation the
# lowest has -0.9; the canal of a vertebra in four boxes -2.1 to -3.0. Dice stays as it was, within 0.003.
UNSURE_HOLE = -1.6
LEAST_SURE = 75  # percentile of its slices: in the middle of a shaft marrow is taken for none (-4.1)
CLOSED = 0.5  # logit of what is closed, at least


def close_marrow(
    logits: Array, changed: NDArray[np.bool_], clicks: Clicks, earlier: Mask | None = None
) -> None:
    """Close the holes of `changed` slices that are marrow, in place.

    A hole is what the mask of a slice encloses, with its continuation on neighboring slices. It stays open
    where the last click in it is negative. Otherwise what an `earlier` mask held stays filled, and the holes
    of that stay open, because somebody may have made them, until they are clicked as bone. The rest is marrow
    or not by its logits.

    Args:
        logits: [n, h, h] of slices without gaps.
        changed: [n].
        clicks: that the earlier mask does not know, with places in cells of the logits (column, row, slice).
        earlier: [n, h, h].
    """
    holes = np.zeros(logits.shape, bool)
    for n in np.flatnonzero(changed):
        holes[n] = _holes(logits[n] > 0)
    numbers, count = ndimage.label(holes)
    if not count:
        return
    said = _last_clicks(numbers, count, clicks, earlier)[numbers]
    closed = _is_marrow(logits, numbers, count)[numbers]
    if earlier is not None:
        open_before = np.zeros(logits.shape, bool)
        for n in np.flatnonzero(holes.any((1, 2))):
            open_before[n] = _holes(earlier[n])
        closed &= ~open_before | (said > 0)
        closed |= earlier
    closed &= holes & (said >= 0)
    logits[closed] = np.maximum(-logits[closed], CLOSED)


def _holes(mask: Mask) -> Mask:
    holes: Mask = ndimage.binary_fill_holes(mask) & ~mask
    return holes


def _last_clicks(
    numbers: NDArray[np.int32], count: int, clicks: Clicks, earlier: Mask | None
) -> NDArray[np.int8]:
    """Of holes [1 + count]: 1 or -1 by the last click in it, 0 for none; number 0 is no hole.

    A positive click on what was bone already is about something else.
    """
    said = np.zeros(1 + count, np.int8)
    cells = np.floor(clicks.places).astype(int)[:, ::-1]
    for cell, positive in zip(map(tuple, cells.tolist()), clicks.positive.tolist(), strict=True):
        inside = all(0 <= place < size for place, size in zip(cell, numbers.shape, strict=True))
        if inside and not (positive and earlier is not None and earlier[cell]):
            said[numbers[cell]] = 1 if positive else -1
    said[0] = 0
    return said


def _is_marrow(logits: Array, numbers: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Of holes [1 + count], by the means of their slices; number 0 is none."""
    where = np.nonzero(numbers)
    pairs, pair = np.unique(numbers[where].astype(np.int64) * len(logits) + where[0], return_inverse=True)
    means = np.bincount(pair, logits[where]) / np.bincount(pair)
    marrow = np.zeros(1 + count, bool)
    marrow[1:] = ndimage.labeled_comprehension(
        means,
        pairs // len(logits),
        np.arange(1, 1 + count),
        lambda part: np.percentile(part, LEAST_SURE) > UNSURE_HOLE,
        bool,
        False,
    )
    return marrow
