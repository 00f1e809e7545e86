"""What the slice views show: the scan, another sequence over it, and the place to look at."""

from typing import Any

import slicer

from BoneSAMLib.volume import Float3

__all__ = ["SliceViews"]


class SliceViews:
    """The slice views of a scene.

    Args:
        scene: the scene.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._secondId = ""

    def showVolume(self, volumeNode: Any) -> None:
        """Show a volume, and move to its middle if it is not shown yet."""
        composites = self._composites()
        if any(node.GetBackgroundVolumeID() == volumeNode.GetID() for node in composites):
            return
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)

    def showSecond(self, volumeId: str, opacity: float) -> None:
        """Lay another volume over the first; "" for none. What others have laid there stays."""
        for node in self._composites():
            if volumeId:
                node.SetForegroundVolumeID(volumeId)
                node.SetForegroundOpacity(opacity)
            elif self._secondId and node.GetForegroundVolumeID() == self._secondId:
                node.SetForegroundVolumeID(None)
        self._secondId = volumeId

    def jumpTo(self, position: Float3) -> None:
        """Let every slice view show the slice through a position, RAS mm, without turning or centering it."""
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", self._scene):
            node.JumpSliceByOffsetting(*position)

    def _composites(self) -> list[Any]:
        return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self._scene)
