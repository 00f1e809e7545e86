"""The page on planning must find the costs again that went in, and say when a target is missed."""

import copy

import pytest

from Testing.bench.planning_page import fit_costs, growth, overhead, planning_page, table_of_runs


def case(slices, bones, factor=1.0):
    voxels = slices * 40_000
    seconds = 0.5 + 0.03 * voxels / 1e6 + (1.5 * bones if bones else 0.04 * slices)
    stages = {"hash": 0.1, "read": 0.4, "segment": seconds - 0.5, "total": seconds}
    return {
        "slices": slices,
        "voxels": voxels,
        "bones": bones,
        "seconds": factor * seconds,
        "stages": stages,
    }


CASES = [
    {**case(slices, bones), "voxels": case(slices, bones)["voxels"]}
    for slices, bones in [(30, 0), (60, 0), (90, 1), (90, 3), (40, 0), (90, 2)]
]


def run(seconds, workers):
    peaks = [1.0e9, 1.0e9, 1.0e9, 1.02e9]
    return {
        "seconds": seconds,
        "volumes": len(CASES),
        "cases": CASES,
        "peak_memory": [1.02e9] * workers,
        "peak_memory_by_quarter": [peaks] * workers,
        "masks": {},
    }


@pytest.fixture
def figures():
    return {
        "machine": "two cores",
        "workers": 2,
        "identical": True,
        "reference": {"voxels": 78_643_200, "slices": 300, "seconds": 20.0},
        "runs": {"serial": run(30, 1), "two workers": run(20, 2), "Dask, two workers": run(20.8, 2)},
    }


def test_costs_are_found_again():
    fit = fit_costs(CASES)
    for one in CASES:
        size = (200, 200, one["slices"])
        assert fit.seconds(size, one["bones"]) == pytest.approx(one["seconds"], rel=0.01)
    assert fit.bone == pytest.approx(1.5, rel=0.05)
    assert fit.error < 0.01


def test_targets(figures):
    assert overhead(figures) == pytest.approx(0.04)
    text = table_of_runs(figures)
    assert "+4.0%" in text
    assert "is met" in text
    assert "1.02 times" in text
    assert "flat" in text
    assert "**" not in text
    worse = copy.deepcopy(figures)
    worse["runs"]["Dask, two workers"]["seconds"] = 22.0
    worse["runs"]["serial"]["peak_memory_by_quarter"] = [[1e9, 1e9, 1e9, 1.3e9]]
    worse["identical"] = False
    text = table_of_runs(worse)
    for words in ("**missed**", "**not flat**", "**different**"):
        assert words in text


def test_worker_that_died_early_has_no_growth(figures):
    assert growth({"peak_memory_by_quarter": [[1e9, 0, 0, 0]]}) == 1.0


def test_page_multiplies_right(figures):
    fit = fit_costs(CASES)
    page = planning_page(figures, fit)
    each = fit.seconds((512, 512, 300))
    assert f"{10_000 * each / 3600:.0f} core-hours" in page
    row = next(line for line in page.splitlines() if line.startswith("| 1 |"))
    assert f"{5000 * each / 3600:.1f} h" in row
    assert "measured on one core were 20 s" in page
