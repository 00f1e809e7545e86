"""One run at a time in a folder of masks: two would take each other's unfinished work for remains."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from BoneSAMLib.errors import BoneSAMError

__all__ = ["only_run_in"]

_NAME = ".bonesam-batch.lock"


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if it is missing.

    The system ends the lock with the process, however that ends.

    Raises:
        BoneSAMError: another run works there, or the folder cannot be written to.
    """
    path = folder / _NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BoneSAMError(f"Cannot write to the folder '{folder}': {error.strerror or error}.") from error
    try:
        if not _lock(descriptor):
            raise BoneSAMError(
                f"Another batch is writing to '{folder}': wait for it, or choose another folder."
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
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
