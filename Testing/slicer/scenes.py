"""Volumes, transforms and regions for tests with a scene."""

import numpy as np
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy


def _geometry(angle, axis, spacing, origin):
    rotation = vtk.vtkTransform()
    rotation.RotateWXYZ(angle, *axis)
    affine = slicer.util.arrayFromVTKMatrix(rotation.GetMatrix())
    affine[:3, :3] *= spacing
    affine[:3, 3] = origin
    return affine


GEOMETRIES = {
    "axis-aligned": _geometry(0, (0, 0, 1), (1.1, 1.1, 1.1), (10.4, -20.3, 30.2)),
    "oblique": _geometry(30, (2, 1, 3), (0.9, 0.9, 1.6), (-12.0, 7.5, 60.0)),
    "flipped": _geometry(0, (0, 0, 1), (-1.2, -1.2, 1.5), (40.0, 50.0, -60.0)),
    "anisotropic": _geometry(0, (0, 0, 1), (0.6, 0.7, 4.0), (3.0, 4.0, 5.0)),
}
# Turned, mirrored and with i, j, k in another order: a sagittal series.
GEOMETRIES["oblique flipped"] = GEOMETRIES["oblique"] @ np.array(
    [[0, 0, -1, 3], [0, 1, 0, 0], [1, 0, 0, 2], [0, 0, 0, 1.0]]
)
PARENTS = ("none", "linear", "nested")


def add_volume(scene, geometry, parent="none"):
    """A volume of 22 x 18 x 14 voxels."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    values = np.random.default_rng(1).integers(-1000, 2000, (14, 18, 22)).astype(np.int16)
    slicer.util.updateVolumeFromArray(node, values)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(GEOMETRIES[geometry]))
    transform = parent_of(scene, parent, 0)
    if transform is not None:
        node.SetAndObserveTransformNodeID(transform.GetID())
    return node


def add_roi(scene, center, size):
    """A straight region of interest."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    node.SetCenter(*center)
    node.SetSize(*size)
    return node


def parent_of(scene, kind, seed):
    """No transform, a linear one, or one within another; different seeds give different ones."""
    if kind == "none":
        return None
    transform = linear_transform(scene, seed + 1)
    if kind == "nested":
        transform.SetAndObserveTransformNodeID(linear_transform(scene, seed + 2).GetID())
    return transform


def linear_transform(scene, seed):
    """A turn about some axis and a shift."""
    generator = np.random.default_rng(seed)
    matrix = vtk.vtkTransform()
    matrix.Translate(*generator.uniform(-40, 40, 3))
    matrix.RotateWXYZ(generator.uniform(20, 120), *generator.normal(size=3))
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", f"Transform {seed}")
    node.SetMatrixTransformToParent(matrix.GetMatrix())
    return node


def grid_transform(scene):
    """A warp, as far as Slicer knows; all its displacements are zero."""
    grid = vtk.vtkImageData()
    grid.SetDimensions(3, 3, 3)
    grid.SetOrigin(-500, -500, -500)
    grid.SetSpacing(500, 500, 500)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    grid.GetPointData().GetScalars().Fill(0)
    warp = slicer.vtkOrientedGridTransform()
    warp.SetDisplacementGridData(grid)
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Warp")
    node.SetAndObserveTransformToParent(warp)
    return node


def world_of_voxels(node):
    """World coordinates of every voxel center, [k, j, i, 3], by Slicer's own path."""
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    transform = vtk.vtkGeneralTransform()
    transform.PostMultiply()
    transform.Concatenate(to_ras)
    if node.GetParentTransformNode() is not None:
        to_world = vtk.vtkGeneralTransform()
        node.GetParentTransformNode().GetTransformToWorld(to_world)
        transform.Concatenate(to_world)
    i, j, k = node.GetImageData().GetDimensions()
    indices, places = vtk.vtkPoints(), vtk.vtkPoints()
    indices.SetDataTypeToDouble()
    places.SetDataTypeToDouble()
    every = np.stack(np.meshgrid(range(k), range(j), range(i), indexing="ij"), -1)[..., ::-1]
    indices.SetData(numpy_to_vtk(every.reshape(-1, 3).astype(float), deep=True))
    transform.TransformPoints(indices, places)
    return vtk_to_numpy(places.GetData()).reshape(k, j, i, 3).copy()
