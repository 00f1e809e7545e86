"""Segmenting from scripts: the panel's masks, one call a bone, and a scene that errors leave as it was."""

import itertools

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
from vtk.util.numpy_support import vtk_to_numpy

from BoneSAMLib import node_segmentation
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.mrml import worldFromIjk
from BoneSAMLib.node_segmentation import segment, segmentAll, segmentMany
from BoneSAMLib.node_volume_source import NodeVolumeSource
from BoneSAMLib.segmentation_node import addSegment, createSegmentation, readMask, writeMask
from BoneSAMLib.session_cache import SessionCache
from BoneSAMLib.terminology import bone_meaning
from Testing.presenter.fakes import FakeBundle, FakeSegmenter
from Testing.slicer.scenes import (
    GEOMETRIES,
    PARENTS,
    add_roi,
    add_volume,
    grid_transform,
    parent_of,
    world_of_voxels,
)

SHAPE = (14, 18, 22)


@pytest.fixture
def segmenter(monkeypatch):
    """The box is bone; a positive point adds a small cube, a negative one removes it."""
    fake = FakeSegmenter()
    monkeypatch.setattr(node_segmentation, "open_segmenter", fake.load)
    return fake


@pytest.fixture
def volume_node(scene, segmenter):
    return add_volume(scene, "oblique", "linear")


def box(scene, volume_node, center=(8, 7, 6), parent="none"):
    roi = add_roi(scene, (0, 0, 0), (6, 6, 7))
    transform = parent_of(scene, parent, 20)
    if transform is not None:
        roi.SetAndObserveTransformNodeID(transform.GetID())
    roi.SetCenterWorld(worldFromIjk(center, volume_node))
    return roi


def clicks(scene, volume_node, *places):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Clicks")
    for place in places:
        node.AddControlPointWorld(worldFromIjk(place, volume_node))
    return node


def cube(*places):
    mask = np.zeros(SHAPE, bool)
    for i, j, k in places:
        mask[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = True
    return mask


def mask_of(result, volume_node):
    return readMask(result.segmentationNode, result.segmentId, volume_node)


def segment_of(result):
    return result.segmentationNode.GetSegmentation().GetSegment(result.segmentId)


def snapshot(scene):
    """All nodes, and all that segmentations hold."""
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    found = [(node.GetID(), node.GetName()) for node in nodes]
    for node in nodes:
        if node.IsA("vtkMRMLSegmentationNode"):
            segmentation = node.GetSegmentation()
            for identifier in segmentation.GetSegmentIDs():
                each = segmentation.GetSegment(identifier)
                image = node.GetBinaryLabelmapInternalRepresentation(identifier)
                voxels = None
                if image is not None and image.GetNumberOfPoints():
                    values = vtk_to_numpy(image.GetPointData().GetScalars())
                    voxels = (image.GetExtent(), each.GetLabelValue(), values.tobytes())
                found.append((identifier, each.GetName(), each.GetColor(), each.GetTerminology(), voxels))
    return found


# -------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize(
    ("geometry", "volume_parent", "segmentation_parent", "roi_parent"),
    list(itertools.product(GEOMETRIES, PARENTS, ("own", *PARENTS), PARENTS)),
)
def test_the_segment_is_where_the_box_is(
    scene, segmenter, geometry, volume_parent, segmentation_parent, roi_parent
):
    volume_node = add_volume(scene, geometry, volume_parent)
    roi = box(scene, volume_node, (11.3, 8.6, 6.7), roi_parent)
    node = None
    if segmentation_parent != "own":
        node = createSegmentation(volume_node)
        transform = parent_of(scene, segmentation_parent, 10)
        node.SetAndObserveTransformNodeID(transform and transform.GetID())
    result = segment(volume_node, roi, segmentationNode=node, keepInsideRoi=True)
    places = world_of_voxels(volume_node)
    expected = np.zeros(SHAPE, bool)
    for index in np.ndindex(SHAPE):
        expected[index] = roi.IsPointInROIWorld(places[index])
    assert expected.sum() > 10
    np.testing.assert_array_equal(mask_of(result, volume_node), expected)
    if node is None:
        assert result.segmentationNode.GetParentTransformNode() is volume_node.GetParentTransformNode()
        exported = slicer.util.arrayFromSegmentBinaryLabelmap(
            result.segmentationNode, result.segmentId, volume_node
        )
        np.testing.assert_array_equal(exported > 0, expected)
    else:
        assert result.segmentationNode is node


@pytest.mark.parametrize("kind", ["markups", "list", "array"])
def test_points_from_markups_or_as_positions(scene, volume_node, kind):
    on, beside = [(8, 7, 6), (12, 7, 6)], [(13, 7, 6)]
    if kind == "markups":
        on, beside = clicks(scene, volume_node, *on), clicks(scene, volume_node, *beside)
    else:
        on, beside = ([worldFromIjk(place, volume_node) for place in places] for places in (on, beside))
    if kind == "array":
        on, beside = np.array(on), np.array(beside)
    result = segment(volume_node, positivePoints=on, negativePoints=beside)
    expected = cube((8, 7, 6), (12, 7, 6)) & ~cube((13, 7, 6))
    np.testing.assert_array_equal(mask_of(result, volume_node), expected)


def test_result_tells_where_to_look(scene, volume_node):
    result = segment(volume_node, box(scene, volume_node))
    slices = np.flatnonzero(mask_of(result, volume_node).any((1, 2))).tolist()
    assert result.confidence == 0.9
    assert result.review == tuple(slices[:3])
    assert result.reviewAxis == 2


def test_named_bone_gets_codes_and_color(scene, volume_node):
    named = segment(volume_node, box(scene, volume_node), bone="left femur")
    meaning = bone_meaning("left femur")
    assert segment_of(named).GetName() == "left femur"
    assert segment_of(named).GetTerminology() == meaning.terminology
    assert segment_of(named).GetColor() == pytest.approx(meaning.color)
    node = named.segmentationNode
    unnamed = [segment(volume_node, box(scene, volume_node), segmentationNode=node) for _ in range(2)]
    assert [segment_of(result).GetName() for result in unnamed] == ["Bone 1", "Bone 2"]
    assert segment_of(named).GetName() == "left femur"


def test_advanced_settings_reach_the_network(scene, volume_node, segmenter, monkeypatch):
    loads = []
    monkeypatch.setattr(
        node_segmentation, "open_segmenter", lambda *which: loads.append(which) or segmenter.load(*which)
    )
    roi = box(scene, volume_node)
    plain = mask_of(segment(volume_node, roi), volume_node)
    result = segment(volume_node, roi, device="cpu", weights="mine", depthAttention=False, smoothingMm=2.0)
    assert loads == [("auto", ""), ("cpu", "mine")]
    assert [asked[3] for asked in segmenter.asked] == [True, False]
    assert not np.array_equal(mask_of(result, volume_node), plain)
    far = clicks(scene, volume_node, (18, 14, 11))
    away = clicks(scene, volume_node, (17, 14, 11))
    islands = [segment(volume_node, roi, far, away, removeSmallIslands=remove) for remove in (False, True)]
    counts = [mask_of(result, volume_node)[:, :, 16:].sum() for result in islands]
    assert counts[0] > 0
    assert counts[1] == 0


def test_what_was_given_is_not_touched(scene, volume_node):
    roi, points = box(scene, volume_node), clicks(scene, volume_node, (8, 7, 6))
    array = slicer.util.arrayFromVolume(volume_node).copy()
    before = NodeVolumeSource(volume_node).modified_time, volume_node.GetName()
    segment(volume_node, roi, points)
    assert (NodeVolumeSource(volume_node).modified_time, volume_node.GetName()) == before
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume_node), array)
    assert roi.GetScene() is scene
    assert points.GetNumberOfControlPoints() == 1


# ------------------------------------------------------------------------------------- existing segments


@pytest.fixture
def three(scene, volume_node):
    """A segmentation with three neighbors, and their masks."""
    node = createSegmentation(volume_node)
    masks = {}
    for number, name in enumerate(("left femur", "patella", "sacrum")):
        mask = np.zeros(SHAPE, bool)
        mask[3:10, 4:12, 4 + 4 * number : 8 + 4 * number] = True
        identifier = addSegment(node, name)
        writeMask(mask, volume_node, node, identifier)
        masks[identifier] = mask
    return node, masks


def test_new_segment_leaves_neighbors_as_they_are(scene, volume_node, three):
    node, masks = three
    before = snapshot(scene)
    result = segment(volume_node, box(scene, volume_node), segmentationNode=node)
    assert result.segmentId not in masks
    for identifier, mask in masks.items():
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)
    assert [entry for entry in snapshot(scene) if entry in before] == before


def test_box_replaces_a_segment(scene, volume_node, three, segmenter):
    node, masks = three
    first, *others = masks
    roi = box(scene, volume_node, (16, 12, 9))
    result = segment(volume_node, roi, segmentationNode=node, segmentId=first)
    assert result.segmentId == first
    assert segmenter.asked[-1][2] is None
    new = mask_of(result, volume_node)
    assert new.any()
    assert not (new & masks[first]).all()
    for identifier in others:
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), masks[identifier])
    assert segment_of(result).GetName() == "left femur"


def test_points_correct_a_segment(scene, volume_node, three):
    node, masks = three
    first, *others = masks
    away, on = clicks(scene, volume_node, (5, 6, 5)), clicks(scene, volume_node, (18, 14, 11))
    result = segment(volume_node, None, on, away, segmentationNode=node, segmentId=first)
    expected = (masks[first] | cube((18, 14, 11))) & ~cube((5, 6, 5))
    np.testing.assert_array_equal(mask_of(result, volume_node), expected)
    result = segment(volume_node, negativePoints=on, segmentationNode=node, segmentId=first)
    np.testing.assert_array_equal(mask_of(result, volume_node), masks[first] & ~cube((5, 6, 5)))
    for identifier in others:
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), masks[identifier])


def test_empty_segment_is_filled_and_may_be_named(scene, volume_node, three):
    node, _ = three
    empty = addSegment(node)
    result = segment(
        volume_node,
        positivePoints=clicks(scene, volume_node, (8, 7, 6)),
        bone="right tibia",
        segmentationNode=node,
        segmentId=empty,
    )
    np.testing.assert_array_equal(mask_of(result, volume_node), cube((8, 7, 6)))
    assert segment_of(result).GetName() == "right tibia"
    assert segment_of(result).GetTerminology() == bone_meaning("right tibia").terminology


# ------------------------------------------------------------------------------------ what is kept, and told


def test_cache_keeps_the_session_while_image_and_weights_stay(scene, volume_node, segmenter):
    cache = SessionCache(segmenter.load)
    roi = box(scene, volume_node)
    for _ in range(2):
        segment(volume_node, roi, cache=cache)
        volume_node.SetName("Another name")
    assert len(segmenter.opened) == len(segmenter.loads) == 1
    slicer.util.arrayFromVolumeModified(volume_node)
    segment(volume_node, roi, cache=cache)
    assert len(segmenter.opened) == 2
    segmenter.bundle = FakeBundle("two", {})
    segment(volume_node, roi, cache=cache)
    assert len(segmenter.opened) == 3
    segment(add_volume(scene, "oblique", "linear"), roi, cache=cache)
    assert len(segmenter.opened) == 4
    assert len(segmenter.loads) == 1


def test_without_a_cache_nothing_is_kept(scene, volume_node, segmenter):
    roi = box(scene, volume_node)
    for _ in range(2):
        segment(volume_node, roi)
    assert len(segmenter.opened) == len(segmenter.loads) == 2


def test_progress(scene, volume_node):
    told = []
    segment(volume_node, box(scene, volume_node), progress=lambda *step: told.append(step))
    assert told == [(0.5, "segmenting")]


def test_progress_may_cancel(scene, volume_node, three):
    def cancel(fraction, text):
        raise Cancelled

    node, masks = three
    roi = box(scene, volume_node)
    before = snapshot(scene)
    for arguments in (
        {},
        {"segmentationNode": node},
        {"segmentationNode": node, "segmentId": next(iter(masks))},
    ):
        with pytest.raises(Cancelled):
            segment(volume_node, roi, progress=cancel, **arguments)
    with pytest.raises(Cancelled):
        segmentAll(volume_node, progress=cancel)
    assert snapshot(scene) == before


# ----------------------------------------------------------------------------------------------- every bone


def test_every_bone_gets_a_segment(scene, volume_node, three, segmenter):
    node, masks = three
    before = snapshot(scene)
    results = segmentAll(volume_node, node)
    assert len(results) == 3
    names = [segment_of(result).GetName() for result in results]
    assert names == ["Bone 1", "Bone 2", "Bone 3"]
    for number, result in enumerate(results, start=1):
        expected = np.zeros(SHAPE, bool)
        expected[:, :, 3 * number - 3 : 3 * number - 1] = True
        np.testing.assert_array_equal(mask_of(result, volume_node), expected)
        assert result.confidence == 0.8
    for identifier, mask in masks.items():
        np.testing.assert_array_equal(readMask(node, identifier, volume_node), mask)
    assert [entry for entry in snapshot(scene) if entry in before] == before
    fresh = segmentAll(volume_node)[0].segmentationNode
    assert fresh is not node
    assert fresh.GetParentTransformNode() is volume_node.GetParentTransformNode()


def test_no_bone_anywhere(scene, volume_node, segmenter):
    segmenter.bones = 0
    before = snapshot(scene)
    with pytest.raises(BoneSAMError, match="No bone was found in 'Scan'"):
        segmentAll(volume_node)
    assert snapshot(scene) == before


# ----------------------------------------------------------------------------------------------- many bones


def test_many_bones_in_several_volumes(scene, volume_node, segmenter):
    other = add_volume(scene, "flipped", "nested")
    given = createSegmentation(other)
    told = []
    results = segmentMany(
        [
            {"volumeNode": volume_node, "roiNode": box(scene, volume_node), "bone": "left femur"},
            {"volumeNode": volume_node, "positivePoints": [worldFromIjk((12, 7, 6), volume_node)]},
            {"volumeNode": other, "roiNode": box(scene, other), "segmentationNode": given},
            {"volumeNode": other, "roiNode": box(scene, other), "depthAttention": False},
        ],
        progress=lambda *step: told.append(step),
    )
    nodes = [result.segmentationNode for result in results]
    assert nodes[0] is nodes[1]
    assert nodes[2] is given
    assert nodes[3] not in nodes[:3]
    assert len(segmenter.loads) == 1
    assert len(segmenter.opened) == 2
    np.testing.assert_array_equal(mask_of(results[1], volume_node), cube((12, 7, 6)))
    assert mask_of(results[0], volume_node).any()
    assert told == [(0.125 + n / 4, f"{n + 1} of 4: segmenting") for n in range(4)]


def test_one_bad_job_does_not_stop_the_others(scene, volume_node):
    beside = box(scene, volume_node, (500, 500, 500))
    results = segmentMany(
        [
            {"volumeNode": volume_node, "roiNode": beside},
            {"volumeNode": None, "roiNode": beside},
            {"volumeNode": volume_node, "roiNode": box(scene, volume_node)},
        ]
    )
    assert [type(result).__name__ for result in results] == ["BoneSAMError", "BoneSAMError", "SegmentedBone"]
    assert "covers nothing of the volume 'Scan'" in str(results[0])
    assert "choose the scan" in str(results[1])
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"volume": 1}, "Job 2 of 2 cannot be done"),
        ({"volumeNode": 1, "colour": 1}, "unexpected keyword argument 'colour'"),
        ({"volumeNode": 1, "progress": print}, "given to segmentMany itself"),
    ],
)
def test_job_that_makes_no_sense_is_refused_before_anything_is_done(scene, volume_node, wrong, message):
    roi = box(scene, volume_node)
    before = snapshot(scene)
    with pytest.raises(BoneSAMError, match=message):
        segmentMany([{"volumeNode": volume_node, "roiNode": roi}, wrong])
    assert snapshot(scene) == before


def test_cancelling_many_keeps_what_was_done(scene, volume_node):
    def cancel(fraction, text):
        if fraction >= 0.5:
            raise Cancelled

    jobs = [{"volumeNode": volume_node, "roiNode": box(scene, volume_node)}] * 3
    with pytest.raises(Cancelled):
        segmentMany(jobs, progress=cancel)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node.GetSegmentation().GetNumberOfSegments() == 1


def test_no_jobs():
    assert segmentMany([]) == []


# ------------------------------------------------------------------------------------------------ bad input


def under_warp(scene, node):
    node.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
    return node


def surfaces(volume_node):
    node = createSegmentation(volume_node)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    return node


BAD = {
    "no volume": (lambda s, v: {"volumeNode": None}, "choose the scan"),
    "volume's name": (lambda s, v: {"volumeNode": "Scan"}, "'Scan' is not a volume: give the node itself"),
    "model": (
        lambda s, v: {"volumeNode": s.AddNewNodeByClass("vtkMRMLModelNode", "Hip")},
        "'Hip' is not a vol",
    ),
    "labels": (
        lambda s, v: {"volumeNode": s.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Labels")},
        "holds labels",
    ),
    "empty volume": (
        lambda s, v: {"volumeNode": s.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")},
        "'Nothing' is empty",
    ),
    "warped volume": (lambda s, v: {"volumeNode": under_warp(s, v)}, "harden the transform"),
    "no prompt": (lambda s, v: {"roiNode": None}, "which bone is meant"),
    "negative points only": (
        lambda s, v: {"roiNode": None, "negativePoints": clicks(s, v, (5, 5, 5))},
        "which bone is meant",
    ),
    "markups as box": (lambda s, v: {"roiNode": clicks(s, v)}, "'Clicks' is not a box"),
    "box as points": (lambda s, v: {"positivePoints": box(s, v)}, "'Region' is not a list of points"),
    "one position": (lambda s, v: {"positivePoints": (1, 2, 3)}, "must be three finite numbers"),
    "name as points": (lambda s, v: {"positivePoints": "Clicks"}, "'Clicks' is no list of points"),
    "box beside": (lambda s, v: {"roiNode": box(s, v, (99, 99, 99))}, "covers nothing of the volume 'Scan'"),
    "box not drawn": (
        lambda s, v: {"roiNode": s.AddNewNodeByClass("vtkMRMLMarkupsROINode")},
        "box",
    ),
    "warped box": (lambda s, v: {"roiNode": under_warp(s, box(s, v))}, "harden the transform"),
    "point beside": (
        lambda s, v: {"positivePoints": clicks(s, v, (99, 9, 9))},
        "outside of the volume 'Scan'",
    ),
    "position beside": (lambda s, v: {"positivePoints": [(999, 999, 999)]}, "lies outside the volume"),
    "warped segmentation": (
        lambda s, v: {"segmentationNode": under_warp(s, createSegmentation(v))},
        "harden the transform",
    ),
    "surfaces": (lambda s, v: {"segmentationNode": surfaces(v)}, "consists of surfaces"),
    "segmentation of no scene": (
        lambda s, v: {"segmentationNode": slicer.vtkMRMLSegmentationNode()},
        "not in the scene",
    ),
    "volume as segmentation": (lambda s, v: {"segmentationNode": v}, "'Scan' is not a segmentation"),
    "segment of nowhere": (lambda s, v: {"segmentId": "Segment_1"}, "give segmentationNode"),
    "no such segment": (
        lambda s, v: {"segmentationNode": createSegmentation(v), "segmentId": "Segment_7"},
        "'Segment_7' is no longer in 'Scan bones'",
    ),
    "device": (lambda s, v: {"device": "abacus"}, "Unknown device 'abacus'"),
    "weights": (lambda s, v: {"weights": "missing"}, "no weights in 'missing'"),
    "smoothing": (lambda s, v: {"smoothingMm": 50.0}, "Smoothing of 50"),
    "bone elsewhere": (
        lambda s, v: {"roiNode": None, "bone": "left patella"},
        "does not show the left patella",
    ),
    "several bones": (lambda s, v: {"roiNode": None, "bone": "both femurs"}, r"left femur, right femur"),
    "no bone": (lambda s, v: {"roiNode": None, "bone": "qqqq"}, "No bone is called"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence_and_changes_nothing(scene, volume_node, segmenter, case):
    make, message = BAD[case]
    arguments = {"volumeNode": volume_node, "roiNode": box(scene, volume_node), **make(scene, volume_node)}
    before = snapshot(scene)
    with pytest.raises(BoneSAMError, match=message) as refused:
        segment(**arguments)
    assert "\n" not in str(refused.value)
    assert snapshot(scene) == before
    assert segmenter.asked == []  # told at once, not after the work


def test_volume_of_no_scene_is_refused(scene, volume_node, segmenter):
    roi = box(scene, volume_node)
    scene.RemoveNode(volume_node)
    with pytest.raises(BoneSAMError, match="'Scan' is not in a scene"):
        segment(volume_node, roi)


def test_nothing_found(scene, volume_node, three):
    node, masks = three
    first = next(iter(masks))
    everywhere = clicks(scene, volume_node, *itertools.product((5, 7), (5, 8, 10), (4, 6, 8)))
    before = snapshot(scene)
    with pytest.raises(BoneSAMError, match="No bone was found in 'Scan' there"):
        segment(volume_node, negativePoints=everywhere, segmentationNode=node, segmentId=first)
    assert snapshot(scene) == before


@pytest.mark.parametrize("change", ["remove", "edit"])
def test_volume_changed_while_it_is_segmented(scene, volume_node, three, change):
    """`progress` may let the user do anything."""
    node, _ = three
    roi = box(scene, volume_node)

    def meddle(fraction, text):
        if change == "remove":
            scene.RemoveNode(volume_node)
        else:
            slicer.util.arrayFromVolumeModified(volume_node)

    segments = [entry for entry in snapshot(scene) if len(entry) == 5]
    with pytest.raises(BoneSAMError, match=r"(removed|changed) while it was being segmented"):
        segment(volume_node, roi, segmentationNode=node, progress=meddle)
    assert [entry for entry in snapshot(scene) if len(entry) == 5] == segments


@pytest.mark.parametrize("existing", [False, True])
def test_failed_write_takes_back_the_new_segment(scene, volume_node, three, monkeypatch, existing):
    def fail(*arguments, **options):
        raise BoneSAMError("The disk is full.")

    monkeypatch.setattr("BoneSAMLib.node_segment_store.writeMask", fail)
    roi = box(scene, volume_node)
    before = snapshot(scene)
    with pytest.raises(BoneSAMError, match="disk is full"):
        segment(volume_node, roi, segmentationNode=three[0] if existing else None)
    assert snapshot(scene) == before


def test_missing_package_is_named(scene, volume_node, monkeypatch):
    def missing(device, weights):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(node_segmentation, "open_segmenter", missing)
    with pytest.raises(BoneSAMError, match="'onnxruntime' is missing"):
        segment(volume_node, box(scene, volume_node))
