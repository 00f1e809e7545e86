"""Opening files: what was named at the start, or is sent by the page, becomes the scan or the segments."""

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from BoneSAMLib.browser.found_scans import FoundScan, find_scans, read_found_scan, without_paths
from BoneSAMLib.browser.page_word import BREATH
from BoneSAMLib.browser.upload import receive_upload
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.panel import Message
from BoneSAMLib.volume import Volume

__all__ = ["Opening"]

_log = logging.getLogger(__name__)


class Opening:
    """At most one at a time, on the event loop's thread, except for looking at and reading files.

    Args:
        state: of the page.
        folder: the visitor's own, for uploads.
        upload_limit: bytes of one upload.
        spawn: runs something on the event loop.
        show_scan: shows a scan; returns whether it is shown now.
        add_segments: shows a segmentation file that was downloaded earlier.
        would_be_lost: a warning of what another scan takes the place of; "" where there is nothing.
        tell: shows a sentence.
    """

    def __init__(
        self,
        state: Any,
        folder: Path,
        upload_limit: int,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        show_scan: Callable[[FoundScan, Volume], bool],
        add_segments: Callable[[Path], None],
        would_be_lost: Callable[[], str],
        tell: Callable[[Message], None],
    ) -> None:
        self._state = state
        self._folder, self._upload_limit = folder, upload_limit
        self._spawn = spawn
        self._show_scan, self._add_segments, self._tell = show_scan, add_segments, tell
        self._would_be_lost = would_be_lost
        self._hidden = [folder]  # where files lie that messages may name
        self._is_busy = False
        self._offered: list[FoundScan] = []
        self._then: Callable[[], None] | None = None  # what is done once one of them is shown
        self._upload: Path | None = None  # that the shown scan came from

    # Where files come from.

    def begin(self, scan: Path, then: Callable[[], None]) -> None:
        """Open the operator's own scan. `then`: called once it is shown."""
        self._hidden += [scan.parent, scan]
        self._begin(self._open_files(scan, then))

    async def receive(self, request: Any) -> Any:
        """An upload has begun; returns the answer to its request."""
        with self._state:
            if self._is_busy:
                return web.json_response({"error": "A scan is being opened: wait for it."}, status=409)
            try:
                folder = await receive_upload(request, self._folder, self._upload_limit)
            except BoneSAMError as error:
                self._tell(Message("error", str(error)))
                return web.json_response({"error": str(error)}, status=400)
            self._hidden = [self._folder, *(one for one in self._hidden if one != folder), folder]
            self._begin(self._open_files(folder))
            return web.json_response({})

    def choose(self, number: int) -> None:
        """Open one of the scans that were offered; none for another number."""
        offered, self._offered, self._state.choices = self._offered, [], []
        if 0 <= number < len(offered):
            self._begin(self._open_scan(offered[number], self._then))

    def public(self, text: str) -> str:
        """A message as the page may show it: without this machine's paths."""
        return without_paths(text, self._hidden)

    # What becomes of them.

    def _begin(self, opening: Coroutine[Any, Any, None]) -> None:
        if self._is_busy:
            opening.close()
            return
        self._is_busy = True

        async def do() -> None:
            try:
                await opening
            except BoneSAMError as error:
                self._tell(Message("error", str(error)))
            except Exception as error:  # beyond this nobody would see it
                _log.exception("A scan could not be opened.")
                detail = f"{type(error).__name__}: {error}"
                text = (
                    f"Something unexpected went wrong, the scan was not opened. For the developers: {detail}"
                )
                self._tell(Message("error", text))
            finally:
                self._is_busy = False
                self._say("")

        self._spawn(do())

    async def _open_files(self, source: Path, then: Callable[[], None] | None = None) -> None:
        self._say("Looking at the files...")
        scans = await asyncio.to_thread(find_scans, source)
        if source.parent == self._folder:
            self._forget_uploads(keep=[source, self._upload])
        if len(scans) == 1 and scans[0].path.name.lower().endswith(".seg.nrrd"):
            self._add_segments(scans[0].path)
        elif len(scans) > 1 or self._would_be_lost():
            self._offered, self._then = scans, then
            self._state.loss = self._would_be_lost()
            self._state.choices = [{"title": one.title, "details": one.details} for one in scans]
        else:
            await self._open_scan(scans[0], then)

    async def _open_scan(self, scan: FoundScan, then: Callable[[], None] | None = None) -> None:
        self._say(f"Reading {scan.title}...")
        volume = await asyncio.to_thread(read_found_scan, scan)
        self._say("Preparing the views...")
        await asyncio.sleep(BREATH)
        if self._show_scan(scan, volume):
            inside = [one for one in self._folder.iterdir() if one in scan.path.parents]
            self._upload = inside[0] if inside else None
            self._forget_uploads(keep=[self._upload])
            if then is not None:
                then()

    def _say(self, word: str) -> None:
        self._state.opening = word
        self._state.flush()

    def _forget_uploads(self, keep: Sequence[Path | None]) -> None:
        for folder in self._folder.iterdir():
            if folder.is_dir() and folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)
