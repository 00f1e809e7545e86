"""Rows of an evaluation, and the tables made of them."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from BoneSAMLib.errors import BoneSAMError
from training.metrics import METRICS, NSD_TOLERANCE_MM, Agreement
from training.paired_test import paired
from training.reference_methods import FILLED_BOX, HU_THRESHOLDS

BOX_3D = "3D box"
BOX_2D = "2D box, propagated"
CLICKS = {1: "1 click", 3: "3 clicks", 5: "5 clicks"}
BOX_AND_CLICKS = "3D box + 3 clicks"
NO_PROMPT = "no prompt"
PROTOCOLS = (BOX_3D, BOX_2D, *CLICKS.values(), BOX_AND_CLICKS, NO_PROMPT)
# The band around a bone in which the result without a prompt is compared.
BAND_MM = 5.0

# Aims for the mean Dice of the 3D box with depth attention.
AIMS = {
    "spine-mr": 0.90,
    "pelvic-mr": 0.85,
    "open-kbp": 0.87,
    "totalsegmentator-example": 0.85,
    "chest-xray": 0.82,
    "hand-xray": 0.92,
}

BOOTSTRAP_SAMPLES = 1000
_SHOWN_WORST = 12


@dataclass(frozen=True)
class Row:
    """One object under one protocol.

    ``attention`` is "on" or "off", and "" for the references without learning, whose ``confidence`` is NaN.
    ``seconds`` is the time of all calls that led to this result; without a prompt, that of the whole volume.
    """

    case: str
    source: str
    location: str
    label: str
    object: str
    bone: str
    protocol: str
    attention: str
    dice: float
    iou: float
    precision: float
    recall: float
    hd95_mm: float
    assd_mm: float
    nsd_2mm: float
    empty: str
    confidence: float
    seconds: float


COLUMNS = [field.name for field in fields(Row)]
_NUMBERS = (*METRICS, "confidence", "seconds")


def row_of(values: Mapping[str, Any]) -> Row:
    """A row from what a CSV or JSON file says of it: numbers may be text, or None for NaN."""
    known: dict[str, Any] = {name: values[name] for name in COLUMNS}
    for name in _NUMBERS:
        known[name] = math.nan if known[name] is None else float(known[name])
    return Row(**known)


def read_rows(path: Path) -> list[Row]:
    """Rows written by `write_rows`.

    Raises:
        BoneSAMError: the file cannot be read, or holds no such rows.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [row_of(line) for line in csv.DictReader(file)]
    except OSError as error:
        raise BoneSAMError(f"Cannot read {path} ({error.strerror}): name an evaluation's folder.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BoneSAMError(
            f"{path} holds no rows of an evaluation of this version ({error!r}): run it again."
        ) from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            line = asdict(row)
            writer.writerow(
                {name: f"{line[name]:.6g}" if name in _NUMBERS else line[name] for name in COLUMNS}
            )


def statistics(rows: Sequence[Row], metric: str) -> dict[str, float | int | None]:
    """Mean, median and the bootstrap 95 % interval of the mean of a metric; None where all is undefined."""
    return statistics_of([(row.case, getattr(row, metric)) for row in rows])


def statistics_of(pairs: Iterable[tuple[str, float]]) -> dict[str, float | int | None]:
    """The same of pairs of a case and a value, NaN left out.

    Objects of one scan are not independent, so whole cases are drawn. With only one case its objects are
    drawn instead, and the interval says nothing about other scans.
    """
    pairs = [(case, value) for case, value in pairs if not math.isnan(value)]
    if not pairs:
        return {"n": 0, "mean": None, "median": None, "low": None, "high": None}
    values = np.array([value for _, value in pairs])
    cases = sorted({case for case, _ in pairs})
    groups = [values[[case == name for case, _ in pairs]] for name in cases] if len(cases) > 1 else values
    totals = np.array([np.sum(group) for group in groups])
    counts = np.array([np.size(group) for group in groups])
    drawn = np.random.default_rng(0).integers(len(totals), size=(BOOTSTRAP_SAMPLES, len(totals)))
    means = totals[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "low": float(low),
        "high": float(high),
    }


def _condition(row: Row) -> str:
    return f"{row.protocol}, attention {row.attention}" if row.attention else row.protocol


def _conditions(rows: Sequence[Row]) -> list[str]:
    """Protocols in their own order with depth attention on before off, then the references."""
    first_seen = list(dict.fromkeys(_condition(row) for row in rows))
    ranks = {}
    for row in rows:
        is_reference = row.protocol not in PROTOCOLS
        rank = first_seen.index(_condition(row)) if is_reference else PROTOCOLS.index(row.protocol)
        ranks[_condition(row)] = (is_reference, rank, row.attention == "off")
    return sorted(first_seen, key=lambda condition: ranks[condition])


def _grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _describe(rows: Sequence[Row]) -> dict[str, Any]:
    """All metrics of one group, for the JSON."""
    return {
        "objects": len(rows),
        "cases": len({row.case for row in rows}),
        "empty_predictions": sum(row.empty == "prediction" for row in rows),
        "both_empty": sum(row.empty == "both" for row in rows),
        **{metric: statistics(rows, metric) for metric in (*METRICS, "confidence", "seconds")},
    }


def macro_average(rows: Sequence[Row], metric: str, over: str = "source") -> float | None:
    """Mean over sources of the mean over a source's kinds of bone of the mean over its objects.

    ``over`` may be "location" instead: a location of the body that several sources show counts once.
    """
    means_of_all = []
    for of_one in _grouped(rows, lambda row: getattr(row, over)).values():
        means = [
            statistics(of_bone, metric)["mean"] for of_bone in _grouped(of_one, lambda row: row.bone).values()
        ]
        defined = [mean for mean in means if mean is not None]
        if defined:
            means_of_all.append(float(np.mean(defined)))
    return float(np.mean(means_of_all)) if means_of_all else None


def recall_weighted(row: Row | Agreement) -> float:
    """F2 of a row: recall counts twice as much as precision; 0 where nothing was found, else NaN."""
    if math.isnan(row.recall):
        return math.nan
    if math.isnan(row.precision) or row.precision + row.recall == 0:
        return 0.0
    return 5 * row.precision * row.recall / (4 * row.precision + row.recall)


def unprompted_by_source(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """By source: F2 and recall without a prompt, with depth attention, on labelled bone and around it."""
    chosen = [row for row in rows if row.protocol == NO_PROMPT and row.attention == "on"]
    return {
        source: {
            "recall_weighted": statistics_of((row.case, recall_weighted(row)) for row in group),
            "recall": statistics(group, "recall"),
        }
        for source, group in _grouped(chosen, lambda row: row.source).items()
    }


def attention_effect(rows: Sequence[Row], metric: str = "dice") -> dict[str, dict[str, Any]]:
    """By protocol: what depth attention adds to ``metric`` on the same object and prompt (on minus off).

    ``test`` is that of `training.paired_test`.
    """
    off = {(row.case, row.object, row.protocol): row for row in rows if row.attention == "off"}
    pairs: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        other = off.get((row.case, row.object, row.protocol))
        if row.attention == "on" and other is not None:
            difference = getattr(row, metric) - getattr(other, metric)
            pairs.setdefault(row.protocol, []).append((row.case, difference))
    return {
        protocol: {**statistics_of(pairs[protocol]), "test": paired(pairs[protocol])}
        for protocol in PROTOCOLS
        if protocol in pairs
    }


def against_aims(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """By source: the aim for the 3D box, what was reached, and the best a threshold in the same box does.

    The threshold is chosen by its mean Dice on these very objects, which favors it.
    """
    table = []
    for source, of_source in _grouped(rows, lambda row: row.source).items():
        by_condition = _grouped(of_source, _condition)
        references = {name: group for name, group in by_condition.items() if not group[0].attention}
        thresholds = {
            name: statistics(group, "dice")["mean"] or 0.0
            for name, group in references.items()
            if name != FILLED_BOX
        }
        best = max(thresholds, key=lambda name: thresholds[name], default=None)
        reached = statistics(by_condition.get(f"{BOX_3D}, attention on", []), "dice")
        aim = AIMS.get(source)
        table.append(
            {
                "source": source,
                "aim": aim,
                "reached": reached,
                "aim_met": None if aim is None or reached["mean"] is None else reached["mean"] >= aim,
                "best_threshold": best,
                "best_threshold_dice": thresholds[best] if best else None,
                "filled_box_dice": statistics(references.get(FILLED_BOX, []), "dice")["mean"],
            }
        )
    return table


def summarize(rows: Sequence[Row], settings: dict[str, Any]) -> dict[str, Any]:
    """Everything the tables show, as plain values for JSON."""
    return {
        "settings": settings,
        "aims": against_aims(rows),
        "sources": {
            source: {name: _describe(group) for name, group in _grouped(of_source, _condition).items()}
            for source, of_source in _grouped(rows, lambda row: row.source).items()
        },
        "bones": {
            bone: {name: _describe(group) for name, group in _grouped(of_bone, _condition).items()}
            for bone, of_bone in _grouped(rows, lambda row: row.bone).items()
        },
        "macro": {
            name: {metric: macro_average(group, metric) for metric in METRICS}
            for name, group in _grouped(rows, _condition).items()
        },
        "macro_by_location": {
            name: {metric: macro_average(group, metric, "location") for metric in METRICS}
            for name, group in _grouped(rows, _condition).items()
        },
        "no_prompt": unprompted_by_source(rows),
        "attention_effect_dice": attention_effect(rows),
    }


def write_summary(rows: Sequence[Row], settings: dict[str, Any], out: Path) -> None:
    """Write ``summary.json`` and ``summary.md`` into ``out``."""
    summary = json.dumps(rounded(summarize(rows, settings)), indent=1, allow_nan=False)
    (out / "summary.json").write_text(summary + "\n", encoding="utf-8")
    (out / "summary.md").write_text(markdown(rows, settings), encoding="utf-8")


def rounded(value: Any) -> Any:
    """Floats, in whatever they are held, with the five significant digits that an evaluation can mean."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def markdown(rows: Sequence[Row], settings: dict[str, Any]) -> str:
    """The tables for readers, with what each number means."""
    cases = len({row.case for row in rows})
    objects = len({(row.case, row.object) for row in rows})
    lines = [
        f"# Evaluation on the {settings['split']} split",
        "",
        f"{cases} cases, {objects} bones. "
        + " ".join(f"{name}: {value}." for name, value in settings.items()),
        "",
        _definitions(),
        "",
        "## Aims",
        "",
        "Mean Dice per source of the jittered 3D box with depth attention, beside the aim, "
        "the best threshold inside the same box (chosen on these very objects, which favors it) and the "
        "filled box.",
        "",
        "| source | aim | reached [95 %] | aim met | best threshold | filled box | beats the threshold |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in against_aims(rows):
        reached, threshold = entry["reached"], entry["best_threshold_dice"]
        beats = None if reached["mean"] is None or threshold is None else reached["mean"] >= threshold
        named = f"{_number(threshold)} ({entry['best_threshold']})" if entry["best_threshold"] else "-"
        lines.append(
            f"| {entry['source']} | {_number(entry['aim'], 2)} | {_with_interval(reached)} | "
            f"{_yes_no(entry['aim_met'])} | {named} | {_number(entry['filled_box_dice'])} | "
            f"{_yes_no(beats)} |"
        )
    lines += [
        "",
        "## Macro averages",
        "",
        "Mean over sources of the mean over bones of the mean over objects; last column: over locations of "
        "the body instead of sources.",
        "",
    ]
    lines += [
        "| protocol | Dice | IoU | precision | recall | HD95 mm | ASSD mm | NSD 2 mm | Dice by location |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    # Thresholds differ between modalities: a mean over the sources that have one would compare unlike sets.
    everywhere = [row for row in rows if row.attention or row.protocol == FILLED_BOX]
    by_condition = _grouped(everywhere, _condition)
    for name in _conditions(everywhere):
        values = " | ".join(
            _number(macro_average(by_condition[name], metric), _digits(metric)) for metric in METRICS
        )
        by_location = _number(macro_average(by_condition[name], "dice", "location"))
        lines.append(f"| {name} | {values} | {by_location} |")
    unprompted = unprompted_by_source(rows)
    if unprompted:
        lines += [
            "",
            "## Without a prompt",
            "",
            "F2 (recall counts twice as much as precision) and recall with depth attention, on labelled bone "
            "and its surroundings only.",
            "",
            "| source | bones | F2 [95 %] | recall [95 %] |",
            "|---|---|---|---|",
        ]
        for source, found in unprompted.items():
            weighted, recall = found["recall_weighted"], found["recall"]
            lines.append(
                f"| {source} | {weighted['n']} | {_with_interval(weighted)} | {_with_interval(recall)} |"
            )
    effect = attention_effect(rows)
    if effect:
        lines += [
            "",
            "## What depth attention adds",
            "",
            "Dice with it minus Dice without it, on the same object and first prompt; Wilcoxon's p over "
            "cases.",
            "",
            "| protocol | objects | mean [95 %] | median | p |",
            "|---|---|---|---|---|",
        ]
        for protocol, values_of in effect.items():
            lines.append(
                f"| {protocol} | {values_of['n']} | {_with_interval(values_of, signed=True)} | "
                f"{_number(values_of['median'], 3, signed=True)} | {_p_value(values_of['test']['p'])} |"
            )
    for title, key in (("source", lambda row: row.source), ("bone", lambda row: row.bone)):
        lines += ["", f"## By {title}", "", "Mean (median) over objects; the interval is that of the mean."]
        for name, group in _grouped(rows, key).items():
            lines += ["", f"### {name}", "", *_condition_table(group)]
    lines += ["", *_worst_table(rows)]
    return "\n".join(lines) + "\n"


def _definitions() -> str:
    values = ", ".join(str(value) for value in HU_THRESHOLDS)
    return f"""\
- **{BOX_3D}**: the bone's box, each face moved outward by U(-5 %, +10 %) of that side's length.
- **{BOX_2D}**: such a box on the bone's middle slice only. On radiographs it would be the same box and is
  left out.
- **clicks**: the first is deepest inside the bone on its middle slice, each further one in the middle of the
  largest 26-connected error, positive where bone was missed, negative where it is false (the protocol of the
  CVPR 2025 challenge). Every call gets all clicks so far and the last result.
- **{BOX_AND_CLICKS}**: the 3D box, then three such corrections.
- **{NO_PROMPT}**: all bones at once. Most annotations are partial: other bones in view are not labelled, so
  what is found elsewhere cannot be judged. Recall is over the annotated bone. Dice, IoU and precision count
  only voxels at most {BAND_MM:g} mm from it and outside other labels, as bone or not: bones that touch are
  not told apart. HD95, ASSD and NSD are not defined there. These numbers do not compare with prompted ones.
- **References without learning**, in the same 3D box: the filled box; on CT the voxels above {values} HU;
  on MR and X-ray the bright and the dark side of Otsu's threshold.
- **Empty masks**: an empty prediction counts as Dice, IoU, NSD and recall 0, its HD95 and ASSD are the
  diagonal of the volume and its precision is undefined; the column *empty* counts them. Both empty is left
  out.
- **NSD** has a tolerance of {NSD_TOLERANCE_MM:g} mm. Its surfaces are those between voxels, which makes it
  generous where voxels are larger than that (open-kbp, 4 mm). Where the size of a radiograph's pixels is
  unknown (hand-xray), mm are pixels.
- **95 %** intervals come from {BOOTSTRAP_SAMPLES:,} bootstrap samples of whole cases; of objects where there
  is a single case, and then they say nothing about other scans.
- **confidence** is the model's own estimate of its IoU.
- **s** is the wall time of all calls behind a result. The first one on a volume includes its embedding, later
  ones (other protocols, attention off) may find it cached. Without a prompt it is the whole volume's."""


def _condition_table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| protocol | n | Dice | Dice 95 % | IoU | precision | recall | HD95 mm | ASSD mm | NSD 2 mm | "
        "empty | confidence | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_condition = _grouped(rows, _condition)
    for name in _conditions(rows):
        group = by_condition[name]
        cells = {metric: statistics(group, metric) for metric in (*METRICS, "confidence", "seconds")}
        shown = {metric: _mean_median(cells[metric], _digits(metric)) for metric in METRICS}
        interval = f"{_number(cells['dice']['low'])} to {_number(cells['dice']['high'])}"
        lines.append(
            f"| {name} | {len(group)} | {shown['dice']} | {interval} | {shown['iou']} | "
            f"{shown['precision']} | {shown['recall']} | {shown['hd95_mm']} | "
            f"{shown['assd_mm']} | {shown['nsd_2mm']} | "
            f"{sum(row.empty == 'prediction' for row in group)} | {_number(cells['confidence']['mean'])} | "
            f"{_number(cells['seconds']['mean'], 2)} |"
        )
    return lines


def _worst_table(rows: Sequence[Row]) -> list[str]:
    boxed = [row for row in rows if row.protocol == BOX_3D and row.attention == "on"]
    worst = sorted(boxed, key=lambda row: row.dice)[:_SHOWN_WORST]
    return [
        "## To be looked at first",
        "",
        "Lowest Dice of the 3D box with depth attention.",
        "",
        "| case | bone | Dice | HD95 mm | confidence |",
        "|---|---|---|---|---|",
        *(
            f"| {row.case} | {row.object} | {_number(row.dice)} | {_number(row.hd95_mm, 1)} | "
            f"{_number(row.confidence)} |"
            for row in worst
        ),
    ]


def _digits(metric: str) -> int:
    return {"hd95_mm": 1, "assd_mm": 2}.get(metric, 3)


def _number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _p_value(value: float | None) -> str:
    return "too few cases" if value is None else f"{value:.2g}"


def _mean_median(values: dict[str, float | int | None], digits: int) -> str:
    if values["mean"] is None:
        return "-"
    return f"{_number(values['mean'], digits)} ({_number(values['median'], digits)})"


def _with_interval(values: dict[str, float | int | None], signed: bool = False) -> str:
    if values["mean"] is None:
        return "-"
    low, high = (_number(values[end], 3, signed) for end in ("low", "high"))
    return f"{_number(values['mean'], 3, signed)} [{low}, {high}]"


def _yes_no(answer: bool | None) -> str:
    return "-" if answer is None else "yes" if answer else "**no**"
