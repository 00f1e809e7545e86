"""From closed surfaces to voxels."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from training.synthesis.anatomy.grid import Grid, Labels, Mask
from training.synthesis.anatomy.meshes import Structure
from training.synthesis.tissues import FIRST_STRUCTURE


def surface(structure: Structure) -> vtkPolyData:
    """The structure as VTK's surface."""
    points = vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(structure.points), deep=True))
    cells = vtkCellArray()
    connectivity = np.ascontiguousarray(structure.faces, dtype=np.int64).ravel()
    offsets = np.arange(0, connectivity.size + 1, 3, dtype=np.int64)
    cells.SetData(
        numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(connectivity, deep=True)
    )
    poly_data = vtkPolyData()
    poly_data.SetPoints(points)
    poly_data.SetPolys(cells)
    return poly_data


def voxelize(structure: Structure, grid: Grid) -> tuple[tuple[slice, slice, slice], Mask] | None:
    """Voxels of the grid whose center lies in the structure.

    Returns slices [k, j, i] of the part of the grid that the structure's bounds cover, and the mask of that
    part; None if the structure lies outside the grid.
    """
    origin, spacing = np.array(grid.origin), np.array(grid.spacing)
    low = np.maximum(np.floor((structure.low - origin) / spacing).astype(int), 0)
    high = np.minimum(np.ceil((structure.high - origin) / spacing).astype(int), np.array(grid.size) - 1)
    if (low > high).any():
        return None
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(surface(structure))
    stencil.SetOutputOrigin(*grid.origin)
    stencil.SetOutputSpacing(*grid.spacing)
    stencil.SetOutputWholeExtent(*(int(n) for pair in zip(low, high, strict=True) for n in pair))
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    i, j, k = (int(n) for n in high - low + 1)
    mask = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(k, j, i).astype(bool)
    place = tuple(slice(int(low[axis]), int(high[axis]) + 1) for axis in (2, 1, 0))
    return cast(tuple[slice, slice, slice], place), mask


def paint(structures: Sequence[Structure], grid: Grid) -> Labels:
    """Labels [k, j, i] of all structures: structure n has the value FIRST_STRUCTURE + n, 0 is none."""
    labels = np.zeros(grid.shape, np.uint16)
    for n in sorted(range(len(structures)), key=lambda n: structures[n].painting_order()):
        found = voxelize(structures[n], grid)
        if found is not None:
            place, mask = found
            labels[place][mask] = FIRST_STRUCTURE + n
    return labels
