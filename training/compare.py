"""Compare evaluations of several weights on the same scans: ``python -m training.compare A B [C ...]``.

Every argument is NAME=FOLDER or FOLDER, the output of `training.evaluate`; the first is what the others are
compared with. Written are a table of the mean Dice by source, and for each other one the paired difference on
the same bones and prompts with a bootstrap interval and Wilcoxon's test, corrected by Holm's method over the
sources. Names that are numbers, such as shares of labels, also give a curve.
"""

import argparse
import base64
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from BoneSAMLib.errors import BoneSAMError
from training.evaluation_plots import draw_curves, draw_matrix
from training.metrics import METRICS
from training.paired_test import holm, paired
from training.summary import BOX_3D, Row, macro_average, read_rows, rounded, statistics, statistics_of

ALL = "all"


def compared(
    evaluations: dict[str, list[Row]], protocol: str = BOX_3D, metric: str = "dice"
) -> dict[str, Any]:
    """Means by evaluation and source, and differences to the first evaluation, with depth attention on.

    Raises:
        BoneSAMError: fewer than two evaluations, or one that has no such rows.
    """
    if len(evaluations) < 2:
        raise BoneSAMError("There is nothing to compare: name at least two evaluations.")
    chosen = {
        name: [row for row in rows if row.protocol == protocol and row.attention == "on"]
        for name, rows in evaluations.items()
    }
    for name, rows in chosen.items():
        if not rows:
            raise BoneSAMError(f"The evaluation '{name}' has no rows of the protocol '{protocol}'.")
    first, *others = chosen
    sources = list(dict.fromkeys(row.source for rows in chosen.values() for row in rows))
    return {
        "protocol": protocol,
        "metric": metric,
        "compared_with": first,
        "sources": sources,
        "means": {name: _means(rows, sources, metric) for name, rows in chosen.items()},
        "differences": {name: _differences(chosen[first], chosen[name], metric) for name in others},
    }


def _means(rows: Sequence[Row], sources: Sequence[str], metric: str) -> dict[str, Any]:
    by_source = {
        source: statistics([row for row in rows if row.source == source], metric) for source in sources
    }
    return {**by_source, "macro": macro_average(rows, metric), ALL: statistics(rows, metric)}


def _differences(before: Sequence[Row], after: Sequence[Row], metric: str) -> dict[str, Any]:
    known = {(row.case, row.object): getattr(row, metric) for row in before}
    pairs: dict[str, list[tuple[str, float]]] = {ALL: []}
    for row in after:
        if (row.case, row.object) in known:
            difference = (row.case, getattr(row, metric) - known[row.case, row.object])
            pairs.setdefault(row.source, []).append(difference)
            pairs[ALL].append(difference)
    found: dict[str, dict[str, Any]] = {
        name: {**statistics_of(of_one), "test": paired(of_one)} for name, of_one in pairs.items()
    }
    corrected = holm({name: entry["test"]["p"] for name, entry in found.items() if name != ALL})
    for name, p in corrected.items():
        found[name]["test"]["p_holm"] = p
    return found


def markdown(comparison: dict[str, Any]) -> str:
    """Both tables for readers."""
    sources, metric = comparison["sources"], comparison["metric"]
    lines = [
        f"# {metric} of {comparison['protocol']}, depth attention on",
        "",
        f"| weights | {' | '.join(sources)} | mean over sources of bones |",
        "|---" * (len(sources) + 2) + "|",
    ]
    for name, means in comparison["means"].items():
        cells = " | ".join(_interval(means[source]) for source in sources)
        lines.append(f"| {name} | {cells} | {_number(means['macro'])} |")
    for name, differences in comparison["differences"].items():
        lines += [
            "",
            f"## {name} minus {comparison['compared_with']}",
            "",
            "Same bones, same boxes. p: Wilcoxon's paired test over cases, for sources corrected by Holm's "
            "method.",
            "",
            "| source | bones | cases | difference [95 %] | better, worse | p |",
            "|---|---|---|---|---|---|",
        ]
        for source, entry in differences.items():
            test = entry["test"]
            p = test["p"] if source == ALL else test["p_holm"]
            told = "too few cases" if p is None else f"{p:.2g}"
            lines.append(
                f"| {source} | {test['bones']} | {test['cases']} | {_interval(entry, signed=True)} | "
                f"{test['better']}, {test['worse']} | {told} |"
            )
    return "\n".join(lines) + "\n"


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def _interval(found: dict[str, Any], signed: bool = False) -> str:
    if found["mean"] is None:
        return "-"
    low, high = (_number(found[end], signed) for end in ("low", "high"))
    return f"{_number(found['mean'], signed)} [{low}, {high}]"


def pictures(comparison: dict[str, Any]) -> dict[str, bytes]:
    """By title: a matrix of the means, and a curve where all names are numbers, such as shares of labels."""
    names, sources = list(comparison["means"]), comparison["sources"]
    means = comparison["means"]
    values = [[_or_nan(means[name][source]["mean"]) for source in sources] for name in names]
    title = f"mean {comparison['metric']}"
    drawn = {"matrix": draw_matrix(title, names, sources, values)}
    if all(_is_number(name) for name in names):
        ordered = sorted(names, key=float)
        curves = {source: {name: means[name][source] for name in ordered} for source in [ALL, *sources]}
        drawn["curve"] = draw_curves(title, curves, "weights", comparison["metric"])
    return drawn


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def write_comparison(comparison: dict[str, Any], out: Path) -> None:
    """Write ``comparison.json``, ``.md``, ``.html`` and the pictures, such as ``matrix.png``, to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(rounded(comparison), indent=1, allow_nan=False)
    (out / "comparison.json").write_text(plain + "\n", encoding="utf-8")
    text = markdown(comparison)
    (out / "comparison.md").write_text(text, encoding="utf-8")
    drawn = pictures(comparison)
    for name, png in drawn.items():
        (out / f"{name}.png").write_bytes(png)
    images = "".join(
        f'<p><img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}"></p>'
        for name, png in drawn.items()
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title>'
        f"{images}<pre>{html.escape(text)}</pre></html>\n"
    )
    (out / "comparison.html").write_text(page, encoding="utf-8")


def named_folders(arguments: Sequence[str]) -> dict[str, Path]:
    """NAME=FOLDER or FOLDER, by name.

    Raises:
        BoneSAMError: two have the same name.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        path = Path(folder if equals else argument)
        name = name if equals else path.name
        if name in found:
            raise BoneSAMError(f"Two evaluations are named '{name}': write NAME=FOLDER.")
        found[name] = path
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__.split("\n\n")[1])
    parser.add_argument("evaluations", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--protocol", default=BOX_3D, help=f"default: {BOX_3D}")
    parser.add_argument("--metric", choices=METRICS, default="dice")
    parser.add_argument("--out", type=Path, default=Path("out/comparison"))
    options = parser.parse_args(arguments)
    try:
        folders = named_folders(options.evaluations)
        rows = {name: read_rows(folder / "rows.csv") for name, folder in folders.items()}
        comparison = compared(rows, options.protocol, options.metric)
        write_comparison(comparison, options.out)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        return 2
    print(markdown(comparison))
    print(f"Tables and plots: {options.out / 'comparison.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
