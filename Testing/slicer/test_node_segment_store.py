"""The segment table of a segmentation node: what the presenter does arrives, and nothing else changes."""

import itertools

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_volume_source import NodeVolumeSource
from BoneSAMLib.segmentation_node import addSegment, createSegmentation, readMask, writeMask
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.writing import BONE_TERMINOLOGY
from Testing.slicer.scenes import PARENTS, add_volume, grid_transform, parent_of

SHAPE = (14, 18, 22)
EDITOR = slicer.vtkMRMLSegmentEditorNode


def block(*ranges):
    """Mask of a block of voxels, ranges in k, j, i."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(first, last) for first, last in ranges)] = True
    return CroppedMask.from_array(mask)


A, B, C = (
    block((2, 8), (2, 9), (2, 7)),
    block((2, 8), (2, 9), (7, 12)),
    block((8, 12), (2, 9), (2, 12)),
)
LARGE = block((1, 13), (1, 12), (1, 15))


@pytest.fixture
def source(scene):
    return NodeVolumeSource(add_volume(scene, "oblique", "linear"))


@pytest.fixture
def store(scene, source):
    return NodeSegmentStore(scene)


def filled(store, source):
    """Three touching segments; their identifiers."""
    identifiers = [store.add(name, source) for name in ("left femur", "Bone 2", "sacrum")]
    for identifier, mask in zip(identifiers, (A, B, C), strict=True):
        store.write(mask, identifier, source)
    return identifiers


# ------------------------------------------------------------------------------------- where segments live


def test_nothing_is_created_before_it_is_needed(scene, store):
    assert store.segments() == []
    assert store.segmentationNode is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


@pytest.mark.parametrize("parent", PARENTS)
def test_first_segment_creates_a_segmentation_of_its_volume(scene, parent):
    volume_node = add_volume(scene, "oblique", parent)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "P"), "S")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume_node), study)
    created = []
    store = NodeSegmentStore(
        scene, onCreated=lambda node: created.append((node, node.GetSegmentation().GetNumberOfSegments()))
    )
    store.add("left femur", NodeVolumeSource(volume_node))
    store.add("right femur", NodeVolumeSource(volume_node))
    node = store.segmentationNode
    assert created == [(node, 0)]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert node.GetParentTransformNode() is volume_node.GetParentTransformNode()
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is volume_node


def test_given_segmentation_is_used(scene, source):
    node = createSegmentation(source.volumeNode)
    existing = addSegment(node, "patella")
    store = NodeSegmentStore(scene, node, onCreated=lambda node: pytest.fail("created"))
    added = store.add("tibia", source)
    assert [entry.identifier for entry in store.segments()] == [existing, added]
    assert [entry.name for entry in store.segments()] == ["patella", "tibia"]


@pytest.mark.parametrize("removal", ["node", "scene"])
def test_after_a_removal_the_next_segment_creates_another_segmentation(scene, store, source, removal):
    (first, *_) = filled(store, source)
    if removal == "node":
        scene.RemoveNode(store.segmentationNode)
    else:
        scene.Clear()
        source = NodeVolumeSource(add_volume(scene, "oblique"))
    assert store.segmentationNode is None
    assert store.segments() == []
    for do in (
        lambda: store.read(first, source),
        lambda: store.write(A, first, source),
        lambda: store.rename(first, "x"),
        lambda: store.recolor(first, (0, 0, 0)),
        lambda: store.show(first, False),
        lambda: store.remove(first),
    ):
        with pytest.raises(BoneSAMError, match="no longer in the scene"):
            do()
    store.write(B, store.add("Bone 1", source), source)
    assert [entry.name for entry in store.segments()] == ["Bone 1"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


# ---------------------------------------------------------------------------------------------- the table


def test_table_tells_name_color_and_visibility(store, source):
    femur, second, sacrum = filled(store, source)
    entries = {entry.identifier: entry for entry in store.segments()}
    assert [entry.name for entry in entries.values()] == ["left femur", "Bone 2", "sacrum"]
    assert entries[femur].color == pytest.approx(bone_meaning("left femur").color)
    assert entries[second].color != entries[sacrum].color
    assert all(entry.visible for entry in entries.values())
    store.show(second, False)
    store.recolor(sacrum, (0.25, 0.5, 0.75))
    entries = {entry.identifier: entry for entry in store.segments()}
    assert [entry.visible for entry in entries.values()] == [True, False, True]
    assert entries[sacrum].color == (0.25, 0.5, 0.75)
    store.show(second, True)
    assert all(entry.visible for entry in store.segments())


def test_table_shows_what_others_did(store, source):
    femur, second, _ = filled(store, source)
    segmentation = store.segmentationNode.GetSegmentation()
    segmentation.GetSegment(second).SetName("hamate")
    segmentation.RemoveSegment(femur)
    store.segmentationNode.GetDisplayNode().SetSegmentVisibility(second, False)
    assert [(entry.name, entry.visible) for entry in store.segments()] == [
        ("hamate", False),
        ("sacrum", True),
    ]


def test_segmentation_that_is_shown_nowhere(scene, source):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    store = NodeSegmentStore(scene, node)
    identifier = addSegment(node, "patella")
    assert store.segments()[0].visible
    store.show(identifier, False)
    assert not store.segments()[0].visible


def test_new_name_brings_its_codes_unless_somebody_chose_others(store, source):
    femur, second, sacrum = filled(store, source)
    segmentation = store.segmentationNode.GetSegmentation()
    colors = [entry.color for entry in store.segments()]
    chosen = bone_meaning("patella").terminology
    segmentation.GetSegment(sacrum).SetTerminology(chosen)
    for identifier, name in ((femur, "Bone 7"), (second, "right tibia"), (sacrum, "left femur")):
        store.rename(identifier, name)
    terms = [segmentation.GetSegment(identifier).GetTerminology() for identifier in (femur, second, sacrum)]
    assert terms == [BONE_TERMINOLOGY, bone_meaning("right tibia").terminology, chosen]
    assert [entry.name for entry in store.segments()] == ["Bone 7", "right tibia", "left femur"]
    standard = pytest.approx(bone_meaning("right tibia").color, abs=1e-6)
    assert [entry.color for entry in store.segments()] == [colors[0], standard, colors[2]]
    store.recolor(second, (0.1, 0.2, 0.3))
    store.rename(second, "left femur")
    assert store.segments()[1].color == pytest.approx((0.1, 0.2, 0.3), abs=1e-6)


def test_removing_takes_that_segment_only(store, source):
    femur, second, sacrum = filled(store, source)
    store.remove(second)
    assert [entry.identifier for entry in store.segments()] == [femur, sacrum]
    assert store.read(femur, source) == A
    assert store.read(sacrum, source) == C
    with pytest.raises(BoneSAMError, match="no longer in 'Scan bones'"):
        store.remove(second)


# ------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("volume_parent", "segmentation_parent"), list(itertools.product(PARENTS, ("own", *PARENTS)))
)
def test_mask_written_and_read_back_is_the_same(scene, volume_parent, segmentation_parent):
    source = NodeVolumeSource(add_volume(scene, "oblique flipped", volume_parent))
    store = NodeSegmentStore(scene)
    identifier = store.add("Bone 1", source)
    if segmentation_parent != "own":
        transform = parent_of(scene, segmentation_parent, 10)
        store.segmentationNode.SetAndObserveTransformNodeID(transform and transform.GetID())
    mask = CroppedMask.from_array(np.random.default_rng(1).random(SHAPE) < 0.3)
    assert store.read(identifier, source).is_empty
    store.write(mask, identifier, source)
    assert store.read(identifier, source) == mask


def test_writing_leaves_neighbors_as_they_are(store, source):
    femur, second, sacrum = filled(store, source)
    before = store.segments()
    store.write(LARGE, second, source)
    assert store.read(second, source) == LARGE
    assert store.read(femur, source) == A
    assert store.read(sacrum, source) == C
    assert store.segments() == before


def test_masking_of_the_segment_editor_holds(scene, source):
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(EDITOR.OverwriteNone)
    store = NodeSegmentStore(scene, segmentEditorNode=editor)
    femur, second, sacrum = filled(store, source)
    editor.SetOverwriteMode(EDITOR.OverwriteVisibleSegments)
    store.show(sacrum, False)
    store.write(LARGE, second, source)
    assert store.read(femur, source).is_empty
    assert store.read(sacrum, source) == C
    editor.SetOverwriteMode(EDITOR.OverwriteNone)
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    store.write(LARGE, femur, source)
    assert store.read(femur, source).is_empty  # all of it is the second segment's


def test_masking_holds_for_many_bones_at_once(scene, source):
    editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(EDITOR.OverwriteVisibleSegments)
    store = NodeSegmentStore(scene, segmentEditorNode=editor)
    femur = store.add("femur", source)
    store.write(A, femur, source)
    first, none = store.add_all([("large", LARGE), ("within it", A)], source)
    assert none is None
    assert store.read(first, source) == LARGE
    assert store.read(femur, source).is_empty
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    assert store.add_all([("sacrum", C)], source) == [None]
    (rest,) = store.add_all([("all", CroppedMask.from_array(np.ones(SHAPE, bool)))], source)
    np.testing.assert_array_equal(store.read(rest, source).to_array(), ~LARGE.to_array())


# ---------------------------------------------------------------------------------------------------- undo


@pytest.fixture
def undo(scene, source):
    """A store with the undo history of a Segment Editor; connected when the segmentation is created."""
    history = slicer.vtkSegmentationHistory()
    history.SetMaximumNumberOfStates(50)
    store = NodeSegmentStore(
        scene,
        saveState=history.SaveState,
        onCreated=lambda node: history.SetSegmentation(node.GetSegmentation()),
    )
    return store, history


def contents(store, source):
    return {entry.name: store.read(entry.identifier, source) for entry in store.segments()}


def test_every_accepted_bone_is_one_undo_step(undo, source):
    store, history = undo
    seen = [{}]
    for name, mask in (("first", A), ("second", B)):
        store.write(mask, store.add(name, source), source)
        seen.append(contents(store, source))
    first, second = (entry.identifier for entry in store.segments())
    for identifier, mask in ((first, LARGE), (second, CroppedMask.from_array(np.zeros(SHAPE, bool)))):
        store.write(mask, identifier, source)
        seen.append(contents(store, source))
    store.remove(first)
    seen.append(contents(store, source))
    assert history.GetNumberOfStates() == 5
    for expected in reversed(seen[:-1]):
        assert history.RestorePreviousState()
        assert contents(store, source) == expected
    assert not history.IsRestorePreviousStateAvailable()
    for expected in seen[1:]:
        assert history.RestoreNextState()
        assert contents(store, source) == expected


def test_many_bones_are_one_undo_step(undo, source):
    store, history = undo
    store.write(A, store.add("first", source), source)
    seen = contents(store, source)
    store.add_all([("second", B), ("third", C)], source)
    assert list(contents(store, source)) == ["first", "second", "third"]
    history.RestorePreviousState()
    assert contents(store, source) == seen


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("meanwhile", ["paint", "rename", "add"])
def test_what_happened_between_adding_and_writing_is_not_lost_by_undo(undo, source, meanwhile, shared):
    store, history = undo
    if shared:  # its image then is in use already
        store.write(C, store.add("other", source), source)
    identifier = store.add("first", source)
    if meanwhile == "paint":  # with Segment Editor, which saves the state before it
        history.SaveState()
        writeMask(A, source.volumeNode, store.segmentationNode, identifier)
    elif meanwhile == "rename":
        store.rename(identifier, "left femur")
    else:
        history.SaveState()
        addSegment(store.segmentationNode, "second")
    before = contents(store, source)
    store.write(B, identifier, source)
    assert contents(store, source) != before
    history.RestorePreviousState()
    assert contents(store, source) == before


def test_nothing_is_saved_for_undo_when_nothing_is_written(undo, source):
    store, history = undo
    identifier = store.add("first", source)
    store.write(A, identifier, source)
    count = history.GetNumberOfStates()
    with pytest.raises(BoneSAMError):
        store.write(CroppedMask.from_array(np.ones((2, 3, 4), bool)), identifier, source)
    assert history.GetNumberOfStates() == count
    assert store.read(identifier, source) == A


def test_giving_up_a_segment_just_added_leaves_no_undo_step(undo, source):
    store, history = undo
    store.write(A, store.add("first", source), source)
    count = history.GetNumberOfStates()
    store.remove(store.add("second", source))  # as the presenter does when the mask cannot be written
    assert history.GetNumberOfStates() == count + 1
    assert contents(store, source) == {"first": A}
    history.RestorePreviousState()
    assert contents(store, source) == {"first": A}


# ----------------------------------------------------------------------------------------------- bad input


def test_surfaces_are_refused_with_advice(scene, source):
    node = createSegmentation(source.volumeNode)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    store = NodeSegmentStore(scene, node)
    with pytest.raises(BoneSAMError, match="consists of surfaces"):
        store.add("Bone 1", source)
    assert store.segments() == []


def test_removed_volume_is_refused(scene, store, source):
    (first, *_) = filled(store, source)
    scene.RemoveNode(source.volumeNode)
    for do in (
        lambda: store.add("x", source),
        lambda: store.read(first, source),
        lambda: store.write(B, first, source),
    ):
        with pytest.raises(BoneSAMError, match="The volume is no longer in the scene"):
            do()
    assert len(store.segments()) == 3


def test_warped_segmentation_is_refused_and_kept(scene, store, source):
    (first, *_) = filled(store, source)
    node = store.segmentationNode
    own = node.GetTransformNodeID()
    node.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
    for do in (
        lambda: store.add("x", source),
        lambda: store.read(first, source),
        lambda: store.write(B, first, source),
    ):
        with pytest.raises(BoneSAMError, match="harden the transform"):
            do()
    node.SetAndObserveTransformNodeID(own)
    assert contents(store, source) == {"left femur": A, "Bone 2": B, "sacrum": C}
    np.testing.assert_array_equal(readMask(node, first, source.volumeNode), A.to_array())
