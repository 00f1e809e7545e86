"""Box and points in the views drive a real presenter on a real scene, its worker thread included."""

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import vtk

from BoneSAMLib.mrml import boxFromRoi
from BoneSAMLib.panel import State, Tool
from BoneSAMLib.prompts import Point
from Testing.panel import pythonqt
from Testing.panel.desk import settle
from Testing.slicer.scenes import GEOMETRIES, PARENTS, add_roi, grid_transform, parent_of

LOW, HIGH = (4, 4, 4), (12, 11, 8)
OTHER = ((14, 9, 4), (19, 14, 8))


def drawn(desk):
    desk.open()
    desk.drawBox(LOW, HIGH)
    desk.answer()
    return desk


def test_box_click_accept(desk):
    desk.open()
    desk.press("boxButton")
    assert desk.panel.tool is Tool.BOX
    assert desk.placed is desk.node("BoneSAM box")
    desk.click(*LOW[:2], 6)
    assert desk.panel.box is None
    desk.click(*HIGH[:2], 6)
    assert desk.placed is None
    assert not desk.ui.boxButton.checked
    desk.answer()
    assert desk.panel.state is State.PREVIEW
    preview = desk.node("BoneSAM preview")
    mask = desk.voxels(preview)
    found = np.argwhere(mask)[:, ::-1]
    assert tuple(found.min(0)[:2]) == LOW[:2]
    assert tuple(found.max(0)[:2]) == HIGH[:2]
    desk.ui.nameEdit.setText("left femur")
    desk.press("acceptButton")
    assert desk.names() == ["left femur"]
    assert (desk.voxels(desk.segmentation) == mask).all()
    assert desk.node("BoneSAM preview") is None
    assert desk.node("BoneSAM box").GetNumberOfControlPoints() == 0
    assert desk.ui.nameEdit.text == ""
    assert desk.ui.segmentationSelector.currentNode() is desk.segmentation


def test_a_box_is_taken_once_and_even_if_its_second_corner_is_not_told(desk):
    """A region frees the second corner while it is added, and then looks there whether it was placed."""
    desk.open()
    desk.press("boxButton")
    desk.click(*LOW[:2], 6)
    node = desk.placed

    def keep_from_others(*_):
        node.GetCommand(tag).AbortFlagOn()

    tag = node.AddObserver(node.PointPositionDefinedEvent, keep_from_others, 100.0)
    desk.click(*HIGH[:2], 6)
    node.RemoveObserver(tag)
    desk.answer()
    assert desk.panel.state is State.PREVIEW
    assert desk.panel.box.to_ijk(desk.presenter.volume)[1][:2] == HIGH[:2]
    assert len(desk.segmenter.asked) == 1


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_box_stands_along_the_slices_of_the_volume(desk, geometry, parent):
    desk.open(geometry, parent)
    desk.press("boxButton")
    desk.click(5, 4, 6)
    desk.click(14, 11, 6)
    desk.answer()
    low, high = desk.panel.box.to_ijk(desk.presenter.volume)
    assert (low[:2], high[:2]) == ((5, 4), (14, 11))


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_slice_box_is_flat_along_the_normal_of_its_view(desk, geometry, parent):
    desk.open(geometry, parent)
    desk.slice.RotateToVolumePlane(desk.volume)
    normal = slicer.util.arrayFromVTKMatrix(desk.slice.GetSliceToRAS())[:3, 2]
    columns = desk.presenter.volume.ijk_to_ras[:3, :3]
    across = int(np.argmax(abs(normal @ (columns / np.linalg.norm(columns, axis=0)))))
    corners = [[5, 4, 3], [13, 11, 10]]
    corners[1][across] = corners[0][across]
    desk.press("sliceBoxButton")
    for corner in corners:
        desk.click(*corner)
    desk.answer()
    low, high = desk.panel.box.to_ijk(desk.presenter.volume)
    assert (list(low), list(high)) == tuple(corners)
    roi = desk.node("BoneSAM box")
    assert min(roi.GetSize()) <= np.linalg.norm(columns, axis=0)[across]

    def pull():
        size = np.array(roi.GetSize())
        size[np.argmin(size)] *= 8
        roi.SetSize(*size)

    desk.drag(roi, pull)
    desk.answer()
    low, high = desk.panel.box.to_ijk(desk.presenter.volume)
    assert high[across] > low[across]


def region(desk, low, high, turned=0.0, parent="none"):
    """A region of the user's own around voxels of the volume, turned about its middle by so many degrees."""
    node = add_roi(desk.scene, (0, 0, 0), (1, 1, 1))
    transform = parent_of(desk.scene, parent, 20)
    if transform is not None:
        node.SetAndObserveTransformNodeID(transform.GetID())
    middle = (np.array(desk.place(*low)) + desk.place(*high)) / 2
    turn = vtk.vtkTransform()
    turn.Translate(middle)
    turn.RotateWXYZ(turned, 1, 2, 3)
    to_node = vtk.vtkMatrix4x4()
    if transform is not None:
        transform.GetMatrixTransformFromWorld(to_node)
    placed = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Multiply4x4(to_node, turn.GetMatrix(), placed)
    node.SetAndObserveObjectToNodeMatrix(placed)
    node.SetSize(*np.abs(np.subtract(desk.place(*high), desk.place(*low))))
    return node


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("turned", [0.0, 25.0])
def test_the_box_of_an_existing_region(desk, turned, parent):
    desk.open()
    node = region(desk, LOW, HIGH, turned, parent)
    before = (node.GetSize(), slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix()))
    desk.ui.regionSelector.setCurrentNode(node)
    desk.answer()
    assert desk.panel.state is State.PREVIEW
    assert desk.message is None
    shown = desk.node("BoneSAM box")
    assert shown is not node
    assert np.allclose(slicer.util.arrayFromVTKMatrix(shown.GetObjectToWorldMatrix()), before[1], atol=1e-6)
    assert np.allclose(shown.GetSize(), before[0])
    assert desk.panel.box.to_ijk(desk.presenter.volume) == boxFromRoi(node, desk.volume).to_ijk(
        desk.presenter.volume
    )
    if not turned:
        assert desk.panel.box.to_ijk(desk.presenter.volume) == (LOW, HIGH)
    # It is the user's: neither a drag of the box nor accepting changes it.
    desk.drag(shown, lambda: shown.SetSize(4, 4, 4))
    desk.answer()
    desk.press("acceptButton")
    assert node.GetScene() is desk.scene
    assert node.GetSize() == before[0]
    assert (slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix()) == before[1]).all()


def test_a_region_is_taken_again_once_it_was_changed(desk):
    desk.open()
    node = region(desk, LOW, HIGH)
    desk.press("boxButton")
    desk.ui.regionSelector.setCurrentNode(node)
    desk.answer()
    assert desk.ui.regionSelector.currentNode() is None
    assert desk.placed is None  # instead of drawing one
    box = desk.panel.box
    node.SetSize(3, 3, 3)
    assert desk.panel.box == box  # taken, not followed
    desk.ui.regionSelector.setCurrentNode(node)
    desk.answer()
    assert desk.panel.box != box
    desk.press("undoButton")
    assert desk.panel.box == box


def test_only_regions_of_the_user_are_offered(desk):
    drawn(desk)
    combo = pythonqt.unwrap(desk.ui.regionSelector)._box
    assert [combo.itemText(n) for n in range(combo.count())] == ["Box from an existing ROI..."]
    region(desk, LOW, HIGH)
    assert [combo.itemText(n) for n in range(combo.count())][1:] == ["Region"]
    assert desk.ui.regionSelector.currentNode() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda desk, node: node.SetCenter(900, 900, 900), "outside"),
        (lambda desk, node: node.SetSize(0, 0, 0), "no size"),
        (lambda desk, node: node.SetAndObserveTransformNodeID(grid_transform(desk.scene).GetID()), "harden"),
    ],
    ids=["outside", "empty", "warped"],
)
def test_a_region_that_cannot_be_used_is_said_and_changes_nothing(desk, change, words):
    drawn(desk)
    panel, node = desk.panel, region(desk, *OTHER)
    change(desk, node)
    desk.ui.regionSelector.setCurrentNode(node)
    desk.answer()
    assert words in desk.message
    assert desk.panel == panel
    assert desk.ui.regionSelector.currentNode() is None


def test_no_region_replaces_an_accepted_bone_that_is_corrected(desk):
    drawn(desk)
    desk.press("acceptButton")
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.escape()
    desk.answer()
    assert desk.panel.correcting
    assert not pythonqt.unwrap(desk.ui.regionSelector).isEnabled()
    box = desk.panel.box
    desk.ui.regionSelector.setCurrentNode(region(desk, *OTHER))
    assert desk.panel.box == box
    assert desk.panel.correcting


def test_a_dragged_box_is_taken_when_let_go(desk):
    drawn(desk)
    roi, box = desk.node("BoneSAM box"), desk.panel.box
    roi.InvokeEvent(roi.PointStartInteractionEvent)
    roi.SetSize(2, 3, 3)
    desk.presenter.refresh()  # as progress of something does
    assert roi.GetSize() == (2, 3, 3)
    assert desk.panel.box == box
    roi.InvokeEvent(roi.PointEndInteractionEvent)
    settle()
    assert desk.panel.box != box
    desk.answer()
    desk.press("undoButton")
    assert desk.panel.box == box
    assert np.allclose(roi.GetSize(), np.subtract(box.high, box.low))
    assert np.allclose(slicer.util.arrayFromVTKMatrix(roi.GetObjectToWorldMatrix()), box.matrix)


def test_escape_keeps_the_box_before(desk):
    drawn(desk)
    box = desk.panel.box
    desk.press("boxButton")
    assert desk.node("BoneSAM box").GetNumberOfControlPoints() == 0
    desk.click(1, 1, 6)
    desk.escape()
    assert desk.panel.tool is None
    assert desk.panel.box == box
    assert np.allclose(desk.node("BoneSAM box").GetSize(), np.subtract(box.high, box.low))


def test_pressing_the_tool_again_puts_it_down(desk):
    desk.open()
    for button in ("boxButton", "sliceBoxButton", "positivePointButton", "negativePointButton"):
        desk.press(button)
        assert getattr(desk.ui, button).checked
        assert desk.placed is not None
        desk.press(button)
        assert not getattr(desk.ui, button).checked
        assert desk.placed is None


def test_only_one_tool_looks_pressed(desk):
    desk.open()
    buttons = ("boxButton", "sliceBoxButton", "positivePointButton", "negativePointButton")
    for pressed in buttons:
        desk.press(pressed)
        assert [getattr(desk.ui, button).checked for button in buttons] == [
            name == pressed for name in buttons
        ]


def test_points_are_placed_until_escape(desk):
    drawn(desk)
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.click(15, 8, 6)
    desk.answer()
    desk.press("negativePointButton")
    desk.click(5, 5, 5)
    desk.answer()
    expected = [(14, 8, 6, True), (15, 8, 6, True), (5, 5, 5, False)]
    assert desk.panel.points == tuple(Point.from_ras(desk.place(i, j, k), sign) for i, j, k, sign in expected)
    desk.escape()
    assert desk.panel.tool is None
    assert not desk.ui.negativePointButton.checked
    assert not desk.voxels(desk.node("BoneSAM preview"))[5, 5, 5]
    assert desk.voxels(desk.node("BoneSAM preview"))[6, 8, 15]


def test_undo_and_redo_of_points_while_placing(desk):
    drawn(desk)
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.click(15, 8, 6)
    desk.answer()
    node = desk.node("BoneSAM points on the bone")
    desk.press("undoButton")
    assert node.GetNumberOfControlPoints() == 1
    assert desk.placed is node
    desk.answer()
    desk.press("redoButton")
    desk.answer()
    assert node.GetNumberOfControlPoints() == 2
    desk.click(16, 8, 6)
    desk.answer()
    assert len(desk.panel.points) == 3


def test_moved_and_deleted_points(desk):
    drawn(desk)
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.click(15, 8, 6)
    desk.escape()
    desk.answer()
    node = desk.node("BoneSAM points on the bone")
    node.InvokeEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPositionWorld(0, desk.place(16, 9, 6))
    desk.presenter.refresh()
    assert desk.panel.points[0] == Point.from_ras(desk.place(14, 8, 6))
    node.InvokeEvent(node.PointEndInteractionEvent)
    settle()
    assert desk.panel.points[0] == Point.from_ras(desk.place(16, 9, 6))
    desk.answer()
    node.RemoveNthControlPoint(0)
    desk.answer()
    assert desk.panel.points == (Point.from_ras(desk.place(15, 8, 6)),)


def test_what_lies_outside_is_refused_and_vanishes(desk):
    drawn(desk)
    box = desk.panel.box
    desk.press("positivePointButton")
    node = desk.placed
    node.AddControlPointWorld([900, 900, 900])
    settle()
    assert "outside" in desk.message
    assert node.GetNumberOfControlPoints() == 0
    assert desk.panel.points == ()
    desk.escape()
    roi = desk.node("BoneSAM box")
    desk.drag(roi, lambda: roi.SetCenter(900, 900, 900))
    assert "outside" in desk.message
    assert desk.panel.box == box
    assert np.allclose(roi.GetCenter(), np.add(box.low, box.high) / 2 + box.matrix[:3, 3])
    desk.press("cancelButton")
    assert desk.message is None


def test_prompts_whose_markups_are_deleted_are_taken_back(desk):
    drawn(desk)
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.click(15, 8, 6)
    desk.right_click()
    desk.answer()
    desk.scene.RemoveNode(desk.node("BoneSAM points on the bone"))
    desk.answer()
    assert desk.panel.points == ()
    desk.scene.RemoveNode(desk.node("BoneSAM box"))
    desk.answer()
    assert desk.panel.box is None
    desk.press("undoButton")
    desk.answer()
    assert desk.node("BoneSAM box") is not None
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.answer()
    assert len(desk.panel.points) == 1


def test_markups_of_others_are_left_alone(desk):
    own = desk.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "BoneSAM box")
    own.SetSize(1, 2, 3)
    points = desk.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Mine")
    points.AddControlPointWorld([1, 2, 3])
    drawn(desk)
    desk.press("cancelButton")
    desk.scene.RemoveNode(desk.volume)
    assert own.GetScene() is desk.scene
    assert own.GetSize() == (1, 2, 3)
    assert points.GetNumberOfControlPoints() == 1


def test_nothing_of_the_panels_own_is_listed_or_saved(desk):
    drawn(desk)
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.answer()
    for name in ("BoneSAM box", "BoneSAM points on the bone", "BoneSAM preview"):
        node = desk.node(name)
        assert node.GetHideFromEditors()
        assert not node.GetSaveWithScene()
        assert not node.GetDisplayNode().GetSaveWithScene()


def test_a_correction_hides_what_it_corrects_but_not_in_what_is_saved(desk):
    drawn(desk)
    desk.press("acceptButton")
    identifier = desk.panel.active_segment
    display = desk.segmentation.GetDisplayNode()
    display.SetSegmentOpacity2DFill(identifier, 0.7)  # the user's own choice
    desk.press("negativePointButton")
    desk.click(5, 5, 6)
    desk.answer()
    assert desk.panel.correcting
    assert display.GetSegmentOpacity2DFill(identifier) == 0
    assert display.GetSegmentVisibility(identifier)
    desk.scene.InvokeEvent(desk.scene.StartSaveEvent)
    assert display.GetSegmentOpacity2DFill(identifier) == 0.7
    desk.scene.InvokeEvent(desk.scene.EndSaveEvent)
    assert display.GetSegmentOpacity2DFill(identifier) == 0
    desk.press("acceptButton")
    assert display.GetSegmentOpacity2DFill(identifier) == 0.7
    assert display.GetSegmentOpacity2DOutline(identifier) == 1
    assert not desk.voxels(desk.segmentation)[6, 5, 5]


def test_locked_while_every_bone_is_found(desk):
    drawn(desk)
    desk.segmenter.delay = 5
    desk.press("allBonesButton")
    assert desk.node("BoneSAM box").GetLocked()
    assert not pythonqt.unwrap(desk.ui.boxButton).isEnabled()
    desk.press("cancelButton")
    assert not desk.node("BoneSAM box").GetLocked()
