"""Volumes, regions and points of a scene, under every mixture of transforms, on Slicer's own classes."""

import gc
import itertools

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
import vtk

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.mrml import (
    boxFromRoi,
    orientedBoxFromRoi,
    pointsFromMarkups,
    volumeFromNode,
    worldFromIjk,
)
from BoneSAMLib.postprocess import keep_inside
from Testing.slicer.scenes import (
    GEOMETRIES,
    PARENTS,
    add_roi,
    add_volume,
    grid_transform,
    linear_transform,
    parent_of,
    world_of_voxels,
)

EVERY_MIXTURE = [
    pytest.param(geometry, volume, roi, id=f"{geometry}-volume_{volume}-roi_{roi}")
    for geometry, volume, roi in itertools.product(GEOMETRIES, PARENTS, PARENTS)
]


# ------------------------------------------------------------------------------------------------- volumes


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_volume_shares_the_nodes_voxels_and_has_its_geometry(scene, geometry):
    node = add_volume(scene, geometry)
    volume = volumeFromNode(node)
    assert np.shares_memory(volume.array, slicer.util.arrayFromVolume(node))
    np.testing.assert_array_equal(volume.ijk_to_ras, GEOMETRIES[geometry])
    assert volume.shape == (14, 18, 22)
    assert volume.name == node.GetName()


@pytest.mark.parametrize("parent", PARENTS)
def test_affine_is_the_nodes_own_or_that_of_the_world(scene, parent):
    node = add_volume(scene, "oblique", parent)
    np.testing.assert_array_equal(volumeFromNode(node).ijk_to_ras, GEOMETRIES["oblique"])
    world = volumeFromNode(node, inWorld=True)
    corner = world.ijk_to_ras @ [3, 5, 7, 1]
    np.testing.assert_allclose(corner[:3], world_of_voxels(node)[7, 5, 3], atol=1e-9)
    np.testing.assert_allclose(worldFromIjk((3, 5, 7), node), corner[:3], atol=1e-9)


def test_array_outlives_the_nodes_voxels_and_the_node(scene):
    node = add_volume(scene, "axis-aligned")
    volume = volumeFromNode(node)
    expected = volume.array.copy()
    node.SetAndObserveImageData(vtk.vtkImageData())
    scene.RemoveNode(node)
    del node
    gc.collect()
    np.testing.assert_array_equal(volume.array, expected)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_voxel_types(scene, kind):
    node = add_volume(scene, "axis-aligned")
    slicer.util.updateVolumeFromArray(node, np.arange(60).reshape(3, 4, 5).astype(kind))
    volume = volumeFromNode(node)
    assert volume.array.dtype == kind
    assert volume.array[2, 3, 4] == 59


@pytest.mark.parametrize(("stated", "modality"), [("CT", "CT"), ("MR", "MR"), ("DX", "X-ray"), ("PT", None)])
def test_modality_is_what_dicom_said(scene, stated, modality):
    node = add_volume(scene, "axis-aligned")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(node), "DICOM.Modality", stated)
    assert volumeFromNode(node).modality == modality


def test_modality_is_unknown_without_dicom(scene):
    assert volumeFromNode(add_volume(scene, "axis-aligned")).modality is None


def test_single_slice(scene):
    node = add_volume(scene, "axis-aligned")
    slicer.util.updateVolumeFromArray(node, np.arange(20).reshape(1, 4, 5).astype(np.uint8))
    assert volumeFromNode(node).is_projection


def image_of(components, size=(4, 5, 6)):
    image = vtk.vtkImageData()
    image.SetDimensions(size)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, components)
    image.GetPointData().GetScalars().Fill(0)
    return image


@pytest.mark.parametrize(
    ("class_name", "image", "message"),
    [
        ("vtkMRMLScalarVolumeNode", None, "is empty"),
        ("vtkMRMLScalarVolumeNode", image_of(1, (0, 0, 0)), "is empty"),
        ("vtkMRMLVectorVolumeNode", image_of(3), "Vector to Scalar Volume"),
        ("vtkMRMLScalarVolumeNode", image_of(3), "Vector to Scalar Volume"),
        ("vtkMRMLDiffusionWeightedVolumeNode", image_of(12), "12 images"),
        ("vtkMRMLLabelMapVolumeNode", image_of(1), "holds labels"),
        ("vtkMRMLModelNode", None, "not a volume"),
    ],
)
def test_what_cannot_be_segmented_is_refused_by_name(scene, class_name, image, message):
    node = scene.AddNewNodeByClass(class_name, "Knee scan")
    if image is not None:
        node.SetAndObserveImageData(image)
    with pytest.raises(BoneSAMError, match=message) as refused:
        volumeFromNode(node)
    assert "Knee scan" in str(refused.value)


def test_no_volume_is_refused():
    with pytest.raises(BoneSAMError, match="choose the scan"):
        volumeFromNode(None)


def test_values_that_are_not_finite_are_refused(scene):
    node = add_volume(scene, "axis-aligned")
    slicer.util.updateVolumeFromArray(node, np.full((3, 4, 5), np.nan, np.float32))
    with pytest.raises(BoneSAMError, match="not finite"):
        volumeFromNode(node)


@pytest.mark.parametrize("nested", [False, True])
def test_warped_volume_is_refused_with_advice(scene, nested):
    node = add_volume(scene, "oblique")
    warp = grid_transform(scene)
    inner = linear_transform(scene, 1) if nested else warp
    if nested:
        inner.SetAndObserveTransformNodeID(warp.GetID())
    node.SetAndObserveTransformNodeID(inner.GetID())
    with pytest.raises(BoneSAMError, match=r"non-linear transform 'Warp': harden the transform first"):
        volumeFromNode(node)
    with pytest.raises(BoneSAMError, match="harden"):
        boxFromRoi(add_roi(scene, (0, 0, 0), (20, 20, 20)), node)


def test_hardening_makes_a_warped_region_usable(scene):
    node = add_volume(scene, "axis-aligned")
    roi = add_roi(scene, worldFromIjk((11, 9, 7), node), (6, 6, 12))
    before = boxFromRoi(roi, node)
    roi.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
    with pytest.raises(BoneSAMError, match="harden"):
        boxFromRoi(roi, node)
    roi.HardenTransform()
    assert boxFromRoi(roi, node) == before  # the warp moves nothing here


def test_transform_that_squeezes_flat_is_refused(scene):
    node = add_volume(scene, "axis-aligned")
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Flat")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.0, 1.0, 0.0, 1.0])))
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(BoneSAMError, match="'Flat' squeezes"):
        volumeFromNode(node)


# ------------------------------------------------------------------------------------------------- regions


def voxels_inside(roi, volume_node):
    """What Slicer itself says of every voxel center."""
    places = world_of_voxels(volume_node)
    found = np.zeros(places.shape[:3], bool)
    for index in np.ndindex(found.shape):
        found[index] = roi.IsPointInROIWorld(places[index])
    return found


def bounds(mask):
    k, j, i = np.nonzero(mask)
    return (i.min(), j.min(), k.min()), (i.max(), j.max(), k.max())


def region_over(scene, volume_node, roi_parent, turned):
    """A region around the middle of a volume, whatever the transforms. Its sides differ."""
    center = np.array(worldFromIjk((11.3, 8.6, 6.7), volume_node))
    parent = parent_of(scene, roi_parent, 20)
    roi = add_roi(scene, (0, 0, 0), (7.3, 9.1, 11.7))
    to_node = np.eye(4)
    if turned:
        angles = vtk.vtkTransform()
        angles.RotateWXYZ(35, 1, 2, 3)
        to_node = slicer.util.arrayFromVTKMatrix(angles.GetMatrix())
    world_to_parent = np.linalg.inv(np.eye(4) if parent is None else parent_matrix(parent))
    to_node[:3, 3] = (world_to_parent @ [*center, 1])[:3]
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(to_node))
    if parent is not None:
        roi.SetAndObserveTransformNodeID(parent.GetID())
    return roi


def parent_matrix(transform):
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.mark.parametrize("turned", [False, True], ids=["straight", "turned"])
@pytest.mark.parametrize(("geometry", "volume_parent", "roi_parent"), EVERY_MIXTURE)
def test_box_covers_the_region_and_inside_is_what_slicer_says(
    scene, geometry, volume_parent, roi_parent, turned
):
    node = add_volume(scene, geometry, volume_parent)
    roi = region_over(scene, node, roi_parent, turned)
    inside = voxels_inside(roi, node)
    assert 20 < inside.sum() < 3000, "the case is not one"

    low, high = boxFromRoi(roi, node).to_ijk(volumeFromNode(node))
    first, last = bounds(inside)
    assert all(a <= b for a, b in zip(low, first, strict=True))
    assert all(a >= b for a, b in zip(high, last, strict=True))

    # The corners, by Slicer's own path from the object to the world and from there to the volume.
    size = roi.GetSize()
    corners = []
    for signs in itertools.product((-0.5, 0.5), repeat=3):
        world = roi.GetObjectToWorldMatrix().MultiplyPoint([*(np.array(signs) * size), 1])
        local = np.zeros(3)
        node.TransformPointFromWorld(world[:3], local)
        to_ijk = vtk.vtkMatrix4x4()
        node.GetRASToIJKMatrix(to_ijk)
        corners.append(to_ijk.MultiplyPoint([*local, 1])[:3])
    limit = np.array([21, 17, 13])
    np.testing.assert_array_equal(low, np.clip(np.ceil(np.min(corners, 0)), 0, limit))
    np.testing.assert_array_equal(high, np.clip(np.floor(np.max(corners, 0)), 0, limit))

    volume = volumeFromNode(node, inWorld=True)
    everything = CroppedMask.from_array(np.ones(volume.shape, bool))
    kept = keep_inside(everything, volume, orientedBoxFromRoi(roi)).to_array()
    assert not (inside & ~kept).any()
    # A voxel on the surface itself is inside: that is some micrometers more than Slicer's own answer.
    roi.SetSize(*(np.array(roi.GetSize()) + 0.02))
    assert all(roi.IsPointInROIWorld(place) for place in world_of_voxels(node)[kept & ~inside])


@pytest.mark.parametrize("geometry", ["axis-aligned", "flipped", "anisotropic"])
def test_box_of_a_straight_region_is_exactly_the_voxels_inside(scene, geometry):
    node = add_volume(scene, geometry)
    roi = region_over(scene, node, "none", turned=False)
    box = boxFromRoi(roi, node)
    assert (box.first, box.second) == bounds(voxels_inside(roi, node))


def test_region_on_voxel_centers_includes_them(scene):
    node = add_volume(scene, "anisotropic")
    low, high = np.array(worldFromIjk((4, 5, 3), node)), np.array(worldFromIjk((9, 12, 8), node))
    roi = add_roi(scene, (low + high) / 2, np.abs(high - low))
    box = boxFromRoi(roi, node)
    assert (box.first, box.second) == ((4, 5, 3), (9, 12, 8))


def test_region_between_two_slices_takes_the_nearer_one(scene):
    node = add_volume(scene, "anisotropic")
    center = np.array(worldFromIjk((8, 8, 6.4), node))
    box = boxFromRoi(add_roi(scene, center, (4, 4, 0.5)), node)
    assert box.first[2] == box.second[2] == 6


def test_flat_region_drawn_on_one_slice(scene):
    node = add_volume(scene, "anisotropic", "nested")
    roi = region_over(scene, node, "none", turned=False)
    to_world = volumeFromNode(node, inWorld=True).ijk_to_ras.copy()
    to_world[:3, :3] /= np.linalg.norm(to_world[:3, :3], axis=0)
    to_world[:3, 3] = worldFromIjk((10, 9, 5), node)
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(to_world))
    roi.SetSize(6, 6, 0)
    box = boxFromRoi(roi, node)
    assert box.first[2] == box.second[2] == 5
    assert box.first[0] < 10 < box.second[0]


def test_region_reaching_out_of_the_volume_is_clipped(scene):
    node = add_volume(scene, "axis-aligned")
    box = boxFromRoi(add_roi(scene, worldFromIjk((0, 0, 0), node), (1000, 1000, 1000)), node)
    assert (box.first, box.second) == ((0, 0, 0), (21, 17, 13))


@pytest.mark.parametrize("place", [(1000, 0, 0), (0, -1000, 0), (0, 0, 1000)])
def test_region_beside_the_volume_is_refused_by_name(scene, place):
    node = add_volume(scene, "oblique", "linear")
    with pytest.raises(BoneSAMError, match=r"'Region' covers nothing of the volume 'Scan'"):
        boxFromRoi(add_roi(scene, place, (20, 20, 20)), node)


@pytest.mark.parametrize("size", [(0, 0, 0), (0, 0, 20)])
def test_region_without_size_is_refused(scene, size):
    node = add_volume(scene, "axis-aligned")
    with pytest.raises(BoneSAMError, match="draw a larger box"):
        boxFromRoi(add_roi(scene, worldFromIjk((9, 9, 7), node), size), node)


def test_region_not_drawn_yet_is_refused(scene):
    node = add_volume(scene, "axis-aligned")
    with pytest.raises(BoneSAMError, match="draw"):
        boxFromRoi(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode"), node)
    with pytest.raises(BoneSAMError, match="draw"):
        boxFromRoi(None, node)


# -------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize(
    ("geometry", "volume_parent", "points_parent"), list(itertools.product(GEOMETRIES, PARENTS, PARENTS))
)
def test_points_are_where_they_were_clicked(scene, geometry, volume_parent, points_parent):
    node = add_volume(scene, geometry, volume_parent)
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Clicks")
    parent = parent_of(scene, points_parent, 20)
    if parent is not None:
        markups.SetAndObserveTransformNodeID(parent.GetID())
    clicked = [(2.25, 3.5, 4.75), (20, 16, 12)]
    for ijk in clicked:
        markups.AddControlPointWorld(world_of(node, ijk))
    points = pointsFromMarkups(markups, node, positive=False)
    np.testing.assert_allclose([point.to_ijk(volumeFromNode(node)) for point in points], clicked, atol=1e-9)
    assert not any(point.positive for point in points)


def world_of(node, ijk):
    """By Slicer's own path."""
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    world = np.zeros(3)
    node.TransformPointToWorld(to_ras.MultiplyPoint([*ijk, 1])[:3], world)
    return world


def test_points_not_placed_yet_are_left_out(scene):
    node = add_volume(scene, "axis-aligned")
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Clicks")
    markups.AddControlPointWorld(world_of(node, (3, 4, 5)))
    markups.AddControlPointWorld(world_of(node, (6, 4, 5)))
    markups.UnsetNthControlPointPosition(0)
    assert len(pointsFromMarkups(markups, node)) == 1
    assert pointsFromMarkups(scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode"), node) == []


def test_point_beside_the_volume_is_refused_by_name(scene):
    node = add_volume(scene, "axis-aligned")
    markups = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Clicks")
    markups.AddControlPointWorld(world_of(node, (3, 4, 500)), "C-1")
    with pytest.raises(BoneSAMError, match=r"'C-1' of 'Clicks' lies outside of the volume 'Scan'"):
        pointsFromMarkups(markups, node)


def test_voxels_are_not_changed_by_reading(scene):
    node = add_volume(scene, "oblique", "nested")
    before = slicer.util.arrayFromVolume(node).copy()
    time = node.GetImageData().GetMTime()
    roi = region_over(scene, node, "linear", turned=True)
    boxFromRoi(roi, node)
    volumeFromNode(node)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
    assert node.GetImageData().GetMTime() == time
