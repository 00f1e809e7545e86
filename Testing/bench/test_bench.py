"""The table must say "no" to a missed target, and compare with the right part."""

import io

import pytest
from rich.console import Console

from Testing.bench import bench

FIGURES = {
    "networks": {"encode": 0.020, "click": 0.030, "attend": 0.090, "peak_memory": 4e8},
    "region": {"region": 1.5, "region_click": 0.5, "slices": 30, "peak_memory": 5e8},
    "everything": {"everything": 20.0, "named": 70.0, "bones": 7, "peak_memory": 3.5e9},
    "parts": {
        "parts_encode": 1.0,
        "parts_decode": 0.06,
        "parts_attend": 0.9,
        "parts_slice": 2.12,
        "peak_memory": 1e9,
    },
    "start": {},
    "imports": {},
}


@pytest.fixture
def rows(monkeypatch):
    monkeypatch.setattr(bench, "run_case", lambda name: {**FIGURES[name], "process": 1.6})
    return {row.name: row for row in bench.measure(Console(file=io.StringIO()))}


def test_targets_are_compared(rows):
    met = {name: row.met for name, row in rows.items()}
    assert met["encode one slice"] is True
    assert met["decode one click"] is False
    assert met["30-slice MR, one box, from opening to mask"] is True
    assert met["512 x 512 x 300 CT, every bone (7 found)"] is True
    assert met["... and what they are called"] is False
    assert met["... its peak memory"] is False
    assert met["cold start: process, imports, weights, volume opened"] is False


def test_speed_up_counts_depth_attention_once_a_region(rows):
    row = rows["per slice of that MR, networks alone"]
    assert row.seconds == pytest.approx(0.020 + 0.030 + 0.090 / 30)
    assert row.parts_seconds == 2.12
    assert row.met is False


def test_table_shows_figures_and_ratios(rows):
    output = io.StringIO()
    Console(file=output, width=200).print(bench.table(list(rows.values())))
    line = next(line for line in output.getvalue().splitlines() if "encode one slice" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "encode one slice",
        "20.0 ms",
        "≤ 35.0 ms",
        "yes",
        "0.40 GB",
        "1.00 s",
        "50 x",
    ]


def test_a_failing_case_is_an_error(monkeypatch):
    monkeypatch.setattr(bench.sys, "executable", "false")
    with pytest.raises(bench.CaseError, match="networks"):
        bench.run_case("networks")
