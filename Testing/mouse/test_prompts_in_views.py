"""Boxes and points drawn with a mouse in 3D Slicer's slice views, whatever the volume's geometry."""

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs trame-slicer: run make test")

import slicer
import slicer.util

from BoneSAMLib.panel import Action, State, Tool
from BoneSAMLib.prompts import Box, Point
from Testing.mouse.slice_views import ORIENTATIONS
from Testing.presenter.fakes import FakeSegmenter
from Testing.slicer.scenes import add_volume

GEOMETRIES = [
    ("axis-aligned", "none"),
    ("oblique", "none"),
    ("flipped", "linear"),
    ("anisotropic", "none"),
    ("oblique flipped", "nested"),
]
# Places in the volume, as parts of its size.
FIRST, SECOND, MIDDLE, BESIDE = (0.2, 0.25, 0.22), (0.72, 0.7, 0.68), (0.42, 0.44, 0.4), (0.8, 0.82, 0.78)


@pytest.fixture
def desk(views, open_desk):
    return _desk(views, open_desk, "axis-aligned", "none")


def _desk(views, open_desk, geometry, parent):
    node = add_volume(views.scene, geometry, parent)
    views.show(node)
    segmenter = FakeSegmenter()
    desk = open_desk(node, segmenter.load)
    desk.segmenter = segmenter
    return desk


def voxel(desk, ras):
    return (desk.presenter.volume.ras_to_ijk @ [*ras, 1.0])[:3]


def at(desk, tag, part):
    """Pixel of a view that lies before or behind a part of the volume."""
    ijk = np.array(part) * (np.array(desk.presenter.volume.size) - 1)
    return desk.views.pixel_before(tag, (desk.presenter.volume.ijk_to_ras @ [*ijk, 1.0])[:3])


def draw_box(desk, tag, first=FIRST, second=SECOND):
    desk.draw_box(tag, at(desk, tag, first), at(desk, tag, second))
    return desk


def add_points(desk, tag, *parts, positive=True):
    desk.add_points(tag, *(at(desk, tag, part) for part in parts), positive=positive)
    return desk


def placed(desk, tag, *pixels):
    """Where pixels lie, in voxels (i, j, k)."""
    return np.array([voxel(desk, desk.views.place(tag, pixel)) for pixel in pixels])


def markups(desk, tool):
    """Positions of the markups that show the presenter's prompts, by Slicer's own path."""
    names = {Tool.BOX: "BoneSAM box", Tool.POSITIVE_POINT: "on the bone", Tool.NEGATIVE_POINT: "beside"}
    nodes = [node for node in desk.views.nodes("vtkMRMLMarkupsNode") if names[tool] in node.GetName()]
    assert len(nodes) <= 1
    return slicer.util.arrayFromMarkupsControlPoints(nodes[0], world=True) if nodes else np.zeros((0, 3))


def region(desk):
    return next(node for node in desk.views.nodes("vtkMRMLMarkupsROINode"))


# --------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize("flat", [False, True], ids=["deep", "flat"])
@pytest.mark.parametrize(("geometry", "parent"), GEOMETRIES)
def test_a_box_covers_the_voxels_between_the_two_clicks(views, open_desk, geometry, parent, flat):
    desk = _desk(views, open_desk, geometry, parent)
    desk.view.prompts.flat = flat
    spacing = np.array(desk.presenter.volume.spacing)
    normals = set()
    for tag in ORIENTATIONS:
        corners = placed(desk, tag, at(desk, tag, FIRST), at(desk, tag, SECOND))
        draw_box(desk, tag)
        desk.wait()
        assert desk.texts == []
        low, high = (np.array(ends) for ends in desk.panel.box.to_ijk(desk.presenter.volume))
        across = int(np.abs(corners[1] - corners[0]).argmin())
        normals.add(across)
        expected_low, expected_high = np.ceil(corners.min(0) - 1e-3), np.floor(corners.max(0) + 1e-3)
        along = np.delete(np.arange(3), across)
        np.testing.assert_array_equal(low[along], np.clip(expected_low, 0, None)[along])
        np.testing.assert_array_equal(high[along], expected_high[along])
        last = desk.presenter.volume.size[across] - 1
        shown = corners[0, across]
        if flat:
            assert low[across] == high[across]
            assert abs(low[across] - shown) <= 0.5 + 1e-3
        else:
            reach = (np.abs(corners[1] - corners[0]) * spacing)[along].min() / 2 / spacing[across]
            assert low[across] == max(0, np.ceil(shown - reach - 1e-3))
            assert high[across] == min(last, np.floor(shown + reach + 1e-3))
        # What is shown is what was found, voxel by voxel: the fake's bone is the box.
        expected = np.zeros(desk.presenter.volume.shape, bool)
        expected[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))] = True
        np.testing.assert_array_equal(desk.preview, expected)
    assert normals == {0, 1, 2}
    views.screenshot(f"box in {geometry} volume{', flat' if flat else ''}")


def test_a_dragged_handle_changes_the_box(desk):
    before = draw_box(desk, "Red").wait().panel.box
    left = (-1.0, 0.0, 0.0)
    center = slicer.util.arrayFromVTKMatrix(region(desk).GetObjectToWorldMatrix())[:3, 3]
    edge = desk.views.place("Red", at(desk, "Red", BESIDE))
    desk.drag_face("Red", left, (edge[0], *center[1:]))
    after = desk.wait().panel.box
    sizes = [np.subtract(box.high, box.low) for box in (before, after)]
    changed = np.flatnonzero(~np.isclose(sizes[0], sizes[1]))
    assert len(changed) == 1
    ends = [(box.matrix @ [*corner, 1.0])[0] for box in (before, after) for corner in (box.low, box.high)]
    low, high = sorted(ends[:2]), sorted(ends[2:])
    assert min(abs(value - edge[0]) for value in high) < 0.2  # the dragged face, to a pixel or two
    assert min(abs(a - b) for a in low for b in high) < 1e-4  # the opposite one stays
    desk.presenter.undo()
    assert desk.panel.box == before
    np.testing.assert_allclose(sorted(region(desk).GetSize()), sorted(sizes[0]), atol=1e-6)


def test_depth_is_given_in_another_view(desk):
    desk.view.prompts.flat = True
    draw_box(desk, "Red").wait()
    low, high = desk.panel.box.to_ijk(desk.presenter.volume)
    assert low[2] == high[2]
    center = slicer.util.arrayFromVTKMatrix(region(desk).GetObjectToWorldMatrix())[:3, 3]
    desk.views.go_to(center)
    desk.drag_face("Green", (0.0, 0.0, 1.0), center + np.array([0.0, 0.0, 4.4]))
    deeper = desk.wait().panel.box.to_ijk(desk.presenter.volume)
    assert (deeper[0], deeper[1][:2]) == (low, high[:2])
    assert deeper[1][2] - high[2] == pytest.approx(4.4 / 1.1, abs=1)
    assert desk.texts == []


def test_undo_and_redo_bring_the_drawn_box_back(desk):
    draw_box(desk, "Red")
    first, drawn = desk.wait().panel.box, region(desk).GetSize()
    mask = desk.preview
    draw_box(desk, "Green", FIRST, BESIDE)
    second = desk.wait().panel.box
    assert second != first
    desk.presenter.undo()
    assert desk.panel.box == first
    np.testing.assert_allclose(sorted(region(desk).GetSize()), sorted(drawn), atol=1e-6)
    np.testing.assert_array_equal(desk.preview, mask)
    desk.presenter.undo()
    assert desk.panel.box is None
    assert desk.preview is None
    assert not region(desk).GetDisplayVisibility()
    assert len(markups(desk, Tool.BOX)) == 0
    desk.presenter.redo()
    desk.presenter.redo()
    assert desk.wait().panel.box == second
    assert region(desk).GetDisplayVisibility()


def test_a_script_s_box_is_drawn_as_it_is(desk):
    """And read back with the mouse, it is the same voxels."""
    for box in (Box.from_ijk((4, 3, 5), (12, 9, 5)), Box.from_ijk((4, 3, 2), (12, 9, 6))):
        desk.presenter.set_box(box)
        desk.wait()
        mask = desk.preview
        node = region(desk)
        node.InvokeEvent(node.PointEndInteractionEvent)
        desk.wait()
        assert desk.panel.box != box  # it is the region's own now
        assert desk.panel.box.to_ijk(desk.presenter.volume) == box.to_ijk(desk.presenter.volume)
        np.testing.assert_array_equal(desk.preview, mask)


def test_a_box_outside_the_volume_is_refused_and_the_former_one_stays(desk):
    draw_box(desk, "Red")
    before, size = desk.wait().panel.box, region(desk).GetSize()
    desk.draw_box("Red", (1, 1), (20, 20))
    desk.wait()
    assert len(desk.texts) == 1
    assert "outside the volume" in desk.texts[0]
    assert desk.panel.box == before
    desk.presenter.choose_tool(None)
    np.testing.assert_allclose(region(desk).GetSize(), size, atol=1e-6)


def test_two_clicks_at_one_place_are_no_box(desk):
    draw_box(desk, "Red", FIRST, FIRST)
    desk.wait()
    assert desk.panel.box is None
    assert desk.panel.tool is None
    assert desk.panel.state is State.READY
    draw_box(desk, "Red")
    assert desk.wait().panel.state is State.PREVIEW


def test_a_region_that_is_deleted_takes_the_box_with_it(desk):
    draw_box(desk, "Red")
    desk.wait()
    desk.views.scene.RemoveNode(region(desk))
    desk.wait()
    assert desk.panel.box is None
    assert desk.preview is None
    desk.presenter.undo()
    assert desk.wait().panel.box is not None
    assert region(desk).GetDisplayVisibility()


# -------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize(("geometry", "parent"), GEOMETRIES)
def test_points_lie_where_they_were_clicked(views, open_desk, geometry, parent):
    desk = _desk(views, open_desk, geometry, parent)
    expected = []
    for tag in ORIENTATIONS:
        for positive, part in ((True, MIDDLE), (False, BESIDE)):
            pixel = at(desk, tag, part)
            expected.append((*placed(desk, tag, pixel)[0], positive))
            desk.add_points(tag, pixel, positive=positive)
            desk.wait()
    found = [(*voxel(desk, point.position), point.positive) for point in desk.panel.points]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert desk.texts == []
    assert len(markups(desk, Tool.POSITIVE_POINT)) == len(markups(desk, Tool.NEGATIVE_POINT)) == 3


def test_the_tool_stays_for_more_points_and_ends_with_a_right_click(desk):
    desk.presenter.choose_tool(Tool.POSITIVE_POINT)
    for part in (FIRST, SECOND):
        desk.views.click("Red", at(desk, "Red", part))
        desk.wait()
        assert desk.panel.tool is Tool.POSITIVE_POINT
    desk.views.click("Red", at(desk, "Red", MIDDLE), "Right")
    desk.wait()
    assert desk.panel.tool is None
    desk.views.click("Red", at(desk, "Red", MIDDLE))
    desk.wait()
    assert len(desk.panel.points) == 2


def test_points_are_dragged_and_deleted_and_brought_back(desk):
    add_points(desk, "Red", FIRST, SECOND)
    add_points(desk, "Red", BESIDE, positive=False)
    before = desk.wait().panel.points
    desk.views.drag("Red", at(desk, "Red", SECOND), at(desk, "Red", MIDDLE))
    moved = desk.wait().panel.points
    assert [a == b for a, b in zip(before, moved, strict=True)] == [True, False, True]
    np.testing.assert_allclose(moved[1].position, desk.views.place("Red", at(desk, "Red", MIDDLE)), atol=0.3)
    desk.views.key("Red", at(desk, "Red", FIRST), "Delete")
    assert desk.wait().panel.points == moved[1:]
    desk.presenter.undo()
    assert desk.panel.points == moved
    desk.presenter.undo()
    assert desk.panel.points == before
    np.testing.assert_allclose(
        markups(desk, Tool.POSITIVE_POINT), [point.position for point in before[:2]], atol=1e-6
    )
    # Points that were brought back can be dragged like new ones.
    desk.views.drag("Red", at(desk, "Red", SECOND), at(desk, "Red", MIDDLE))
    np.testing.assert_allclose(desk.wait().panel.points[1].position, moved[1].position, atol=1e-3)
    assert desk.texts == []


def test_a_point_outside_is_refused_once_and_disappears(desk):
    add_points(desk, "Red", MIDDLE)
    desk.wait()
    desk.add_points("Red", (2, 2))
    desk.wait()
    assert len(desk.texts) == 1
    assert "outside the volume" in desk.texts[0]
    assert len(desk.panel.points) == len(markups(desk, Tool.POSITIVE_POINT)) == 1


def test_a_script_s_points_in_voxels_are_drawn_in_the_world(views, open_desk):
    desk = _desk(views, open_desk, "oblique flipped", "nested")
    desk.presenter.add_point(Point.from_ijk((7, 8, 5)))
    desk.wait()
    np.testing.assert_allclose(voxel(desk, markups(desk, Tool.POSITIVE_POINT)[0]), (7, 8, 5), atol=1e-6)


# ------------------------------------------------------------------------------------- live, cancel, others


def test_on_demand_nothing_is_segmented_before_segment_is_pressed(desk):
    settings = desk.presenter.settings
    desk.presenter.change_settings(type(settings)(live=False))
    draw_box(desk, "Red")
    add_points(desk, "Red", MIDDLE)
    desk.wait()
    assert desk.panel.state is State.DRAWING
    assert desk.segmenter.asked == []
    assert desk.preview is None
    desk.presenter.segment()
    desk.wait()
    assert desk.panel.state is State.PREVIEW
    assert len(desk.segmenter.asked) == 1
    assert desk.preview.any()


def test_live_every_finished_prompt_is_segmented(desk):
    draw_box(desk, "Red")
    desk.wait()
    add_points(desk, "Red", MIDDLE, BESIDE)
    desk.wait()
    boxes, points = zip(*((asked[0], len(asked[1])) for asked in desk.segmenter.asked), strict=True)
    assert all(box is not None for box in boxes)
    assert points[0] == 0
    assert points[-1] == 2


def test_points_go_on_while_the_mask_is_computed(desk):
    desk.segmenter.delay = 0.5
    draw_box(desk, "Red")
    assert desk.panel.state is State.RUNNING
    add_points(desk, "Red", MIDDLE)
    assert desk.panel.state is State.RUNNING
    desk.wait()
    assert desk.segmenter.asked[-1][1] == desk.panel.points
    assert len(desk.panel.points) == 1


def test_cancel_takes_back_what_was_drawn_since(desk):
    draw_box(desk, "Red")
    before, mask = desk.wait().panel, desk.preview
    desk.segmenter.delay = 30.0
    draw_box(desk, "Green")
    assert desk.can(Action.CANCEL)
    assert not desk.can(Action.ACCEPT)
    desk.presenter.cancel()
    assert desk.panel.state is State.PREVIEW
    assert desk.panel.box == before.box
    np.testing.assert_array_equal(desk.preview, mask)
    desk.segmenter.delay = 0.0
    desk.presenter.cancel()  # drops the unfinished bone
    assert desk.panel.state is State.READY
    assert desk.preview is None
    assert len(markups(desk, Tool.BOX)) == 0


def test_accepting_empties_the_views_and_a_click_then_corrects(desk):
    draw_box(desk, "Red")
    mask = desk.wait().preview
    desk.presenter.accept("left femur")
    np.testing.assert_array_equal(desk.segments["left femur"], mask)
    assert desk.preview is None
    assert desk.panel.box is None
    display = desk.view.store.segmentationNode.GetDisplayNode()
    segment = desk.panel.active_segment
    shown = display.GetSegmentOpacity2DFill(segment)
    assert shown > 0
    add_points(desk, "Red", MIDDLE, positive=False)
    desk.wait()
    assert desk.panel.correcting
    assert display.GetSegmentOpacity2DFill(segment) == 0  # the correction stands in for it
    assert desk.view.store.segments()[0].visible
    corrected = desk.preview
    assert 0 < corrected.sum() < mask.sum()
    np.testing.assert_array_equal(desk.segments["left femur"], mask)
    desk.presenter.accept()
    np.testing.assert_array_equal(desk.segments["left femur"], corrected)
    assert display.GetSegmentOpacity2DFill(segment) == shown


def test_the_user_s_own_markups_are_left_alone(desk):
    scene = desk.views.scene
    own = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "BoneSAM points on the bone")
    own.CreateDefaultDisplayNodes()
    own.AddControlPointWorld((1.0, 2.0, 3.0))
    desk.presenter.choose_tool(Tool.POSITIVE_POINT)
    desk.views.app.markups_logic.place_node(own)
    desk.pump()
    assert desk.panel.tool is None  # the mouse is used for something else now
    desk.views.click("Red", at(desk, "Red", MIDDLE))
    desk.wait()
    assert desk.panel.points == ()
    assert own.GetNumberOfControlPoints() == 2
    desk.close()
    assert own.GetScene() is scene
    assert own.GetNumberOfControlPoints() == 2


def test_the_volume_may_be_removed_while_it_is_segmented(desk):
    draw_box(desk, "Red")
    mask = desk.wait().preview
    desk.presenter.accept("tibia")
    desk.segmenter.delay = 0.3
    draw_box(desk, "Red", FIRST, BESIDE)
    assert desk.panel.state is State.RUNNING
    for view in desk.views.slices.values():
        view.set_background_volume_id(None)
    node = desk.volume_node
    desk.views.scene.RemoveNode(node)
    desk.pump()
    assert desk.panel.state is State.NO_VOLUME
    assert desk.preview is None
    assert len(desk.texts) == 1
    segmentation = desk.view.store.segmentationNode
    found = slicer.util.arrayFromSegmentInternalBinaryLabelmap(
        segmentation, segmentation.GetSegmentation().GetNthSegmentID(0)
    )
    assert np.count_nonzero(found) == mask.sum()


def test_nothing_stays_behind_but_the_accepted_segments(desk):
    scene = desk.views.scene
    draw_box(desk, "Red")
    desk.wait()
    for class_name in ("vtkMRMLMarkupsNode", "vtkMRMLSegmentationNode"):
        assert [node.GetSaveWithScene() for node in desk.views.nodes(class_name)] == [0]
    desk.presenter.accept()
    add_points(desk, "Red", MIDDLE)
    desk.wait()
    desk.presenter.choose_tool(Tool.BOX)
    desk.close()
    assert desk.views.nodes("vtkMRMLMarkupsNode") == []
    assert len(desk.views.nodes("vtkMRMLSegmentationNode")) == 1
    interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    shown = len(desk.panels)
    desk.views.click("Red", at(desk, "Red", MIDDLE))
    desk.pump()
    assert len(desk.panels) == shown


def test_slices_to_review_are_brought_into_view(desk):
    draw_box(desk, "Red")
    desk.wait()
    place = desk.panel.review[-1]
    desk.presenter.jump_to_review(place.index)
    axis = desk.panel.review_axis
    shown = [placed(desk, tag, at(desk, tag, MIDDLE))[0][axis] for tag in ORIENTATIONS]
    assert min(abs(value - place.index) for value in shown) < 0.01
