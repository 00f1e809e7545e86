"""The JSON file beside each mask: what was done, from what, and whether it still holds."""

import datetime
import gzip
import json
import platform
import zlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import SimpleITK

from BoneSAMLib.batch.case import Case
from BoneSAMLib.batch.staging import staged
from BoneSAMLib.bundle import file_digest
from BoneSAMLib.dicom_segmentation import DICOM_ENDING, is_segmentation
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.writing import open_complete

__all__ = [
    "Record",
    "Status",
    "check_replaceable",
    "finished",
    "installed_versions",
    "is_batch_mask",
    "is_output_of",
    "is_valid",
    "other_mask",
    "read_record",
    "write_record",
]

Record: TypeAlias = dict[str, Any]
Status: TypeAlias = Literal["started", "complete", "failed"]
FORMAT = 1


def read_record(case: Case) -> Record | None:
    """The record of a case, None when there is none that can be read."""
    try:
        record = json.loads(case.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(record, dict) and record.get("format") == FORMAT and "status" in record
    return record if is_ours and record.get("output") == case.output.name else None


def write_record(case: Case, status: Status, content: Mapping[str, Any]) -> Record:
    """Write the record of a case, whole or not at all.

    Raises:
        BoneSAMError: it cannot be written.
    """
    record: Record = {
        "format": FORMAT,
        "status": status,
        "case": case.name,
        "input": str(case.source),
        "output": case.output.name,
        "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        **({"surfaces": {}} if case.surfaces and status == "started" else {}),
        **content,
    }
    with staged(case) as folder:
        made = folder / case.record.name
        with open_complete(made) as file:
            file.write(json.dumps(record, indent=1).encode())
        made.replace(case.record)
    return record


def is_valid(case: Case, record: Record | None, digests: Mapping[str, str]) -> bool:
    """Whether mask and surfaces are complete and come from this input, these prompts and these weights."""
    if record is None or record["status"] != "complete":
        return False
    stored = record.get("digests", {})
    return (
        all(stored.get(what) == digest for what, digest in digests.items())
        and is_output_of(case, record)
        and (not case.surfaces or _has_surfaces(case, record))
    )


def check_replaceable(case: Case, record: Record | None, digests: Mapping[str, str]) -> None:
    """See that mask and surfaces of an earlier run may be replaced. They stay until the new ones are there.

    Raises:
        BoneSAMError: they are not from an earlier run, are of another volume or in another format, or
            somebody has corrected them since.
    """
    other = other_mask(case)
    if other is not None:
        raise BoneSAMError(f"'{other}' is the same volume's mask in another format: choose another folder.")
    if case.output.exists():
        _check_mask(case, record, digests)
    if case.surface_folder.exists():
        _check_surfaces(case, record)


def finished(record: Record | None) -> Record | None:
    """The record of the last mask that was completed: this one, or the one before a case that was begun."""
    if record is not None and record["status"] == "started":
        record = record.get("earlier")
    return record if record is not None and record["status"] == "complete" else None


def is_output_of(case: Case, *records: Record | None) -> bool:
    """Whether the mask is, byte by byte, what one of these records tells of."""
    known = [record["digests"].get("output") for record in records if record and "digests" in record]
    try:
        return file_digest(case.output) in known
    except OSError:
        return False


def other_mask(case: Case) -> Path | None:
    """The mask that the case's record is of, where it is another file than the case's."""
    try:
        record = json.loads(case.record.read_text(encoding="utf-8"))
        other = case.output.parent / str(record["output"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return other if other.name != case.output.name and other.exists() else None


def is_batch_mask(path: Path) -> bool:
    """Whether a file was written as a mask by a batch."""
    record = read_record(Case("", path, path, None))
    return record is not None and record["status"] != "failed"


def _check_mask(case: Case, record: Record | None, digests: Mapping[str, str]) -> None:
    if record is None or record["status"] == "failed":
        raise BoneSAMError(
            f"'{case.output}' exists and was not written by a batch: move it away, or choose another folder."
        )
    last = finished(record)
    if not is_output_of(case, record, last) and not _is_damaged(case):
        raise BoneSAMError(
            f"'{case.output}' was changed after it was written, so it is kept: move it away to make it again."
        )
    if last is None or last["digests"].get("input") == digests.get("input"):
        return
    if Path(last["input"]).resolve() != case.source.resolve():
        raise BoneSAMError(
            f"'{case.output}' is the mask of another volume, '{last['input']}': choose another folder."
        )


def _check_surfaces(case: Case, record: Record | None) -> None:
    last = finished(record)
    if record is not None and "surfaces" in record and last is None:
        return  # of a case that was never completed
    if last is None or "surfaces" not in last:
        if case.surfaces:
            raise BoneSAMError(
                f"'{case.surface_folder}' exists and was not written by a batch: move it away, or choose "
                "another folder."
            )
        return
    for path in sorted(case.surface_folder.iterdir()):
        is_ours = path.is_file() and file_digest(path) == last["surfaces"].get(path.name)
        if not is_ours and not _is_cut_off(path):
            raise BoneSAMError(
                f"'{path}' was changed after it was written, so it is kept: move it away to make it again."
            )


def _is_cut_off(path: Path) -> bool:
    """Whether a binary STL file holds fewer triangles than it says."""
    if not path.is_file() or path.suffix != ".stl":
        return False
    with path.open("rb") as file:
        start = file.read(84)
    return len(start) == 84 and path.stat().st_size < 84 + 50 * int.from_bytes(start[80:], "little")


def installed_versions() -> dict[str, str]:
    """Versions of all that computes or reads."""
    versions = {"Python": platform.python_version(), "system": platform.platform()}
    for name in ("bonesam", "numpy", "onnxruntime", "pydicom", "SimpleITK"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def _has_surfaces(case: Case, record: Record) -> bool:
    stored = record.get("surfaces")
    try:
        return isinstance(stored, dict) and all(
            file_digest(case.surface_folder / name) == digest for name, digest in stored.items()
        )
    except OSError:
        return False


def _is_damaged(case: Case) -> bool:
    """Whether the mask cannot be read by anybody: one with several layers can be somebody's work."""
    name = case.output.name.lower()
    try:
        with case.output.open("rb") as file:
            file.read(1)
        if name.endswith(DICOM_ENDING):
            return not is_segmentation(case.output)
        if name.endswith(".gz"):
            with gzip.open(case.output) as stream:
                while stream.read(1 << 20):
                    pass
            return False
        SimpleITK.ReadImage(str(case.output))
    except (gzip.BadGzipFile, EOFError, zlib.error, RuntimeError):
        return True
    except (OSError, MemoryError):
        return False
    return False
