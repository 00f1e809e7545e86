"""A presenter's box and a region-of-interest node: one as the other."""

import numpy as np
import slicer.util
from numpy.typing import NDArray

from BoneSAMLib.oriented_box import AnyBox, OrientedBox
from BoneSAMLib.volume import Affine, Float3, Volume

__all__ = ["align_with_volume", "set_depth", "write_box"]

# Of a slice's thickness, how deep a box drawn on one slice is: it then holds the voxel centers of one slice,
# or lies between two and takes the nearer one.
_FLAT = 0.5


def align_with_volume(roi_node: "slicer.vtkMRMLMarkupsROINode", volume: Volume) -> None:
    """Turn an empty region so that the box that is drawn next lies along the volume's voxels.

    The slice views show an oblique volume in its own planes, and a box along the body's axes would be cut by
    them at a slant: two clicks in a slice would span a thin sliver.
    """
    roi_node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(_axes(volume)))
    roi_node.SetDisplayVisibility(True)


def set_depth(
    roi_node: "slicer.vtkMRMLMarkupsROINode", first_corner: Float3, volume: Volume, flat: bool
) -> None:
    """Give a box that was drawn with two clicks in a slice its depth across the slice.

    Left alone, Slicer's depth depends on how the volume is turned.

    Args:
        roi_node: aligned with the volume, as it was drawn.
        first_corner: where the first click was, RAS mm.
        volume: in world coordinates.
        flat: the box stays on the slice it was drawn on; else it is as deep as its shorter side.
    """
    axes = slicer.util.arrayFromVTKMatrix(roi_node.GetObjectToWorldMatrix())
    size = np.array(roi_node.GetSize())
    diagonal = np.abs(axes[:3, :3].T @ (np.array(first_corner) - axes[:3, 3]))
    across = int(diagonal.argmin())
    if diagonal[across] > 0.01 * diagonal.max():
        return  # drawn in a view that was turned by hand: it has a depth already
    along = np.delete(np.arange(3), across)
    if flat:
        size[across] = _FLAT * np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)[across]
    else:
        size[across] = size[along].min()
    roi_node.SetSize(*size)


def write_box(roi_node: "slicer.vtkMRMLMarkupsROINode", box: AnyBox | None, volume: Volume | None) -> None:
    """Make a region without parent transforms show a box; None empties it."""
    roi_node.RemoveAllControlPoints()
    roi_node.SetDisplayVisibility(box is not None)  # an empty region still has its handles
    if box is None or volume is None:
        return
    low, high, to_ras = _corners(box, volume)
    scale = np.linalg.norm(to_ras[:3, :3], axis=0)
    placed = to_ras.copy()
    placed[:3, :3] /= scale
    placed[:3, 3] = (to_ras @ [*(low + high) / 2, 1.0])[:3]
    roi_node.SetSize(*((high - low) * scale))
    roi_node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(placed))
    roi_node.SetCenter(*placed[:3, 3])


def _corners(box: AnyBox, volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64], Affine]:
    """Lowest and highest corner, and the affine from their axes to RAS."""
    if isinstance(box, OrientedBox):
        return np.array(box.low), np.array(box.high), box.matrix
    corners = np.array([box.first, box.second])
    low, high = corners.min(0), corners.max(0)
    if box.space == "RAS":
        return low, high, np.eye(4)
    # Its corners are voxels that belong to it as a whole, except across a box of one slice.
    margin = np.where(low == high, _FLAT / 2, 0.5)
    return low - margin, high + margin, volume.ijk_to_ras


def _axes(volume: Volume) -> Affine:
    """4x4 rotation to the volume's i, j and k directions; the nearest one if a transform has sheared them."""
    directions = volume.ijk_to_ras[:3, :3] / np.linalg.norm(volume.ijk_to_ras[:3, :3], axis=0)
    left, _, right = np.linalg.svd(directions)
    axes = np.eye(4)
    axes[:3, :3] = left @ right
    if np.linalg.det(axes[:3, :3]) < 0:
        axes[:3, 2] *= -1
    return axes
