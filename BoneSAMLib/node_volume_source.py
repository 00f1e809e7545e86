"""A scan in a 3D Slicer scene, as the presenter sees it."""

import numpy as np
import slicer

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.mrml import ijkToRas, toWorld, volumeFromNode
from BoneSAMLib.volume import Volume

__all__ = ["NodeVolumeSource", "findVolume"]


class NodeVolumeSource:
    """A volume node; a `VolumeSource`. Two sources of one node are equal in everything they tell.

    Args:
        volumeNode: of a scene.
    """

    def __init__(self, volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
        self.volumeNode = volumeNode
        # Kept: what was removed from its scene must still be told apart.
        self._identifier: str = volumeNode.GetID()

    @property
    def identifier(self) -> str:
        """The node's ID in its scene."""
        return self._identifier

    @property
    def modified_time(self) -> int:
        """A number that differs after every change of voxels, geometry or parent transforms.

        It does not grow with time: a volume that is moved away and back has its former number, for nothing
        that was computed on it has become wrong. Name, window and colors do not count. Voxels that were
        changed through a NumPy array count once `slicer.util.arrayFromVolumeModified` was called.
        """
        image = self.volumeNode.GetImageData()
        parts = [ijkToRas(self.volumeNode).tobytes(), _placeInWorld(self.volumeNode)]
        if image is not None:
            # Two images may share their voxels, and then the time, and still differ in size.
            parts.append(repr((image.GetMTime(), image.GetExtent())).encode())
        # Of bytes, not of numbers: -1.0 and -2.0 have the same hash, and so would a flip with a new spacing.
        return hash(b"|".join(parts))

    def read(self) -> Volume:
        """The voxels in world coordinates; they are not copied.

        Raises:
            BoneSAMError: as `volumeFromNode`, or the node was removed from its scene.
        """
        if self.volumeNode.GetScene() is None:
            raise BoneSAMError(
                f"The volume '{self.volumeNode.GetName()}' is no longer in the scene: choose another one."
            )
        return volumeFromNode(self.volumeNode, inWorld=True)


def findVolume(scene: "slicer.vtkMRMLScene", identifier: str) -> NodeVolumeSource | None:
    """The volume with a node ID in a scene, or None."""
    node = scene.GetNodeByID(identifier)
    return None if node is None else NodeVolumeSource(node)


def _placeInWorld(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> bytes:
    """Where the parent transforms put a volume."""
    try:
        # Adding zero makes one of the two zeros.
        return (toWorld(volumeNode) + 0.0).tobytes()
    except BoneSAMError:  # a warp; `read` says so
        return np.int64(volumeNode.GetParentTransformNode().GetTransformToWorldMTime()).tobytes()
