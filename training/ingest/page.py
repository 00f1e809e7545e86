"""The page that shows what was taken into a store: a picture and the findings of every case, by subject."""

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from BoneSAMLib.writing import open_complete
from training.cases import SPLITS

__all__ = ["Record", "write_page"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1200px; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2em .8em .2em 0; text-align: left; }
h3 { margin-bottom: .2em; } img { max-width: 100%; background: #111; }
.refused { color: #a00; } .suspicious { color: #950; } .facts, .note { color: #555; }
"""


@dataclass
class Record:
    """What became of one case.

    Attributes:
        id: of the case.
        verdict: "packed", "test" (checked, and left to the evaluation), "unlabelled" or "refused".
        row: of the index that the report folder holds, or of an image without a mask.
        fingerprint: changes with the files and with what was said about them.
        error: why it was refused.
        suspicions: what looks wrong.
        notes: what was done to it.
        objects: names of the bones.
        facts: size, spacing and so on, in words.
        picture: name of the picture's file, or "".
    """

    id: str
    verdict: str
    row: dict[str, Any]
    fingerprint: str
    error: str = ""
    suspicions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    picture: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def write_page(path: Path, records: Sequence[Record], problems: Sequence[tuple[str, str]]) -> None:
    """Write the page; what needs a look comes first.

    Raises:
        BoneSAMError: it cannot be written.
    """
    with open_complete(path) as file:
        file.write("".join(_page(records, problems)).encode())


def _page(records: Sequence[Record], problems: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"<!DOCTYPE html><html lang='en'><meta charset='utf-8'><title>Scans</title><style>{_STYLE}</style>"
    yield "<h1>Scans of this store</h1>"
    yield from _counts(records)
    refused = [record for record in records if record.verdict == "refused"]
    if refused or problems:
        yield "<h2>Left out</h2><ul class='refused'>"
        for record in refused:
            yield f"<li><b>{html.escape(record.id)}</b>: {html.escape(record.error)}</li>"
        for _, sentence in problems:
            yield f"<li>{html.escape(sentence)}</li>"
        yield "</ul>"
    doubtful = [record for record in records if record.suspicions]
    if doubtful:
        yield "<h2>To be looked at</h2><ul class='suspicious'>"
        for record in doubtful:
            sentences = html.escape(" ".join(record.suspicions))
            yield f"<li><a href='#{html.escape(record.id)}'>{html.escape(record.id)}</a>: {sentences}</li>"
        yield "</ul>"
    shown = [record for record in records if record.verdict != "refused"]
    shown.sort(key=lambda record: (not record.suspicions, record.row.get("subject", ""), record.id))
    subject = None
    for record in shown:
        if record.row.get("subject") != subject:
            subject = record.row.get("subject")
            yield f"<h2>{html.escape(str(subject))}</h2>"
        yield from _case(record)


def _counts(records: Sequence[Record]) -> Iterator[str]:
    counts = Counter(
        (record.row.get("source", "without masks"), record.row.get("split", ""))
        for record in records
        if record.verdict in ("packed", "test")
    )
    sources = sorted({source for source, _ in counts})
    yield "<table><tr><th>source</th>" + "".join(f"<th>{split}</th>" for split in SPLITS) + "</tr>"
    for source in sources:
        cells = "".join(f"<td>{counts[source, split]}</td>" for split in SPLITS)
        yield f"<tr><td>{html.escape(source)}</td>{cells}</tr>"
    free = sum(record.verdict == "unlabelled" for record in records)
    yield f"</table><p>{free} scans without a mask, for training.</p>"


def _case(record: Record) -> Iterator[str]:
    yield f"<h3 id='{html.escape(record.id)}'>{html.escape(record.id)}</h3>"
    facts = {**record.facts, "bones": ", ".join(record.objects)}
    yield "<div class='facts'>"
    yield "; ".join(f"{html.escape(key)}: {html.escape(value)}" for key, value in facts.items() if value)
    yield "</div>"
    for kind, sentences in (("suspicious", record.suspicions), ("note", record.notes)):
        for sentence in sentences:
            yield f"<div class='{kind}'>{html.escape(sentence)}</div>"
    if record.picture:
        name = html.escape(record.picture)
        yield f"<a href='{name}'><img loading='lazy' src='{name}' alt='slices with outlines'></a>"
