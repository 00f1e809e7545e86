"""What is left of the body's midline is a left bone, whatever the naming network says of its side.

Levels are not counted from the sacrum in the same way: L5 is taken for a part of it too often. Counted so, 2
of 28 vertebrae of a body that the network had not seen had the right number, and 8 by the network's own word.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.bone_kinds import KINDS

Array = NDArray[np.floating]

MIDLINE = ("vertebra", "sacrum", "sternum", "mandible", "skull")
# Together; less may be a mistake. A lumbar vertebra has some 60 cm3.
LEAST_MIDLINE_MM3 = 20_000.0
# Pairs that tell the midline where no bone of it is seen, and how far apart they are at least.
PAIRS = ("hip bone", "femur", "tibia", "humerus", "scapula", "clavicle", "calcaneus")
LEAST_APART_MM = 60.0
LEAST_ALIKE = 0.4  # volume of the smaller one of a pair
LONGEST_LEVEL_MM = 60.0  # a midline seen over less is taken for upright
LARGEST_SLOPE = 0.4  # nobody lies more aslant in a scanner; half a sacrum may look so
SIDE_MM = 6.0  # this far from the midline a cell is left or right with 73 %


def sides(kinds: NDArray[np.integer], left: Array, spacing: float) -> Array:
    """The probability [w, v, u] that a bone there is a left one.

    By the midline, where the scan shows it; else as the network says.

    Args:
        kinds: [w, v, u], 1 + index in KINDS, 0 where there is no bone.
        left: the same as the network sees it, 0 to 1.
        spacing: of the cells, in mm.
    """
    middle = _midline(kinds, spacing)
    if middle is None:
        return left
    w, u = np.arange(kinds.shape[0])[:, None, None], np.arange(kinds.shape[2])[None, None]
    beside = (u - middle[0] - middle[1] * w) * (spacing / SIDE_MM)
    return np.broadcast_to(1 / (1 + np.exp(-np.clip(beside, -30, 30))), kinds.shape)


def _midline(kinds: NDArray[np.integer], spacing: float) -> tuple[float, float] | None:
    """(a, b): at height w the body's midline is at u = a + b w."""
    own = np.isin(kinds, [1 + KINDS.index(kind) for kind in MIDLINE])
    if own.sum() * spacing**3 >= LEAST_MIDLINE_MM3:
        w, _, u = np.nonzero(own)
        if np.ptp(w) * spacing < LONGEST_LEVEL_MM:
            return float(u.mean()), 0.0
        slope = float(np.clip(np.polyfit(w, u, 1)[0], -LARGEST_SLOPE, LARGEST_SLOPE))
        return float(u.mean() - slope * w.mean()), slope
    for kind in PAIRS:
        parts, count = ndimage.label(kinds == 1 + KINDS.index(kind), np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        larger, smaller = np.argsort(sizes)[::-1][:2]
        places = [float(np.nonzero(parts == 1 + one)[2].mean()) for one in (larger, smaller)]
        alike = sizes[smaller] >= LEAST_ALIKE * sizes[larger]
        if alike and abs(places[0] - places[1]) * spacing >= LEAST_APART_MM:
            return float(np.mean(places)), 0.0
    return None
