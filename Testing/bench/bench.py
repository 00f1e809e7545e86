"""`make bench`: speed and memory of BoneSAM, beside the parts of SegmentAnyBone in the same run."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
START_RUNS = 5

# What a machine with two CPU cores should reach.
ENCODE_TARGET = 0.035  # s
CLICK_TARGET = 0.025  # s
REGION_TARGET = 2.0  # s
EVERYTHING_TARGET = 25.0  # s
NAMED_TARGET = 60.0  # s
MEMORY_TARGET = 3e9  # bytes
START_TARGET = 1.5  # s
SPEED_UP_TARGET = 60.0  # times the parts of SegmentAnyBone, per slice


class CaseError(Exception):
    """A case's process failed; its own message has been printed."""


@dataclass(frozen=True)
class Row:
    """One line of the table. Seconds and bytes; None where there is nothing to say."""

    name: str
    figure: str
    target: str = ""
    met: bool | None = None
    peak_memory: float | None = None
    parts_seconds: float | None = None
    seconds: float | None = None


def run_case(name: str) -> dict[str, float]:
    """The figures that a case prints, and the time of its whole process as "process"."""
    start = time.perf_counter()
    # The parent imports nothing large: on Linux a child's peak memory begins with its parent's.
    child = subprocess.run(
        [sys.executable, "-m", "Testing.bench.cases", name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if child.returncode != 0:
        raise CaseError(f"The case '{name}' ended with exit code {child.returncode}.")
    return {**json.loads(child.stdout.splitlines()[-1]), "process": seconds}


def median_process_seconds(name: str) -> float:
    """Median time of a case's whole process, the first run, which fills the disk cache, not counted."""
    return statistics.median([run_case(name)["process"] for _ in range(START_RUNS + 1)][1:])


def timed(
    name: str,
    seconds: float,
    target: float | None = None,
    peak_memory: float | None = None,
    parts_seconds: float | None = None,
) -> Row:
    """Row of a time that should stay below `target`."""
    return Row(
        name,
        duration(seconds),
        "" if target is None else f"≤ {duration(target)}",
        None if target is None else seconds <= target,
        peak_memory,
        parts_seconds,
        seconds,
    )


def duration(seconds: float) -> str:
    """Seconds for people: ms below one second."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def gigabytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB"


def measure(console: Console) -> list[Row]:
    """Run every case, one after the other."""
    results = {}
    for name in ("networks", "region", "everything", "parts"):
        console.print(f"measuring {name} ...", style="dim")
        results[name] = run_case(name)
    console.print("measuring start ...", style="dim")
    start_seconds, import_seconds = median_process_seconds("start"), median_process_seconds("imports")

    networks, region, everything, parts = results.values()
    networks_per_slice = networks["encode"] + networks["click"] + networks["attend"] / region["slices"]
    region_per_slice = region["region"] / region["slices"]
    speed_up = parts["parts_slice"] / networks_per_slice
    return [
        timed(
            "encode one slice",
            networks["encode"],
            ENCODE_TARGET,
            networks["peak_memory"],
            parts["parts_encode"],
        ),
        timed(
            "decode one click",
            networks["click"],
            CLICK_TARGET,
            networks["peak_memory"],
            parts["parts_decode"],
        ),
        timed("depth attention, once a region", networks["attend"], parts_seconds=parts["parts_attend"]),
        timed(
            f"{region['slices']:.0f}-slice MR, one box, from opening to mask",
            region["region"],
            REGION_TARGET,
            region["peak_memory"],
            parts["parts_slice"] * region["slices"],
        ),
        timed("... then one correcting click on all its slices", region["region_click"]),
        timed(
            f"512 x 512 x 300 CT, every bone ({everything['bones']:.0f} found)",
            everything["everything"],
            EVERYTHING_TARGET,
            everything["peak_memory"],
            parts["parts_slice"] * 300,
        ),
        timed("... and what they are called", everything["named"], NAMED_TARGET),
        Row(
            "... its peak memory",
            gigabytes(everything["peak_memory"]),
            f"≤ {gigabytes(MEMORY_TARGET)}",
            everything["peak_memory"] <= MEMORY_TARGET,
        ),
        timed("cold start: process, imports, weights, volume opened", start_seconds, START_TARGET),
        timed("... process and imports alone", import_seconds),
        Row(
            "per slice of that MR, networks alone",
            duration(networks_per_slice),
            f"≥ {SPEED_UP_TARGET:.0f} times faster",
            speed_up >= SPEED_UP_TARGET,
            parts_seconds=parts["parts_slice"],
            seconds=networks_per_slice,
        ),
        timed(
            "per slice of that MR, whole path, resampling and all",
            region_per_slice,
            parts_seconds=parts["parts_slice"],
        ),
    ]


def table(rows: list[Row]) -> Table:
    """The rows as a table; the last two columns compare with the parts of SegmentAnyBone."""
    result = Table(title="BoneSAM, medians")
    result.add_column("")
    for heading in ("BoneSAM", "target", "met", "peak memory", "SegmentAnyBone's parts", "ratio"):
        result.add_column(heading, justify="right")
    for row in rows:
        compared = row.parts_seconds is not None and row.seconds is not None
        result.add_row(
            row.name,
            row.figure,
            row.target,
            "" if row.met is None else ("yes" if row.met else "[bold]no[/bold]"),
            "" if row.peak_memory is None else gigabytes(row.peak_memory),
            duration(row.parts_seconds) if compared else "",
            f"{row.parts_seconds / row.seconds:.0f} x" if compared else "",
        )
    return result


def machine() -> str:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        models = [line for line in cpu_info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    packages = ", ".join(f"{package} {version(package)}" for package in ("onnxruntime", "torch", "numpy"))
    return f"{os.cpu_count()} cores, {name}; Python {platform.python_version()}, {packages}"


def main() -> int:
    """Measure, print, and fail only when something could not be measured."""
    console = Console(width=150)
    console.print(machine())
    try:
        rows = measure(console)
    except CaseError as error:
        console.print(str(error), style="bold red")
        return 1
    console.print(table(rows))
    console.print(
        "SegmentAnyBone's parts are its three networks at random weights, run once per slice as it does, "
        "without its reading, resizing and normalizing. Its times for a stack are that time times the slices."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
