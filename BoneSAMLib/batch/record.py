"""The JSON file beside each mask: what was done, from what, and whether it still holds."""

import datetime
import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

from BoneSAMLib.batch.case import Case
from BoneSAMLib.batch.staging import staged
from BoneSAMLib.bundle import file_digest
from BoneSAMLib.dicom_segmentation import DICOM_ENDING, is_segmentation
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.writing import open_complete

__all__ = [
    "Record",
    "Status",
    "claim_output",
    "installed_versions",
    "is_valid",
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
            file.write(json.dumps(record, indent=1, ensure_ascii=False).encode())
        made.replace(case.record)
    return record


def is_valid(case: Case, record: Record | None, digests: Mapping[str, str]) -> bool:
    """Whether mask and surfaces are complete and come from this input, these prompts and these weights."""
    if record is None or record["status"] != "complete":
        return False
    stored = record.get("digests", {})
    return (
        all(stored.get(what) == digest for what, digest in digests.items())
        and _is_as_written(case, record)
        and (not case.surfaces or _has_surfaces(case, record))
    )


def claim_output(case: Case, record: Record | None) -> None:
    """Remove mask and surfaces of an earlier run, so that none is taken for a new one.

    Raises:
        BoneSAMError: they are not from an earlier run, or somebody has corrected the mask since.
    """
    _claim_mask(case, record)
    if record is not None and "surfaces" in record:
        shutil.rmtree(case.surface_folder, ignore_errors=True)
    if case.surfaces and case.surface_folder.exists():
        raise BoneSAMError(
            f"'{case.surface_folder}' exists and was not written by a batch: move it away, or choose another "
            "folder."
        )


def _claim_mask(case: Case, record: Record | None) -> None:
    if not case.output.exists():
        return
    if record is None or record["status"] == "failed":
        raise BoneSAMError(
            f"'{case.output}' exists and was not written by a batch: move it away, or choose another folder."
        )
    if record["status"] == "complete" and not _is_as_written(case, record) and _is_whole(case):
        raise BoneSAMError(
            f"'{case.output}' was changed after it was written, so it is kept: move it away to make it again."
        )
    try:
        case.output.unlink(missing_ok=True)
    except OSError as error:
        raise BoneSAMError(f"Cannot replace '{case.output}': {error.strerror or error}.") from error


def installed_versions() -> dict[str, str]:
    """Versions of all that computes or reads."""
    versions = {"Python": platform.python_version(), "system": platform.platform()}
    for name in ("bonesam", "numpy", "onnxruntime", "pydicom", "SimpleITK"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def _is_as_written(case: Case, record: Record) -> bool:
    try:
        return file_digest(case.output) == str(record.get("digests", {}).get("output"))
    except OSError:
        return False


def _has_surfaces(case: Case, record: Record) -> bool:
    stored = record.get("surfaces")
    try:
        return isinstance(stored, dict) and all(
            file_digest(case.surface_folder / name) == digest for name, digest in stored.items()
        )
    except OSError:
        return False


def _is_whole(case: Case) -> bool:
    if case.output.name.lower().endswith(DICOM_ENDING):
        return is_segmentation(case.output)
    try:
        read_volume(case.output)
    except BoneSAMError:
        return False
    return True
