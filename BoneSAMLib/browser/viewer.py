"""One visitor's viewer: a scene, a presenter, and the page that shows them."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from trame_slicer.core import SlicerApp

from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.browser.downloads import Downloads
from BoneSAMLib.browser.found_scans import FoundScan
from BoneSAMLib.browser.freed_memory import FreedMemory
from BoneSAMLib.browser.gray_windows import GrayWindow, gray_windows
from BoneSAMLib.browser.network import PreparedNetwork
from BoneSAMLib.browser.opening import Opening
from BoneSAMLib.browser.page import build_page
from BoneSAMLib.browser.page_values import page_values
from BoneSAMLib.browser.page_word import BREATH, PageWord
from BoneSAMLib.browser.quad_view import SLICES, QuadView, box_center
from BoneSAMLib.browser.scan_node import add_scan
from BoneSAMLib.browser.slice_labels import slice_values
from BoneSAMLib.browser.solid_view import SolidView
from BoneSAMLib.browser.touch_up import TOUCH_UP_TOOLS, TouchUp
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_settings_store import NodeSettingsStore
from BoneSAMLib.panel import Message, Panel, State, Tool
from BoneSAMLib.scene.scene_view import SceneView
from BoneSAMLib.volume import Volume

__all__ = ["Viewer"]

_TOOLS = {
    "box": (Tool.BOX, False),
    "slice_box": (Tool.BOX, True),
    "positive_point": (Tool.POSITIVE_POINT, False),
    "negative_point": (Tool.NEGATIVE_POINT, False),
}
SURFACE_DELAY = 0.3  # seconds
_OPTIONS = ("live", "depth_attention", "keep_inside", "remove_small_islands", "smoothing_mm")


class Viewer:
    """Everything on the event loop's thread, except for reading files and the network.

    Args:
        server: trame's, not started yet.
        folder: the visitor's own, for uploads.
        upload_limit: bytes of one upload.
    """

    def __init__(self, server: Any, folder: Path, upload_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._server, self._state = server, server.state
        self._network = PreparedNetwork()
        self._freed_memory = FreedMemory(self._loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self._windows: dict[str, GrayWindow] = {}
        self._volume_node: Any = None
        self._opening = Opening(
            server.state,
            folder,
            upload_limit,
            self._spawn,
            self._show_scan,
            self._add_segments,
            self._would_be_lost,
            self._show_message,
        )
        self._downloads = Downloads(folder)
        self._shown: Panel | None = None

        self._app = SlicerApp()
        self._scene = self._app.scene
        slicer.mrmlScene = self._scene  # where slicer.util looks
        self._state.update(
            {
                "trame__title": "BoneSAM",
                "note": None,
                "scan": None,
                "opening": "",
                "busy": "",
                "choices": [],
                "loss": "",
                "layout": "quad",
                "windows": [],
                "window": "",
                "adjusting": False,
                "turning": False,
                "touch": {},
                "solid": {},
                "dark": True,
                "name": "",
                "bone_names": bone_table().target_names,
                "text": "",
                "upload": None,
                "upload_limit": upload_limit,
                "drop": False,
                "help": False,
                **{f"slice_{tag}": {} for tag in SLICES},
            }
        )
        self._quad = QuadView(self._app, server, self._slice_moved)
        self._solid = SolidView(self._app, self._quad.solid)
        self._touch_up = TouchUp(self._app, self._touched_up)
        self._view = SceneView(
            self._scene,
            self._post,
            self._show_panel,
            self._show_message,
            NodeSettingsStore(self._scene),
            self._network.open,
        )
        self._presenter = self._view.presenter
        self._interaction = self._scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        for name, act in self._acts().items():
            server.trigger(name)(act)
        build_page(server)
        self._show_rest()

    # Life.

    def start(self, scan: Path | None, mask: Path | None) -> None:
        """The page can be opened: begin with the operator's own scan, if there is one."""
        self._network.prepare()
        if scan is not None:
            self._opening.begin(scan, (lambda: None) if mask is None else partial(self._show_mask, mask))

    def close(self) -> None:
        """The visitor has left."""
        for task in self._tasks:
            task.cancel()
        self._freed_memory.close()
        self._view.close()

    def add_routes(self, app: Any) -> None:
        """Uploads and downloads go over HTTP: a page's connection is not made for a gigabyte."""
        app.router.add_post("/upload", self._opening.receive)
        app.router.add_get("/download/{ticket}", self._downloads.send)

    # What the page calls.

    def _acts(self) -> dict[str, Callable[..., Any]]:
        presenter = self._presenter
        return {
            "use": self._use,
            "segment": self._acting(presenter.segment),
            "all_bones": self._acting(presenter.segment_all),
            "find": self._find,
            "undo": self._undo,
            "redo": self._redo,
            "cancel": self._acting(presenter.cancel),
            "accept": self._accept,
            "add_segment": self._changing_segments(presenter.add_segment),
            "remove_segment": self._changing_segments(presenter.remove_segment),
            "select_segment": self._changing_segments(presenter.select_segment),
            "rename_segment": self._acting(presenter.rename_segment),
            "recolor_segment": self._recolor,
            "show_segment": self._acting(presenter.show_segment),
            "jump_to_review": self._acting(presenter.jump_to_review),
            "set_option": self._set_option,
            "set_window": self._set_window,
            "adjust_window": self._adjust_window,
            "set_brush": self._set_brush,
            "set_turning": self._set_turning,
            "move_slice": self._quad.move,
            "set_layout": self._set_layout,
            "reset_views": self._reset_views,
            "set_surfaces": self._set_surfaces,
            "set_volume_rendering": self._set_volume_rendering,
            "choose_scan": self._opening.choose,
            "download": self._download,
            "dismiss": self._dismiss,
            "tell": lambda kind, text: self._show_message(Message(kind, text)),
        }

    def _acting(self, act: Callable[..., None]) -> Callable[..., None]:
        """What was said before is settled once the user goes on."""

        def acting(*arguments: Any) -> None:
            self._dismiss()
            act(*arguments)
            self._show_rest()

        return acting

    def _changing_segments(self, act: Callable[..., None]) -> Callable[..., None]:
        def acting(*arguments: Any) -> None:
            self._touch_up.forget()
            self._acting(act)(*arguments)

        return acting

    def _use(self, name: str) -> None:
        """Take a tool, or put it down if it is in hand: "" for none."""
        self._dismiss()
        if name in TOUCH_UP_TOOLS:
            self._use_touch_up("" if name == self._touch_up.tool else name)
        else:
            self._touch_up.put_down()
            tool, flat = _TOOLS.get(name, (None, False))
            in_hand = self._presenter.panel.tool is tool and self._view.prompts.flat == flat
            # Taken anew, for the clicks that were made with the other box.
            if tool is Tool.BOX and self._view.prompts.flat != flat:
                self._presenter.choose_tool(None)
            self._view.prompts.flat = flat
            self._presenter.choose_tool(None if in_hand else tool)
            if tool is None:
                self._interaction.SwitchToViewTransformMode()
        self._show_rest()

    def _use_touch_up(self, tool: str) -> None:
        self._presenter.choose_tool(None)
        self._interaction.SwitchToViewTransformMode()
        panel, node = self._presenter.panel, self._view.store.segmentationNode
        if not tool:
            self._touch_up.put_down()
        elif panel.state not in (State.READY, State.NO_VOLUME):
            text = "Accept the mask, or cancel it, before touching up a segment."
            self._show_message(Message("info", text))
        elif node is None or panel.active_segment is None:
            self._show_message(Message("info", "Choose the segment to touch up in the list first."))
        else:
            self._touch_up.take(tool, node, self._volume_node, panel.active_segment)

    def _find(self, text: str) -> None:
        self._state.name = ""  # of a bone that was dropped; what is found has its name
        self._acting(self._presenter.segment_text)(text)

    def _undo(self) -> None:
        if self._touch_up.tool:
            self._touch_up.undo()
            self._show_rest()
        else:
            self._acting(self._presenter.undo)()

    def _redo(self) -> None:
        if self._touch_up.tool:
            self._touch_up.redo()
            self._show_rest()
        else:
            self._acting(self._presenter.redo)()

    def _accept(self, and_next: bool) -> None:
        self._touch_up.forget()
        accept = self._presenter.next_bone if and_next else self._presenter.accept
        self._acting(accept)(self._state.name or "")
        if self._presenter.panel.state is not State.PREVIEW:
            self._state.name = ""

    def _recolor(self, identifier: str, color: str) -> None:
        red, green, blue = (int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
        self._acting(self._presenter.recolor_segment)(identifier, (red, green, blue))

    def _set_option(self, name: str, value: Any) -> None:
        if name in _OPTIONS:
            settings = self._presenter.settings
            value = type(getattr(settings, name))(value)
            self._acting(lambda: self._presenter.change_settings(replace(settings, **{name: value})))()

    def _set_window(self, name: str) -> None:
        if self._volume_node is not None and name in self._windows:
            display = self._volume_node.GetDisplayNode()
            display.SetAutoWindowLevel(False)
            display.SetWindowLevel(*self._windows[name])
            self._state.window = name

    def _adjust_window(self) -> None:
        """Dragging in a slice changes the window, or no longer does."""
        self._dismiss()
        self._touch_up.put_down()
        self._presenter.choose_tool(None)
        interaction = self._interaction
        if interaction.GetCurrentInteractionMode() == interaction.AdjustWindowLevel:
            interaction.SwitchToViewTransformMode()
        elif self._volume_node is not None:
            interaction.SetCurrentInteractionMode(interaction.AdjustWindowLevel)
        self._show_rest()

    def _set_turning(self, on: bool) -> None:
        """Handles to turn the box, or none: they are in the way of its other handles."""
        self._state.turning = on
        self._turn_handles()

    def _turn_handles(self) -> None:
        for region in slicer.util.getNodesByClass("vtkMRMLMarkupsROINode", self._scene):
            if region.GetDisplayNode() is not None:
                region.GetDisplayNode().SetRotationHandleVisibility(bool(self._state.turning))

    def _set_brush(self, millimeters: float) -> None:
        self._touch_up.set_diameter(float(millimeters))
        self._show_rest()

    def _set_layout(self, which: str) -> None:
        self._state.layout = which
        self._quad.show(which)

    def _reset_views(self) -> None:
        self._quad.fit()
        self._solid.reset()

    def _set_surfaces(self, on: bool) -> None:
        self._soon("Making surfaces...", lambda: self._solid.set_surfaces(on, *self._segmentations))

    def _set_volume_rendering(self, on: bool) -> None:
        self._soon("Drawing the scan...", lambda: self._solid.set_volume_rendering(on))

    def _dismiss(self) -> None:
        self._state.note = None

    # Scans and segments that were opened.

    def _show_scan(self, scan: FoundScan, volume: Volume) -> bool:
        """Returns whether it is shown now: it may have been refused."""
        node = add_scan(self._scene, volume, scan.title)
        before, self._volume_node = self._volume_node, node
        self._touch_up.forget()
        self._solid.show_scan(None, None)
        self._view.choose_volume(node)
        source = self._presenter.source
        if source is None or source.identifier != node.GetID():  # refused, and the user knows why
            self._volume_node = before
            self._solid.show_scan(before, self._presenter.volume)
            self._scene.RemoveNode(node)
            return False
        for former in (self._view.store.segmentationNode, before):
            if former is not None:
                self._scene.RemoveNode(former)
        self._presenter.segments_changed()
        self._quad.show_scan(node)
        self._solid.show_scan(node, volume)
        self._windows = gray_windows(volume)
        self._state.windows = list(self._windows)
        self._set_window(next(iter(self._windows)))
        self._set_layout(self._quad.facing(volume) if volume.is_projection else "quad")
        i, j, k = volume.size
        spacing = " x ".join(f"{one:.3g}" for one in volume.spacing)
        self._state.scan = {
            "name": scan.title,
            "details": f"{volume.modality_guess}, {i} x {j} x {k}, {spacing} mm",
            "flat": volume.is_projection,
        }
        self._show_rest()
        return True

    def _add_segments(self, path: Path) -> None:
        """A file that was downloaded earlier is sent back."""
        if self._volume_node is None:
            raise BoneSAMError(f"'{path.name}' holds segments: open the scan first that they belong to.")
        if self._presenter.panel.segments:
            raise BoneSAMError(
                "There are segments already: download and remove them first, then open the file again."
            )
        self._show_mask(path)

    def _would_be_lost(self) -> str:
        """A warning of what another scan takes the place of; "" where there is nothing."""
        panel = self._presenter.panel
        if not panel.segments and panel.state in (State.READY, State.NO_VOLUME):
            return ""
        return (
            "It takes the place of this scan and of its segments: cancel and download them first if you want "
            "to keep them."
        )

    def _show_mask(self, path: Path) -> None:
        node = self._scene.AddNewNodeByClass("vtkMRMLSegmentationNode", path.name)
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(path))
        if not storage.ReadData(node):
            self._scene.RemoveNode(node)
            raise BoneSAMError(f"'{path}' is no segmentation of 3D Slicer: use a .seg.nrrd file.")
        node.CreateDefaultDisplayNodes()
        former = self._view.store.segmentationNode
        self._view.store = NodeSegmentStore(self._scene, node)
        self._touch_up.forget()
        self._presenter.choose_store(self._view.store)
        if former is not None:
            self._scene.RemoveNode(former)

    async def _download(self, ending: str) -> str:
        """Address of the file, below the page's; "" if there is none."""
        self._dismiss()
        with PageWord(self._state, "busy", "Preparing the file..."):
            await asyncio.sleep(BREATH)
            try:
                volume = self._presenter.volume
                if volume is None:
                    raise BoneSAMError("There is nothing to download: open a scan and accept a bone first.")
                node = self._view.store.segmentationNode
                return self._downloads.prepare(ending, node, self._volume_node, volume)
            except BoneSAMError as error:
                self._show_message(Message("error", str(error)))
                return ""

    # What is shown.

    def _post(self, call: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(self._run, call)

    def _run(self, call: Callable[[], None]) -> None:
        with self._state:
            call()

    def _show_panel(self, panel: Panel) -> None:
        before, self._shown = self._shown, panel
        self._state.panel = page_values(panel, before is not None and self._view.prompts.flat)
        if before is None:  # the views are not made yet
            return
        idle = (State.READY, State.NO_VOLUME)
        if panel.state in idle and before.state not in idle:
            self._state.name = ""  # the bone that it was typed for is gone
        if panel.box is not None and panel.box != before.box:
            self._turn_handles()
            if before.tool is Tool.BOX and panel.tool is None and self._presenter.volume is not None:
                self._quad.go_to(box_center(panel.box, self._presenter.volume))
        if panel.active_segment != before.active_segment or panel.state is not State.READY:
            self._touch_up.put_down()
        self._loop.call_later(SURFACE_DELAY, self._run, self._update_surfaces)
        self._freed_memory.soon()

    def _show_message(self, message: Message) -> None:
        text = self._opening.public(message.text)
        self._state.note = {"kind": message.kind, "text": text, "id": uuid.uuid4().hex}

    def _show_rest(self) -> None:
        """What the page shows beside the panel."""
        interaction, touch_up = self._interaction, self._touch_up
        self._state.adjusting = interaction.GetCurrentInteractionMode() == interaction.AdjustWindowLevel
        self._state.touch = {
            "tool": touch_up.tool,
            "diameter": touch_up.diameter_mm,
            "can_undo": touch_up.can_undo,
            "can_redo": touch_up.can_redo,
        }
        self._state.solid = {
            "surfaces": self._solid.surfaces,
            "volume": self._solid.volume_rendering,
        }

    def _slice_moved(self, tag: str, view: Any) -> None:
        self._state[f"slice_{tag}"] = slice_values(view)

    def _touched_up(self, identifier: str) -> None:
        def tell() -> None:
            self._presenter.segment_edited(identifier)
            self._show_rest()

        # The editor is still at it.
        self._post(tell)

    @property
    def _segmentations(self) -> tuple[Any, Any]:
        return self._view.store.segmentationNode, self._view.preview.segmentation_node

    def _update_surfaces(self) -> None:
        # They keep the loop for half a second: slices are drawn before, and a first look gets none.
        if self._presenter.panel.state is not State.RUNNING:
            self._solid.update(*self._segmentations)

    def _soon(self, word: str, call: Callable[[], None]) -> None:
        """Do what keeps the views from being drawn for a moment, once the page says so."""

        async def do() -> None:
            with PageWord(self._state, "busy", word):
                await asyncio.sleep(BREATH)
                call()
                self._show_rest()

        self._spawn(do())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
