"""One run at a time in a folder of masks: two would take each other's unfinished work for remains.

The parts of a batch that a job array shares out have no case in common: they may work beside each other.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from BoneSAMLib.errors import BoneSAMError

__all__ = ["only_run_in"]

_NAME = ".bonesam-batch{}.lock"
_BUSY = "Another batch is writing to '{}': wait for it, or choose another folder."


@contextlib.contextmanager
def only_run_in(folder: Path, part: str = "") -> Iterator[Path]:
    """Keep other runs out of `folder`, which is made if it is missing.

    The system ends the lock with the process, however that ends. A `part`, such as "-3-of-8", leaves the
    folder to the other parts of the same count. Gives the file that is the lock.

    Raises:
        BoneSAMError: another run works there, or the folder cannot be written to.
    """
    path = folder / _NAME.format(part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BoneSAMError(f"Cannot write to the folder '{folder}': {error.strerror or error}.") from error
    try:
        if not _lock(descriptor):
            raise BoneSAMError(_BUSY.format(folder))
        try:
            if any(_is_held(other) for other in _rivals(folder, part)):
                raise BoneSAMError(_BUSY.format(folder))
            if not part:
                _remove_remains(folder)
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
    finally:
        os.close(descriptor)


def _rivals(folder: Path, part: str) -> list[Path]:
    """Locks of runs that may have cases in common with this one, but for its own."""
    found = [path for path in folder.glob(_NAME.format("*")) if path.name != _NAME.format(part)]
    if not part:
        return found
    of_count = part[part.rindex("-of-") :]
    return [path for path in found if not path.name.endswith(f"{of_count}.lock")]


def _remove_remains(folder: Path) -> None:
    """Half of a summary, where a run was killed while it wrote that; masks have folders of their own."""
    for path in folder.glob(".bonesam-*.part"):
        with contextlib.suppress(OSError):
            path.unlink()


def _is_held(path: Path) -> bool:
    """Whether a run holds this lock; what a killed run has left of one is removed."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        if not _lock(descriptor):
            return True
        with contextlib.suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno not in (
            errno.EACCES,
            errno.EDEADLK,
        )  # a file system without locks must not stop the work
    return True
