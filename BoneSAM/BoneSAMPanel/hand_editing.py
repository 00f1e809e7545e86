"""Segment Editor inside the panel, for touching up by hand."""

from typing import Any

import slicer

__all__ = ["HandEditing"]

_TAG = "BoneSAM"
_PREPARED = "BoneSAM.prepared"


class HandEditing:
    """The embedded editor. It is at work while its section is open.

    Args:
        ui: the panel's widgets.
        scene: the scene.
    """

    def __init__(self, ui: Any, scene: Any) -> None:
        self.ui = ui
        self._scene = scene
        ui.segmentEditor.setMRMLScene(scene)

    @property
    def editorNode(self) -> Any:
        """What the editor is set to: masking, effect. Made on first need."""
        node = self._scene.GetSingletonNode(_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(_TAG)
            node = self._scene.AddNode(node)
        if node.GetAttribute(_PREPARED) is None:  # new, or emptied when the scene was closed
            node.SetAttribute(_PREPARED, "true")
            # Bones that touch: what one gains must not be taken from its neighbor.
            node.SetOverwriteMode(node.OverwriteNone)
        return node

    def edit(self, segmentationNode: Any, volumeNode: Any) -> None:
        """Offer a segmentation of a volume to the editor; None for none."""
        node = self.editorNode
        if self.ui.segmentEditor.mrmlSegmentEditorNode() is not node:
            self.ui.segmentEditor.setMRMLSegmentEditorNode(node)
        if self.ui.segmentEditor.segmentationNode() is not segmentationNode:
            self.ui.segmentEditor.setSegmentationNode(segmentationNode)
        if self.ui.segmentEditor.sourceVolumeNode() is not volumeNode:
            self.ui.segmentEditor.setSourceVolumeNode(volumeNode)

    def begin(self) -> None:
        """The section was opened: the editor's keys work."""
        # Effects of other extensions may have been registered since the panel was made.
        self.ui.segmentEditor.updateEffectList()
        self.ui.segmentEditor.installKeyboardShortcuts()

    def end(self) -> None:
        """The section was closed or the module left: the mouse is free again."""
        self.ui.segmentEditor.setActiveEffect(None)
        self.ui.segmentEditor.uninstallKeyboardShortcuts()
        self.ui.segmentEditor.removeViewObservations()

    def saveState(self) -> None:
        """Make what is about to change a step of the editor's undo history."""
        self.ui.segmentEditor.saveStateForUndo()
