"""Files from the browser to a folder of the visitor's own, as a stream and no more than the limit."""

import asyncio
import shutil
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from aiohttp import web

from BoneSAMLib.errors import BoneSAMError

__all__ = ["receive_upload", "too_large"]

_CHUNK = 1 << 18
_LONGEST_NAME = 100


async def receive_upload(request: Any, folder: Path, limit: int) -> Path:
    """Keep the files of a multipart request in a new folder inside `folder`; returns that one.

    Their names are kept, without the folders they came from; of names that occur twice, the later ones get
    folders of their own.

    Raises:
        BoneSAMError: more than `limit` bytes, no files, no room on the disk, or the connection was lost.
            Nothing is left then.
    """
    if request.content_length is not None and request.content_length > limit + (1 << 20):
        raise BoneSAMError(too_large(limit))
    kept = folder / uuid.uuid4().hex[:12]
    kept.mkdir()
    try:
        await _receive(request, kept, limit)
        return kept
    except BaseException as error:
        await asyncio.to_thread(shutil.rmtree, kept, True)
        if isinstance(error, OSError | web.HTTPException | ValueError | AssertionError):
            raise BoneSAMError("The files did not arrive completely: try again.") from error
        raise


def too_large(limit: int) -> str:
    """What to tell whoever sends more."""
    return (
        f"That is more than the {limit / 1e6:,.0f} MB that this viewer takes at once: "
        "choose one scan, or crop it first."
    )


async def _receive(request: Any, folder: Path, limit: int) -> None:
    received = count = 0
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not getattr(part, "filename", None):
            continue
        path = folder / _plain_name(part.filename)
        if path.exists():
            path = folder / f"{count:05}" / path.name
            path.parent.mkdir()
        with path.open("xb") as file:
            while chunk := await part.read_chunk(_CHUNK):
                received += len(chunk)
                if received > limit:
                    raise BoneSAMError(too_large(limit))
                file.write(chunk)
        count += 1
    if count == 0:
        raise BoneSAMError("No file arrived: choose a scan, or a folder that holds one.")


def _plain_name(sent: str) -> str:
    """The last part of a name, with nothing in it that means something to a file system."""
    name = PurePosixPath(sent.replace("\\", "/")).name
    name = "".join(sign if sign.isalnum() or sign in "._-+ ()" else "_" for sign in name).strip(" .")
    return name[-_LONGEST_NAME:] or "file"
