"""The rest of the panel: segments, results, settings, keys, messages, and the life of scene and module."""

import gc
import importlib
import inspect
import sys
import threading
import weakref

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import vtk
from PySide6 import QtCore, QtWidgets

from BoneSAMLib.panel import Action, State, Tool
from BoneSAMLib.prompts import Point
from BoneSAMLib.settings import Settings
from BoneSAMLib.terminology import bone_meaning
from Testing.panel import pythonqt
from Testing.panel.application import run_until
from Testing.slicer.scenes import add_volume, grid_transform

LOW, HIGH = (4, 4, 4), (12, 11, 8)
OTHER = ((14, 9, 4), (19, 14, 8))
BUTTONS = {
    "boxButton": Action.BOX,
    "sliceBoxButton": Action.BOX,
    "positivePointButton": Action.POSITIVE_POINT,
    "negativePointButton": Action.NEGATIVE_POINT,
    "textButton": Action.TEXT,
    "allBonesButton": Action.ALL_BONES,
    "segmentButton": Action.SEGMENT,
    "undoButton": Action.UNDO,
    "redoButton": Action.REDO,
    "acceptButton": Action.ACCEPT,
    "nextBoneButton": Action.NEXT_BONE,
    "cancelButton": Action.CANCEL,
    "addSegmentButton": Action.ADD_SEGMENT,
    "chooseWeightsButton": Action.MODEL,
}


def enabled(desk):
    return {name: pythonqt.unwrap(getattr(desk.ui, name)).isEnabled() for name in BUTTONS}


def check_buttons(desk):
    assert enabled(desk) == {name: action in desk.panel.enabled for name, action in BUTTONS.items()}


def accepted(desk, *names):
    """Bones that were segmented and accepted."""
    desk.open()
    for name, (low, high) in zip(names, ((LOW, HIGH), OTHER), strict=False):
        desk.drawBox(low, high)
        desk.answer()
        desk.ui.nameEdit.setText(name)
        desk.press("nextBoneButton")
    return desk


def test_buttons_are_enabled_as_the_presenter_says(desk):
    seen = []

    def look():
        check_buttons(desk)
        seen.append(tuple(enabled(desk).values()))

    look()
    desk.open()
    look()
    desk.drawBox(LOW, HIGH)
    look()
    desk.answer()
    look()
    desk.press("acceptButton")
    look()
    desk.press("nextBoneButton")
    look()
    assert len(set(seen)) == 5  # none, ready, running, preview, accepted; next bone is ready again


def test_on_demand(desk):
    desk.open()
    desk.press("liveCheckBox")
    assert not desk.panel.settings.live
    desk.drawBox(LOW, HIGH)
    assert desk.panel.state is State.DRAWING
    assert "Segment" in desk.ui.hintLabel.text
    desk.press("segmentButton")
    desk.answer()
    assert desk.panel.state is State.PREVIEW


def test_progress_and_cancel(desk):
    desk.open()
    desk.segmenter.delay = 20
    desk.press("allBonesButton")
    run_until(lambda: desk.ui.progressBar.value == 50)
    assert desk.ui.progressBar.format == "segmenting %p%"
    clock = QtCore.QElapsedTimer()
    clock.start()
    desk.press("cancelButton")
    assert clock.elapsed() < 500
    assert desk.panel.state is State.READY
    assert desk.ui.progressBar.value == 0
    assert desk.ui.progressBar.format == ""


def test_all_bones_become_segments(desk):
    desk.open()
    desk.press("allBonesButton")
    desk.answer()
    assert "3 bones" in desk.ui.resultLabel.text
    assert not pythonqt.unwrap(desk.ui.nameEdit).isEnabled()
    desk.press("acceptButton")
    assert desk.names() == ["Bone 1", "Bone 2", "Bone 3"]


def test_a_bone_is_found_by_its_name_or_said_to_be_elsewhere(desk):
    desk.open()
    desk.ui.textEdit.setText("left patella")
    desk.press("textButton")
    desk.answer()
    assert "does not show the left patella" in desk.message
    assert desk.panel.state is State.READY
    desk.ui.textEdit.setText("left femur")
    pythonqt.unwrap(desk.ui.textEdit).returnPressed.emit()
    assert desk.message is None
    desk.answer()
    assert desk.panel.box is not None  # as if it had been drawn
    desk.press("acceptButton")
    assert desk.names() == ["left femur"]


def test_confidence_and_slices_to_review(desk):
    desk.open()
    desk.drawBox(LOW, HIGH)
    desk.answer()
    assert desk.ui.confidenceBar.value == 90
    rows = [desk.panel.review[row] for row in range(len(desk.panel.review))]
    items = pythonqt.unwrap(desk.ui.reviewList)
    assert [items.item(row).text() for row in range(items.count())] == [
        f"Slice {place.index}: {round(100 * place.confidence)} % confident" for place in rows
    ]
    items.setCurrentRow(1)
    offset = desk.slice.GetSliceOffset()
    assert offset == pytest.approx(desk.places[rows[1].index, 0, 0, 2])
    items.setCurrentRow(0)
    assert desk.slice.GetSliceOffset() == pytest.approx(desk.places[rows[0].index, 0, 0, 2])
    desk.press("cancelButton")
    assert items.count() == 0
    assert desk.ui.confidenceBar.value == 0


def test_the_table_chooses_what_points_correct(desk):
    accepted(desk, "left femur", "left tibia")
    femur, tibia = (entry.identifier for entry in desk.panel.segments)
    desk.ui.segmentsTable.setSelectedSegmentIDs([femur])
    assert desk.panel.active_segment == femur
    assert "left femur" in desk.ui.hintLabel.text
    before = desk.voxels(desk.segmentation, 1)
    desk.press("negativePointButton")
    desk.click(5, 5, 6)
    desk.answer()
    desk.ui.segmentsTable.setSelectedSegmentIDs([tibia])  # not while a correction is unfinished
    assert desk.panel.active_segment == femur
    assert desk.ui.segmentsTable.selectedSegmentIDs() == [femur]
    desk.press("acceptButton")
    assert not desk.voxels(desk.segmentation, 0)[6, 5, 5]
    assert (desk.voxels(desk.segmentation, 1) == before).all()
    desk.press("removeSegmentButton")
    assert desk.names() == ["left tibia"]


def test_segments_changed_elsewhere_are_noticed(desk):
    accepted(desk, "left femur")
    segmentation = desk.segmentation.GetSegmentation()
    segment = segmentation.GetNthSegment(0)
    segment.SetName("right femur")
    segment.SetColor(0.1, 0.2, 0.3)
    desk.segmentation.GetDisplayNode().SetSegmentVisibility(segmentation.GetNthSegmentID(0), False)
    (entry,) = desk.panel.segments
    assert (entry.name, entry.color, entry.visible) == ("right femur", (0.1, 0.2, 0.3), False)
    segmentation.AddEmptySegment("", "mine")
    assert [entry.name for entry in desk.panel.segments] == ["right femur", "mine"]
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    assert [entry.name for entry in desk.panel.segments] == ["mine"]


def test_hand_editing_drops_the_correction_of_that_segment(desk):
    accepted(desk, "left femur")
    desk.ui.segmentsTable.setSelectedSegmentIDs([desk.panel.segments[0].identifier])
    desk.press("negativePointButton")
    desk.click(5, 5, 6)
    desk.answer()
    layer = desk.segmentation.GetBinaryLabelmapInternalRepresentation(desk.panel.active_segment)
    layer.GetPointData().GetScalars().SetTuple1(0, 1)
    layer.Modified()
    assert "edited by hand" in desk.message
    assert not desk.panel.correcting


def test_another_segmentation(desk):
    accepted(desk, "left femur")
    first = desk.segmentation
    other = desk.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
    other.CreateDefaultDisplayNodes()
    desk.ui.segmentationSelector.setCurrentNode(other)
    assert desk.panel.segments == ()
    desk.drawBox(LOW, HIGH)
    desk.answer()
    desk.press("acceptButton")
    assert other.GetSegmentation().GetNumberOfSegments() == 1
    assert first.GetSegmentation().GetNumberOfSegments() == 1
    desk.scene.RemoveNode(other)
    assert desk.panel.segments == ()
    assert desk.ui.segmentationSelector.currentNode() is None
    desk.ui.segmentationSelector.setCurrentNode(first)
    assert [entry.name for entry in desk.panel.segments] == ["left femur"]


def test_settings_go_to_the_scene_and_back(desk):
    desk.open()
    desk.press("depthAttentionCheckBox")
    for name in ("handEditingButton", "advancedButton"):
        pythonqt.unwrap(getattr(desk.ui, name)).click()
    desk.press("keepInsideCheckBox")
    desk.press("removeIslandsCheckBox")
    desk.ui.smoothingSlider.setValue(1.5)
    expected = Settings(depth_attention=False, keep_inside=True, remove_small_islands=True, smoothing_mm=1.5)
    assert desk.panel.settings == expected
    node = desk.scene.GetSingletonNode("BoneSAM", "vtkMRMLScriptedModuleNode")
    assert node.GetParameter("smoothing_mm") == "1.5"
    node.SetParameter("smoothing_mm", "0.5")
    node.SetParameter("live", "false")
    desk.scene.InvokeEvent(desk.scene.EndImportEvent)
    assert desk.ui.smoothingSlider.value == 0.5
    assert not desk.ui.liveCheckBox.checked
    desk.scene.Clear()
    assert desk.panel.settings.smoothing_mm == 0.5
    assert desk.scene.GetSingletonNode("BoneSAM", "vtkMRMLScriptedModuleNode").GetParameter("live") == "false"


def test_weights_and_device(desk, monkeypatch, tmp_path):
    desk.open()
    chosen = [str(tmp_path / "mine"), "missing", "", str(tmp_path / "mine")]
    monkeypatch.setattr(QtWidgets.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: chosen.pop(0)))
    desk.press("chooseWeightsButton")
    desk.answer()
    assert desk.panel.settings.weights == str(tmp_path / "mine")
    assert desk.ui.weightsLabel.text == "mine"
    desk.press("chooseWeightsButton")
    desk.answer()
    assert desk.message == "There are no weights in 'missing'."
    assert desk.ui.weightsLabel.text == "mine"
    desk.press("chooseWeightsButton")  # the dialog was cancelled
    assert desk.panel.settings.weights == str(tmp_path / "mine")
    loads = len(desk.segmenter.loads)
    desk.press("chooseWeightsButton")  # trained further, to the same folder
    desk.answer()
    assert len(desk.segmenter.loads) == loads + 1
    desk.press("bundledWeightsButton")
    desk.answer()
    assert desk.panel.settings.weights == ""
    pythonqt.unwrap(desk.ui.deviceBox).activated.emit(2)
    desk.answer()
    assert desk.panel.settings.device == "cuda"
    assert desk.ui.deviceBox.currentIndex == 2


def test_second_sequence_lies_over_the_first(desk):
    composite = desk.scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    desk.open()
    assert composite.GetBackgroundVolumeID() == desk.volume.GetID()
    second = add_volume(desk.scene, "axis-aligned")
    desk.ui.secondVolumeSelector.setCurrentNode(second)
    assert composite.GetForegroundVolumeID() == second.GetID()
    desk.ui.secondOpacitySlider.setValue(0.25)
    assert composite.GetForegroundOpacity() == 0.25
    desk.scene.RemoveNode(second)
    assert not composite.GetForegroundVolumeID()
    assert desk.panel.settings.second_volume == ""
    other = add_volume(desk.scene, "axis-aligned")
    composite.SetForegroundVolumeID(other.GetID())  # what the user has put there
    desk.press("liveCheckBox")
    assert composite.GetForegroundVolumeID() == other.GetID()


def test_masks_are_computed_from_both_sequences(desk):
    desk.open()
    second = add_volume(desk.scene, "axis-aligned")
    second.SetName("T2")
    desk.ui.secondVolumeSelector.setCurrentNode(second)
    desk.drawBox(LOW, HIGH)
    desk.answer()
    assert [volume.name for volume in desk.segmenter.others[-1]] == ["T2"]
    assert desk.segmenter.fusions[-1] == "average"
    pythonqt.unwrap(desk.ui.fusionBox).activated.emit(1)
    desk.answer()
    assert desk.segmenter.fusions[-1] == "maximum"
    assert desk.ui.fusionBox.currentIndex == 1
    desk.ui.secondVolumeSelector.setCurrentNode(None)
    desk.answer()
    assert desk.segmenter.others[-1] == []
    assert desk.panel.state is State.PREVIEW


def test_a_sequence_of_another_place_is_refused_and_does_not_look_chosen(desk):
    desk.open()
    far = add_volume(desk.scene, "axis-aligned")
    far.SetOrigin(900, 900, 900)
    desk.ui.secondVolumeSelector.setCurrentNode(far)
    assert "do not overlap" in desk.message
    assert desk.panel.settings.second_volume == ""
    assert desk.ui.secondVolumeSelector.currentNode() is None
    desk.ui.secondVolumeSelector.setCurrentNode(desk.volume)
    assert "the volume itself" in desk.message
    assert desk.ui.secondVolumeSelector.currentNode() is None


def test_a_sequence_is_looked_at_where_its_transform_puts_it(desk):
    desk.open()
    second = add_volume(desk.scene, "axis-aligned")
    second.SetOrigin(900, 900, 900)
    transform = desk.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    back = vtk.vtkMatrix4x4()
    for row, value in enumerate(desk.volume.GetOrigin()):
        back.SetElement(row, 3, value - 900)
    transform.SetMatrixTransformToParent(back)
    second.SetAndObserveTransformNodeID(transform.GetID())
    desk.ui.secondVolumeSelector.setCurrentNode(second)
    assert desk.message is None
    desk.drawBox(LOW, HIGH)
    desk.answer()
    (other,) = desk.segmenter.others[-1]
    assert np.allclose(other.ijk_to_ras, desk.presenter.volume.ijk_to_ras)


@pytest.mark.parametrize("kind", ["warped", "4D"])
def test_a_volume_that_cannot_be_segmented_leaves_everything_as_it_was(desk, kind):
    desk.open()
    desk.drawBox(LOW, HIGH)
    desk.answer()
    panel = desk.panel
    bad = add_volume(desk.scene, "axis-aligned")
    if kind == "warped":
        bad.SetAndObserveTransformNodeID(grid_transform(desk.scene).GetID())
    else:
        image = vtk.vtkImageData()
        image.SetDimensions(4, 4, 4)
        image.AllocateScalars(vtk.VTK_SHORT, 2)
        bad.SetAndObserveImageData(image)
    desk.ui.volumeSelector.setCurrentNode(bad)
    assert ("harden" if kind == "warped" else "4D") in desk.message
    assert desk.panel == panel
    assert desk.ui.volumeSelector.currentNode() is desk.volume


def test_read_only_segmentation(desk):
    accepted(desk, "left femur")
    desk.segmentation.GetSegmentation().SetSourceRepresentationName("Closed surface")
    desk.drawBox(*OTHER)
    desk.answer()
    desk.press("acceptButton")
    assert "surfaces" in desk.message
    assert desk.panel.state is State.PREVIEW
    assert desk.names() == ["left femur"]


# Keys.


def test_keys_work_while_the_module_is_shown(desk):
    desk.open()
    desk.key(QtCore.Qt.Key_B)
    assert desk.panel.tool is Tool.BOX
    desk.click(*LOW[:2], 6)
    desk.click(*HIGH[:2], 6)
    desk.answer()
    desk.key(QtCore.Qt.Key_P)
    assert desk.panel.tool is Tool.POSITIVE_POINT
    desk.click(14, 8, 6)
    desk.answer()
    desk.key(QtCore.Qt.Key_Z, QtCore.Qt.ControlModifier)
    assert desk.panel.points == ()
    desk.key(QtCore.Qt.Key_A)
    assert desk.names() == ["Bone 1"]
    desk.view.exit()
    desk.key(QtCore.Qt.Key_N)
    assert desk.panel.tool is None
    desk.view.enter()
    desk.key(QtCore.Qt.Key_N)
    assert desk.panel.tool is Tool.NEGATIVE_POINT


def test_every_key_is_in_the_tooltip_of_its_button_and_there_once(desk):
    from BoneSAMPanel.shortcuts import KEYS

    keys = [key for several in KEYS.values() for key in several]
    assert len(keys) == len(set(keys))
    for name, several in KEYS.items():
        assert getattr(desk.ui, name).toolTip.endswith(f"({', '.join(several)})")


def test_segment_editor_gets_the_keys_while_it_is_open(desk):
    desk.open()
    desk.press("positivePointButton")
    section = pythonqt.unwrap(desk.ui.handEditingButton)
    section.click()
    editor = pythonqt.unwrap(desk.ui.segmentEditor)
    assert desk.placed is None
    assert editor._calls[-1] == "keys"
    desk.key(QtCore.Qt.Key_B)
    assert desk.panel.tool is None
    section.click()
    assert {("effect", None), "no keys", "no views"} <= set(editor._calls)
    desk.key(QtCore.Qt.Key_B)
    assert desk.panel.tool is Tool.BOX


def test_segment_editor_edits_what_the_panel_shows_and_can_undo_a_bone(desk):
    accepted(desk, "left femur", "left tibia")
    editor = pythonqt.unwrap(desk.ui.segmentEditor)
    assert editor.segmentationNode() is desk.segmentation
    assert editor.sourceVolumeNode() is desk.volume
    assert [call for call in editor._calls if call[0] == "saved"] == [("saved", 0), ("saved", 1)]
    assert editor.mrmlSegmentEditorNode().GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone


# Life of scene and module.


def test_closing_the_scene_while_running(desk):
    accepted(desk, "left femur")
    desk.segmenter.delay = 20
    desk.drawBox(*OTHER)
    run_until(lambda: desk.segmenter.started.is_set())
    desk.scene.Clear()
    assert desk.panel.state is State.NO_VOLUME
    assert desk.ui.volumeSelector.currentNode() is None
    desk.segmenter.delay = 0
    desk.slice = desk.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    accepted(desk, "left tibia")
    assert desk.names() == ["left tibia"]


def test_what_one_bone_gains_is_not_taken_from_its_neighbor(desk):
    """Neither before nor after closing a scene, which resets Segment Editor's masking."""
    for _ in range(2):
        accepted(desk, "left femur")
        before = desk.voxels(desk.segmentation)
        desk.drawBox((8, 8, 4), (19, 14, 8))
        desk.answer()
        desk.press("acceptButton")
        assert (desk.voxels(desk.segmentation) == before).all()
        assert (desk.voxels(desk.segmentation, 1) & before).any()
        desk.scene.Clear()


def test_removing_the_volume_while_running(desk):
    accepted(desk, "left femur")
    mask = desk.voxels(desk.segmentation)
    desk.segmenter.delay = 20
    desk.drawBox(*OTHER)
    run_until(lambda: desk.segmenter.started.is_set())
    desk.scene.RemoveNode(desk.volume)
    assert desk.panel.state is State.NO_VOLUME
    assert "removed" in desk.message
    assert desk.names() == ["left femur"]
    desk.scene.AddNode(desk.volume)
    assert (desk.voxels(desk.segmentation) == mask).all()


def test_the_volume_is_changed_or_moved(desk):
    desk.open()
    desk.drawBox(LOW, HIGH)
    desk.answer()
    opened = len(desk.segmenter.opened)
    slicer.util.arrayFromVolume(desk.volume)[:] += 1
    slicer.util.arrayFromVolumeModified(desk.volume)
    desk.press("positivePointButton")
    desk.click(14, 8, 6)
    desk.answer()
    assert len(desk.segmenter.opened) == opened + 1  # not the embeddings of before
    desk.volume.SetOrigin(100, 100, 100)
    assert "moved" in desk.message
    assert desk.panel.box is None
    assert desk.node("BoneSAM box").GetNumberOfControlPoints() == 0


def test_leaving_the_module_while_running(desk):
    desk.open()
    desk.segmenter.delay = 0.3
    desk.drawBox(LOW, HIGH)
    desk.press("positivePointButton")
    desk.view.exit()
    assert desk.placed is None
    desk.answer()
    assert desk.panel.state is State.PREVIEW
    desk.view.enter()
    desk.press("acceptButton")
    assert desk.names() == ["Bone 1"]


def test_entering_takes_the_volume_that_is_shown(desk):
    volume = add_volume(desk.scene, "axis-aligned")
    desk.application.logic.GetSelectionNode().SetActiveVolumeID(volume.GetID())
    desk.view.exit()
    desk.view.enter()
    assert desk.presenter.source.volumeNode is volume


def test_closing_the_module_leaves_segments_and_nothing_else(desk):
    accepted(desk, "left femur")
    desk.drawBox(*OTHER)
    desk.answer()
    desk.press("positivePointButton")
    desk.segmenter.delay = 20
    desk.click(14, 8, 6)
    run_until(lambda: desk.panel.progress is not None)
    desk.view.exit()
    desk.view.close()
    threads = [thread for thread in threading.enumerate() if thread.name == "BoneSAM"]
    for thread in threads:
        thread.join(2)
    assert not [thread for thread in threads if thread.is_alive()]
    assert [desk.node(f"BoneSAM {name}") for name in ("preview", "box", "points on the bone")] == [None] * 3
    assert desk.names() == ["left femur"]
    before = desk.panel
    desk.volume.Modified()
    desk.segmentation.GetSegmentation().AddEmptySegment("", "mine")
    add_volume(desk.scene, "axis-aligned")
    desk.scene.InvokeEvent(desk.scene.EndImportEvent)
    assert desk.panel == before


def test_answers_come_on_the_main_thread_and_not_after_closing(application, scene):
    from BoneSAMPanel.main_thread import MainThread

    main = MainThread(application.logic)
    calls = []

    def fail():
        raise ValueError("one call fails, the next is still made")

    def post():
        for call in (lambda: calls.append(threading.current_thread()), fail, lambda: calls.append("last")):
            main.post(call)

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    assert calls == []
    run_until(lambda: "last" in calls)
    assert calls == [threading.main_thread(), "last"]
    main.post(lambda: calls.append("too late"))
    main.close()
    gc.collect()
    QtWidgets.QApplication.processEvents()
    assert len(calls) == 2


def test_slicer_takes_the_request_for_the_main_thread(application):
    asked = []
    logic = application.logic._logic
    tag = logic.AddObserver(logic.RequestInvokeEvent, lambda *_: asked.append(True))
    logic.InvokeEventWithDelay(0, vtk.vtkObject(), int(vtk.vtkCommand.UserEvent))
    logic.RemoveObserver(tag)
    assert asked == [True]


# BoneSAM.py itself.


@pytest.fixture
def module(application, scene):
    sys.modules.pop("BoneSAM", None)
    return importlib.import_module("BoneSAM")


def test_the_widget_makes_shows_and_ends_its_panel(module, scene):
    widget = module.BoneSAMWidget()
    widget.setup()
    widget.enter()
    volume = add_volume(scene, "axis-aligned")
    widget.ui.volumeSelector.setCurrentNode(volume)
    assert widget.presenter.panel.state is State.READY
    widget.exit()
    presenter = weakref.proxy(widget.presenter)
    widget.cleanup()
    assert presenter.panel.state is State.CLOSED
    from Testing.panel.slicer_widgets import release

    release(widget.window)
    widget.cleanup()  # 3D Slicer may do it again when it ends
    widget.exit()


def test_the_module_tells_what_it_is(module):
    from types import SimpleNamespace

    parent = SimpleNamespace()
    module.BoneSAM(parent)
    assert parent.title == "BoneSAM"
    assert parent.categories == ["Segmentation"]
    assert "box" in parent.helpText
    assert parent.acknowledgementText


def test_the_logic_hands_on_everything(module, monkeypatch):
    import BoneSAMLib.node_segmentation as library

    logic, caches = module.BoneSAMLogic(), set()
    for name in ("segment", "segmentMany", "segmentAll"):
        given = {}

        def keep(*values, given=given, **named):
            given.update(values=values, named=named)

        monkeypatch.setattr(library, name, keep)
        parameters = [
            parameter
            for parameter in inspect.signature(getattr(module.BoneSAMLogic, name)).parameters.values()
            if parameter.name not in ("self", "options")
        ]
        values = [object() for _ in parameters]
        getattr(logic, name)(*values, weights="mine")
        assert list(given["values"]) == values
        assert given["named"]["weights"] == "mine"
        caches.add(given["named"]["cache"])
    assert len(caches) == 1  # one network for all calls


def test_the_logic_takes_what_the_library_takes(module):
    from BoneSAMLib import node_segmentation

    for name in ("segment", "segmentMany", "segmentAll"):
        library = list(inspect.signature(getattr(node_segmentation, name)).parameters.values())
        logic = list(inspect.signature(getattr(module.BoneSAMLogic, name)).parameters.values())[1:-1]
        assert [(one.name, one.default) for one in logic] == [
            (one.name, one.default) for one in library[: len(logic)]
        ]


def test_no_work_at_start_up():
    """3D Slicer reads this file whenever it starts: nothing but its own parts may be imported there."""
    import ast

    from Testing.panel.application import MODULE

    tree = ast.parse((MODULE / "BoneSAM.py").read_text(encoding="utf-8"))
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name)
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names == {"sys", "pathlib", "slicer", "slicer.i18n", "slicer.ScriptedLoadableModule"}


def test_prompts_outside_are_said_once(desk):
    desk.open()
    desk.presenter.add_point(Point.from_ras((900, 900, 900)))
    assert "outside" in desk.message
    desk.press("messageCloseButton")
    assert desk.message is None
    assert desk.panel.points == ()


def test_a_name_goes_with_the_bone_that_it_was_typed_for(desk):
    desk.open()
    desk.drawBox(LOW, HIGH)
    desk.answer()
    desk.ui.nameEdit.setText("left femur")
    desk.press("cancelButton")
    assert desk.ui.nameEdit.text == ""
    desk.drawBox(LOW, HIGH)
    desk.answer()
    desk.ui.nameEdit.setText("left femur")
    desk.ui.volumeSelector.setCurrentNode(add_volume(desk.scene, "oblique"))
    assert desk.ui.nameEdit.text == ""


def test_an_accepted_segment_gets_another_name_its_code_and_color(desk):
    accepted(desk, "patella")
    desk.drawBox(*OTHER)
    desk.answer()
    desk.press("acceptButton")
    desk.ui.nameEdit.setText("left femur")
    pythonqt.unwrap(desk.ui.nameEdit).returnPressed.emit()
    assert desk.names() == ["patella", "left femur"]
    segment = desk.segmentation.GetSegmentation().GetNthSegment(1)
    assert "Left" in segment.GetTerminology()
    assert segment.GetColor() == pytest.approx(bone_meaning("left femur").color, abs=1e-6)
    assert desk.ui.nameEdit.text == ""


def test_a_device_that_was_refused_is_not_chosen(desk):
    desk.open()
    desk.segmenter.refused = ("cuda",)
    box = pythonqt.unwrap(desk.ui.deviceBox)
    box.setCurrentIndex(2)
    box.activated.emit(2)
    desk.answer()
    assert desk.panel.settings.device == "auto"
    assert desk.ui.deviceBox.currentIndex == 0


def test_bones_of_another_scan_are_said_to_go_into_this_segmentation(desk):
    accepted(desk, "patella")
    desk.ui.volumeSelector.setCurrentNode(add_volume(desk.scene, "oblique"))
    assert "which was made for another volume" in desk.message
