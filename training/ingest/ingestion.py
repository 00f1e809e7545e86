"""Scans into a training store, one after another; what was done before is not done again.

Beside the store's arrays lies the folder `report`: `index.html` to be looked at, `index.json` of all cases
that were taken (which `training.evaluate` reads), and per case a record and a picture.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.overlay_sheet import overlay_sheet
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, distinct_color, open_complete
from training.annotation import dicom_kind
from training.cases import INDEX, BoneObject, case_from_row
from training.ingest.checks import refuse_useless, suspicions
from training.ingest.discovery import Found
from training.ingest.page import Record, write_page
from training.ingest.splits import assign_splits
from training.store import read_unlabelled, remove, store_objects, store_unlabelled

__all__ = ["Outcome", "ingest"]

REPORT = "report"
_MOST_SLICES = 12  # in a picture: to be looked through, not read


@dataclass
class Outcome:
    """What came of it: cases in the order of their names, and what could not be matched at all."""

    records: list[Record] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def count(self, *verdicts: str) -> int:
        """How many cases became one of these."""
        return sum(record.verdict in verdicts for record in self.records)


def ingest(
    found: Found,
    store: Path,
    shares: dict[str, float],
    strict: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Check and pack what was found into ``store``, and write its report.

    Args:
        found: cases and scans; of the same ID as in the store, they replace those if they changed.
        store: folder; made if it is missing. Other subjects in it stay.
        shares: of subjects in train, validation and test, for cases whose split nobody gave.
        strict: leave out what looks wrong, too.
        say: called with a line per case.

    Raises:
        BoneSAMError: two cases have one ID, a person is in two splits, or the store cannot be written. What
            was packed until then is whole.
    """
    report = store / REPORT
    for folder in (store, report, report / "cases"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BoneSAMError(f"Cannot make the folder '{folder}': {error.strerror or error}.") from error
    before = _records(report / "cases")
    # A scan without a mask in one folder may have got one in another, by training.sequence_transfer.
    annotated = {row["image"] for row in found.rows}
    free = [row for row in found.unlabelled if row["file"] not in annotated]
    _check_names([row["id"] for row in [*found.rows, *free]])
    known = _known_splits(before.values(), found.rows)
    given = [(row["subject"], row["split"]) for row in found.rows]
    splits = assign_splits(given, known, shares)
    work = _Work(store, report, before, strict, say)
    for row in found.rows:
        work.annotated({**row, "split": splits[row["subject"]]})
    held_out = {subject for subject, split in {**known, **splits}.items() if split != "train"}
    for row in free:
        if row["subject"] not in held_out and row.get("split", "") in ("", "train"):
            work.unlabelled(row)
    records = sorted(_records(report / "cases").values(), key=lambda record: record.id)
    taken = [record.row for record in records if record.verdict in ("packed", "test")]
    _write_json(report / INDEX, taken)
    write_page(report / "index.html", records, found.problems)
    return Outcome(records, found.problems)


class _Work:
    """Packs one case after another into a store."""

    def __init__(
        self, store: Path, report: Path, before: dict[str, Record], strict: bool, say: Callable[[str], None]
    ) -> None:
        self.store, self.report, self.before, self.strict, self.say = store, report, before, strict, say

    def annotated(self, row: dict[str, Any]) -> None:
        """Check, draw and pack one case; or leave it to the evaluation, if it is a test case."""
        fingerprint = _fingerprint(row, [Path(row["image"]), Path(row["mask"])], self.strict)
        if self._is_done(row["id"], fingerprint):
            return
        record = Record(row["id"], "refused", row, fingerprint)
        try:
            volume, objects = _checked(record, self.report)
            if self.strict and record.suspicions:
                raise BoneSAMError(" ".join(record.suspicions))
        except (BoneSAMError, MemoryError) as error:
            self._refuse(record, error)
            return
        _draw(volume, objects, self.report / f"{record.id}.png")
        record.picture = f"{record.id}.png"
        if row["split"] == "test":
            record.verdict = "test"
            remove(self.store, record.id)
        else:
            record.verdict = "packed"
            store_objects(case_from_row(record.row, self.report), volume, objects, self.store)
        self._keep(record)

    def unlabelled(self, row: dict[str, Any]) -> None:
        """Pack one scan without a mask."""
        fingerprint = _fingerprint(row, [Path(row["file"])], False)
        if self._is_done(row["id"], fingerprint):
            return
        record = Record(row["id"], "unlabelled", row, fingerprint)
        try:
            volume = read_unlabelled(row, Path(row["file"]).parent)
        except (BoneSAMError, MemoryError) as error:
            self._refuse(record, error)
            return
        record.facts = _facts(volume)
        store_unlabelled(row, volume, self.store)
        self._keep(record)

    def _is_done(self, identifier: str, fingerprint: str) -> bool:
        record = self.before.get(identifier)
        if record is None or record.verdict == "refused" or record.fingerprint != fingerprint:
            return False
        whole = record.verdict == "test" or (self.store / f"{identifier}.json").exists()
        if whole:
            self.say(f"{identifier}: kept")
        return whole

    def _refuse(self, record: Record, error: BaseException) -> None:
        record.verdict = "refused"
        record.error = (
            str(error) if isinstance(error, BoneSAMError) else f"{record.id} does not fit into memory."
        )
        remove(self.store, record.id)
        self._keep(record)

    def _keep(self, record: Record) -> None:
        _write_json(self.report / "cases" / f"{record.id}.json", record.as_dict())
        text = record.error or ", ".join(record.objects) or record.verdict
        self.say(" ".join([f"{record.id}: {text}", *record.suspicions]))


def _checked(record: Record, report: Path) -> tuple[Volume, list[BoneObject]]:
    """Read a case; complete its record."""
    row = record.row
    if not row["modality"]:
        row["modality"] = read_volume(Path(row["image"])).modality_guess
        record.notes.append(f"Taken for {row['modality']}, by its values.")
    try:
        case = case_from_row(row, report)
    except (KeyError, TypeError, ValueError) as error:
        raise BoneSAMError(f"The row of case {row.get('id')} cannot be understood ({error!r}).") from error
    volume, annotation = case.read()
    objects = case.objects(volume, annotation)
    refuse_useless(case, annotation, objects)
    record.notes += annotation.notes
    left_out = [one.name for one in annotation.structures if one.value not in case.names(annotation)]
    if not (case.labels or case.ignored or annotation.structures):
        record.notes.append("No names are given: every value is taken for a bone of its own.")
    if left_out:
        record.notes.append(f"Left out, since no bones: {', '.join(left_out)}.")
    record.suspicions = suspicions(volume, objects)
    record.objects = [bone.name for bone in objects]
    record.facts = {"split": case.split, "source": case.source} | _facts(volume)
    if case.partial_label:
        record.facts["other bones"] = "not annotated, or not said to be"
    return volume, objects


def _facts(volume: Volume) -> dict[str, str]:
    return {
        "kind": volume.modality_guess,
        "voxels": " x ".join(str(n) for n in volume.size),
        "spacing": " x ".join(f"{mm:.3g}" for mm in volume.spacing) + " mm",
        "axes": volume.orientation,
    }


def _draw(volume: Volume, objects: Sequence[BoneObject], path: Path) -> None:
    """A sheet of a few slices with all bones outlined."""
    labels = np.zeros(volume.shape, np.uint16)
    for value, bone in enumerate(objects, start=1):
        labels[bone.mask] = value
    axis = 2 - volume.through_plane_axis
    others = tuple(other for other in range(3) if other != axis)
    occupied = np.flatnonzero(labels.any(axis=others))
    shown = {int(occupied[place]) for place in np.linspace(0, len(occupied) - 1, _MOST_SLICES).astype(int)}
    hidden = np.moveaxis(labels, axis, 0)
    for index in occupied:
        if int(index) not in shown:
            hidden[index] = 0
    segments = [
        SegmentInfo(value, bone.name, distinct_color(value)) for value, bone in enumerate(objects, start=1)
    ]
    overlay_sheet(volume, labels, path, segments)


def _check_names(identifiers: Sequence[str]) -> None:
    """Names of cases are names of files."""
    seen: set[str] = set()
    for identifier in identifiers:
        if not re.fullmatch(r"[\w.-]+", identifier):
            raise BoneSAMError(
                f"'{identifier}' cannot be the name of a case: use letters, digits, dots, dashes and "
                "underscores."
            )
        if identifier.casefold() in seen:
            raise BoneSAMError(f"Two cases are called '{identifier}': give each a name of its own.")
        seen.add(identifier.casefold())


def _known_splits(records: Collection[Record], rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Splits of subjects that are in the store, but for cases that are given another one now."""
    given = {row["id"] for row in rows if row["split"]}
    return {
        record.row["subject"]: record.row["split"]
        for record in records
        if record.verdict in ("packed", "test") and record.id not in given
    }


def _fingerprint(row: dict[str, Any], paths: Sequence[Path], strict: bool) -> str:
    """Of what is said about a case and of its files; a DICOM series lies in many."""
    stamps = []
    for path in paths:
        series = path.is_file() and dicom_kind(path) not in ("", "SEG", "RTSTRUCT")
        for one in sorted(path.parent.iterdir()) if series else [path]:
            if one.is_file():
                stat = one.stat()
                stamps.append((one.name, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps([row, strict, stamps], sort_keys=True).encode()).hexdigest()[:16]


def _records(folder: Path) -> dict[str, Record]:
    records = {}
    for path in sorted(folder.glob("*.json")):
        try:
            record = Record(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise BoneSAMError(
                f"The record '{path}' is damaged: delete it, and its case is done again."
            ) from error
        records[record.id] = record
    return records


def _write_json(path: Path, content: Any) -> None:
    with open_complete(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())
