"""Volumes and prompts of a 3D Slicer scene as BoneSAM's own.

Functions are named in camelCase, as Slicer names its own: modules and scripts call both side by side.

A node's own coordinates are those before its parent transforms; world coordinates (RAS) are those after them,
which the views show. All parent transforms must be linear. Voxel indices (i, j, k) are the same in both:
prompts are given in these.
"""

from typing import Any

import numpy as np
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.oriented_box import OrientedBox
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Affine, Float3, Int3, Modality, Volume

__all__ = [
    "boxFromRoi",
    "ijkToRas",
    "orientedBoxFromRoi",
    "pointsFromMarkups",
    "requireVolume",
    "toWorld",
    "volumeFromNode",
    "volumeShape",
    "worldFromIjk",
]

# What DICOM calls its series, kept in the subject hierarchy when a series is loaded.
_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR"}
_MODALITIES |= dict.fromkeys(("CR", "DX", "DR", "RG", "RF", "XA", "MG", "PX", "IO"), "X-ray")


def volumeFromNode(volumeNode: "slicer.vtkMRMLScalarVolumeNode", inWorld: bool = False) -> Volume:
    """The volume of a node. Its voxels are not copied: the array is the node's own, so do not change it.

    The array stays readable when the node later gets other voxels or is removed.

    Args:
        volumeNode: a gray-value volume.
        inWorld: the affine leads to world coordinates instead of the node's own.

    Raises:
        BoneSAMError: no volume, an empty, color, vector, 4D or label volume, values that are not finite, a
            singular geometry, or a non-linear parent transform.
    """
    requireVolume(volumeNode)
    affine = toWorld(volumeNode) @ ijkToRas(volumeNode) if inWorld else ijkToRas(volumeNode)
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    array = vtk_to_numpy(scalars).reshape(volumeShape(volumeNode))
    return Volume(array, affine, name=volumeNode.GetName() or "", modality=_modality(volumeNode))


def requireVolume(volumeNode: Any) -> None:
    """Check that a node is a volume that can be segmented, as far as can be told without its values.

    Raises:
        BoneSAMError: no volume, an empty, color, vector, 4D or label volume, or transforms as in `toWorld`.
    """
    if volumeNode is None:
        raise BoneSAMError("No volume is chosen: choose the scan first.")
    name = volumeNode.GetName()
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode"):
        raise BoneSAMError(f"'{name}' is not a volume: choose a scan.")
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise BoneSAMError(f"'{name}' holds labels, not an image: choose the scan itself.")
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise BoneSAMError(f"The volume '{name}' is empty: load the scan again.")
    components = image.GetNumberOfScalarComponents()
    if volumeNode.IsA("vtkMRMLVectorVolumeNode") or components in (3, 4):
        raise BoneSAMError(
            f"'{name}' is a color or vector image: make a gray-value volume of it first, with the module "
            "'Vector to Scalar Volume'."
        )
    if components > 1:
        raise BoneSAMError(
            f"'{name}' holds {components} images (4D): segment them one by one, each as a volume of its own."
        )
    if image.GetPointData().GetScalars() is None:
        raise BoneSAMError(f"The volume '{name}' has no gray values: choose a scan.")
    toWorld(volumeNode)


def volumeShape(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> Int3:
    """Number of voxels (k, j, i) of a volume node that is not empty."""
    i, j, k = volumeNode.GetImageData().GetDimensions()
    return k, j, i


def ijkToRas(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> Affine:
    """4x4 affine from voxel indices (i, j, k) to the node's coordinates, before its parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    affine: Affine = slicer.util.arrayFromVTKMatrix(matrix)
    return affine


def toWorld(node: "slicer.vtkMRMLTransformableNode") -> Affine:
    """4x4 affine from a node's coordinates to the world, through all its parent transforms.

    Raises:
        BoneSAMError: one of them warps or squeezes everything flat; the message says which, and what to do.
    """
    _requireLinear(node)
    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    affine: Affine = slicer.util.arrayFromVTKMatrix(matrix)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BoneSAMError(
            f"The transform '{node.GetParentTransformNode().GetName()}' squeezes '{node.GetName()}' flat: "
            "correct the transform, or move the item out of it."
        )
    return affine


def orientedBoxFromRoi(roiNode: "slicer.vtkMRMLMarkupsROINode") -> OrientedBox:
    """The region of interest as drawn, turned or not, in world coordinates.

    For volumes read with `inWorld`.

    Raises:
        BoneSAMError: no region, one without size, or one under a non-linear transform.
    """
    if roiNode is None:
        raise BoneSAMError("There is no box: draw one around the bone.")
    toWorld(roiNode)
    bounds = [0.0] * 6
    # In the region's own axes: its bounds in the world would not follow a rotation.
    roiNode.GetObjectBounds(bounds)
    return OrientedBox.from_matrix(
        bounds[0::2], bounds[1::2], slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())
    )


def boxFromRoi(roiNode: "slicer.vtkMRMLMarkupsROINode", volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> Box:
    """The smallest box of voxels that holds all voxel centers inside a region, clipped to the volume.

    Both may be turned and under different transforms. A region between two slices takes the nearer one.

    Raises:
        BoneSAMError: as `orientedBoxFromRoi`, a region that does not lie in the volume or covers a single row
            of voxels only, or a volume that `volumeFromNode` refuses.
    """
    oriented = orientedBoxFromRoi(roiNode)
    grid = _worldGrid(volumeNode)
    try:
        return Box.from_ijk(*oriented.to_ijk(grid))
    except BoneSAMError as error:
        raise BoneSAMError(
            f"The box '{roiNode.GetName()}' covers nothing of the volume '{volumeNode.GetName()}': it lies "
            "beside it, or is too thin. Draw it around the bone."
        ) from error


def pointsFromMarkups(
    pointsNode: "slicer.vtkMRMLMarkupsFiducialNode",
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    positive: bool = True,
) -> list[Point]:
    """All placed control points of a markups node as clicks, in fractional voxel indices of the volume.

    Raises:
        BoneSAMError: a point outside of the volume, or a volume that `volumeFromNode` refuses.
    """
    grid = _worldGrid(volumeNode)
    points = []
    for n in range(pointsNode.GetNumberOfControlPoints()):
        if pointsNode.GetNthControlPointPositionStatus(n) != slicer.vtkMRMLMarkupsNode.PositionDefined:
            continue  # not placed yet: it still follows the mouse
        world = [0.0] * 3
        pointsNode.GetNthControlPointPositionWorld(n, world)
        try:
            points.append(Point.from_ijk(Point.from_ras(world).to_ijk(grid), positive))
        except BoneSAMError as error:
            raise BoneSAMError(
                f"The point '{pointsNode.GetNthControlPointLabel(n)}' of '{pointsNode.GetName()}' lies "
                f"outside of the volume '{volumeNode.GetName()}': remove it, or place it on the bone."
            ) from error
    return points


def worldFromIjk(ijk: Float3, volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> Float3:
    """World coordinates (RAS mm) of voxel indices (i, j, k), for example to move the slice views there."""
    r, a, s, _ = toWorld(volumeNode) @ ijkToRas(volumeNode) @ [*ijk, 1.0]
    return float(r), float(a), float(s)


def _requireLinear(node: "slicer.vtkMRMLTransformableNode") -> None:
    parent = node.GetParentTransformNode()
    if parent is None or parent.IsTransformToWorldLinear():
        return
    while parent.IsLinear() and parent.GetParentTransformNode() is not None:
        parent = parent.GetParentTransformNode()
    raise BoneSAMError(
        f"'{node.GetName()}' is warped by the non-linear transform '{parent.GetName()}': harden the transform"
        " first. In the Data module, right-click in its Transform column and choose 'Harden transform'."
    )


def _worldGrid(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> Volume:
    """The geometry of a volume node in world coordinates. Its voxels are all the same one, in no memory."""
    requireVolume(volumeNode)
    nothing = np.broadcast_to(np.zeros((), np.uint8), volumeShape(volumeNode))
    return Volume(nothing, toWorld(volumeNode) @ ijkToRas(volumeNode), name=volumeNode.GetName() or "")


def _modality(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> Modality | None:
    """What DICOM said when the series was loaded; None if it was no DICOM series."""
    if volumeNode.GetScene() is None:
        return None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    item = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if not item:
        return None
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return _MODALITIES.get(hierarchy.GetItemAttribute(item, attribute).upper())
