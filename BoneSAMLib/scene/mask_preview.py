"""The mask that is not accepted yet, over the slices and in 3D."""

from typing import Any

import slicer

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.segmentation_node import addSegment, writeMask

__all__ = ["MaskPreview"]

_COLOR = (0.0, 0.7, 1.0)
_FILL = 0.3
_OUTLINE = 2  # pixels


class MaskPreview:
    """A segmentation node of its own with one segment; neither saved with the scene nor mixed with others.

    Args:
        scene: the scene.
    """

    def __init__(self, scene: "slicer.vtkMRMLScene") -> None:
        self._scene = scene
        self._node: Any = None
        self._segment = ""
        self._hidden: tuple[Any, str, tuple[float, float, float]] | None = None

    @property
    def segmentation_node(self) -> "slicer.vtkMRMLSegmentationNode | None":
        """Where the mask is shown; None while there is none."""
        return self._node

    def show(self, mask: CroppedMask | None, volume_node: "slicer.vtkMRMLScalarVolumeNode | None") -> None:
        """Show a mask on the grid of a volume; None hides it."""
        if self._node is not None and self._node.GetScene() is not self._scene:
            self._node = None
        if mask is None or volume_node is None or volume_node.GetScene() is not self._scene:
            self._remove()
            return
        if self._node is None:
            self._node = slicer.vtkMRMLSegmentationNode()
            self._node.SetName("BoneSAM preview")
            self._node.HideFromEditorsOn()  # before it is added: lists of nodes look then
            self._node.SaveWithSceneOff()
            self._scene.AddNode(self._node)
            self._node.CreateDefaultDisplayNodes()
            self._segment = addSegment(self._node, "preview", color=_COLOR)
            display = self._node.GetDisplayNode()
            display.SaveWithSceneOff()
            display.SetSegmentOpacity2DFill(self._segment, _FILL)
            display.SetSliceIntersectionThickness(_OUTLINE)
        self._node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
        self._node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        writeMask(mask, volume_node, self._node, self._segment)

    def stand_in_for(
        self, segmentation_node: "slicer.vtkMRMLSegmentationNode | None", segment: str | None
    ) -> None:
        """Hide a segment, which stays "visible", while the preview is its correction; None for no segment."""
        display = segmentation_node.GetDisplayNode() if segmentation_node is not None and segment else None
        if self._hidden is not None:
            former, name, opacities = self._hidden
            if former is display and name == segment:
                return
            _set_opacities(former, name, opacities)
            self._hidden = None
        if display is not None and segment:
            self._hidden = (display, segment, _opacities(display, segment))
            _set_opacities(display, segment, (0.0, 0.0, 0.0))

    def close(self) -> None:
        """Remove the preview, and show what it stood in for."""
        self.stand_in_for(None, None)
        self._remove()

    def _remove(self) -> None:
        if self._node is not None and self._node.GetScene() is self._scene:
            self._scene.RemoveNode(self._node)
        self._node = None


def _opacities(display: Any, segment: str) -> tuple[float, float, float]:
    return (
        display.GetSegmentOpacity2DFill(segment),
        display.GetSegmentOpacity2DOutline(segment),
        display.GetSegmentOpacity3D(segment),
    )


def _set_opacities(display: Any, segment: str, opacities: tuple[float, float, float]) -> None:
    fill, outline, solid = opacities
    display.SetSegmentOpacity2DFill(segment, fill)
    display.SetSegmentOpacity2DOutline(segment, outline)
    display.SetSegmentOpacity3D(segment, solid)
