"""Several sequences of a study in a scene: each counts where the world shows it."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from BoneSAMLib import node_segmentation
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.mrml import worldFromIjk
from BoneSAMLib.node_segmentation import newCache, segment, segmentAll, segmentMany
from BoneSAMLib.segmentation_node import readMask
from Testing.slicer.scenes import (
    GEOMETRIES,
    PARENTS,
    add_roi,
    add_volume,
    grid_transform,
    parent_of,
    world_of_voxels,
)
from Testing.slicer.test_node_presenter import BrightSegmenter, add_bright_block


@pytest.fixture
def segmenter(monkeypatch):
    made = BrightSegmenter()
    monkeypatch.setattr(node_segmentation, "open_segmenter", lambda device, weights: made)
    return made


def dark_volume(scene, geometry="axis-aligned", parent="none"):
    """22 x 18 x 14 voxels without bone; the same grid in the world as `add_bright_block`'s."""
    node = add_volume(scene, geometry, parent)
    slicer.util.updateVolumeFromArray(node, np.full((14, 18, 22), -1000, np.int16))
    return node


def bright_twin(scene, of, parent="none"):
    """A bright cube of 10 mm around the middle of a volume, on a finer and turned grid."""
    center = np.mean(world_of_voxels(of).reshape(-1, 3), axis=0)
    to_world = GEOMETRIES["oblique flipped"].copy()
    to_world[:3, :3] = to_world[:3, :3] / np.linalg.norm(to_world[:3, :3], axis=0) * 0.8
    size = np.array([44, 42, 40])
    to_world[:3, 3] = center - to_world[:3, :3] @ ((size - 1) / 2)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")
    k, j, i = np.mgrid[: size[2], : size[1], : size[0]]
    place = np.stack([i, j, k], -1) @ to_world[:3, :3].T + to_world[:3, 3]
    inside = (np.abs(place - center) <= 5).all(-1)
    slicer.util.updateVolumeFromArray(node, np.where(inside, 1250, -250).astype(np.int16))
    transform = parent_of(scene, parent, 50)
    own = to_world
    if transform is not None:
        matrix = vtk.vtkMatrix4x4()
        transform.GetMatrixTransformFromWorld(matrix)
        own = slicer.util.arrayFromVTKMatrix(matrix) @ to_world
        node.SetAndObserveTransformNodeID(transform.GetID())
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(own))
    return node, center


def box_around(scene, center, side=14):
    roi = add_roi(scene, (0, 0, 0), (side, side, side))
    roi.SetCenterWorld(center)
    return roi


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("own_parent", PARENTS)
@pytest.mark.parametrize("geometry", ["axis-aligned", "oblique", "flipped"])
def test_what_another_volume_shows_is_found_where_the_world_shows_it(
    scene, segmenter, geometry, parent, own_parent
):
    volume = dark_volume(scene, geometry, own_parent)
    other, center = bright_twin(scene, volume, parent)
    roi = box_around(scene, center)
    found = segment(volume, roi, otherVolumeNodes=[other], fusion="maximum")
    mask = readMask(found.segmentationNode, found.segmentId, volume)
    places = world_of_voxels(volume)[mask]
    assert np.abs(places.mean(0) - center).max() < 0.5
    spacing = np.array(volume.GetSpacing())
    truth = (np.abs(world_of_voxels(volume) - center) <= 5).all(-1)
    overlap = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert overlap > (0.85 if spacing.max() < 2 else 0.7)
    with pytest.raises(BoneSAMError, match="No bone was found"):
        segment(volume, roi)  # by itself it shows nothing


def test_the_first_volume_again_as_another_one_changes_nothing(scene, segmenter):
    volume = add_bright_block(scene, "oblique", "linear")
    same = add_bright_block(scene, "oblique", "linear")
    roi = box_around(scene, worldFromIjk((10, 8, 6), volume), 30)
    alone, both = segment(volume, roi), segment(volume, roi, otherVolumeNodes=[same])
    masks = [readMask(one.segmentationNode, one.segmentId, volume) for one in (alone, both)]
    assert masks[0].any()
    assert (masks[0] == masks[1]).all()
    assert alone.confidence == pytest.approx(both.confidence)


def test_every_bone_of_any_volume(scene, segmenter):
    volume = dark_volume(scene)
    other, center = bright_twin(scene, volume)
    (bone,) = segmentAll(volume, otherVolumeNodes=[other], fusion="maximum")
    mask = readMask(bone.segmentationNode, bone.segmentId, volume)
    assert np.abs(world_of_voxels(volume)[mask].mean(0) - center).max() < 0.7


def test_many_jobs_take_it_as_well_and_the_cache_keeps_both(scene, segmenter):
    volume = dark_volume(scene)
    other, center = bright_twin(scene, volume)
    roi = box_around(scene, center)
    job = {"volumeNode": volume, "roiNode": roi, "otherVolumeNodes": [other], "fusion": "maximum"}
    cache = newCache()
    results = segmentMany([job, job], cache=cache)
    assert [isinstance(one, Exception) for one in results] == [False, False]
    assert len(segmenter.engines) == 1
    encoded = sum(segmenter.engines[0].encoded)
    segment(**job, cache=cache)
    assert len(segmenter.engines) == 1
    assert sum(segmenter.engines[0].encoded) == encoded
    segment(**job | {"fusion": "average", "roiNode": None, "positivePoints": [center]}, cache=cache)
    assert len(segmenter.engines) == 2
    slicer.util.arrayFromVolumeModified(other)
    segment(**job, cache=cache)
    assert len(segmenter.engines) == 3


def test_what_cannot_be_combined_is_refused(scene, segmenter):
    volume = add_bright_block(scene, "axis-aligned", "none")
    other, center = bright_twin(scene, volume)
    far = dark_volume(scene)
    far.SetName("Far")
    far.SetOrigin(900, 900, 900)
    warped = dark_volume(scene)
    warped.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")
    roi = box_around(scene, center)
    count = scene.GetNumberOfNodes()
    for others, words in (
        ([far], "'Far'.*do not overlap"),
        ([warped], "harden the transform"),
        ([labels], "holds labels"),
        ([volume], "the volume itself"),
        (["T2"], "give the node itself"),
        (other, r"give \[node\]"),
        ([None], "choose the scan"),
    ):
        for call in (segment, segmentAll):
            arguments = {"roiNode": roi} if call is segment else {}
            with pytest.raises(BoneSAMError, match=words) as refused:
                call(volume, otherVolumeNodes=others, **arguments)
            assert "\n" not in str(refused.value)
    with pytest.raises(BoneSAMError, match="average, maximum"):
        segment(volume, roi, otherVolumeNodes=[other], fusion="median")
    assert scene.GetNumberOfNodes() == count
    assert segmenter.engines == []


def test_the_other_volume_is_not_touched(scene, segmenter):
    volume = dark_volume(scene)
    other, center = bright_twin(scene, volume, "linear")
    time, values = other.GetMTime(), vtk_to_numpy(other.GetImageData().GetPointData().GetScalars()).copy()
    segment(volume, box_around(scene, center), otherVolumeNodes=[other], fusion="maximum")
    assert other.GetMTime() == time
    assert (vtk_to_numpy(other.GetImageData().GetPointData().GetScalars()) == values).all()
