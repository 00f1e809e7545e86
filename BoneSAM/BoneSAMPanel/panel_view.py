"""The panel's widgets: they show a `Panel`, and hand on what the user does to the presenter."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.panel import Action, Message, Panel, State, Tool, Work
from BoneSAMLib.presenter import Presenter

__all__ = ["PanelView"]

_ICONS = {
    "boxButton": "Box",
    "sliceBoxButton": "SliceBox",
    "positivePointButton": "PositivePoint",
    "negativePointButton": "NegativePoint",
    "textButton": "Text",
    "allBonesButton": "AllBones",
    "segmentButton": "Segment",
    "undoButton": "Undo",
    "redoButton": "Redo",
    "cancelButton": "Cancel",
    "acceptButton": "Accept",
    "nextBoneButton": "NextBone",
    "addSegmentButton": "Add",
    "removeSegmentButton": "Remove",
    "messageCloseButton": "Close",
}
_CONTROLS = {
    "volumeSelector": Action.CHOOSE_VOLUME,
    "addSegmentButton": Action.ADD_SEGMENT,
    "boxButton": Action.BOX,
    "sliceBoxButton": Action.BOX,
    "regionSelector": Action.BOX,
    "positivePointButton": Action.POSITIVE_POINT,
    "negativePointButton": Action.NEGATIVE_POINT,
    "textEdit": Action.TEXT,
    "textButton": Action.TEXT,
    "allBonesButton": Action.ALL_BONES,
    "segmentButton": Action.SEGMENT,
    "undoButton": Action.UNDO,
    "redoButton": Action.REDO,
    "cancelButton": Action.CANCEL,
    "reviewList": Action.REVIEW,
    "acceptButton": Action.ACCEPT,
    "nextBoneButton": Action.NEXT_BONE,
    "liveCheckBox": Action.OPTIONS,
    "secondVolumeSelector": Action.OPTIONS,
    "fusionBox": Action.OPTIONS,
    "depthAttentionCheckBox": Action.OPTIONS,
    "keepInsideCheckBox": Action.OPTIONS,
    "removeIslandsCheckBox": Action.OPTIONS,
    "smoothingSlider": Action.OPTIONS,
    "deviceBox": Action.MODEL,
    "installGpuButton": Action.MODEL,
    "chooseWeightsButton": Action.MODEL,
    "bundledWeightsButton": Action.MODEL,
}
# As listed in the .ui file.
_DEVICES = ("auto", "cpu", "cuda")
_FUSIONS = ("average", "maximum")


class PanelView:
    """Shows panels and messages.

    Args:
        ui: the widgets of the .ui file by name.
        icons: folder of the icons.
        presenter: is told what the user does.
        prompts: has the attribute `flat`, whether the next box is meant for the slice it is drawn on.
        changed: called after what the user did, for what the view keeps beside the panel.
    """

    def __init__(
        self, ui: Any, icons: Path, presenter: Presenter, prompts: Any, changed: Callable[[], None]
    ) -> None:
        self.ui = ui
        self._presenter = presenter
        self._prompts = prompts
        self._changed = changed
        self._shown: Panel | None = None
        self._rendering = False
        self._pictures = {
            kind: qt.QIcon(str(icons / f"{name}.svg")).pixmap(24, 24)
            for kind, name in (("error", "Error"), ("info", "Information"))
        }
        for name, icon in _ICONS.items():
            getattr(ui, name).setIcon(qt.QIcon(str(icons / f"{icon}.svg")))
        ui.messageFrame.hide()
        names = qt.QCompleter(bone_table().target_names, ui.nameEdit)
        names.setCaseSensitivity(qt.Qt.CaseInsensitive)
        names.setFilterMode(qt.Qt.MatchContains)
        ui.nameEdit.setCompleter(names)
        ui.segmentsTable.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self._connect()

    def render(self, panel: Panel, volumeId: str, segmentationNode: Any) -> None:
        """Show a panel of a volume and a segmentation; "" and None for none."""
        self._rendering = True
        try:
            self._render(panel, volumeId, segmentationNode)
        finally:
            self._rendering = False
        self._shown = panel

    def showMessage(self, message: Message) -> None:
        """Show a sentence above the panel, until it is closed or the user goes on."""
        self.ui.messageIcon.setPixmap(self._pictures[message.kind])
        self.ui.messageLabel.setText(message.text)
        self.ui.messageFrame.show()

    # What the user does.

    def _connect(self) -> None:
        ui, presenter = self.ui, self._presenter
        ui.messageCloseButton.connect("clicked(bool)", lambda _on: ui.messageFrame.hide())
        ui.addSegmentButton.connect("clicked(bool)", lambda _on: self._do(presenter.add_segment))
        ui.removeSegmentButton.connect("clicked(bool)", lambda _on: self._do(self._removeSegment))
        ui.segmentsTable.connect(
            "selectionChanged(QItemSelection,QItemSelection)", lambda _now, _before: self._onSegmentSelected()
        )
        ui.boxButton.connect("clicked(bool)", lambda on: self._useTool(Tool.BOX if on else None))
        ui.sliceBoxButton.connect("clicked(bool)", lambda on: self._useTool(Tool.BOX if on else None, True))
        ui.positivePointButton.connect(
            "clicked(bool)", lambda on: self._useTool(Tool.POSITIVE_POINT if on else None)
        )
        ui.negativePointButton.connect(
            "clicked(bool)", lambda on: self._useTool(Tool.NEGATIVE_POINT if on else None)
        )
        ui.textButton.connect("clicked(bool)", lambda _on: self._do(self._findByText))
        ui.textEdit.connect("returnPressed()", lambda: self._do(self._findByText))
        ui.nameEdit.connect("returnPressed()", lambda: self._do(self._rename))
        ui.allBonesButton.connect("clicked(bool)", lambda _on: self._do(presenter.segment_all))
        ui.segmentButton.connect("clicked(bool)", lambda _on: self._do(presenter.segment))
        ui.undoButton.connect("clicked(bool)", lambda _on: self._do(presenter.undo))
        ui.redoButton.connect("clicked(bool)", lambda _on: self._do(presenter.redo))
        ui.cancelButton.connect("clicked(bool)", lambda _on: self._do(presenter.cancel))
        ui.acceptButton.connect("clicked(bool)", lambda _on: self._accept(presenter.accept))
        ui.nextBoneButton.connect("clicked(bool)", lambda _on: self._accept(presenter.next_bone))
        ui.reviewList.connect("currentRowChanged(int)", lambda row: self._jump(row))
        ui.reviewList.connect(
            "itemClicked(QListWidgetItem*)", lambda _item: self._jump(ui.reviewList.currentRow)
        )
        ui.liveCheckBox.connect("toggled(bool)", lambda on: self._set(live=on))
        ui.depthAttentionCheckBox.connect("toggled(bool)", lambda on: self._set(depth_attention=on))
        ui.keepInsideCheckBox.connect("toggled(bool)", lambda on: self._set(keep_inside=on))
        ui.removeIslandsCheckBox.connect("toggled(bool)", lambda on: self._set(remove_small_islands=on))
        ui.smoothingSlider.connect("valueChanged(double)", lambda mm: self._set(smoothing_mm=round(mm, 3)))
        ui.secondVolumeSelector.connect(
            "currentNodeIDChanged(QString)", lambda identifier: self._set(second_volume=identifier)
        )
        ui.fusionBox.connect("activated(int)", lambda index: self._set(fusion=_FUSIONS[index]))
        ui.secondOpacitySlider.connect("valueChanged(double)", lambda _value: self._changed())
        ui.deviceBox.connect("activated(int)", lambda index: self._set(device=_DEVICES[index]))
        ui.chooseWeightsButton.connect("clicked(bool)", lambda _on: self._chooseWeights())
        ui.bundledWeightsButton.connect("clicked(bool)", lambda _on: self._useBundledWeights())

    def _do(self, act: Callable[[], None]) -> None:
        if self._rendering:
            return
        self.ui.messageFrame.hide()
        act()
        self._changed()

    def _set(self, **values: Any) -> None:
        self._do(lambda: self._presenter.change_settings(replace(self._presenter.settings, **values)))

    def _useTool(self, tool: Tool | None, oneSlice: bool = False) -> None:
        self._prompts.flat = oneSlice
        self._do(lambda: self._presenter.choose_tool(tool))

    def _onSegmentSelected(self) -> None:
        chosen = self.ui.segmentsTable.selectedSegmentIDs()
        # The table drops its selection when its rows change. A new bone is begun with "next bone".
        if chosen:
            self._do(lambda: self._presenter.select_segment(chosen[0]))

    def _removeSegment(self) -> None:
        if self._presenter.panel.active_segment is not None:
            self._presenter.remove_segment(self._presenter.panel.active_segment)

    def _findByText(self) -> None:
        self.ui.nameEdit.clear()  # of a bone that was dropped; what is found has its name
        self._presenter.segment_text(self.ui.textEdit.text)

    def _rename(self) -> None:
        """The accepted segment, while it is the chosen one; a new bone is named when it is accepted."""
        panel, name = self._presenter.panel, self.ui.nameEdit.text
        if panel.active_segment is not None and name.strip():
            self._presenter.rename_segment(panel.active_segment, name)
            self.ui.nameEdit.clear()

    def _accept(self, accept: Callable[[str], None]) -> None:
        self._do(lambda: accept(self.ui.nameEdit.text))
        if self._presenter.panel.state is not State.PREVIEW:
            self.ui.nameEdit.clear()

    def _jump(self, row: int) -> None:
        if self._shown is not None and 0 <= row < len(self._shown.review):
            index = self._shown.review[row].index
            self._do(lambda: self._presenter.jump_to_review(index))

    def _chooseWeights(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(
            self.ui.chooseWeightsButton, _("Folder of exported weights"), self._presenter.settings.weights
        )
        if folder:
            self._do(lambda: self._presenter.choose_weights(folder))

    def _useBundledWeights(self) -> None:
        self._do(lambda: self._presenter.choose_weights(""))

    # What is shown.

    def _render(self, panel: Panel, volumeId: str, segmentationNode: Any) -> None:
        ui, before = self.ui, self._shown
        for name, action in _CONTROLS.items():
            getattr(ui, name).setEnabled(action in panel.enabled)
        ui.removeSegmentButton.setEnabled(
            Action.REMOVE_SEGMENT in panel.enabled and panel.active_segment is not None
        )
        ui.hintLabel.setText(self._hint(panel))

        if (ui.volumeSelector.currentNodeID or "") != volumeId:
            ui.nameEdit.clear()
            ui.volumeSelector.setCurrentNodeID(volumeId)
        if ui.segmentationSelector.currentNode() is not segmentationNode:
            ui.segmentationSelector.setCurrentNode(segmentationNode)
        if ui.segmentsTable.segmentationNode() is not segmentationNode:
            ui.segmentsTable.setSegmentationNode(segmentationNode)
            ui.show3DButton.setSegmentationNode(segmentationNode)
        ui.show3DButton.setEnabled(bool(panel.segments))
        active = [] if panel.active_segment is None else [panel.active_segment]
        if list(ui.segmentsTable.selectedSegmentIDs()) != active:
            ui.segmentsTable.setSelectedSegmentIDs(active)

        # One that was refused must not look chosen.
        if (ui.secondVolumeSelector.currentNodeID or "") != panel.settings.second_volume:
            ui.secondVolumeSelector.setCurrentNodeID(panel.settings.second_volume)

        ui.boxButton.setChecked(panel.tool is Tool.BOX and not self._prompts.flat)
        ui.sliceBoxButton.setChecked(panel.tool is Tool.BOX and self._prompts.flat)
        ui.positivePointButton.setChecked(panel.tool is Tool.POSITIVE_POINT)
        ui.negativePointButton.setChecked(panel.tool is Tool.NEGATIVE_POINT)

        fraction, text = panel.progress or (0.0, "")
        ui.progressBar.setValue(round(100 * fraction))
        ui.progressBar.setFormat(
            _("{text} %p%").format(text=_(text) if text else _("working")) if panel.progress else ""
        )

        if self._isNewBone(panel):
            ui.nameEdit.clear()
        # One that was refused must not look chosen, here as well.
        ui.deviceBox.setCurrentIndex(_DEVICES.index(panel.settings.device))
        self._renderResult(panel)
        if before is None or panel.settings != before.settings:
            self._renderSettings(panel)

    def _isNewBone(self, panel: Panel) -> bool:
        """Whether the bone that a typed name was for is gone."""
        idle = (State.READY, State.NO_VOLUME)
        return panel.state in idle and self._shown is not None and self._shown.state not in idle

    def _renderResult(self, panel: Panel) -> None:
        ui, before = self.ui, self._shown
        percent = 0 if panel.confidence is None else round(100 * panel.confidence)
        ui.confidenceBar.setValue(percent)
        ui.confidenceBar.setFormat("" if panel.confidence is None else "%v %")
        ui.resultLabel.setText(self._result(panel))
        if before is None or (panel.review, panel.review_axis) != (before.review, before.review_axis):
            ui.reviewList.clear()
            for place in panel.review:
                text = _("Slice {number}: {percent} % confident")
                ui.reviewList.addItem(text.format(number=place.index, percent=round(100 * place.confidence)))
        ui.nameEdit.setEnabled(panel.bone_count < 2)

    def _renderSettings(self, panel: Panel) -> None:
        ui, settings = self.ui, panel.settings
        ui.liveCheckBox.setChecked(settings.live)
        ui.depthAttentionCheckBox.setChecked(settings.depth_attention)
        ui.keepInsideCheckBox.setChecked(settings.keep_inside)
        ui.removeIslandsCheckBox.setChecked(settings.remove_small_islands)
        ui.smoothingSlider.setValue(settings.smoothing_mm)
        ui.fusionBox.setCurrentIndex(_FUSIONS.index(settings.fusion))
        ui.weightsLabel.setText(
            Path(settings.weights).name if settings.weights else _("Bundled with BoneSAM")
        )
        ui.weightsLabel.setToolTip(settings.weights)

    def _hint(self, panel: Panel) -> str:
        """What to do next."""
        if panel.work is not None and panel.tool is None:
            return {
                Work.SEGMENT: _("Segmenting the bone..."),
                Work.ALL_BONES: _("Finding every bone... Cancel stops it."),
                Work.TEXT: _("Finding the named bone... Cancel stops it."),
                Work.LOAD: _("Loading the weights..."),
            }[panel.work]
        if panel.tool is not None:
            return {
                Tool.BOX: _("Click two opposite corners of the bone in a slice view."),
                Tool.POSITIVE_POINT: _("Click on the bone in a slice view. Escape or a right click ends."),
                Tool.NEGATIVE_POINT: _(
                    "Click on what must not belong to the bone. Escape or a right click ends."
                ),
            }[panel.tool]
        if panel.state is State.NO_VOLUME:
            return _("Choose the volume whose bones you want: CT, MR or X-ray.")
        if panel.state is State.PREVIEW:
            return _("Check the mask in the slice views. Correct it with + and - points, then accept it.")
        if panel.state is State.DRAWING:
            if Action.SEGMENT in panel.enabled:
                return _("Press Segment, or add points first.")
            return _("Draw a box around the bone, or click on it with + Point.")
        if panel.active_segment is not None:
            return _("Points change '{name}'. A box is for another bone, or this one if it is empty.").format(
                name=self._activeName(panel)
            )
        return _("Draw a box around one bone, or click on it with + Point.")

    def _result(self, panel: Panel) -> str:
        if panel.bone_count == 0 or panel.seconds is None:
            return _("No mask yet")
        seconds = f"{panel.seconds:.1f}"
        if panel.correcting:
            return _("Correction of '{name}', {seconds} s").format(
                name=self._activeName(panel), seconds=seconds
            )
        if panel.bone_count > 1:
            return _("{count} bones, {seconds} s").format(count=panel.bone_count, seconds=seconds)
        return _("One bone, {seconds} s").format(seconds=seconds)

    @staticmethod
    def _activeName(panel: Panel) -> str:
        return next((entry.name for entry in panel.segments if entry.identifier == panel.active_segment), "")
