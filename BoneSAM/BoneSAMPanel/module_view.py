"""The view of the presenter in 3D Slicer: widgets, markups, slice views and scene put together."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.mrml import orientedBoxFromRoi
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_settings_store import NodeSettingsStore
from BoneSAMLib.node_volume_source import NodeVolumeSource, findVolume
from BoneSAMLib.panel import Message, Panel
from BoneSAMLib.presenter import Presenter
from BoneSAMLib.scene.mask_preview import MaskPreview
from BoneSAMLib.scene.prompt_markups import PromptMarkups
from BoneSAMLib.session_cache import OpenSegmenter, open_segmenter
from BoneSAMLib.volume import Float3
from BoneSAMPanel.hand_editing import HandEditing
from BoneSAMPanel.main_thread import MainThread
from BoneSAMPanel.panel_view import PanelView
from BoneSAMPanel.runtime_install import RuntimeInstaller
from BoneSAMPanel.scene_watch import SceneWatch
from BoneSAMPanel.shortcuts import Shortcuts
from BoneSAMPanel.slice_views import SliceViews

__all__ = ["ModuleView"]


class ModuleView(VTKObservationMixin):
    """A `View` of a presenter of its own.

    Args:
        ui: the widgets of the .ui file by name.
        icons: folder of the icons.
        scene: the scene.
        applicationLogic: `slicer.app.applicationLogic()`.
        openSegmenter: loads the network.
        prepare: called before the network is needed; see `Presenter`. None for the installation of what it
            needs.
    """

    def __init__(
        self,
        ui: Any,
        icons: Path,
        scene: Any,
        applicationLogic: Any,
        openSegmenter: OpenSegmenter = open_segmenter,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        VTKObservationMixin.__init__(self)
        self.ui = ui
        self._isEntered = self._isClosing = False
        self._segmentationNode: Any = None  # as last shown: the store forgets one that was removed
        self._scene = scene
        self._applicationLogic = applicationLogic
        self._installer = RuntimeInstaller()
        self._mainThread = MainThread(applicationLogic)
        for widget in (
            ui.volumeSelector,
            ui.segmentationSelector,
            ui.segmentsTable,
            ui.secondVolumeSelector,
            ui.regionSelector,
        ):
            widget.setMRMLScene(scene)
        self._sliceViews = SliceViews(scene)
        self._preview = MaskPreview(scene)
        self._prompts = PromptMarkups(scene, self.post)
        self._handEditing = HandEditing(ui, scene)
        self._store = self._newStore(None)
        self.presenter = Presenter(
            self,
            self._store,
            NodeSettingsStore(scene),
            openSegmenter,
            prepare=prepare or self._installer.ensure,
            translate=_,
            find_volume=partial(findVolume, scene),
        )
        self._watch = SceneWatch(self.presenter)
        self._prompts.presenter = self.presenter
        self._panelView = PanelView(ui, icons, self.presenter, self._prompts, self._showBeside)
        self._shortcuts = Shortcuts(ui, lambda: self.presenter.choose_tool(None))
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onVolumeChosen)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onSegmentationChosen)
        ui.regionSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onRegionChosen)
        ui.handEditingButton.connect("contentsCollapsed(bool)", self._onHandEditing)
        ui.installGpuButton.connect("clicked(bool)", self._onInstallGpuSupport)
        for event, handler in (
            (scene.StartCloseEvent, self._onSceneStartClose),
            (scene.EndCloseEvent, self._onSceneEndClose),
            (scene.EndImportEvent, self._onSceneEndImport),
            (scene.StartSaveEvent, self._onSceneStartSave),
            (scene.EndSaveEvent, self._onSceneEndSave),
        ):
            self.addObserver(scene, event, handler)
        # Before the selectors see it, which then choose something else.
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeAboutToBeRemoved, priority=100.0)
        self.presenter.refresh()

    # Life of the module.

    def enter(self) -> None:
        """The module is shown."""
        self._isEntered = True
        self._giveKeys()
        if not self.ui.handEditingButton.collapsed:
            self._handEditing.begin()
        if self._volumeNode is None:
            active = self._scene.GetNodeByID(
                self._applicationLogic.GetSelectionNode().GetActiveVolumeID() or ""
            )
            if active is not None and active.IsA("vtkMRMLScalarVolumeNode"):
                self.ui.volumeSelector.setCurrentNode(active)
        self.presenter.refresh()

    def exit(self) -> None:
        """Another module is shown. What runs goes on."""
        self._isEntered = False
        self._shortcuts.remove()
        self._handEditing.end()
        self.presenter.choose_tool(None)

    def close(self) -> None:
        """The module goes away; accepted segments stay."""
        self.removeObservers()
        self._shortcuts.remove()
        self.presenter.close()
        self._mainThread.close()
        self._watch.close()
        self._prompts.close()
        self._preview.close()
        self._handEditing.end()

    # What the presenter tells: the protocol `View`.

    def post(self, call: Callable[[], None]) -> None:
        """See `View`."""
        self._mainThread.post(call)

    def render(self, panel: Panel) -> None:
        """See `View`."""
        volumeNode = self._volumeNode
        segmentationNode = self._segmentationNode = self._store.segmentationNode
        self._watch.watchVolume(volumeNode)
        self._watch.watchSegmentation(segmentationNode)
        self._panelView.render(panel, "" if volumeNode is None else volumeNode.GetID(), segmentationNode)
        self._prompts.render(panel)
        corrected = panel.active_segment if panel.correcting and panel.bone_count else None
        self._preview.stand_in_for(segmentationNode, corrected)
        if not self._isClosing:
            self._handEditing.edit(segmentationNode, volumeNode)

    def show_mask(self, mask: CroppedMask | None) -> None:
        """See `View`."""
        self._preview.show(mask, self._volumeNode)

    def show_message(self, message: Message) -> None:
        """See `View`."""
        self._panelView.showMessage(message)

    def jump_to(self, axis: int, index: int, position: Float3) -> None:
        """See `View`."""
        self._sliceViews.jumpTo(position)

    # What the user does that is about the scene.

    def _onVolumeChosen(self, volumeNode: Any) -> None:
        before = self.presenter.source
        self.presenter.choose_volume(None if volumeNode is None else NodeVolumeSource(volumeNode))
        if self.presenter.source is not None and self.presenter.source is not before:
            self._sliceViews.showVolume(self._volumeNode)
            self._showBeside()
            self._warnOfOtherSegmentation()

    def _warnOfOtherSegmentation(self) -> None:
        """With two patients in a scene, the bones of one would go into the segmentation of the other."""
        node = self._store.segmentationNode
        if node is None or not self.presenter.panel.segments:
            return
        reference = node.GetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole())
        if reference and reference != self._volumeNode.GetID():
            text = _(
                "New bones go into '{segmentation}', which was made for another volume. For another one, "
                "choose it, or 'Create new', under Segmentation."
            )
            self.show_message(Message("info", text.format(segmentation=node.GetName())))

    def _onSegmentationChosen(self, segmentationNode: Any) -> None:
        if segmentationNode is not self._store.segmentationNode:
            self._useStore(segmentationNode)

    def _onRegionChosen(self, roiNode: Any) -> None:
        if roiNode is None:
            return
        self.ui.messageFrame.hide()
        try:
            self.presenter.set_box(orientedBoxFromRoi(roiNode))
        except BoneSAMError as error:
            self.show_message(Message("error", str(error)))
        # Taken, not followed: it may be chosen again once it was changed.
        self.ui.regionSelector.setCurrentNode(None)

    def _onHandEditing(self, isCollapsed: bool) -> None:
        if isCollapsed:
            self._handEditing.end()
        else:
            self.presenter.choose_tool(None)
            self._handEditing.begin()
        self._giveKeys()

    def _onInstallGpuSupport(self, _on: bool) -> None:
        try:
            self.show_message(Message("info", self._installer.installGpuSupport()))
        except Cancelled:
            pass
        except BoneSAMError as error:
            self.show_message(Message("error", str(error)))

    def _giveKeys(self) -> None:
        """While Segment Editor is open its own keys work, and some are the same."""
        window = slicer.util.mainWindow()
        if self._isEntered and self.ui.handEditingButton.collapsed and window is not None:
            self._shortcuts.install(window)
        else:
            self._shortcuts.remove()

    def _showBeside(self) -> None:
        second = self.presenter.settings.second_volume if self._volumeNode is not None else ""
        self._sliceViews.showSecond(second, self.ui.secondOpacitySlider.value)

    # What happens to the scene.

    def _onSceneStartClose(self, caller: Any, event: str) -> None:
        self._isClosing = True
        self.presenter.choose_volume(None)
        self._useStore(None)
        self._handEditing.end()
        self._handEditing.edit(None, None)

    def _onSceneEndClose(self, caller: Any, event: str) -> None:
        self._isClosing = False
        self._useStore(None)
        self.presenter.reload_settings()

    def _onSceneEndImport(self, caller: Any, event: str) -> None:
        self.presenter.reload_settings()
        self._showBeside()

    def _onSceneStartSave(self, caller: Any, event: str) -> None:
        self._preview.stand_in_for(None, None)

    def _onSceneEndSave(self, caller: Any, event: str) -> None:
        self.presenter.segments_changed()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAboutToBeRemoved(self, caller: Any, event: str, node: Any) -> None:
        if self._scene.IsClosing():
            return
        if node.IsA("vtkMRMLScalarVolumeNode"):
            self.presenter.volume_removed(node.GetID())
            self._showBeside()
        elif node.IsA("vtkMRMLSegmentationNode") and node is self._segmentationNode:
            self._useStore(None)

    @property
    def _volumeNode(self) -> Any:
        source = self.presenter.source
        return source.volumeNode if isinstance(source, NodeVolumeSource) else None

    def _useStore(self, segmentationNode: Any) -> None:
        self._store = self._newStore(segmentationNode)
        self.presenter.choose_store(self._store)

    def _newStore(self, segmentationNode: Any) -> NodeSegmentStore:
        return NodeSegmentStore(
            self._scene,
            segmentationNode,
            None if self._isClosing else self._handEditing.editorNode,
            self._handEditing.saveState,
            # The editor's history must know it before its first segment.
            lambda created: self._handEditing.edit(created, self._volumeNode),
        )
