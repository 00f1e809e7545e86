"""The folder beside a mask where files are made before they are moved into place."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from BoneSAMLib.batch.case import Case
from BoneSAMLib.errors import BoneSAMError

__all__ = ["remove_staging", "staged"]


@contextlib.contextmanager
def staged(case: Case) -> Iterator[Path]:
    """A new folder for files of a case, removed at the end with all that is left in it.

    Raises:
        BoneSAMError: it cannot be made, or what the block raised.
    """
    folder = case.staging / uuid.uuid4().hex[:12]  # two attempts may overlap: neither meets the other's files
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise BoneSAMError(
            f"Cannot write to the folder '{case.output.parent}': {error.strerror or error}."
        ) from error
    try:
        yield folder
    except BoneSAMError as error:
        if str(folder) not in str(error):
            raise
        # The user knows the place where the file was to be.
        raise BoneSAMError(str(error).replace(str(folder), str(case.output.parent))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: another attempt is at work
            case.staging.rmdir()


def remove_staging(case: Case) -> None:
    """Remove what earlier attempts have left half-made."""
    shutil.rmtree(case.staging, ignore_errors=True)
