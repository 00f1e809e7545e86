"""What the page knows of a slice: where it lies, and on which sides the patient's are."""

from typing import Any

import numpy as np
import slicer.util

__all__ = ["slice_values"]

# Opposite sides along R, A and S.
_SIDES = (("R", "L"), ("A", "P"), ("S", "I"))


def slice_values(view: Any) -> dict[str, Any]:
    """Range and place of a slice view's slider, in mm; the letters at its borders; from pixels to RAS mm.

    `to_ras` has three rows for (x, y, 1), x to the right and y upward, in the pixels of `size`.
    """
    node = view.get_view_node()
    to_ras = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    pixels = slicer.util.arrayFromVTKMatrix(node.GetXYToRAS())
    low, high = view.get_slice_range()
    return {
        "low": low,
        "high": high,
        "step": view.get_slice_step(),
        "offset": view.get_slice_value(),
        "right": _letters(to_ras[:3, 0]),
        "left": _letters(-to_ras[:3, 0]),
        "up": _letters(to_ras[:3, 1]),
        "down": _letters(-to_ras[:3, 1]),
        "to_ras": pixels[:3, [0, 1, 3]].tolist(),
        "size": list(view.render_window().GetSize()),
    }


def _letters(direction: np.ndarray) -> str:
    """Such as "A", or "AR" where the slice is turned: the larger part first."""
    order = np.argsort(-np.abs(direction))
    parts = [axis for axis in order if abs(direction[axis]) > 0.35]
    return "".join(_SIDES[axis][int(direction[axis] < 0)] for axis in parts)
