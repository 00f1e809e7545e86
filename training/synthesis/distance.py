"""Distances to what a mask holds."""

from collections.abc import Sequence
from typing import cast

import edt
import numpy as np
from numpy.typing import NDArray


def distance_to(mask: NDArray[np.bool_], sampling: Sequence[float]) -> NDArray[np.float32]:
    """Distance in mm of each voxel to the nearest voxel of the mask [k, j, i], 0 in it.

    ``sampling`` is the spacing in mm in the order of the array's axes.
    """
    distance = edt.edt(
        np.ascontiguousarray(~mask), anisotropy=tuple(sampling), black_border=False, parallel=1
    )
    return cast(NDArray[np.float32], distance)
