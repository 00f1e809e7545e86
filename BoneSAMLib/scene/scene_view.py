"""A presenter's view in a scene: prompts as markups, the mask over the slices. Buttons are left to others."""

from collections.abc import Callable
from functools import partial
from typing import Any

import slicer
import vtk

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.interfaces import SettingsStore
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_volume_source import NodeVolumeSource, findVolume
from BoneSAMLib.panel import Message, Panel
from BoneSAMLib.presenter import Presenter
from BoneSAMLib.scene.mask_preview import MaskPreview
from BoneSAMLib.scene.prompt_markups import PromptMarkups
from BoneSAMLib.scene.scene_observers import SceneObservers
from BoneSAMLib.session_cache import OpenSegmenter, open_segmenter
from BoneSAMLib.volume import Float3

__all__ = ["SceneView"]


class SceneView:
    """Everything of a `View` that lives in the scene, with a presenter of its own.

    Args:
        scene: with the nodes that views have.
        post: runs a call on the main thread, soon; called on any thread.
        on_panel: shows the rest: buttons, table, progress.
        on_message: shows a sentence.
        settings_store, open_segmenter: as for `Presenter`.

    Attributes:
        presenter: what the buttons call.
        store: where accepted segments live.
        prompts: the markups.
        preview: the mask that is not accepted yet.
    """

    def __init__(
        self,
        scene: "slicer.vtkMRMLScene",
        post: Callable[[Callable[[], None]], None],
        on_panel: Callable[[Panel], None],
        on_message: Callable[[Message], None],
        settings_store: SettingsStore | None = None,
        open_segmenter: OpenSegmenter = open_segmenter,
    ) -> None:
        self._scene = scene
        self._post = post
        self._on_panel = on_panel
        self._on_message = on_message
        self._volume_node: Any = None
        self.prompts = PromptMarkups(scene, post)
        self.preview = MaskPreview(scene)
        self.store = NodeSegmentStore(scene)
        self.presenter = Presenter(
            self, self.store, settings_store, open_segmenter, find_volume=partial(findVolume, scene)
        )
        self.prompts.presenter = self.presenter
        self._observers = SceneObservers()
        # Before it is gone, so that what is drawn over it goes first.
        self._observers.add(scene, scene.NodeAboutToBeRemovedEvent, self._node_removed)
        self.presenter.refresh()

    def choose_volume(self, volume_node: "slicer.vtkMRMLScalarVolumeNode | None") -> None:
        """Work on a volume of the scene, or on none. It is not shown by this."""
        before = self.presenter.volume
        self.presenter.choose_volume(None if volume_node is None else NodeVolumeSource(volume_node))
        if self.presenter.volume is not before:
            self._volume_node = volume_node

    def close(self) -> None:
        """End the worker; take prompts and preview out of the scene. Accepted segments stay."""
        self.presenter.close()
        self._observers.close()
        self.prompts.close()
        self.preview.close()

    # What the presenter calls.

    def post(self, call: Callable[[], None]) -> None:
        """See `View`."""
        self._post(call)

    def render(self, panel: Panel) -> None:
        """See `View`."""
        self.prompts.render(panel)
        corrected = panel.active_segment if panel.correcting and self.preview.segmentation_node else None
        self.preview.stand_in_for(self.store.segmentationNode, corrected)
        self._on_panel(panel)

    def show_mask(self, mask: CroppedMask | None) -> None:
        """See `View`."""
        self.preview.show(mask, self._volume_node)

    def show_message(self, message: Message) -> None:
        """See `View`."""
        self._on_message(message)

    def jump_to(self, axis: int, index: int, position: Float3) -> None:
        """See `View`: every slice view goes through the position."""
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", self._scene):
            node.JumpSliceByOffsetting(*position)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, _scene: Any, _event: object, node: Any) -> None:
        if node is self._volume_node:
            self.presenter.volume_removed(node.GetID())
            self._volume_node = None
