"""A volume node as the presenter sees it: what counts as a change, and what is read."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
import vtk

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.node_volume_source import NodeVolumeSource
from Testing.slicer.scenes import (
    GEOMETRIES,
    PARENTS,
    add_volume,
    grid_transform,
    linear_transform,
    world_of_voxels,
)


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_voxels_are_read_where_they_are_in_the_world(scene, geometry, parent):
    node = add_volume(scene, geometry, parent)
    volume = NodeVolumeSource(node).read()
    places = world_of_voxels(node)
    for k, j, i in ((0, 0, 0), (13, 17, 21), (3, 10, 7)):
        np.testing.assert_allclose(volume.ijk_to_ras[:3] @ [i, j, k, 1], places[k, j, i], atol=1e-9)
    np.testing.assert_array_equal(volume.array, slicer.util.arrayFromVolume(node))
    assert volume.name == "Scan"


def test_sources_of_one_node_are_the_same(scene):
    node, other = add_volume(scene, "oblique"), add_volume(scene, "oblique")
    one, same, another = (NodeVolumeSource(each) for each in (node, node, other))
    assert (one.identifier, one.modified_time) == (same.identifier, same.modified_time)
    assert one.identifier != another.identifier
    assert one.modified_time != another.modified_time


def turn(scene, node):
    node.SetAndObserveTransformNodeID(linear_transform(scene, 5).GetID())


def move_parent(scene, node):
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 0.5)
    node.GetParentTransformNode().SetMatrixTransformToParent(matrix)


def move_parents_parent(scene, node):
    move_parent(scene, node.GetParentTransformNode())


def new_voxels(scene, node):
    slicer.util.updateVolumeFromArray(node, np.zeros((14, 18, 22), np.int16))


def edit_voxels(scene, node):
    slicer.util.arrayFromVolume(node)[3, 4, 5] += 1
    slicer.util.arrayFromVolumeModified(node)


def new_image(scene, node):
    image = vtk.vtkImageData()
    image.DeepCopy(node.GetImageData())
    node.SetAndObserveImageData(image)


def other_size(scene, node):
    """The same voxels in rows of another length."""
    image = vtk.vtkImageData()
    image.SetDimensions(18, 22, 14)
    image.GetPointData().SetScalars(node.GetImageData().GetPointData().GetScalars())
    node.SetAndObserveImageData(image)


def warp(scene, node):
    node.SetAndObserveTransformNodeID(grid_transform(scene).GetID())


@pytest.mark.parametrize(
    "change",
    [
        turn,
        move_parent,
        move_parents_parent,
        new_voxels,
        edit_voxels,
        new_image,
        other_size,
        warp,
        lambda scene, node: node.SetSpacing(1, 2, 3),
        lambda scene, node: node.SetOrigin(1, 2, 3),
        lambda scene, node: node.SetIJKToRASDirections(0, 1, 0, -1, 0, 0, 0, 0, 1),
        lambda scene, node: node.SetAndObserveTransformNodeID(None),
    ],
)
def test_every_change_of_voxels_or_place_is_noticed(scene, change):
    node = add_volume(scene, "oblique", "nested")
    source = NodeVolumeSource(node)
    before, identifier = source.modified_time, source.identifier
    change(scene, node)
    assert source.modified_time != before
    assert source.modified_time == NodeVolumeSource(node).modified_time
    assert source.identifier == identifier


def test_another_size_is_noticed_though_the_voxels_are_the_newest(scene):
    node = add_volume(scene, "oblique")
    first = node.GetImageData()
    other_size(scene, node)
    second = node.GetImageData()
    first.GetPointData().GetScalars().Modified()
    assert first.GetMTime() == second.GetMTime()
    source = NodeVolumeSource(node)
    before = source.modified_time
    node.SetAndObserveImageData(first)
    assert source.modified_time != before


def test_change_of_a_warp_is_noticed(scene):
    node = add_volume(scene, "oblique")
    transform = grid_transform(scene)
    node.SetAndObserveTransformNodeID(transform.GetID())
    source = NodeVolumeSource(node)
    before = source.modified_time
    transform.GetTransformToParent().SetDisplacementScale(2)
    assert source.modified_time != before


def test_a_mirrored_volume_of_another_spacing_is_another_one(scene):
    # Python gives -1.0 and -2.0 the same hash.
    node = add_volume(scene, "axis-aligned")
    source = NodeVolumeSource(node)
    times = []
    for spacing in (-1.0, -2.0):
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 0, spacing)
        node.SetIJKToRASMatrix(matrix)
        times.append(source.modified_time)
    assert times[0] != times[1]


def test_what_does_not_matter_is_no_change(scene):
    node = add_volume(scene, "oblique", "linear")
    source = NodeVolumeSource(node)
    before = source.modified_time
    node.SetName("Another name")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetWindowLevel(400, 40)
    node.SetAttribute("note", "looked at")
    source.read()
    slicer.util.arrayFromVolume(node)
    assert source.modified_time == before


def test_moved_away_and_back_is_no_change(scene):
    node = add_volume(scene, "oblique", "linear")
    source = NodeVolumeSource(node)
    before, transform = source.modified_time, node.GetParentTransformNode()
    node.SetAndObserveTransformNodeID(None)
    assert source.modified_time != before
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert source.modified_time == before


def test_array_read_outlives_the_volume(scene):
    node = add_volume(scene, "oblique")
    volume = NodeVolumeSource(node).read()
    before = volume.array.copy()
    new_voxels(scene, node)
    scene.RemoveNode(node)
    del node
    np.testing.assert_array_equal(volume.array, before)


def test_removed_volume_keeps_its_identifier_and_is_refused(scene):
    node = add_volume(scene, "oblique")
    source = NodeVolumeSource(node)
    identifier = source.identifier
    scene.RemoveNode(node)
    assert source.identifier == identifier
    assert isinstance(source.modified_time, int)
    with pytest.raises(BoneSAMError, match="'Scan' is no longer in the scene"):
        source.read()


def test_warped_volume_is_refused_with_advice_only_when_read(scene):
    node = add_volume(scene, "oblique")
    warp(scene, node)
    source = NodeVolumeSource(node)
    assert isinstance(source.modified_time, int)
    with pytest.raises(BoneSAMError, match="harden the transform"):
        source.read()


def test_empty_volume_is_refused(scene):
    source = NodeVolumeSource(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing"))
    assert isinstance(source.modified_time, int)
    with pytest.raises(BoneSAMError, match="'Nothing' is empty"):
        source.read()
