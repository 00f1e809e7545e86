"""Plots of an evaluation, as PNG: curves over a level, intervals by source, distributions."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE = (6.4, 3.6)
_DPI = 110

# By name of a curve: by level the statistics of `training.summary.statistics_of`.
Curves = Mapping[str, Mapping[str, Mapping[str, Any]]]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _axes(title: str, horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(alpha=0.3)
    return figure, axes


def draw_curves(title: str, curves: Curves, horizontal: str, vertical: str = "Dice") -> bytes:
    """One line a curve, with its bootstrap interval as a band."""
    figure, axes = _axes(title, horizontal, vertical)
    for name, levels in curves.items():
        known = [(float(level), found) for level, found in levels.items() if found["mean"] is not None]
        if not known:
            continue
        places = [level for level, _ in known]
        axes.plot(places, [found["mean"] for _, found in known], marker="o", markersize=3, label=name)
        lows, highs = ([found[end] for _, found in known] for end in ("low", "high"))
        axes.fill_between(places, lows, highs, alpha=0.12)
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7, ncols=2)
    return _png(figure)


def draw_intervals(title: str, values: Mapping[str, Mapping[str, Any]], vertical: str = "Dice") -> bytes:
    """One point a name, with its interval."""
    figure, axes = _axes(title, "", vertical)
    known = {name: found for name, found in values.items() if found["mean"] is not None}
    means = [found["mean"] for found in known.values()]
    errors = [
        [found["mean"] - found["low"] for found in known.values()],
        [found["high"] - found["mean"] for found in known.values()],
    ]
    axes.errorbar(range(len(known)), means, yerr=errors, fmt="o", capsize=4)
    axes.set_xticks(range(len(known)), list(known), rotation=20, ha="right", fontsize=8)
    axes.set_ylim(0, 1.02)
    return _png(figure)


def draw_distributions(title: str, groups: Mapping[str, Sequence[float]], vertical: str = "Dice") -> bytes:
    """One box a name, with all its values."""
    figure, axes = _axes(title, "", vertical)
    axes.boxplot(list(groups.values()), showfliers=False)
    for place, values in enumerate(groups.values(), start=1):
        axes.plot([place] * len(values), values, ".", alpha=0.4, markersize=4)
    axes.set_xticks(range(1, len(groups) + 1), list(groups), rotation=20, ha="right", fontsize=8)
    axes.set_ylim(0, 1.02)
    return _png(figure)


def draw_matrix(title: str, rows: Sequence[str], columns: Sequence[str], values: Any) -> bytes:
    """A table of numbers from 0 to 1 as colors; NaN stays blank."""
    figure = Figure(figsize=(1.6 + 0.9 * len(columns), 1.4 + 0.45 * len(rows)))
    axes = figure.add_subplot()
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    for row in range(len(rows)):
        for column in range(len(columns)):
            value = float(values[row][column])
            if value == value:  # not NaN
                color = "black" if value > 0.6 else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    return _png(figure)
