"""Masks into segmentations and back, on Slicer's own classes: the same voxels, and nothing else changed."""

import itertools

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
import vtk

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.mrml import boxFromRoi, ijkToRas, volumeFromNode, worldFromIjk
from BoneSAMLib.segmentation_node import (
    Masking,
    addSegment,
    addSegments,
    createSegmentation,
    readMask,
    writeMask,
)
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import BONE_TERMINOLOGY, SegmentInfo, write_mask
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

SHAPE = (14, 18, 22)
EDITOR = slicer.vtkMRMLSegmentEditorNode
NODE = slicer.vtkMRMLSegmentationNode


def block(*ranges):
    """Mask of a block of voxels, ranges in k, j, i."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(first, last) for first, last in ranges)] = True
    return mask


def blob(seed=0):
    """Ragged and lopsided: no flip or shift maps it onto itself."""
    mask = block((2, 11), (3, 15), (4, 19))
    return mask & (np.random.default_rng(seed).random(SHAPE) < np.linspace(0.2, 0.9, 22))


def add_segmentation(scene, volume_node, parent="own"):
    """`parent`: that of the volume, or another one."""
    node = createSegmentation(volume_node)
    if parent != "own":
        transform = parent_of(scene, parent, 10)
        node.SetAndObserveTransformNodeID(None if transform is None else transform.GetID())
    return node


def world_of_segment(node, identifier):
    """World coordinates of every voxel of a segment, by Slicer's own path, sorted."""
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(identifier, image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = image.GetExtent()
    places = []
    for ijk in itertools.product(*(range(extent[2 * a], extent[2 * a + 1] + 1) for a in range(3))):
        if image.GetScalarComponentAsDouble(*ijk, 0) > 0:
            world = np.zeros(3)
            node.TransformPointToWorld(matrix.MultiplyPoint([*ijk, 1])[:3], world)
            places.append(world)
    return ordered(np.reshape(places, (-1, 3)))


def ordered(places):
    return places[np.lexsort(np.round(places, 5).T)]


# ----------------------------------------------------------------------------------------- the same voxels


@pytest.mark.parametrize(
    ("geometry", "volume_parent", "segmentation_parent"),
    list(itertools.product(GEOMETRIES, PARENTS, ("own", *PARENTS))),
)
def test_written_mask_is_the_same_voxels(scene, geometry, volume_parent, segmentation_parent):
    volume_node = add_volume(scene, geometry, volume_parent)
    node = add_segmentation(scene, volume_node, segmentation_parent)
    identifier = addSegment(node)
    mask = blob()
    writeMask(mask, volume_node, node, identifier)

    expected, found = ordered(world_of_voxels(volume_node)[mask]), world_of_segment(node, identifier)
    assert len(found) == mask.sum()
    assert np.linalg.norm(found.mean(0) - expected.mean(0)) < 1e-9, "centroid"
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)

    # Under different transforms Slicer's own export resamples, and misplaces what is nested.
    if volume_node.GetParentTransformNode() is node.GetParentTransformNode():
        exported = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume_node)
        np.testing.assert_array_equal(exported > 0, mask)


@pytest.mark.parametrize(
    ("geometry", "volume_parent", "segmentation_parent", "roi_parent"),
    list(itertools.product(GEOMETRIES, PARENTS, PARENTS, PARENTS)),
)
def test_from_region_to_segment(scene, geometry, volume_parent, segmentation_parent, roi_parent):
    """The whole way: where the region was drawn in the world, the segment is."""
    volume_node = add_volume(scene, geometry, volume_parent)
    node = add_segmentation(scene, volume_node, segmentation_parent)
    roi = add_roi(scene, (0, 0, 0), (9, 8, 12))
    transform = parent_of(scene, roi_parent, 20)
    if transform is not None:
        roi.SetAndObserveTransformNodeID(transform.GetID())
    roi.SetCenterWorld(worldFromIjk((11.3, 8.6, 6.7), volume_node))

    low, high = boxFromRoi(roi, volume_node).to_ijk(volumeFromNode(volume_node))
    mask = block(*((low[axis], high[axis] + 1) for axis in (2, 1, 0)))
    places = world_of_voxels(volume_node)
    for index in np.argwhere(mask):
        mask[tuple(index)] = roi.IsPointInROIWorld(places[tuple(index)])
    identifier = addSegment(node)
    writeMask(mask, volume_node, node, identifier)

    found = world_of_segment(node, identifier)
    assert len(found) == mask.sum() > 10
    assert all(roi.IsPointInROIWorld(place) for place in found)
    np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)


def test_shearing_and_scaling_transforms(scene):
    volume_node = add_volume(scene, "oblique")
    sheared = np.array([[1.3, 0.4, 0, 5], [0, 0.8, 0.2, -7], [0.1, 0, 1.1, 3], [0, 0, 0, 1]])
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(sheared))
    volume_node.SetAndObserveTransformNodeID(transform.GetID())
    for parent in ("own", "none"):
        node = add_segmentation(scene, volume_node, parent)
        identifier = addSegment(node)
        writeMask(blob(), volume_node, node, identifier)
        np.testing.assert_allclose(
            world_of_segment(node, identifier), ordered(world_of_voxels(volume_node)[blob()]), atol=1e-9
        )
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), blob())


def test_mask_at_every_border(scene):
    volume_node = add_volume(scene, "oblique", "linear")
    node = add_segmentation(scene, volume_node)
    identifier = addSegment(node)
    for mask in (np.ones(SHAPE, bool), block((0, 1), (0, 1), (0, 1)), block((13, 14), (17, 18), (21, 22))):
        writeMask(mask, volume_node, node, identifier)
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)


def test_only_the_bounding_box_is_stored(scene):
    volume_node = add_volume(scene, "axis-aligned")
    node = add_segmentation(scene, volume_node)
    identifier = addSegment(node)
    writeMask(block((4, 6), (5, 8), (6, 10)), volume_node, node, identifier)
    assert node.GetBinaryLabelmapInternalRepresentation(identifier).GetExtent() == (6, 9, 5, 7, 4, 5)


def test_writing_replaces_and_an_empty_mask_clears(scene):
    volume_node = add_volume(scene, "oblique", "nested")
    node = add_segmentation(scene, volume_node, "linear")
    identifier = addSegment(node)
    for mask in (blob(1), blob(2), np.zeros(SHAPE, bool), blob(3)):
        writeMask(mask, volume_node, node, identifier)
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16])
def test_mask_types(scene, kind):
    volume_node = add_volume(scene, "axis-aligned")
    node = add_segmentation(scene, volume_node)
    identifier = addSegment(node)
    writeMask(blob().astype(kind) * (1 if kind is bool else 3), volume_node, node, identifier)
    np.testing.assert_array_equal(readMask(node, identifier, volume_node), blob())


def test_cropped_mask(scene):
    volume_node = add_volume(scene, "flipped", "linear")
    node = add_segmentation(scene, volume_node)
    identifier = addSegment(node)
    writeMask(CroppedMask.from_array(blob()), volume_node, node, identifier)
    np.testing.assert_array_equal(readMask(node, identifier, volume_node), blob())


def test_segment_read_on_another_grid_takes_the_nearest_voxel(scene):
    coarse = add_volume(scene, "anisotropic")
    fine = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Fine")
    slicer.util.updateVolumeFromArray(fine, np.zeros((28, 36, 44), np.uint8))
    # Each coarse voxel is eight fine ones.
    affine = GEOMETRIES["anisotropic"] @ np.array(
        [[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]]
    )
    fine.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    node = add_segmentation(scene, coarse, "linear")
    for volume_node in (coarse, fine):
        volume_node.SetAndObserveTransformNodeID(linear_transform(scene, 5).GetID())
    identifier = addSegment(node)
    writeMask(blob(), coarse, node, identifier)
    fine_mask = readMask(node, identifier, fine)
    np.testing.assert_array_equal(fine_mask, blob().repeat(2, 0).repeat(2, 1).repeat(2, 2))


def test_segment_beside_the_volume_reads_as_empty(scene):
    volume_node, other = add_volume(scene, "axis-aligned"), add_volume(scene, "axis-aligned")
    far = GEOMETRIES["axis-aligned"].copy()
    far[:3, 3] += (500, 0, 0)
    node = add_segmentation(scene, volume_node)
    identifier = addSegment(node)
    writeMask(blob(), volume_node, node, identifier)
    other.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(far))
    assert not readMask(node, identifier, other).any()
    other.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(GEOMETRIES["oblique"] + np.eye(4, k=3) * 500))
    assert not readMask(node, identifier, other).any()


# ----------------------------------------------------------------------------------- neighbors stay intact

NEIGHBORS = {
    "A": block((2, 8), (2, 9), (2, 7)),
    "B": block((2, 8), (2, 9), (7, 12)),
    "C": block((8, 12), (2, 9), (2, 12)),
}


def with_neighbors(scene, volume_node, collapsed=False):
    """A segmentation with three touching segments that share one layer, and their identifiers."""
    node = createSegmentation(volume_node)
    identifiers = {name: addSegment(node, name) for name in NEIGHBORS}
    for name, identifier in identifiers.items():
        writeMask(NEIGHBORS[name], volume_node, node, identifier)
    if collapsed:
        node.GetSegmentation().CollapseBinaryLabelmaps(False)
    return node, identifiers


def described(node):
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
    # Files keep six digits of a color.
    return [
        (segment.GetName(), tuple(np.round(segment.GetColor(), 5)), segment.GetTerminology())
        for segment in segments
    ]


@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("parent", PARENTS)
def test_neighbors_stay_intact_in_a_shared_layer(scene, parent, collapsed):
    volume_node = add_volume(scene, "oblique", parent)
    node, identifiers = with_neighbors(scene, volume_node, collapsed)
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    before = described(node)
    for name, mask in (("B", blob(4)), ("B", blob(5)), ("B", np.zeros(SHAPE, bool)), ("B", NEIGHBORS["B"])):
        writeMask(mask, volume_node, node, identifiers[name])
        for other in NEIGHBORS:
            expected = mask if other == name else NEIGHBORS[other]
            np.testing.assert_array_equal(readMask(node, identifiers[other], volume_node), expected)
    new = addSegment(node, "D")
    writeMask(np.ones(SHAPE, bool), volume_node, node, new)
    for other, expected in NEIGHBORS.items():
        np.testing.assert_array_equal(readMask(node, identifiers[other], volume_node), expected)
    assert described(node)[:3] == before
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    for other, expected in NEIGHBORS.items():
        np.testing.assert_array_equal(readMask(node, identifiers[other], volume_node), expected)


@pytest.mark.parametrize("parent", ["own", "linear"])
def test_neighbors_are_not_resampled_to_the_grid_of_another_volume(scene, parent):
    """Slicer's function alone does that to every segment that shares a layer with the one written."""
    volume_node, other = add_volume(scene, "axis-aligned"), add_volume(scene, "anisotropic")
    node, identifiers = with_neighbors(scene, volume_node)
    if parent != "own":
        node.SetAndObserveTransformNodeID(linear_transform(scene, 3).GetID())
    places = {name: world_of_segment(node, identifier) for name, identifier in identifiers.items()}
    new = addSegment(node, "from the other sequence")
    for identifier in (new, identifiers["B"]):
        writeMask(blob(), other, node, identifier)
        np.testing.assert_array_equal(readMask(node, identifier, other), blob())
        np.testing.assert_allclose(world_of_segment(node, identifiers["A"]), places["A"], atol=1e-9)
        np.testing.assert_allclose(world_of_segment(node, identifiers["C"]), places["C"], atol=1e-9)


@pytest.mark.parametrize(
    ("mode", "hidden", "giving_way"),
    [
        (EDITOR.OverwriteNone, (), ()),
        (EDITOR.OverwriteAllSegments, ("A",), ("A", "C")),
        (EDITOR.OverwriteVisibleSegments, ("A",), ("C",)),
        (EDITOR.OverwriteVisibleSegments, (), ("A", "C")),
    ],
)
@pytest.mark.parametrize("parent", ["own", "linear"])
def test_overwriting_as_in_segment_editor(scene, mode, hidden, giving_way, parent):
    volume_node = add_volume(scene, "oblique", "linear")
    node, identifiers = with_neighbors(scene, volume_node)
    for name in hidden:
        node.GetDisplayNode().SetSegmentVisibility(identifiers[name], False)
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(mode)
    if parent == "linear":  # the grids then differ by rounding errors only
        node.HardenTransform()
    mask = blob(7)
    writeMask(mask, volume_node, node, identifiers["B"], Masking.fromEditor(editor))
    np.testing.assert_array_equal(readMask(node, identifiers["B"], volume_node), mask)
    for name in ("A", "C"):
        expected = NEIGHBORS[name] & ~mask if name in giving_way else NEIGHBORS[name]
        np.testing.assert_array_equal(readMask(node, identifiers[name], volume_node), expected)
    assert [name for name, _, _ in described(node)] == ["A", "B", "C"]
    if giving_way == ("A", "C") and parent == "own":
        assert node.GetSegmentation().GetNumberOfLayers() == 1, "nothing overlaps"


def test_overwritten_neighbor_keeps_its_own_grid(scene):
    volume_node, other = add_volume(scene, "axis-aligned"), add_volume(scene, "axis-aligned")
    coarser = GEOMETRIES["axis-aligned"] @ np.diag([0.7, 0.7, 2.3, 1.0])
    coarser[:3, 3] = worldFromIjk((4.2, 5.3, 4.4), volume_node)
    other.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(coarser))
    node, identifiers = with_neighbors(scene, volume_node)
    new = addSegment(node, "from the other sequence")
    writeMask(np.ones(SHAPE, bool), other, node, new, Masking(EDITOR.OverwriteAllSegments))
    places = world_of_voxels(volume_node)
    indices = (places - ijkToRas(other)[:3, 3]) @ np.linalg.inv(ijkToRas(other)[:3, :3]).T
    covered = ((indices > -0.5) & (indices < np.array(SHAPE[::-1]) - 0.5)).all(-1)
    assert 0 < (covered & NEIGHBORS["A"]).sum() < NEIGHBORS["A"].sum()
    for name, mask in NEIGHBORS.items():
        np.testing.assert_array_equal(readMask(node, identifiers[name], volume_node), mask & ~covered)


A, B, C = NEIGHBORS.values()
EVERYTHING = np.ones(SHAPE, bool)


@pytest.mark.parametrize(
    ("mode", "editable"),
    [
        (NODE.EditAllowedEverywhere, EVERYTHING),
        (NODE.EditAllowedInsideAllSegments, A | B | C),
        (NODE.EditAllowedInsideVisibleSegments, A | B),
        (NODE.EditAllowedInsideSingleSegment, A),
        (NODE.EditAllowedOutsideAllSegments, ~(A | C)),
        (NODE.EditAllowedOutsideVisibleSegments, ~A),
    ],
)
@pytest.mark.parametrize("values", [None, (-200.0, 900.0)])
def test_editable_area_as_in_segment_editor(scene, mode, editable, values):
    volume_node = add_volume(scene, "oblique", "nested")
    node, identifiers = with_neighbors(scene, volume_node)
    node.GetDisplayNode().SetSegmentVisibility(identifiers["C"], False)
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(EDITOR.OverwriteNone)
    editor.SetMaskMode(mode)
    editor.SetMaskSegmentID(identifiers["A"])
    if values is not None:
        editor.SetSourceVolumeIntensityMask(True)
        editor.SetSourceVolumeIntensityMaskRange(*values)
        array = slicer.util.arrayFromVolume(volume_node)
        editable = editable & (array >= values[0]) & (array <= values[1])
    mask = blob(8)
    writeMask(mask, volume_node, node, identifiers["B"], Masking.fromEditor(editor))
    expected = (mask & editable) | (B & ~editable)
    np.testing.assert_array_equal(readMask(node, identifiers["B"], volume_node), expected)
    np.testing.assert_array_equal(readMask(node, identifiers["A"], volume_node), A)
    np.testing.assert_array_equal(readMask(node, identifiers["C"], volume_node), C)


# ---------------------------------------------------------------------------------------------------- undo


def test_one_undo_step_for_each_write(scene):
    volume_node = add_volume(scene, "oblique", "linear")
    node, identifiers = with_neighbors(scene, volume_node)
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(node.GetSegmentation())
    overwriting = Masking(EDITOR.OverwriteAllSegments)

    def masks():
        return [readMask(node, identifier, volume_node) for identifier in identifiers.values()]

    seen = [masks()]
    for mask in (blob(9), np.zeros(SHAPE, bool), C):  # neighbors give way: still one step
        writeMask(mask, volume_node, node, identifiers["B"], overwriting, saveState=history.SaveState)
        seen.append(masks())
    assert history.GetNumberOfStates() == 3
    for expected in reversed(seen[:-1]):
        assert history.RestorePreviousState()
        np.testing.assert_array_equal(masks(), expected)
    assert not history.IsRestorePreviousStateAvailable()
    for expected in seen[1:]:
        assert history.RestoreNextState()
        np.testing.assert_array_equal(masks(), expected)


def test_undo_of_a_write_keeps_a_segment_added_before_it(scene):
    volume_node = add_volume(scene, "oblique")
    node = createSegmentation(volume_node)
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(node.GetSegmentation())
    first = addSegment(node, "first", saveState=history.SaveState)
    writeMask(blob(), volume_node, node, first, saveState=history.SaveState)
    second = addSegment(node, "second", saveState=history.SaveState)
    writeMask(blob(1), volume_node, node, second, saveState=history.SaveState)
    history.RestorePreviousState()
    np.testing.assert_array_equal(readMask(node, first, volume_node), blob())
    assert not readMask(node, second, volume_node).any()
    assert node.GetSegmentation().GetSegment(second).GetName() == "second"


def test_nothing_is_saved_for_undo_when_nothing_is_written(scene):
    volume_node = add_volume(scene, "oblique")
    node = createSegmentation(volume_node)
    saved = []
    with pytest.raises(BoneSAMError):
        writeMask(
            np.ones((2, 3, 4), bool), volume_node, node, addSegment(node), saveState=lambda: saved.append(1)
        )
    assert not saved


# -------------------------------------------------------------------------- new segmentations and segments


@pytest.mark.parametrize("parent", PARENTS)
def test_new_segmentation_belongs_to_its_volume(scene, parent):
    volume_node = add_volume(scene, "oblique", parent)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "P"), "S")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume_node), study)
    node = createSegmentation(volume_node)
    assert node.GetName() == "Scan bones"
    assert node.GetParentTransformNode() is volume_node.GetParentTransformNode()
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert node.GetNodeReference(NODE.GetReferenceImageGeometryReferenceRole()) is volume_node
    image = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(
        node.GetSegmentation().GetConversionParameter("Reference image geometry"), image, False
    )
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), GEOMETRIES["oblique"], atol=1e-9)
    assert image.GetDimensions() == SHAPE[::-1]
    assert createSegmentation(volume_node).GetName() != node.GetName()


def test_segmentation_moves_with_its_volume(scene):
    volume_node = add_volume(scene, "oblique", "linear")
    node = createSegmentation(volume_node)
    identifier = addSegment(node)
    writeMask(blob(), volume_node, node, identifier)
    volume_node.GetParentTransformNode().SetMatrixTransformToParent(vtk.vtkMatrix4x4())
    np.testing.assert_allclose(
        world_of_segment(node, identifier), ordered(world_of_voxels(volume_node)[blob()]), atol=1e-9
    )


def test_segments_are_named_colored_and_coded(scene):
    node = createSegmentation(add_volume(scene, "axis-aligned"))
    for name in ("", "", "left femur", "mine"):
        addSegment(node, name)
    addSegment(node, "other", terminology="a~b~c~d~e~f~g", color=(0.1, 0.2, 0.3))
    segments = described(node)
    assert [name for name, _, _ in segments] == ["Bone 1", "Bone 2", "left femur", "mine", "other"]
    assert segments[0][1] != segments[1][1]
    np.testing.assert_allclose(segments[2][1], bone_meaning("femur").color, atol=1e-5)
    assert segments[0][2] == segments[3][2] == BONE_TERMINOLOGY
    assert segments[2][2].split("~")[1:4] == [
        "SCT^123037004^Anatomical Structure",
        "SCT^71341001^Femur",
        "SCT^7771000^Left",
    ]
    assert segments[4] == ("other", (0.1, 0.2, 0.3), "a~b~c~d~e~f~g")


@pytest.mark.parametrize("highest", [7, 300, 70_000])
@pytest.mark.parametrize(
    ("volume_parent", "parent"), [("none", "own"), ("nested", "own"), ("linear", "nested")]
)
def test_many_segments_at_once(scene, volume_parent, parent, highest):
    volume_node = add_volume(scene, "oblique", volume_parent)
    node, identifiers = with_neighbors(scene, volume_node)
    if parent != "own":
        node.HardenTransform()
        node.SetAndObserveTransformNodeID(parent_of(scene, parent, 10).GetID())
    before = [readMask(node, identifier, volume_node) for identifier in identifiers.values()]
    bones = {2: blob(1), 5: blob(2) & ~blob(1), highest: A & ~blob(1) & ~blob(2)}
    labels = sum(mask * np.uint32(number) for number, mask in bones.items())
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(node.GetSegmentation())
    added = addSegments(labels, volume_node, node, {5: "left femur"}, history.SaveState)
    assert list(added) == [2, 5, highest]
    for number, mask in bones.items():
        np.testing.assert_array_equal(readMask(node, added[number], volume_node), mask)
    assert [name for name, _, _ in described(node)] == ["A", "B", "C", "Bone 1", "left femur", "Bone 2"]
    assert "Femur" in described(node)[4][2]
    assert node.GetSegmentation().GetNumberOfLayers() == 2

    writeMask(blob(3), volume_node, node, added[5])
    np.testing.assert_array_equal(readMask(node, added[5], volume_node), blob(3))
    for number in (2, highest):
        np.testing.assert_array_equal(readMask(node, added[number], volume_node), bones[number])
    for identifier, mask in zip(identifiers.values(), before, strict=True):
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)
    history.RestorePreviousState()
    assert [name for name, _, _ in described(node)] == ["A", "B", "C"]
    assert addSegments(np.zeros(SHAPE, np.uint8), volume_node, node) == {}


def test_terminology_is_what_slicer_reads(scene):
    logic = slicer.vtkSlicerTerminologiesModuleLogic
    for name in ("Bone 1", "left femur", "vertebrae_L5"):
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(bone_meaning(name).terminology, entry) is not False
        assert logic.SerializeTerminologyEntry(entry) == bone_meaning(name).terminology


# ----------------------------------------------------------------------------------------- save and reload


@pytest.mark.parametrize("parent", PARENTS)
def test_scene_saved_and_reloaded(scene, tmp_path, parent):
    volume_node = add_volume(scene, "oblique", parent)
    node, _ = with_neighbors(scene, volume_node)
    left = addSegment(node, "left femur")
    overlapping = blob(3)
    writeMask(overlapping, volume_node, node, left)
    before = described(node)
    path = tmp_path / "scene.mrb"
    for each in (volume_node, node):
        each.AddDefaultStorageNode()
    assert scene.WriteToMRB(str(path))
    scene.Clear()
    assert scene.ReadFromMRB(str(path))

    volume_node = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert described(node) == before
    assert (node.GetParentTransformNode() is None) == (parent == "none")
    identifiers = node.GetSegmentation().GetSegmentIDs()
    for identifier, mask in zip(identifiers, (A, B, C, overlapping), strict=True):
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)
    writeMask(blob(11), volume_node, node, identifiers[0])
    np.testing.assert_array_equal(readMask(node, identifiers[0], volume_node), blob(11))
    np.testing.assert_array_equal(readMask(node, identifiers[1], volume_node), B)


def load(scene, path):
    return slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(path), True)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_segmentation_file_saved_and_reloaded(scene, tmp_path, geometry):
    volume_node = add_volume(scene, geometry)
    node, _ = with_neighbors(scene, volume_node)
    before = described(node)
    path = tmp_path / "bones.seg.nrrd"
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(path))
    assert node.GetStorageNode().WriteData(node) == 1
    reloaded = load(scene, path)
    assert described(reloaded) == before
    for identifier, mask in zip(reloaded.GetSegmentation().GetSegmentIDs(), NEIGHBORS.values(), strict=True):
        np.testing.assert_array_equal(readMask(reloaded, identifier, volume_node), mask)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_segmentation_file_of_the_command_line_opens_in_slicer(scene, tmp_path, geometry):
    volume_node = add_volume(scene, geometry)
    labels = sum(mask.astype(np.uint8) * value for value, mask in enumerate(NEIGHBORS.values(), 1))
    path = tmp_path / "bones.seg.nrrd"
    meaning = bone_meaning("right tibia")
    write_mask(
        labels,
        Volume(np.zeros(SHAPE, np.uint8), GEOMETRIES[geometry]),
        path,
        [SegmentInfo(2, "right tibia", (0.2, 0.4, 0.6), meaning.terminology)],
    )
    node = load(scene, path)
    identifiers = node.GetSegmentation().GetSegmentIDs()
    found = {name: (color, terminology) for name, color, terminology in described(node)}
    assert found["right tibia"] == ((0.2, 0.4, 0.6), meaning.terminology)
    assert found["Bone 1"][1] == BONE_TERMINOLOGY
    masks = {
        node.GetSegmentation().GetSegment(identifier).GetName(): readMask(node, identifier, volume_node)
        for identifier in identifiers
    }
    for name, mask in zip(("Bone 1", "right tibia", "Bone 3"), NEIGHBORS.values(), strict=True):
        np.testing.assert_array_equal(masks[name], mask)


# ----------------------------------------------------------------------------------------------- bad input


def test_surface_segmentation_is_refused_with_advice(scene):
    volume_node = add_volume(scene, "axis-aligned")
    node, identifiers = with_neighbors(scene, volume_node)
    node.CreateClosedSurfaceRepresentation()
    node.SetSourceRepresentationToClosedSurface()
    for action in (
        lambda: addSegment(node),
        lambda: readMask(node, identifiers["A"], volume_node),
        lambda: writeMask(blob(), volume_node, node, identifiers["A"]),
    ):
        with pytest.raises(BoneSAMError, match=r"'Scan bones' consists of surfaces.*Representations"):
            action()


def test_shown_surface_follows_the_mask(scene):
    volume_node = add_volume(scene, "axis-aligned")
    node, identifiers = with_neighbors(scene, volume_node)
    node.CreateClosedSurfaceRepresentation()
    writeMask(block((1, 3), (1, 3), (1, 3)), volume_node, node, identifiers["A"])
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(identifiers["A"], surface)
    middle = np.reshape(surface.GetBounds(), (3, 2)).mean(1)
    np.testing.assert_allclose(middle, worldFromIjk((1.5, 1.5, 1.5), volume_node), atol=0.6)


def test_what_cannot_be_written_is_refused(scene):
    volume_node = add_volume(scene, "axis-aligned")
    node, identifiers = with_neighbors(scene, volume_node)
    with pytest.raises(BoneSAMError, match="volume was replaced"):
        writeMask(np.ones((3, 3, 3), bool), volume_node, node, identifiers["A"])
    with pytest.raises(BoneSAMError, match="no longer in 'Scan bones'"):
        writeMask(blob(), volume_node, node, "gone")
    with pytest.raises(BoneSAMError, match="no longer in 'Scan bones'"):
        readMask(node, "gone", volume_node)
    with pytest.raises(BoneSAMError, match="no segmentation"):
        writeMask(blob(), volume_node, None, "any")
    with pytest.raises(BoneSAMError, match="No volume"):
        createSegmentation(None)
    with pytest.raises(BoneSAMError, match="No volume"):
        writeMask(blob(), None, node, identifiers["A"])
    with pytest.raises(BoneSAMError, match="volume was replaced"):
        addSegments(np.ones((3, 3, 3), np.uint8), volume_node, node)
    np.testing.assert_array_equal(readMask(node, identifiers["A"], volume_node), A)


def test_volume_without_a_scene_is_refused(scene):
    volume_node = add_volume(scene, "axis-aligned")
    scene.RemoveNode(volume_node)
    with pytest.raises(BoneSAMError, match="no longer in the scene"):
        createSegmentation(volume_node)


def test_warped_segmentation_or_volume_is_refused_with_advice(scene):
    volume_node = add_volume(scene, "axis-aligned")
    node, identifiers = with_neighbors(scene, volume_node)
    for warped in (volume_node, node):
        warped.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
        with pytest.raises(BoneSAMError, match=r"harden the transform first"):
            writeMask(blob(), volume_node, node, identifiers["A"])
        with pytest.raises(BoneSAMError, match=r"harden the transform first"):
            readMask(node, identifiers["A"], volume_node)
        warped.SetAndObserveTransformNodeID(None)
    np.testing.assert_array_equal(readMask(node, identifiers["A"], volume_node), A)


def test_no_nodes_are_left_behind(scene):
    volume_node = add_volume(scene, "oblique", "linear")
    node, identifiers = with_neighbors(scene, volume_node)
    before = scene.GetNumberOfNodes()
    writeMask(blob(), volume_node, node, identifiers["A"], Masking(EDITOR.OverwriteAllSegments))
    readMask(node, identifiers["A"], volume_node)
    assert scene.GetNumberOfNodes() == before


def test_a_correction_on_a_shorter_and_coarser_volume_leaves_the_rest(scene):
    """T1 has the whole bone, T2 some thick slices of it."""
    fine = add_volume(scene, "axis-aligned")
    node = add_segmentation(scene, fine)
    identifier = addSegment(node)
    whole = block((1, 13), (5, 12), (6, 15))
    writeMask(whole, fine, node, identifier)
    coarse = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")
    slicer.util.updateVolumeFromArray(coarse, np.zeros((2, 18, 22), np.int16))
    affine = GEOMETRIES["axis-aligned"] @ np.diag([1.0, 1.0, 4.0, 1.0])
    affine[:3, 3] += GEOMETRIES["axis-aligned"][:3, :3] @ [0, 0, 3.5]  # its slices hold 2 to 5 and 6 to 9
    coarse.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))

    base = readMask(node, identifier, coarse)
    assert base.sum() == 2 * 7 * 9
    corrected = base.copy()
    corrected[0, 5, 6:15] = False
    writeMask(corrected, coarse, node, identifier, base=CroppedMask.from_array(base))
    expected = whole.copy()
    expected[2:6, 5, 6:15] = False
    np.testing.assert_array_equal(readMask(node, identifier, fine), expected)
    writeMask(corrected, coarse, node, identifier)  # as a whole, for comparison
    assert readMask(node, identifier, fine).sum() < 0.7 * expected.sum()
