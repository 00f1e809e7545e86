"""One page on a whole batch, worst cases first, in one file that loads nothing from elsewhere."""

import datetime
import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from BoneSAMLib.batch.case_run import CaseOutcome
from BoneSAMLib.writing import open_complete

__all__ = ["write_summary"]

_MOST_BONES = 4  # named on a card; the record has all

_STYLE = """
:root {
  color-scheme: light dark;
  --back: #ffffff; --card: #f4f5f7; --text: #1b1d21; --faint: #5d636c; --line: #dcdfe4;
  --good: #1a7f4b; --fair: #9a6700; --poor: #c62f3b;
}
@media (prefers-color-scheme: dark) { :root {
  --back: #16181c; --card: #1f2228; --text: #e8e9eb; --faint: #9aa1ab; --line: #343841;
  --good: #4cc38a; --fair: #e0a83a; --poor: #f2747d;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1240px; padding: 28px 20px 48px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .8rem; }
p { margin: .2rem 0; overflow-wrap: anywhere; }
.faint, footer { color: var(--faint); }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; }
article { background: var(--card); border-radius: 8px; overflow: hidden; }
article img { width: 100%; height: 230px; object-fit: contain; display: block; background: #121417; }
article div { padding: 10px 12px 12px; }
a { color: inherit; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
ul { list-style: none; margin: 0; padding: 0; }
li { padding: 8px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.bar {
  display: inline-block; width: 80px; height: 8px; border-radius: 4px; background: var(--line);
  margin-right: 8px; overflow: hidden;
}
.bar i { display: block; height: 100%; background: currentColor; }
.good { color: var(--good); }
.fair { color: var(--fair); }
.poor { color: var(--poor); }
footer { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
@media print { body { max-width: none; } article, li { break-inside: avoid; } }
"""


def write_summary(path: Path, outcomes: Sequence[CaseOutcome], total: int, seconds: float) -> None:
    """Write the page: failed cases, then the others from the least to the most confident.

    Args:
        path: ends in .html.
        outcomes: of the cases that ended.
        total: how many cases there are; fewer outcomes mean that the run was stopped.
        seconds: wall time of the run.

    Raises:
        BoneSAMError: it cannot be written.
    """
    with open_complete(path) as file:
        for text in _page(path, outcomes, total, seconds):
            file.write(text.encode("utf-8", "replace"))


def _page(path: Path, outcomes: Sequence[CaseOutcome], total: int, seconds: float) -> Iterator[str]:
    failed = sorted((one for one in outcomes if one.ending == "failed"), key=lambda one: one.case.name)
    others = sorted(
        (one for one in outcomes if one.ending != "failed"), key=lambda one: (one.confidence, one.case.name)
    )
    kept = sum(one.ending == "kept" for one in others)
    counts = [f"{len(others)} of {total} volumes segmented"]
    counts += [f"{kept} of them in earlier runs"] if kept else []
    counts += [f"{len(failed)} failed"] if failed else []
    missing = total - len(outcomes)
    counts += [f"stopped before {missing} others"] if missing else []
    counts.append(f"{_duration(seconds)}")
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Batch - BoneSAM</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body><h1>Batch</h1>"
    yield f'<p class="faint">{", ".join(counts)}. For research, not for diagnosis: check the masks before '
    yield "you use them.</p>"
    if failed:
        yield "<h2>Failed</h2><ul>"
        for outcome in failed:
            yield f'<li><b>{html.escape(outcome.case.name)}</b><br><span class="poor">'
            yield f"{html.escape(outcome.error)}</span></li>"
        yield "</ul>"
    if others:
        yield '<h2>Segmented, least confident first</h2><div class="cases">'
        for outcome in others:
            yield from _card(path, outcome)
        yield '</div><p class="faint">Confidence is the overlap (IoU) with the true bone that the model '
        yield "expects: of the worst bone that was asked for, or of all bones on average where none was.</p>"
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written {today}. This page contains images of patients.</footer></body></html>\n"


def _card(path: Path, outcome: CaseOutcome) -> Iterator[str]:
    record = outcome.record
    name = html.escape(outcome.case.name)
    picture = str(record.get("picture", ""))
    yield "<article>"
    if picture.startswith("data:image/jpeg;base64,"):
        yield f'<img alt="{name}" loading="lazy" src="{html.escape(picture)}">'
    yield f'<div><h3><a href="{_link(path, outcome.case.record)}">{name}</a></h3>'
    yield f"<p>{_confidence(outcome.confidence)}</p>"
    bones = record.get("bones", [])
    if not bones:
        yield '<p class="poor">No bone was found.</p>'
    for bone in sorted(bones, key=lambda bone: bone["confidence"] if bone["voxels"] else -1.0)[:_MOST_BONES]:
        review = ", ".join(str(one["slice"]) for one in bone["slices to review"][:5])
        text = f"{bone['name']}: {bone['confidence']:.2f}" if bone["voxels"] else f"{bone['name']} is empty"
        text += f"; look at {review}" if review else ""
        yield f'<p class="faint">{html.escape(text)}</p>'
    if len(bones) > _MOST_BONES:
        yield f'<p class="faint">and {len(bones) - _MOST_BONES} more</p>'
    yield "</div></article>"


def _link(page: Path, record: Path) -> str:
    try:
        return html.escape(quote(record.resolve().relative_to(page.parent.resolve()).as_posix()))
    except ValueError:
        return html.escape(record.resolve().as_uri())


def _confidence(value: float) -> str:
    percent = round(100 * min(max(value, 0.0), 1.0))
    level = "good" if percent >= 85 else "fair" if percent >= 70 else "poor"
    return (
        f'<span class="{level}"><span class="bar"><i style="width:{percent}%"></i></span>{value:.2f}</span>'
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
