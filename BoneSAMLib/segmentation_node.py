"""Masks in and out of a 3D Slicer segmentation, voxel by voxel, without touching what is not meant.

Functions are named in camelCase, as Slicer names its own: modules and scripts call both side by side.

Slicer's own `updateSegmentBinaryLabelmapFromArray` is not used: where volume and segmentation are under
different transforms it applies them twice, and the mask lands centimeters away.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer.util
import vtk
from numpy.typing import NDArray
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.labelmap import Labelmap
from BoneSAMLib.mrml import ijkToRas, requireVolume, toWorld, volumeShape
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.volume import Affine, Int3
from BoneSAMLib.writing import Color, distinct_color

__all__ = [
    "Masking",
    "addSegment",
    "addSegments",
    "createSegmentation",
    "readMask",
    "requireEditable",
    "writeMask",
]

_BINARY_LABELMAP = "Binary labelmap"
SaveState = Callable[[], object]


@dataclass(frozen=True)
class Masking:
    """What a write may change: section "Masking" of Segment Editor. By default, nothing but its own segment.

    Attributes:
        overwriteMode: which other segments give way, `vtkMRMLSegmentEditorNode.Overwrite...`.
        maskMode: where the segment may change, `vtkMRMLSegmentationNode.EditAllowed...`. Elsewhere it stays.
        maskSegmentId: the segment of EditAllowedInsideSingleSegment.
        intensityRange: lowest and highest value of voxels that may change; None for all.
    """

    overwriteMode: int = slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    maskMode: int = slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere
    maskSegmentId: str = ""
    intensityRange: tuple[float, float] | None = None

    @classmethod
    def fromEditor(cls, segmentEditorNode: "slicer.vtkMRMLSegmentEditorNode") -> "Masking":
        """As set in a Segment Editor."""
        low, high = segmentEditorNode.GetSourceVolumeIntensityMaskRange()
        return cls(
            segmentEditorNode.GetOverwriteMode(),
            segmentEditorNode.GetMaskMode(),
            segmentEditorNode.GetMaskSegmentID() or "",
            (low, high) if segmentEditorNode.GetSourceVolumeIntensityMask() else None,
        )


NO_MASKING = Masking()


def createSegmentation(
    volumeNode: "slicer.vtkMRMLScalarVolumeNode", name: str = ""
) -> "slicer.vtkMRMLSegmentationNode":
    """Add an empty segmentation of a volume to its scene.

    It has the volume's grid, is under the same transform (so they move together), and lies in the same study
    of the subject hierarchy.

    Args:
        volumeNode: in a scene.
        name: "" for "<volume> bones".

    Raises:
        BoneSAMError: a volume that `volumeFromNode` refuses, or that was removed from the scene.
    """
    requireVolume(volumeNode)
    scene = volumeNode.GetScene()
    if scene is None:
        raise BoneSAMError(f"The volume '{volumeNode.GetName()}' is no longer in the scene: load it again.")
    name = name or scene.GenerateUniqueName(f"{volumeNode.GetName()} bones")
    segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentationNode.CreateDefaultDisplayNodes()
    segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    # After the transform: the grid is kept in the segmentation's coordinates.
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = [hierarchy.GetItemByDataNode(node) for node in (segmentationNode, volumeNode)]
    if all(items):  # the application gives every node an item, a viewer without Qt none
        hierarchy.SetItemParent(items[0], hierarchy.GetItemParent(items[1]))
    return segmentationNode


def addSegment(
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    name: str = "",
    terminology: str | None = None,
    color: Color | None = None,
    saveState: SaveState | None = None,
) -> str:
    """Add an empty segment; returns its ID.

    Args:
        segmentationNode: with binary labelmaps.
        name: "" for the next free "Bone 1", "Bone 2", ...
        terminology: entry with SNOMED CT codes; None for what the name means (see `bone_meaning`).
        color: red, green, blue, each 0 to 1; None for the named bone's standard color, or else one that
            differs from its neighbors' in the list.
        saveState: called before anything changes, to make this a step of an undo history.

    Raises:
        BoneSAMError: a segmentation that cannot be edited.
    """
    requireEditable(segmentationNode)
    segmentation = segmentationNode.GetSegmentation()
    segment = _described(segmentation, name, terminology, color)
    if saveState is not None:
        saveState()
    segmentId: str = segmentation.AddEmptySegment("", segment.GetName(), segment.GetColor())
    segmentation.GetSegment(segmentId).SetTerminology(segment.GetTerminology())
    return segmentId


def addSegments(
    labels: NDArray[np.integer[Any]],
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    names: Mapping[int, str] | None = None,
    saveState: SaveState | None = None,
    masking: Masking = NO_MASKING,
) -> dict[int, str]:
    """Add a segment for every number in an array; much faster than one by one.

    Args:
        labels: [k, j, i] on the grid of the volume, 0 for none.
        volumeNode, segmentationNode, saveState, masking: as in `writeMask`.
        names: of the numbers; the others get the next free "Bone 1", "Bone 2", ...

    Returns:
        ID of each number's segment, in ascending order of numbers. Those that `masking` leaves nothing of
        have none.

    Raises:
        BoneSAMError: as `writeMask`.
    """
    requireVolume(volumeNode)
    requireEditable(segmentationNode)
    _requireShape(labels.shape, volumeNode)
    grid = _grid(volumeNode, segmentationNode)
    allowed = _allowed(masking, volumeNode, segmentationNode, "", grid)
    if allowed is not None:
        labels = np.where(allowed, labels, 0)
    numbers = [int(number) for number in np.unique(labels) if number > 0]
    if not numbers:
        return {}
    region = CroppedMask.from_array(labels > 0)
    kind = np.uint8 if numbers[-1] < 256 else np.int32
    image = _image(labels[region.slices].astype(kind), region.start_ijk, grid)
    changes = _givingWay(Labelmap.from_mask(region, grid), masking, segmentationNode, "")
    segmentation = segmentationNode.GetSegmentation()
    if saveState is not None:
        saveState()
    added = {}
    wasModifying = segmentationNode.StartModify()
    try:
        for changedId, labelmap in changes.items():
            _setLabelmap(segmentationNode, changedId, labelmap)
        for number in numbers:
            segment = _described(segmentation, (names or {}).get(number, ""))
            segment.SetLabelValue(number)
            segment.AddRepresentation(_BINARY_LABELMAP, image)  # shared: one layer for all
            segmentation.AddSegment(segment)
            added[number] = segmentation.GetSegmentIdBySegment(segment)
    finally:
        segmentationNode.EndModify(wasModifying)
    return added


def readMask(
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    segmentId: str,
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
) -> NDArray[np.bool_]:
    """A segment on the grid of a volume, bool [k, j, i]: each voxel takes what lies at its center.

    Exact where the segment was made on that grid, whatever the transforms.

    Raises:
        BoneSAMError: a segmentation that cannot be edited, no such segment, or non-linear transforms.
    """
    requireVolume(volumeNode)
    _requireSegment(segmentationNode, segmentId)
    grid = _grid(volumeNode, segmentationNode)
    return _labelmap(segmentationNode, segmentId).sampled((0, 0, 0), volumeShape(volumeNode), grid)


def isEmpty(segmentationNode: "slicer.vtkMRMLSegmentationNode", segmentId: str) -> bool:
    """Whether a segment has no voxel anywhere.

    Raises:
        BoneSAMError: a segmentation that cannot be edited, or no such segment.
    """
    _requireSegment(segmentationNode, segmentId)
    return _labelmap(segmentationNode, segmentId).is_empty


def writeMask(
    mask: NDArray[Any] | CroppedMask,
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    segmentId: str,
    masking: Masking = NO_MASKING,
    saveState: SaveState | None = None,
    base: CroppedMask | None = None,
) -> None:
    """Replace a segment by a mask.

    Args:
        mask: [k, j, i] on the grid of the volume; an empty one clears the segment.
        volumeNode: whose voxels the mask is about. It and the segmentation may be under different transforms.
        segmentationNode: with binary labelmaps.
        segmentId: which one. The others stay as they are, to the voxel, unless `masking` lets them give way.
        masking: restrictions and permissions, as in Segment Editor.
        saveState: called once, before anything changes, to make this one step of an undo history:
            `qMRMLSegmentEditorWidget.saveStateForUndo`, or `SaveState` of a `vtkSegmentationHistory`. Such a
            history restores names and the list of segments too: save the state also before adding one.
        base: what `readMask` said of the segment before it was corrected. Only the difference between it and
            `mask` is written, on the grid that the segment has: what lies beyond the volume, or is finer
            than its voxels, stays. None replaces the whole segment.

    Raises:
        BoneSAMError: another shape than the volume's, a segmentation that cannot be edited, no such segment,
            or non-linear transforms. Nothing has changed then.
    """
    requireVolume(volumeNode)
    _requireSegment(segmentationNode, segmentId)
    _requireShape(mask.shape, volumeNode)
    cropped = mask if isinstance(mask, CroppedMask) else CroppedMask.from_array(mask.astype(bool, copy=False))
    grid = _grid(volumeNode, segmentationNode)
    new = Labelmap.from_mask(cropped, grid)
    own = _labelmap(segmentationNode, segmentId)
    if base is not None and not own.is_empty:
        before, now = base.to_array(), cropped.to_array()
        added = Labelmap.from_mask(CroppedMask.from_array(now & ~before), grid)
        removed = Labelmap.from_mask(CroppedMask.from_array(before & ~now), grid)
        new = own.changed(added, removed)
    new = _restricted(new, masking, volumeNode, segmentationNode, segmentId)

    # Who gives way comes first: else Slicer puts segments that overlap meanwhile into separate layers.
    changes = {**_givingWay(new, masking, segmentationNode, segmentId), segmentId: new}

    if saveState is not None:
        saveState()
    wasModifying = segmentationNode.StartModify()  # the views follow once, at the end
    try:
        for changedId, labelmap in changes.items():
            _setLabelmap(segmentationNode, changedId, labelmap)
    finally:
        segmentationNode.EndModify(wasModifying)


def requireEditable(segmentationNode: Any) -> None:
    """Check that masks can be written into a segmentation.

    Raises:
        BoneSAMError: no segmentation, one that consists of surfaces, or transforms as in `toWorld`.
    """
    if segmentationNode is None:
        raise BoneSAMError("There is no segmentation: create one first.")
    name = segmentationNode.GetName()
    toWorld(segmentationNode)
    if segmentationNode.GetSegmentation().GetSourceRepresentationName() != _BINARY_LABELMAP:
        raise BoneSAMError(
            f"The segmentation '{name}' consists of surfaces and cannot be painted: in the module "
            "Segmentations, under Representations, make 'Binary labelmap' its source, or choose another one."
        )


def _labelmap(segmentationNode: "slicer.vtkMRMLSegmentationNode", segmentId: str) -> Labelmap:
    """A copy of one segment's voxels; the image may be shared with others."""
    image = slicer.vtkOrientedImageData()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentId, image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)  # "world" is the segmentation's coordinates here
    scalars = image.GetPointData().GetScalars()
    if scalars is None or image.GetNumberOfPoints() == 0:
        return Labelmap(np.zeros((0, 0, 0), np.bool_), (0, 0, 0), slicer.util.arrayFromVTKMatrix(matrix))
    shape = image.GetDimensions()[::-1]
    mask = CroppedMask.from_array(vtk_to_numpy(scalars).reshape(shape) > 0)
    return Labelmap.from_mask(mask, slicer.util.arrayFromVTKMatrix(matrix), image.GetExtent()[0::2])


def _setLabelmap(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", segmentId: str, labelmap: Labelmap
) -> None:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    segmentation = segmentationNode.GetSegmentation()
    if labelmap.is_empty:
        logic.ClearSegment(segmentationNode, segmentId)
        return
    image = _image(labelmap.voxels.astype(np.uint8), labelmap.origin, labelmap.affine)
    layer = segmentationNode.GetBinaryLabelmapInternalRepresentation(segmentId)
    isLayerEmpty = layer is None or layer.GetNumberOfPoints() == 0
    if not isLayerEmpty and not slicer.vtkOrientedImageDataResample.DoGeometriesMatch(layer, image):
        # Slicer would resample the layer to the new grid, and with it every other segment that shares it.
        segmentation.SeparateSegmentLabelmap(segmentId)
    if not logic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentId, logic.MODE_REPLACE):
        name = segmentation.GetSegment(segmentId).GetName()
        raise BoneSAMError(f"The segment '{name}' could not be changed: see Slicer's error log.")
    segment = segmentation.GetSegment(segmentId)
    if logic.GetSegmentStatus(segment) == logic.NotStarted:
        logic.SetSegmentStatus(segment, logic.InProgress)


def _image(voxels: NDArray[Any], origin: Int3, affine: Affine) -> "slicer.vtkOrientedImageData":
    """A copy of voxels [k, j, i], the first of which has index `origin` (i, j, k)."""
    image = slicer.vtkOrientedImageData()
    extent: list[int] = []
    for first, size in zip(origin, voxels.shape[::-1], strict=True):
        extent += [first, first + size - 1]
    image.SetExtent(extent)
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(affine))
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    return image


def _described(
    segmentation: "slicer.vtkSegmentation",
    name: str,
    terminology: str | None = None,
    color: Color | None = None,
) -> "slicer.vtkSegment":
    """A new segment, not added yet; arguments as in `addSegment`."""
    count = segmentation.GetNumberOfSegments()
    if not name:
        taken = {segmentation.GetNthSegment(n).GetName() for n in range(count)}
        name = next(name for n in range(1, len(taken) + 2) if (name := f"Bone {n}") not in taken)
    meaning = bone_meaning(name)
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetTerminology(terminology or meaning.terminology)
    segment.SetColor(color or meaning.color or distinct_color(count + 1))
    return segment


def _grid(
    volumeNode: "slicer.vtkMRMLScalarVolumeNode", segmentationNode: "slicer.vtkMRMLSegmentationNode"
) -> Affine:
    """4x4 affine from a volume's voxel indices to a segmentation's coordinates."""
    matrix = vtk.vtkMatrix4x4()
    # Exactly the identity where both are under the same transform.
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode(), matrix
    )
    affine: Affine = slicer.util.arrayFromVTKMatrix(matrix) @ ijkToRas(volumeNode)
    return affine


def _restricted(
    new: Labelmap,
    masking: Masking,
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    segmentId: str,
) -> Labelmap:
    """A new mask where the segment may change, the present one elsewhere."""
    allowed = _allowed(masking, volumeNode, segmentationNode, segmentId, new.affine)
    if allowed is None:
        return new
    present = _labelmap(segmentationNode, segmentId)
    masks = (labelmap.sampled((0, 0, 0), allowed.shape, new.affine) for labelmap in (new, present))
    return Labelmap.from_mask(CroppedMask.from_array(np.where(allowed, *masks)), new.affine)


def _givingWay(
    new: Labelmap, masking: Masking, segmentationNode: "slicer.vtkMRMLSegmentationNode", segmentId: str
) -> dict[str, Labelmap]:
    """What is left of the other segments that a new mask overwrites, by their IDs."""
    changes = {}
    for otherId in _overwritable(masking.overwriteMode, segmentationNode):
        if otherId != segmentId:
            other = _labelmap(segmentationNode, otherId)
            k, j, i = other.voxels.shape
            covered = new.sampled(other.origin, (k, j, i), other.affine)
            if (other.voxels & covered).any():
                changes[otherId] = Labelmap(other.voxels & ~covered, other.origin, other.affine)
    return changes


def _allowed(
    masking: Masking,
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    segmentId: str,
    affine: Affine,
) -> NDArray[np.bool_] | None:
    """Where on the volume's grid, [k, j, i], a segment may change; None for everywhere."""
    limits, inside = _limits(masking, segmentationNode, segmentId)
    if limits is None and masking.intensityRange is None:
        return None
    shape = volumeShape(volumeNode)
    allowed = np.ones(shape, np.bool_)
    if masking.intensityRange is not None:
        low, high = masking.intensityRange
        values = vtk_to_numpy(volumeNode.GetImageData().GetPointData().GetScalars()).reshape(shape)
        allowed = (values >= low) & (values <= high)
    if limits is not None:
        area = np.zeros(shape, np.bool_)
        for otherId in limits:
            area |= _labelmap(segmentationNode, otherId).sampled((0, 0, 0), shape, affine)
        allowed &= area if inside else ~area
    return allowed


def _limits(
    masking: Masking, segmentationNode: "slicer.vtkMRMLSegmentationNode", segmentId: str
) -> tuple[list[str] | None, bool]:
    """Segments that limit where the segment may change (None: no limit), and whether that is inside them."""
    node = slicer.vtkMRMLSegmentationNode
    every = list(segmentationNode.GetSegmentation().GetSegmentIDs())
    visible = _visibleSegments(segmentationNode)
    # A segment is not in its own way.
    others = [identifier for identifier in every if identifier != segmentId]
    rules: dict[int, tuple[list[str] | None, bool]] = {
        node.EditAllowedEverywhere: (None, True),
        node.EditAllowedInsideAllSegments: (every, True),
        node.EditAllowedInsideVisibleSegments: (visible, True),
        node.EditAllowedInsideSingleSegment: (
            [name for name in every if name == masking.maskSegmentId],
            True,
        ),
        node.EditAllowedOutsideAllSegments: (others, False),
        node.EditAllowedOutsideVisibleSegments: ([name for name in others if name in visible], False),
    }
    return rules[masking.maskMode]


def _overwritable(mode: int, segmentationNode: "slicer.vtkMRMLSegmentationNode") -> Iterable[str]:
    editor = slicer.vtkMRMLSegmentEditorNode
    if mode == editor.OverwriteNone:
        return ()
    if mode == editor.OverwriteVisibleSegments:
        return _visibleSegments(segmentationNode)
    return tuple(segmentationNode.GetSegmentation().GetSegmentIDs())


def _visibleSegments(segmentationNode: "slicer.vtkMRMLSegmentationNode") -> list[str]:
    display = segmentationNode.GetDisplayNode()
    identifiers = segmentationNode.GetSegmentation().GetSegmentIDs()
    return [name for name in identifiers if display is not None and display.GetSegmentVisibility(name)]


def _requireSegment(segmentationNode: "slicer.vtkMRMLSegmentationNode", segmentId: str) -> None:
    requireEditable(segmentationNode)
    if segmentationNode.GetSegmentation().GetSegment(segmentId) is None:
        raise BoneSAMError(
            f"The segment '{segmentId}' is no longer in '{segmentationNode.GetName()}': add a segment first."
        )


def _requireShape(shape: tuple[int, ...], volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    if shape != volumeShape(volumeNode):
        raise BoneSAMError(
            f"The mask has {shape} voxels (k, j, i) and the volume '{volumeNode.GetName()}' "
            f"{volumeShape(volumeNode)}: the volume was replaced meanwhile. Segment it again."
        )
