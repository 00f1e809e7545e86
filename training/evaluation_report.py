"""One HTML page of all that an evaluation's folder holds: tables, plots, overlays; and ``studies.json``."""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.evaluation_plots import draw_curves, draw_distributions, draw_intervals
from training.interactive import BOX, CLICKS, MOST_AFTER_BOX, SHOWN_CLICKS, at, tracks
from training.journal import read_journal
from training.robustness import CLEAN
from training.studies import STUDIES, Described
from training.summary import (
    BOX_3D,
    PROTOCOLS,
    Row,
    against_aims,
    attention_effect,
    macro_average,
    rounded,
    row_of,
    statistics,
    statistics_of,
    unprompted_by_source,
)
from training.trial import Trial, trial_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
td, th { border: 1px solid #ccc; padding: .2em .6em; text-align: right }
td:first-child, th:first-child { text-align: left }
img { max-width: 100%; margin: .5em 0 }
.no { color: #b00; font-weight: bold }
"""

Cells = Sequence[Any]


def write_report(out: Path) -> None:
    """Write ``report.html`` and ``studies.json`` from the folder's JSON-lines files.

    Raises:
        BoneSAMError: one of them is damaged.
    """
    sections, summaries = [], {}
    tables = read_journal(out / "tables.jsonl")
    rows = [row_of(values) for values in tables.rows()] if tables else []
    if tables is not None and rows:
        sections.append(_main_section(rows, tables.settings, out))
    for name, study in STUDIES.items():
        journal = read_journal(out / f"{name}.jsonl")
        trials = [trial_of(values) for values in journal.rows()] if journal else []
        if journal is None or not trials:
            continue
        summary = study.summarize(trials)
        summaries[name] = {"settings": journal.settings, **summary}
        sections.append(_study_section(name, study, trials, summary, journal.settings))
    plain = json.dumps(rounded(summaries), indent=1, allow_nan=False)
    (out / "studies.json").write_text(plain + "\n", encoding="utf-8")
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>BoneSAM evaluation</title>'
        f"<style>{_STYLE}</style><h1>BoneSAM evaluation</h1>{''.join(sections)}</html>\n"
    )
    (out / "report.html").write_text(page, encoding="utf-8")


# Pieces of a page.


def _table(head: Cells, lines: Sequence[Cells]) -> str:
    def row(cells: Cells, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(head, 'th')}{''.join(row(line, 'td') for line in lines)}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        if value["mean"] is None:
            return "-"
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else '<span class="no">no</span>'
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3f}"
    return html.escape(str(value))


def _picture(png: bytes, alternative: str, kind: str = "png") -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<p><img alt="{html.escape(alternative)}" src="data:image/{kind};base64,{data}"></p>'


def _settings(settings: Mapping[str, Any]) -> str:
    told = ", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None)
    return f"<p><small>{html.escape(told)}</small></p>"


# The main tables.


def _main_section(rows: Sequence[Row], settings: Mapping[str, Any], out: Path) -> str:
    cases, bones = len({row.case for row in rows}), len({(row.case, row.object) for row in rows})
    parts = [f"<h2>Main tables</h2>{_settings(settings)}<p>{cases} cases, {bones} bones.</p>"]
    aims = against_aims(rows)
    parts.append(
        _table(
            ("source", "aim", "Dice, 3D box [95 %]", "aim met", "best threshold", "filled box"),
            [
                (
                    entry["source"],
                    entry["aim"],
                    entry["reached"],
                    entry["aim_met"],
                    entry["best_threshold_dice"],
                    entry["filled_box_dice"],
                )
                for entry in aims
            ],
        )
    )
    boxed = [row for row in rows if row.protocol == BOX_3D and row.attention == "on"]
    if boxed:
        by_source = _by(boxed, lambda row: row.source)
        parts.append(
            _picture(
                draw_distributions(
                    "3D box, by bone",
                    {name: [row.dice for row in group] for name, group in by_source.items()},
                ),
                "Dice of every bone by source",
            )
        )
    prompted = [row for row in rows if row.attention]
    conditions = _by(prompted, lambda row: f"{row.protocol}, attention {row.attention}")
    ranked = sorted(conditions, key=lambda name: PROTOCOLS.index(conditions[name][0].protocol))
    parts.append("<p>Means over sources of means over bones; last column over locations of the body.</p>")
    parts.append(
        _table(
            (
                "protocol",
                "n",
                "Dice",
                "IoU",
                "precision",
                "recall",
                "HD95 mm",
                "ASSD mm",
                "NSD 2 mm",
                "by location",
            ),
            [
                (
                    name,
                    len(conditions[name]),
                    *(
                        macro_average(conditions[name], metric)
                        for metric in ("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd_2mm")
                    ),
                    macro_average(conditions[name], "dice", "location"),
                )
                for name in ranked
            ],
        )
    )
    parts.append(_effects(rows))
    parts.append("<h3>By bone, 3D box with depth attention</h3>")
    by_bone = _by(boxed, lambda row: f"{row.bone} ({row.source})")
    metrics = ("dice", "precision", "recall", "hd95_mm", "nsd_2mm")
    parts.append(
        _table(
            ("bone", "n", *metrics),
            [
                (name, len(of), *(statistics(of, metric) for metric in metrics))
                for name, of in by_bone.items()
            ],
        )
    )
    parts.append("<h3>Overlays</h3>")
    for source in dict.fromkeys(row.source for row in rows):
        sheet = out / f"{source}.png"
        if sheet.exists():
            parts.append(_picture(sheet.read_bytes(), f"truth and prediction, {source}"))
    return "".join(parts)


def _effects(rows: Sequence[Row]) -> str:
    effect = attention_effect(rows)
    lines = [(name, found["n"], found, _p(found["test"]["p"])) for name, found in effect.items()]
    text = ""
    if lines:
        text += "<p>What depth attention adds to the Dice, Wilcoxon's test over cases:</p>"
        text += _table(("protocol", "bones", "difference [95 %]", "p"), lines)
    unprompted = unprompted_by_source(rows)
    if unprompted:
        text += "<p>Without a prompt, on labelled bone and its surroundings; F2 counts recall twice:</p>"
        text += _table(
            ("source", "F2 [95 %]", "recall [95 %]"),
            [(name, found["recall_weighted"], found["recall"]) for name, found in unprompted.items()],
        )
    return text


def _p(value: float | None) -> str:
    return "too few cases" if value is None else f"{value:.2g}"


def _by(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


# Studies.


def _study_section(
    name: str,
    study: Described,
    trials: Sequence[Trial],
    summary: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> str:
    cases, bones = len({one.case for one in trials}), len({(one.case, one.object) for one in trials})
    head = (
        f"<h2>{html.escape(study.title)}</h2>{_settings(settings)}"
        f"<p>{html.escape(study.text)} {cases} cases, {bones} bones.</p>"
    )
    if name == "interactive":
        return head + _interactive(trials, summary)
    if name == "jitter":
        return head + _jitter(summary)
    if name == "robustness":
        return head + _robustness(trials, summary)
    curves = summary["all"]
    lines = [
        (condition, level, found["n"], found)
        for condition, levels in curves.items()
        for level, found in levels.items()
    ]
    plot = draw_curves(study.title, _by_source(summary), study.axis)
    return head + _picture(plot, study.title) + _table(("condition", study.axis, "n", "Dice [95 %]"), lines)


def _by_source(summary: Mapping[str, Any]) -> dict[str, Any]:
    """One curve a condition and source, all sources first."""
    found = dict(summary["all"])
    for source, conditions in summary["sources"].items():
        for condition, levels in conditions.items():
            found[f"{source}" if len(summary["all"]) == 1 else f"{source}, {condition}"] = levels
    return found


def _interactive(trials: Sequence[Trial], summary: Mapping[str, Any]) -> str:
    curves: dict[str, Any] = {}
    for condition, shown in ((CLICKS, range(1, max(SHOWN_CLICKS) + 1)), (BOX, range(MOST_AFTER_BOX + 1))):
        found = tracks(trials, condition)
        curves[condition] = {
            str(clicks): statistics_of((case, at(track, clicks).dice) for (case, _), track in found.items())
            for clicks in shown
        }
    groups = {"all": summary["all"], **summary["sources"]}
    measures = list(summary["all"])
    table = _table(("", *groups), [(name, *(group[name] for group in groups.values())) for name in measures])
    effort = summary["effort"]
    groups = {"all": effort["all"], **effort["sources"]}
    efforts = _table(
        ("", *groups), [(name, *(group[name] for group in groups.values())) for name in effort["all"]]
    )
    assumed = ", ".join(f"{name} {value:g}" for name, value in effort["assumed seconds"].items())
    return (
        _picture(draw_curves("Dice after clicks", curves, "clicks"), "Dice after clicks")
        + table
        + "<h3>Effort to a Dice of 0.90, simulated</h3><p>No person was timed. Assumed seconds (outline: per "
        f"millimeter): {assumed}. Bones that do not get there are drawn on by the share that is wrong.</p>"
        + efforts
    )


def _jitter(summary: Mapping[str, Any]) -> str:
    groups = {"all": summary["all"], **summary["sources"]}
    plot = draw_intervals(
        "Standard deviation of the Dice over five boxes",
        {name: group["standard deviation"] for name, group in groups.items()},
        "standard deviation",
    )
    return _picture(plot, "spread over boxes") + _table(
        ("", *groups), [(name, *(group[name] for group in groups.values())) for name in summary["all"]]
    )


def _robustness(trials: Sequence[Trial], summary: Mapping[str, Any]) -> str:
    clean = statistics_of((one.case, one.dice) for one in trials if one.condition == CLEAN)
    curves, lines = {}, []
    for name, found in summary["corruptions"].items():
        curves[name] = {severity: level["dice"] for severity, level in found["severities"].items()}
        for severity, level in found["severities"].items():
            worst = max(level["relative_drop_by_source"].items(), key=lambda pair: pair[1])
            lines.append(
                (
                    name,
                    severity,
                    level["dice"],
                    f"{100 * level['relative_drop']:.1f} %",
                    f"{worst[0]}: {100 * worst[1]:.1f} %",
                    found["aim_met"] if severity == "3" else None,
                )
            )
    plot = draw_curves("Dice on corrupted scans", curves, "severity")
    head = ("corruption", "severity", "Dice [95 %]", "relative drop", "largest, by source", "at most 10 %")
    return f"<p>Clean: {_cell(clean)}</p>" + _picture(plot, "corruptions") + _table(head, lines)
