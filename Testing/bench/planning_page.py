"""From the figures of `batch_bench` to a page on how long large batches take, and its table of runs."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from BoneSAMLib.batch.memory import needed_memory

OVERHEAD_TARGET = 0.05
# Peak of the last quarter of a run over that of all before it. Not over the third alone: volumes differ in
# size, and a quarter in which a worker gets none of the large ones has a low peak.
FLAT_TARGET = 1.10
MANY = 10_000
NODES = (1, 2, 4, 8, 16, 32, 64, 128)
CORES = (2, 16, 64)
BIT16 = 2
COMPRESSION = 0.5  # of a CT with gzip or in a compressed DICOM syntax, about

# What is often scanned: name, (i, j, k).
SCANS = {
    "knee MR": (320, 320, 30),
    "hip CT, 3 mm": (512, 512, 100),
    "trunk CT, 1.5 mm": (512, 512, 300),
    "trunk CT, 1 mm": (512, 512, 600),
    "whole body CT, 1 mm": (512, 512, 1800),
}


@dataclass(frozen=True)
class Fit:
    """Seconds that one core takes for a volume: a sum of parts, none negative.

    Attributes:
        volume: for any volume.
        megavoxel: for a million voxels: hash, reading, writing.
        slice: for a slice, where every bone is wanted.
        bone: for a bone with a box.
        error: mean absolute error over the mean.
    """

    volume: float
    megavoxel: float
    slice: float
    bone: float
    error: float

    def seconds(self, size: tuple[int, ...], bones: int = 0) -> float:
        """Of a volume with so many boxes; 0 for every bone."""
        return (
            self.volume
            + self.megavoxel * float(np.prod(size)) / 1e6
            + (self.bone * bones if bones else self.slice * size[2])
        )


def fit_costs(cases: list[dict]) -> Fit:
    """The least squares fit to the cases of a run whose workers have a core each."""
    parts = np.array(
        [
            [1.0, case["voxels"] / 1e6, 0.0 if case["bones"] else case["slices"], case["bones"]]
            for case in cases
        ]
    )
    seconds = np.array([case["seconds"] for case in cases])
    found, _ = nnls(parts, seconds)
    error = float(np.abs(parts @ found - seconds).mean() / seconds.mean())
    return Fit(*(float(value) for value in found), error)


def overhead(figures: dict) -> float:
    """How much longer Dask took than BoneSAM's own processes, as a part."""
    runs = figures["runs"]
    return float(runs["Dask, two workers"]["seconds"] / runs["two workers"]["seconds"] - 1)


def growth(run: dict) -> float:
    """Highest ratio of a worker's peak memory in the last quarter of the run to that before it."""
    ratios = [last / max(before) for *before, last in run["peak_memory_by_quarter"] if last and max(before)]
    return max(ratios, default=1.0)


def table_of_runs(figures: dict) -> str:
    """A Markdown table, and what follows from it."""
    lines = [
        "| | seconds | volumes per minute | busy with volumes | peak memory per worker | by quarters |",
        "|---|---|---|---|---|---|",
    ]
    for way, run in figures["runs"].items():
        workers = 1 if way == "serial" else figures["workers"]
        busy = sum(case["seconds"] for case in run["cases"]) / (workers * run["seconds"])
        quarters = [max(peaks) for peaks in zip(*run["peak_memory_by_quarter"], strict=True)]
        lines.append(
            f"| {way} | {run['seconds']:.1f} | {60 * run['volumes'] / run['seconds']:.1f} | {busy:.0%} | "
            f"{_gigabytes(max(run['peak_memory']))} | {', '.join(_gigabytes(peak) for peak in quarters)} |"
        )
    met = overhead(figures) <= OVERHEAD_TARGET
    worst = max(growth(run) for run in figures["runs"].values())
    lines += [
        "",
        f"Dask took {overhead(figures):+.1%} of the time of BoneSAM's own processes, its start and end "
        f"included; the target of {OVERHEAD_TARGET:.0%} more is {'met' if met else '**missed**'}. "
        f"The masks of all ways are {'the same byte by byte' if figures['identical'] else '**different**'}. "
        f"In the last quarter of a run a worker's peak memory was at most {worst:.2f} times that "
        f"before: {'flat' if worst <= FLAT_TARGET else '**not flat**'}.",
    ]
    return "\n".join(lines)


def planning_page(figures: dict, fit: Fit) -> str:
    """The page, as Markdown."""
    return "\n".join([*_measured(figures), *_one_volume(figures, fit), *_memory(), *_many(fit)]) + "\n"


def _measured(figures: dict) -> list[str]:
    cases = figures["runs"]["two workers"]["cases"]
    sizes = [case["slices"] for case in cases]
    voxels = [case["voxels"] / 1e6 for case in cases]
    prompted = sum(bool(case["bones"]) for case in cases)
    stages = {name: np.mean([case["stages"].get(name, 0.0) for case in cases]) for name in cases[0]["stages"]}
    total = stages.pop("total")
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in stages.items())
    return [
        "# Planning batches for more than one machine",
        "",
        "Written by `python -m Testing.bench.batch_bench`; every number of a run is measured, and what is "
        "computed from that says so.",
        "",
        f"Machine: {figures['machine']}.",
        "",
        "## What was measured",
        "",
        f"{len(cases)} CT volumes of {min(sizes)} to {max(sizes)} slices and {min(voxels):.1f} to "
        f"{max(voxels):.1f} million voxels, made from the hip sample; {prompted} with boxes around 1 to "
        f"{max(case['bones'] for case in cases)} bones, the others for every bone. "
        "Serial is one process on all cores; two workers have half of the cores each.",
        "",
        table_of_runs(figures),
        "",
        f"Where the time of a volume goes: {shares}.",
        "",
    ]


def _one_volume(figures: dict, fit: Fit) -> list[str]:
    reference = figures["reference"]
    size = (512, 512, reference["slices"])
    foretold = fit.seconds(size)
    lines = [
        "## What a volume costs",
        "",
        "Fitted to the run with two workers, seconds of one core:",
        "",
        "| for | seconds |",
        "|---|---|",
        f"| every volume | {fit.volume:.2f} |",
        f"| every million voxels | {fit.megavoxel:.3f} |",
        f"| every slice, without prompts | {fit.slice:.3f} |",
        f"| every bone with a box | {fit.bone:.2f} |",
        "",
        f"The fit is off by {fit.error:.0%} on average. Beyond its range: for a CT of 512 x 512 x "
        f"{reference['slices']}, every bone, it foretells {foretold:.0f} s; measured on one core were "
        f"{reference['seconds']:.0f} s. A long bone costs more than the average one: it has more slices.",
        "",
        "Computed, for common scans:",
        "",
        "| scan | voxels | every bone | 1 box | 5 boxes | memory at most |",
        "|---|---|---|---|---|---|",
    ]
    for name, scan in SCANS.items():
        voxels = int(np.prod(scan))
        lines.append(
            f"| {name} | {' x '.join(map(str, scan))} | {_time(fit.seconds(scan))} | "
            f"{_time(fit.seconds(scan, 1))} | {_time(fit.seconds(scan, 5))} | "
            f"{_gigabytes(needed_memory(voxels, BIT16))} |"
        )
    return [*lines, ""]


def _memory() -> list[str]:
    base, each = needed_memory(0, BIT16), needed_memory(1, BIT16) - needed_memory(0, BIT16)
    return [
        "## Memory",
        "",
        f"A worker is taken to need {_gigabytes(base)} and {each} bytes for each voxel of 16 bits, which is "
        "more than was measured. A volume that would need more than its worker may take is refused before it "
        "is read, with a sentence that says so; give it fewer workers, or more with `--memory`.",
        "",
    ]


def _many(fit: Fit) -> list[str]:
    size = SCANS["trunk CT, 1.5 mm"]
    each = fit.seconds(size)
    core_hours = MANY * each / 3600
    gigabytes = float(np.prod(size)) * BIT16 * COMPRESSION / 1e9
    lines = [
        f"## {MANY:,} CTs",
        "",
        f"Computed: {MANY:,} CTs of {' x '.join(map(str, size))}, every bone, take {MANY} x {each:.1f} s = "
        f"{core_hours:.0f} core-hours. Multiply by what a core-hour costs you: at 0.04 it is "
        f"{core_hours * 0.04:.0f}. The scans are about {MANY * gigabytes / 1000:.1f} TB when compressed by "
        "half, and each is read twice: for its hash, and for its voxels.",
        "",
        "Time until the last one is done, with one worker a core, and what all nodes together read:",
        "",
        "| nodes | " + " | ".join(f"{cores} cores each | read" for cores in CORES) + " |",
        "|---|" + "---|" * (2 * len(CORES)),
    ]
    for nodes in NODES:
        row = []
        for cores in CORES:
            seconds = -(-MANY // (nodes * cores)) * each
            row += [_time(seconds), f"{2 * MANY * gigabytes * 1000 / seconds:,.0f} MB/s"]
        lines.append(f"| {nodes} | {' | '.join(row)} |")
    lines += [
        "",
        "This takes every core for as fast as those measured, and disks that deliver what is read. Neither "
        "was measured on more than one machine: run a hundred scans on the real cluster first, and compare "
        "the volumes per minute. Cores that share the memory's bandwidth with many others are slower.",
    ]
    return lines


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def _time(seconds: float) -> str:
    if seconds < 99:
        return f"{seconds:.1f} s"
    if seconds < 99 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"
