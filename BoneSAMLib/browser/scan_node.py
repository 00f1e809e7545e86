"""A scan that was read, as a volume node of the scene."""

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from BoneSAMLib.volume import Modality, Volume

__all__ = ["add_scan"]

# As DICOM calls it: where `volumeFromNode` looks.
_DICOM_MODALITIES: dict[Modality, str] = {"CT": "CT", "MR": "MR", "X-ray": "DX"}


def add_scan(scene: "slicer.vtkMRMLScene", volume: Volume, title: str) -> "slicer.vtkMRMLScalarVolumeNode":
    """Add a volume to a scene, with its geometry and what is known of its modality."""
    array = volume.array
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    image = vtk.vtkImageData()
    image.SetDimensions(*volume.size)
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(title)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volume.ijk_to_ras))
    node = scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    if volume.modality is not None:
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if hierarchy is not None:
            item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
            attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
            hierarchy.SetItemAttribute(item, attribute, _DICOM_MODALITIES[volume.modality])
    return node
