"""From what is drawn in the views to the segment: the presenter on Slicer's own nodes, in every geometry."""

import itertools

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
import vtk

from BoneSAMLib.mrml import orientedBoxFromRoi, worldFromIjk
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_settings_store import NodeSettingsStore
from BoneSAMLib.node_volume_source import NodeVolumeSource
from BoneSAMLib.panel import Action, State
from BoneSAMLib.presenter import Presenter
from BoneSAMLib.prompts import Point
from BoneSAMLib.segmentation_node import readMask
from BoneSAMLib.session import Session
from BoneSAMLib.settings import Settings
from Testing.lib.fake_engine import FakeEngine
from Testing.lib.hand_built_naming import HandBuiltNaming
from Testing.presenter.fakes import FakeBundle, FakeSegmenter, FakeView, ManualRunner
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


class SceneDesk:
    """A presenter on a scene, with observers as the panel has them."""

    def __init__(self, scene, segmenter=None, **settings):
        self.scene, self.view = scene, FakeView()
        self.runner = ManualRunner(self.view)
        self.segmenter = segmenter or FakeSegmenter()
        self.settings_store = NodeSettingsStore(scene)
        self.settings_store.save(Settings(**settings).to_strings())
        self.store = NodeSegmentStore(scene)
        load = getattr(self.segmenter, "load", lambda device, weights: self.segmenter)
        self.presenter = Presenter(self.view, self.store, self.settings_store, load, self.runner)
        self.presenter.refresh()

    def open(self, volume_node):
        self.presenter.choose_volume(NodeVolumeSource(volume_node))
        return self

    def run(self):
        for _ in range(5):
            self.runner.work()
            self.view.pump()
        return self

    @property
    def panel(self):
        return self.view.panel

    def mask_of(self, name, volume_node):
        (entry,) = [entry for entry in self.store.segments() if entry.name == name]
        return readMask(self.store.segmentationNode, entry.identifier, volume_node)


@pytest.fixture
def desk_of(scene):
    desks = []

    def make(*arguments, **settings):
        desks.append(SceneDesk(scene, *arguments, **settings))
        return desks[-1]

    yield make
    for desk in desks:
        desk.presenter.close()
        # Closing the scene would keep the node.
        scene.RemoveNode(desk.settings_store.parameterNode)


def world_of_segment(node, identifier):
    """World coordinates of every voxel of a segment, by Slicer's own path."""
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
    return np.reshape(places, (-1, 3))


def put_under(node, transform):
    node.SetAndObserveTransformNodeID(None if transform is None else transform.GetID())


@pytest.mark.parametrize(
    ("geometry", "volume_parent", "segmentation_parent", "roi_parent"),
    list(itertools.product(GEOMETRIES, PARENTS, ("own", *PARENTS), PARENTS)),
)
def test_where_the_box_is_drawn_the_segment_is(
    scene, desk_of, geometry, volume_parent, segmentation_parent, roi_parent
):
    """The network finds all that is inside the box; a click then removes a part, where it was placed."""
    volume_node = add_volume(scene, geometry, volume_parent)
    desk = desk_of(keep_inside=True).open(volume_node)
    if segmentation_parent != "own":
        desk.presenter.add_segment("bone")
        put_under(desk.store.segmentationNode, parent_of(scene, segmentation_parent, 10))
    roi = add_roi(scene, (0, 0, 0), (9, 8, 12))
    put_under(roi, parent_of(scene, roi_parent, 20))
    roi.SetCenterWorld(worldFromIjk((11.3, 8.6, 6.7), volume_node))
    desk.presenter.set_box(orientedBoxFromRoi(roi))
    desk.run()

    places = world_of_voxels(volume_node)
    expected = np.zeros(places.shape[:3], bool)
    for index in np.ndindex(expected.shape):
        expected[index] = roi.IsPointInROIWorld(places[index])
    np.testing.assert_array_equal(desk.view.mask.to_array(), expected)
    desk.presenter.add_point(Point.from_ras(places[6, 8, 11], positive=False))
    desk.run()
    expected[5:8, 7:10, 10:13] = False
    desk.presenter.accept("bone")

    assert desk.view.texts == []
    node = desk.store.segmentationNode
    (entry,) = desk.store.segments()
    found = world_of_segment(node, entry.identifier)
    true = places[expected]
    assert len(found) == len(true) > 10
    assert np.linalg.norm(found.mean(0) - true.mean(0)) < 1e-9, "centroid"
    order = [np.lexsort(np.round(each, 5).T) for each in (found, true)]
    np.testing.assert_allclose(found[order[0]], true[order[1]], atol=1e-9)
    np.testing.assert_array_equal(desk.mask_of("bone", volume_node), expected)
    assert node.GetParentTransformNode() is volume_node.GetParentTransformNode() or (
        segmentation_parent != "own"
    )


class BrightSegmenter:
    """The real session; its network finds what is bright."""

    bundle = FakeBundle("bright", {})

    def __init__(self):
        self.engines = []

    def open(self, volume, others=(), fusion="average"):
        self.engines.append(FakeEngine())
        return Session(volume, self.engines[-1], others, fusion, HandBuiltNaming())


def add_bright_block(scene, geometry, parent):
    node = add_volume(scene, geometry, parent)
    array = np.full((14, 18, 22), -1000, np.int16)
    array[3:10, 4:13, 5:16] = 1000
    slicer.util.updateVolumeFromArray(node, array)
    return node


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_real_session_gives_the_scene_what_it_gives_without_one(scene, desk_of, geometry):
    volume_node = add_bright_block(scene, geometry, "nested")
    segmenter = BrightSegmenter()
    desk = desk_of(segmenter).open(volume_node)
    roi = add_roi(scene, (0, 0, 0), (14, 12, 12))
    put_under(roi, parent_of(scene, "linear", 20))
    roi.SetCenterWorld(worldFromIjk((10, 8, 6), volume_node))
    click = Point.from_ras(worldFromIjk((6, 5, 4), volume_node), positive=False)

    volume = NodeVolumeSource(volume_node).read()
    session = Session(volume, FakeEngine())
    first = session.segment(box=orientedBoxFromRoi(roi).to_box(volume))
    second = session.segment(box=orientedBoxFromRoi(roi).to_box(volume), points=[click], mask=first)
    assert 0 < second.mask.sum() < first.mask.sum()

    desk.presenter.set_box(orientedBoxFromRoi(roi))
    desk.run()
    np.testing.assert_array_equal(desk.view.mask.to_array(), first.mask)
    desk.presenter.accept("bone")
    np.testing.assert_array_equal(desk.mask_of("bone", volume_node), first.mask)
    desk.presenter.cancel()
    desk.presenter.select_segment(None)
    desk.presenter.set_box(orientedBoxFromRoi(roi))
    desk.run()
    desk.presenter.add_point(click)
    desk.run()
    desk.presenter.accept("corrected bone")
    np.testing.assert_array_equal(desk.mask_of("corrected bone", volume_node), second.mask)
    np.testing.assert_array_equal(desk.mask_of("bone", volume_node), first.mask)
    assert desk.view.texts == []


# --------------------------------------------------------------------------- what is kept between prompts


@pytest.fixture
def bright(scene, desk_of):
    volume_node = add_bright_block(scene, "oblique", "linear")
    desk = desk_of(BrightSegmenter()).open(volume_node)
    roi = add_roi(scene, (0, 0, 0), (20, 18, 22))
    roi.SetCenterWorld(worldFromIjk((10, 8, 6), volume_node))
    desk.presenter.set_box(orientedBoxFromRoi(roi))
    desk.run()
    assert len(desk.segmenter.engines) == 1
    assert desk.segmenter.engines[0].encoded
    return desk, volume_node


def click_at(desk, volume_node, ijk):
    desk.presenter.add_point(Point.from_ras(worldFromIjk(ijk, volume_node), positive=False))
    desk.run()


def test_embeddings_are_used_again_for_the_same_image(bright):
    desk, volume_node = bright
    engine = desk.segmenter.engines[0]
    encoded = list(engine.encoded)
    volume_node.SetName("Another name")
    volume_node.CreateDefaultDisplayNodes()
    volume_node.GetDisplayNode().SetWindowLevel(400, 40)
    desk.presenter.volume_modified()
    click_at(desk, volume_node, (6, 5, 4))
    desk.presenter.choose_volume(NodeVolumeSource(volume_node))  # chosen once more
    click_at(desk, volume_node, (14, 11, 8))
    assert desk.segmenter.engines == [engine]
    assert engine.encoded == encoded


@pytest.mark.parametrize("change", ["voxels", "transform", "weights"])
def test_embeddings_are_dropped_when_image_or_weights_change(bright, change):
    desk, volume_node = bright
    if change == "voxels":
        slicer.util.arrayFromVolume(volume_node)[5, 6, 7] = 900
        slicer.util.arrayFromVolumeModified(volume_node)
        desk.presenter.volume_modified()
    elif change == "transform":
        volume_node.SetAndObserveTransformNodeID(linear_transform(desk.scene, 3).GetID())
        desk.presenter.volume_modified()
    else:
        desk.segmenter.bundle = FakeBundle("trained anew", {})
    if change == "transform":  # the box stayed where it was, and the bone did not
        assert any("moved" in text for text in desk.view.texts)
        desk.presenter.add_point(Point.from_ras(worldFromIjk((10, 8, 6), volume_node)))
        desk.run()
    else:
        click_at(desk, volume_node, (6, 5, 4))
    assert len(desk.segmenter.engines) == 2
    assert desk.segmenter.engines[1].encoded


# ----------------------------------------------------------------------------- what happens to the scene


@pytest.fixture
def busy(scene, desk_of):
    """One accepted bone, and one that is being computed."""
    volume_node = add_volume(scene, "oblique", "linear")
    desk = desk_of().open(volume_node)
    for center, name in (((7, 6, 5), "left femur"), ((14, 11, 8), "")):
        roi = add_roi(scene, (0, 0, 0), (6, 6, 6))
        roi.SetCenterWorld(worldFromIjk(center, volume_node))
        desk.presenter.set_box(orientedBoxFromRoi(roi))
        if name:
            desk.run()
            desk.presenter.accept(name)
            desk.presenter.next_bone()
    assert desk.panel.state is State.RUNNING
    return desk, volume_node, desk.mask_of("left femur", volume_node)


def test_volume_removed_while_running(scene, busy):
    desk, volume_node, before = busy
    other = add_volume(scene, "oblique")
    put_under(other, volume_node.GetParentTransformNode())
    scene.RemoveNode(volume_node)
    desk.presenter.volume_removed(volume_node.GetID())
    desk.run()
    assert desk.panel.state is State.NO_VOLUME
    assert desk.view.mask is None
    assert len(desk.view.texts) == 1
    assert [entry.name for entry in desk.panel.segments] == ["left femur"]
    np.testing.assert_array_equal(desk.mask_of("left femur", other), before)


def test_scene_closed_while_running(scene, busy):
    desk, volume_node, _ = busy
    settings = desk.presenter.settings
    identifier = volume_node.GetID()
    scene.Clear()
    desk.presenter.volume_removed(identifier)
    desk.presenter.segments_changed()
    desk.presenter.reload_settings()
    desk.run()
    assert desk.panel.state is State.NO_VOLUME
    assert desk.panel.segments == ()
    assert desk.presenter.settings == settings
    # And the work goes on in the new scene.
    volume_node = add_volume(scene, "flipped")
    desk.open(volume_node)
    roi = add_roi(scene, (0, 0, 0), (6, 6, 6))
    roi.SetCenterWorld(worldFromIjk((7, 6, 5), volume_node))
    desk.presenter.set_box(orientedBoxFromRoi(roi))
    desk.run()
    desk.presenter.accept("new bone")
    assert desk.mask_of("new bone", volume_node).any()


def test_segmentation_removed_before_accept(scene, busy):
    desk, volume_node, _ = busy
    desk.run()
    mask = desk.view.mask
    scene.RemoveNode(desk.store.segmentationNode)
    desk.presenter.segments_changed()
    assert desk.panel.segments == ()
    desk.presenter.accept("bone")
    np.testing.assert_array_equal(desk.mask_of("bone", volume_node), mask.to_array())
    assert desk.view.texts == []


def test_volume_warped_while_running(scene, busy):
    desk, volume_node, before = busy
    own = volume_node.GetTransformNodeID()
    volume_node.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
    desk.presenter.volume_modified()
    desk.run()
    assert [text for text in desk.view.texts if "harden the transform" in text] == desk.view.texts
    assert len(desk.view.texts) == 1
    assert desk.panel.state is State.NO_VOLUME
    assert Action.SEGMENT not in desk.panel.enabled
    volume_node.SetAndObserveTransformNodeID(own)
    np.testing.assert_array_equal(desk.mask_of("left femur", volume_node), before)


def test_refused_write_leaves_everything_as_it_was(scene, busy):
    desk, volume_node, before = busy
    desk.run()
    mask = desk.view.mask
    node = desk.store.segmentationNode
    own = node.GetTransformNodeID()
    node.SetAndObserveTransformNodeID(grid_transform(scene).GetID())
    desk.presenter.accept("bone")
    assert len(desk.view.texts) == 1
    assert "harden the transform" in desk.view.texts[0]
    assert desk.view.mask == mask
    assert desk.panel.state is State.PREVIEW
    node.SetAndObserveTransformNodeID(own)
    assert [entry.name for entry in desk.store.segments()] == ["left femur"]
    np.testing.assert_array_equal(desk.mask_of("left femur", volume_node), before)
    desk.presenter.accept("bone")
    np.testing.assert_array_equal(desk.mask_of("bone", volume_node), mask.to_array())


def test_three_neighbors_stay_intact_through_the_whole_path(scene, desk_of):
    volume_node = add_volume(scene, "anisotropic", "nested")
    desk = desk_of().open(volume_node)
    expected = {}
    for center, name in (((6, 8, 6), "left femur"), ((12, 8, 6), "left tibia"), ((9, 12, 6), "left patella")):
        roi = add_roi(scene, (0, 0, 0), (4.0, 4.0, 20.0))
        put_under(roi, parent_of(scene, "linear", 20))
        roi.SetCenterWorld(worldFromIjk(center, volume_node))
        desk.presenter.set_box(orientedBoxFromRoi(roi))
        desk.run()
        expected[name] = desk.view.mask.to_array()
        desk.presenter.next_bone(name)
    assert (sum(mask.astype(int) for mask in expected.values()) > 1).any(), "they overlap"
    for name, mask in expected.items():
        np.testing.assert_array_equal(desk.mask_of(name, volume_node), mask)
    looks = [(entry.name, entry.color) for entry in desk.panel.segments]
    desk.presenter.select_segment(desk.panel.segments[1].identifier)
    click_at(desk, volume_node, np.argwhere(expected["left tibia"]).mean(0)[::-1])
    desk.presenter.accept()
    assert desk.mask_of("left tibia", volume_node).sum() < expected["left tibia"].sum()
    for name in ("left femur", "left patella"):
        np.testing.assert_array_equal(desk.mask_of(name, volume_node), expected[name])
    assert [(entry.name, entry.color) for entry in desk.panel.segments] == looks
    assert desk.view.texts == []
