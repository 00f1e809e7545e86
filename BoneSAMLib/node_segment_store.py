"""The segment table of a 3D Slicer segmentation, as the presenter sees it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import slicer

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.interfaces import VolumeSource
from BoneSAMLib.panel import SegmentEntry
from BoneSAMLib.segmentation_node import (
    NO_MASKING,
    Masking,
    SaveState,
    addSegment,
    addSegments,
    createSegmentation,
    isEmpty,
    readMask,
    writeMask,
)
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.writing import Color

__all__ = ["NodeSegmentStore"]


class NodeSegmentStore:
    """A segmentation node; a `SegmentStore`. Its volumes are those of the same scene.

    Without a segmentation, or once it was removed from the scene, the next segment creates one: under the
    transform of its volume and in the same study.

    Args:
        scene: the scene.
        segmentationNode: where segments live; None for a new one on first need.
        segmentEditorNode: its masking settings hold for every write; None to change nothing but the segment
            that is written. A new node of this kind lets other segments be overwritten.
        saveState: called before segments are added, removed or written, to make that one step of an undo
            history, such as `qMRMLSegmentEditorWidget.saveStateForUndo`. Adding a segment and writing its
            first mask are one step.
        onCreated: called with a segmentation node that was created, before it has segments.
    """

    def __init__(
        self,
        scene: "slicer.vtkMRMLScene",
        segmentationNode: "slicer.vtkMRMLSegmentationNode | None" = None,
        segmentEditorNode: "slicer.vtkMRMLSegmentEditorNode | None" = None,
        saveState: SaveState | None = None,
        onCreated: Callable[["slicer.vtkMRMLSegmentationNode"], None] | None = None,
    ) -> None:
        self._scene = scene
        self._node: Any = segmentationNode
        self._segmentEditorNode = segmentEditorNode
        self._saveState = saveState
        self._onCreated = onCreated
        self._added: object = None  # how the last added segment was then

    @property
    def segmentationNode(self) -> "slicer.vtkMRMLSegmentationNode | None":
        """Where segments live now; None if that is still to be created, or was removed from the scene."""
        if self._node is not None and self._node.GetScene() is not self._scene:
            self._node = None
        return self._node

    def segments(self) -> list[SegmentEntry]:
        """All segments in the order of the table."""
        node = self.segmentationNode
        if node is None:
            return []
        display, segmentation = node.GetDisplayNode(), node.GetSegmentation()
        entries = []
        for identifier in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(identifier)
            red, green, blue = segment.GetColor()
            visible = display is None or bool(display.GetSegmentVisibility(identifier))
            entries.append(SegmentEntry(identifier, segment.GetName(), (red, green, blue), visible))
        return entries

    def add(self, name: str, source: VolumeSource) -> str:
        """Add an empty segment, with terminology and color for what its name means; returns its ID.

        Raises:
            BoneSAMError: as `addSegment`, or a volume that cannot be segmented or was removed.
        """
        self._createIfNone(self._volumeNode(source))
        identifier = addSegment(self._node, name, saveState=self._saveState)
        self._added = self._stateOf(identifier)
        return identifier

    def add_all(self, bones: Sequence[tuple[str, CroppedMask]], source: VolumeSource) -> list[str | None]:
        """Add a segment for each named mask, all in one step of the undo history.

        Returns their IDs; None for a mask that other masks or the masking settings leave nothing of.

        Raises:
            BoneSAMError: as `addSegments`, or the volume was removed. Nothing has changed then.
        """
        volumeNode = self._volumeNode(source)
        labels = np.zeros(bones[0][1].shape, np.min_scalar_type(len(bones)))
        for number, (_, mask) in enumerate(bones, start=1):
            part = labels[mask.slices]
            part[mask.crop & (part == 0)] = number  # smoothed neighbors may overlap
        names = {number: name for number, (name, _) in enumerate(bones, start=1)}
        self._createIfNone(volumeNode)
        added = addSegments(labels, volumeNode, self._node, names, self._saveState, self._masking())
        return [added.get(number) for number in names]

    def remove(self, identifier: str) -> None:
        """Remove a segment.

        Raises:
            BoneSAMError: no such segment.
        """
        self._segment(identifier)
        self._saveUnlessJustAdded(identifier)
        self._node.GetSegmentation().RemoveSegment(identifier)

    def rename(self, identifier: str, name: str) -> None:
        """Give a segment another name, and the terminology and standard color of what that means.

        Terminology and color that somebody chose for the segment stay.

        Raises:
            BoneSAMError: no such segment.
        """
        segment = self._segment(identifier)
        meaning = bone_meaning(name)
        if segment.GetTerminology() == bone_meaning(segment.GetName()).terminology:
            segment.SetTerminology(meaning.terminology)
            if segment.GetColorAutoGenerated() and meaning.color is not None:
                segment.SetColor(meaning.color)
        segment.SetName(name)
        segment.NameAutoGeneratedOff()

    def recolor(self, identifier: str, color: Color) -> None:
        """Give a segment another color: red, green, blue, each 0 to 1.

        Raises:
            BoneSAMError: no such segment.
        """
        segment = self._segment(identifier)
        segment.SetColor(color)
        segment.ColorAutoGeneratedOff()

    def show(self, identifier: str, visible: bool) -> None:
        """Show or hide a segment, in slices and in 3D.

        Raises:
            BoneSAMError: no such segment.
        """
        self._segment(identifier)
        self._node.CreateDefaultDisplayNodes()
        self._node.GetDisplayNode().SetSegmentVisibility(identifier, visible)

    def read(self, identifier: str, source: VolumeSource) -> CroppedMask:
        """A segment on the grid of a volume.

        Raises:
            BoneSAMError: as `readMask`, or the volume was removed.
        """
        self._segment(identifier)
        return CroppedMask.from_array(readMask(self._node, identifier, self._volumeNode(source)))

    def is_empty(self, identifier: str) -> bool:
        """Whether a segment has no voxel anywhere.

        Raises:
            BoneSAMError: no such segment.
        """
        self._segment(identifier)
        return isEmpty(self._node, identifier)

    def write(
        self, mask: CroppedMask, identifier: str, source: VolumeSource, base: CroppedMask | None = None
    ) -> None:
        """Replace a segment's mask, or correct it by what differs from `base`; see `writeMask`.

        Raises:
            BoneSAMError: as `writeMask`, or the volume was removed. Nothing has changed then.
        """
        self._segment(identifier)
        writeMask(
            mask,
            self._volumeNode(source),
            self._node,
            identifier,
            self._masking(),
            saveState=lambda: self._saveUnlessJustAdded(identifier),
            base=base,
        )

    def _createIfNone(self, volumeNode: Any) -> None:
        if self.segmentationNode is None:
            self._node = createSegmentation(volumeNode)
            if self._onCreated is not None:
                self._onCreated(self._node)

    def _masking(self) -> Masking:
        if self._segmentEditorNode is None:
            return NO_MASKING
        return Masking.fromEditor(self._segmentEditorNode)

    def _volumeNode(self, source: VolumeSource) -> Any:
        node = self._scene.GetNodeByID(source.identifier)
        if node is None:
            raise BoneSAMError("The volume is no longer in the scene: load it again, or choose another one.")
        return node

    def _segment(self, identifier: str) -> Any:
        node = self.segmentationNode
        if node is None:
            raise BoneSAMError("The segmentation is no longer in the scene: choose or create another one.")
        segment = node.GetSegmentation().GetSegment(identifier)
        if segment is None:
            raise BoneSAMError(f"The segment '{identifier}' is no longer in '{node.GetName()}'.")
        return segment

    def _saveUnlessJustAdded(self, identifier: str) -> None:
        """Else undoing a new bone would first leave an empty segment."""
        if self._saveState is not None and self._added != self._stateOf(identifier):
            self._saveState()
        self._added = None

    def _stateOf(self, identifier: str) -> object:
        """Differs once a segment or its voxels were changed, or a segment was added or removed."""
        segmentation = self._node.GetSegmentation()
        labelmap = self._node.GetBinaryLabelmapInternalRepresentation(identifier)
        return (
            self._node.GetID(),
            identifier,
            segmentation.GetMTime(),
            segmentation.GetSegment(identifier).GetMTime(),
            None if labelmap is None else labelmap.GetMTime(),
        )
