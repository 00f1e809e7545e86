"""One attempt at a case: a place to make its files in, and the knowledge that nobody else has begun it since.

A worker that is taken for dead may still be alive, on another machine. Whoever begins a case puts a mark into
its record. Whoever no longer finds the own mark there has lost the case, and changes nothing any more.
"""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Mapping

from BoneSAMLib.batch.case import Case
from BoneSAMLib.batch.record import Record, finished, is_output_of, read_record, write_record
from BoneSAMLib.batch.staging import remove_staging
from BoneSAMLib.errors import BoneSAMError

__all__ = ["Attempt", "LostCaseError", "clean_up_case"]

_SECONDS_BETWEEN_LOOKS = 2.0


class LostCaseError(BoneSAMError):
    """Another attempt has begun the case, or the run that wanted it has cleaned it up."""


class Attempt:
    """A turn at a case, from `begin` to its last record.

    Args:
        case: which.
        earlier: its record before; of it, what tells of a complete mask is kept in `earlier`.
    """

    def __init__(self, case: Case, earlier: Record | None = None) -> None:
        self.case, self.earlier = case, finished(earlier)
        self._mark = uuid.uuid4().hex
        self._next_look = 0.0
        self.begun = False

    def begin(self, digests: Mapping[str, str]) -> None:
        """Say in the record that the case is being worked on.

        Raises:
            BoneSAMError: it cannot be written.
        """
        self.begun = True
        self._write(digests)
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS

    def made(self, digests: Mapping[str, str]) -> None:
        """Say that a mask with this digest, "output", is about to take its place.

        Raises:
            BoneSAMError: it cannot be written.
            LostCaseError: the case was lost.
        """
        self.confirm()
        self._write(digests)

    def _write(self, digests: Mapping[str, str]) -> None:
        earlier = {} if self.earlier is None else {"earlier": self.earlier}
        write_record(self.case, "started", {"attempt": self._mark, "digests": dict(digests), **earlier})

    def progress(self, fraction: float, text: str) -> None:
        """To be called while the case is worked on: notices after a moment that the case was lost.

        Raises:
            LostCaseError: it was.
        """
        if time.monotonic() > self._next_look:
            self.confirm()
            self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS

    def confirm(self) -> None:
        """Raises LostCaseError unless this is still the last attempt at the case."""
        if not self._is_last():
            raise LostCaseError(f"'{self.case.source}' was taken over by another process, or stopped.")

    def clean_up(self) -> None:
        """Remove what this attempt has left, unless another one works on the case by now."""
        if self.begun and self._is_last():
            clean_up_case(self.case)

    def _is_last(self) -> bool:
        try:
            record = json.loads(self.case.record.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        except OSError:
            return True  # the disk is slow or away: no sign that the case is lost
        return isinstance(record, dict) and record.get("attempt") == self._mark


def clean_up_case(case: Case) -> None:
    """Make a case that was begun and not completed as if not begun: an earlier mask and its record stay."""
    record = read_record(case)
    if record is not None and record["status"] == "started":
        last = finished(record)
        with contextlib.suppress(OSError, BoneSAMError):
            if last is not None and is_output_of(case, last):
                write_record(case, "complete", last)
            else:
                if is_output_of(case, record):  # it was written between the two records
                    case.output.unlink(missing_ok=True)
                if "surfaces" in record:
                    shutil.rmtree(case.surface_folder, ignore_errors=True)
                case.record.unlink(missing_ok=True)
    remove_staging(case)
