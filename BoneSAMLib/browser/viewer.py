"""One visitor's viewer: a scene, a presenter, and the page that shows them."""

import asyncio
import logging
import shutil
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
from aiohttp import web
from trame_slicer.core import SlicerApp

from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.browser.downloads import Download, make_download
from BoneSAMLib.browser.found_scans import FoundScan, find_scans, read_found_scan, without_paths
from BoneSAMLib.browser.gray_windows import GrayWindow, gray_windows
from BoneSAMLib.browser.page import build_page
from BoneSAMLib.browser.page_values import page_values
from BoneSAMLib.browser.quad_view import SLICES, QuadView, box_center
from BoneSAMLib.browser.scan_node import add_scan
from BoneSAMLib.browser.slice_labels import slice_values
from BoneSAMLib.browser.solid_view import SolidView
from BoneSAMLib.browser.touch_up import TOUCH_UP_TOOLS, TouchUp
from BoneSAMLib.browser.upload import receive_upload
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.interfaces import SegmenterLike
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_settings_store import NodeSettingsStore
from BoneSAMLib.panel import Message, Panel, State, Tool
from BoneSAMLib.prompts import Box
from BoneSAMLib.scene.scene_view import SceneView
from BoneSAMLib.session_cache import open_segmenter
from BoneSAMLib.slice_decoder import BATCH
from BoneSAMLib.volume import Volume

__all__ = ["Viewer"]

_log = logging.getLogger(__name__)
_TOOLS = {
    "box": (Tool.BOX, False),
    "slice_box": (Tool.BOX, True),
    "positive_point": (Tool.POSITIVE_POINT, False),
    "negative_point": (Tool.NEGATIVE_POINT, False),
}
_OPTIONS = ("live", "depth_attention", "keep_inside", "remove_small_islands", "smoothing_mm")
# Long enough for what is known already to be drawn first.
_BREATH = 0.05


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
        self._folder, self._upload_limit = folder, upload_limit
        self._hidden = [folder]  # where files lie that messages may name
        self._network = _Network()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = False
        self._offered: list[FoundScan] = []
        self._windows: dict[str, GrayWindow] = {}
        self._volume_node: Any = None
        self._upload: Path | None = None  # that the shown scan came from
        self._downloads: dict[str, Download] = {}
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
            self._hidden += [scan.parent, scan]
            self._begin(self._open_files(scan, mask))

    def close(self) -> None:
        """The visitor has left."""
        for task in self._tasks:
            task.cancel()
        self._view.close()

    def add_routes(self, app: Any) -> None:
        """Uploads and downloads go over HTTP: a page's connection is not made for a gigabyte."""
        app.router.add_post("/upload", self._receive)
        app.router.add_get("/download/{ticket}", self._send)

    # What the page calls.

    def _acts(self) -> dict[str, Callable[..., Any]]:
        presenter = self._presenter
        return {
            "use": self._use,
            "segment": self._acting(presenter.segment),
            "all_bones": self._acting(presenter.segment_all),
            "find": self._acting(presenter.segment_text),
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
            "choose_scan": self._choose_scan,
            "download": self._prepare_download,
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

    def _choose_scan(self, number: int) -> None:
        offered, self._offered, self._state.choices = self._offered, [], []
        if 0 <= number < len(offered):
            self._begin(self._open_scan(offered[number]))

    def _dismiss(self) -> None:
        self._state.note = None

    # Opening.

    async def _receive(self, request: Any) -> Any:
        """An upload has begun."""
        with self._state:
            if self._opening:
                return web.json_response({"error": "A scan is being opened: wait for it."}, status=409)
            try:
                folder = await receive_upload(request, self._folder, self._upload_limit)
            except BoneSAMError as error:
                self._show_message(Message("error", str(error)))
                return web.json_response({"error": str(error)}, status=400)
            self._hidden = [self._folder, *(one for one in self._hidden if one != folder), folder]
            self._begin(self._open_files(folder))
            return web.json_response({})

    async def _open_files(self, source: Path, mask: Path | None = None) -> None:
        self._state.opening = "Looking at the files..."
        self._state.flush()
        scans = await asyncio.to_thread(find_scans, source)
        if source.parent == self._folder:
            self._forget_uploads(keep=[source, self._upload])
        if len(scans) == 1 and scans[0].path.name.lower().endswith(".seg.nrrd"):
            self._add_segments(scans[0].path)
        elif len(scans) > 1:
            self._offered = scans
            self._state.choices = [{"title": one.title, "details": one.details} for one in scans]
        else:
            await self._open_scan(scans[0], mask)

    async def _open_scan(self, scan: FoundScan, mask: Path | None = None) -> None:
        self._state.opening = f"Reading {scan.title}..."
        self._state.flush()
        volume = await asyncio.to_thread(read_found_scan, scan)
        self._state.opening = "Preparing the views..."
        self._state.flush()
        await asyncio.sleep(_BREATH)
        self._show_scan(scan, volume)
        if mask is not None:
            self._show_mask(mask)

    def _show_scan(self, scan: FoundScan, volume: Volume) -> None:
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
            return
        for former in (self._view.store.segmentationNode, before):
            if former is not None:
                self._scene.RemoveNode(former)
        self._presenter.segments_changed()
        inside = [one for one in self._folder.iterdir() if one in scan.path.parents]
        self._upload = inside[0] if inside else None
        self._forget_uploads(keep=[self._upload])
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

    def _add_segments(self, path: Path) -> None:
        """A file that was downloaded earlier is sent back."""
        if self._volume_node is None:
            raise BoneSAMError(f"'{path.name}' holds segments: open the scan first that they belong to.")
        if self._presenter.panel.segments:
            raise BoneSAMError(
                "There are segments already: download and remove them first, then open the file again."
            )
        self._show_mask(path)

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

    def _forget_uploads(self, keep: Sequence[Path | None]) -> None:
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    # Downloads.

    async def _prepare_download(self, ending: str) -> str:
        """Address of the file, below the page's; "" if there is none."""
        self._dismiss()
        with _Word(self._state, "busy", "Preparing the file..."):
            await asyncio.sleep(_BREATH)
            try:
                volume = self._presenter.volume
                if volume is None:
                    raise BoneSAMError("There is nothing to download: open a scan and accept a bone first.")
                node = self._view.store.segmentationNode
                download = make_download(ending, node, self._volume_node, volume, self._folder)
            except BoneSAMError as error:
                self._show_message(Message("error", str(error)))
                return ""
        ticket = uuid.uuid4().hex
        self._downloads = {ticket: download}
        return f"download/{ticket}"

    async def _send(self, request: Any) -> Any:
        download = self._downloads.pop(request.match_info["ticket"], None)
        if download is None:
            raise web.HTTPNotFound
        name, content = download
        ascii_name = name.encode("ascii", "replace").decode().replace("?", "_")
        return web.Response(
            body=content,
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{ascii_name}"'},
        )

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
        if panel.box is not None and panel.box != before.box:
            self._turn_handles()
            if before.tool is Tool.BOX and panel.tool is None and self._presenter.volume is not None:
                self._quad.go_to(box_center(panel.box, self._presenter.volume))
        if panel.active_segment != before.active_segment or panel.state is not State.READY:
            self._touch_up.put_down()
        self._loop.call_later(_BREATH, self._run, self._update_surfaces)

    def _show_message(self, message: Message) -> None:
        text = without_paths(message.text, self._hidden)
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
        self._solid.update(*self._segmentations)

    def _soon(self, word: str, call: Callable[[], None]) -> None:
        """Do what keeps the views from being drawn for a moment, once the page says so."""

        async def do() -> None:
            with _Word(self._state, "busy", word):
                await asyncio.sleep(_BREATH)
                call()
                self._show_rest()

        self._spawn(do())

    def _begin(self, opening: Coroutine[Any, Any, None]) -> None:
        if self._opening:
            opening.close()
            return
        self._opening = True

        async def do() -> None:
            try:
                await opening
            except BoneSAMError as error:
                self._show_message(Message("error", str(error)))
            except Exception as error:  # beyond this nobody would see it
                _log.exception("A scan could not be opened.")
                detail = f"{type(error).__name__}: {error}"
                text = (
                    f"Something unexpected went wrong, the scan was not opened. For the developers: {detail}"
                )
                self._show_message(Message("error", text))
            finally:
                self._opening = False
                self._state.opening = ""
                self._state.flush()

        self._spawn(do())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Network:
    """Loads the bundled network before it is asked for: the first mask is then not slower than others."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "BoneSAM network")
        self._loaded: Future[SegmenterLike] | None = None

    def prepare(self) -> None:
        """Begin loading."""
        self._loaded = self._pool.submit(_warmed_up_segmenter)

    def open(self, device: str, weights: str) -> SegmenterLike:
        """As `open_segmenter`; on the worker thread."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None and (device, weights) == ("auto", ""):
            return loaded.result()
        return open_segmenter(device, weights)


def _warmed_up_segmenter() -> SegmenterLike:
    """The bundled network after a first mask of nothing: that takes 1.7 s longer than the ones after it."""
    segmenter = open_segmenter("auto", "")
    nothing = Volume(np.zeros((2 * BATCH, 16, 16), np.float32), np.eye(4))
    segmenter.open(nothing, (), "average").segment(box=Box.from_ijk((0, 0, 0), (15, 15, 2 * BATCH - 1)))
    return segmenter


class _Word:
    """A word in the page while something takes its time."""

    def __init__(self, state: Any, name: str, word: str) -> None:
        self._state, self._name, self._word = state, name, word

    def __enter__(self) -> None:
        self._state[self._name] = self._word
        self._state.flush()

    def __exit__(self, *_: object) -> None:
        self._state[self._name] = ""
        self._state.flush()
