"""Results of an evaluation as they come, in a JSON-lines file, so that a stopped run goes on where it was."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from BoneSAMLib.errors import BoneSAMError

Key = tuple[str, ...]


class Journal:
    """A file whose first line holds the settings and every further one all results of one part of the work.

    A line that was cut short by a kill is dropped, so that its part is done again. NaN is stored as null.

    Args:
        path: the file; made when it is new.
        settings: plain values; what must be the same in the whole file.
        fresh: True forgets what the file holds.

    Raises:
        BoneSAMError: the file holds results of other settings, or is no journal.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], fresh: bool = False) -> None:
        self.path, self.settings = path, dict(settings)
        self._parts: dict[Key, list[dict[str, Any]]] = {}
        if fresh:
            path.unlink(missing_ok=True)
        if path.exists():
            found = self._read()
            if found is not None and found != dict(settings):
                raise BoneSAMError(
                    f"{path} holds an evaluation with other settings ({found}): name another folder with "
                    "--out, or replace it with --fresh."
                )
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write({"settings": dict(settings)})

    def __contains__(self, key: Key) -> bool:
        return key in self._parts

    def append(self, key: Key, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows of a finished part.

        Raises:
            BoneSAMError: the disk is full, or the file cannot be written to.
        """
        plain = [{name: _storable(value) for name, value in row.items()} for row in rows]
        self._write({"key": list(key), "rows": plain})
        self._parts[key] = plain

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of all parts, in the order in which they were finished; None for what is undefined."""
        for rows in self._parts.values():
            yield from rows

    def _read(self) -> dict[str, Any] | None:
        """Take over the file's whole lines; its settings, None where not even these are whole."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        if not whole:
            self.path.unlink()
            return None
        try:
            first, *lines = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
            for line in lines:
                self._parts[tuple(line["key"])] = line["rows"]
            return dict(first["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise BoneSAMError(f"{self.path} is not a file of results: replace it with --fresh.") from error

    def _write(self, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise BoneSAMError(f"Results cannot be written to {self.path} ({error.strerror}).") from error


def read_journal(path: Path) -> Journal | None:
    """A journal with whatever settings it has; None where there is none.

    Raises:
        BoneSAMError: the file is no journal.
    """
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8") as file:
            settings = json.loads(file.readline())["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BoneSAMError(f"{path} is not a file of results: replace it with --fresh.") from error
    return Journal(path, settings)


def _storable(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
