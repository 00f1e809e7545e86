"""One visitor's process, seen from the gateway."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PORT_LINE", "SECRET_HEADER", "Visitor", "VisitorTask"]

PORT_LINE = "BoneSAM listens at port "
SECRET_HEADER = "X-BoneSAM-Visitor"
_MODULE = "BoneSAMLib.browser.visitor_process"
_log = logging.getLogger(__name__)
_LAST_WORDS = 3000  # bytes
_PATIENCE = 5.0  # seconds that a process has to end by itself


@dataclass(frozen=True)
class VisitorTask:
    """What a visitor starts with.

    Attributes:
        scan: opened at once; None for an empty page.
        mask: a segmentation of `scan`, shown with it.
        upload_limit: bytes of one upload.
    """

    scan: Path | None = None
    mask: Path | None = None
    upload_limit: int = 2_000_000_000


class Visitor:
    """A process and its folder; both go with `end`.

    Attributes:
        identifier: part of the visitor's address, and as hard to guess as the token.
        secret: what the process wants to see in every request, for others on this machine know its port.
        port: where it listens; None until it does.
        was_connected: whether a page was ever there.
    """

    def __init__(self, task: VisitorTask) -> None:
        self.identifier = secrets.token_urlsafe(18)
        self.secret = secrets.token_urlsafe(24)
        self.port: int | None = None
        self.was_connected = False
        self._ending = False
        self._task = task
        self._folder = Path(tempfile.mkdtemp(prefix="bonesam-"))  # readable by this user only
        # VTK's remarks are not for the terminal, unless they are a process's last words.
        self._log = (self._folder / "log").open("w+b")
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process; it has a port some seconds later."""
        environment = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "TRAME_ARGS": "",
            # Without a screen; named, so that VTK does not first look for one and complain.
            "VTK_DEFAULT_OPENGL_WINDOW": os.environ.get("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow"),
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            _MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=environment,
            # Ctrl-C in the terminal is for the gateway, which then ends its visitors.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        message = {
            "secret": self.secret,
            "folder": str(self._folder),
            "scan": None if self._task.scan is None else str(self._task.scan.resolve()),
            "mask": None if self._task.mask is None else str(self._task.mask.resolve()),
            "upload_limit": self._task.upload_limit,
        }
        # Not as arguments, which everybody on this machine can read.
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()
        self._reading = asyncio.create_task(self._read_lines())

    async def _read_lines(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode(errors="replace").strip()
            if text.startswith(PORT_LINE):
                self.port = int(text.removeprefix(PORT_LINE))
        await self._process.wait()
        if not self._ending:
            self._log.seek(0)
            _log.error(
                "A viewer has ended unexpectedly:\n%s",
                self._log.read()[-_LAST_WORDS:].decode("utf-8", "replace"),
            )

    async def end(self) -> None:
        """End the process, and remove what was uploaded."""
        self._ending = True
        process = self._process
        if process is not None and process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()  # it ends by itself then
            try:
                await asyncio.wait_for(process.wait(), _PATIENCE)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._reading is not None:
            self._reading.cancel()
        self._log.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
