"""`python -m Testing.bench.batch_bench`: a batch serially, by two workers, and on a local Dask cluster.

Each way runs over the same volumes in a process of its own, whose memory and that of its workers is watched.
The masks must be the same byte by byte. With `--out FOLDER` the figures are written there, and the page on
planning that is computed from them.
"""

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import SimpleITK
from rich.console import Console

from BoneSAMLib.session import Segmenter
from Testing.bench.bench import machine
from Testing.bench.planning_page import fit_costs, planning_page, table_of_runs
from training.itk_image import itk_image

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "Resources" / "samples"
SLICES = (30, 60, 40, 90, 24, 50)
ZOOMS = (1.0, 1.5, 2.0, 1.25)
BONES = (1, 3, 2, 4)
PROMPTED = 4  # every fourth volume has boxes
WORKERS = 2
SECONDS_BETWEEN_SAMPLES = 0.1
SMALLEST_WORKER = 150e6  # bytes; less is Python's own helper processes

# Arguments of `run_batch` of each way.
WAYS = {
    "serial": {"workers": 0},
    "two workers": {"workers": WORKERS},
    "Dask, two workers": {"workers": WORKERS, "scheduler": "local"},
}
ONE_CORE = {"workers": 0, "make_segmenter": partial(Segmenter, "cpu", None, 1)}


@dataclass
class Memory:
    """Resident bytes of each process of a run, over time."""

    samples: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))

    def watch(self, process: subprocess.Popen) -> None:
        """Sample until the process ends."""
        start, root = time.perf_counter(), psutil.Process(process.pid)
        while process.poll() is None:
            for one in [root, *_children(root)]:
                try:
                    self.samples[one.pid].append((time.perf_counter() - start, one.memory_info().rss))
                except psutil.Error:
                    continue
            time.sleep(SECONDS_BETWEEN_SAMPLES)

    def workers(self, main: int, serial: bool) -> list[list[tuple[float, int]]]:
        """The processes that work on cases."""
        chosen = [samples for pid, samples in self.samples.items() if (pid == main) == serial]
        return [samples for samples in chosen if max(rss for _, rss in samples) > SMALLEST_WORKER]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


# ---------------------------------------------------------------------------------------------- volumes


def make_volumes(folder: Path, count: int, most_slices: int) -> Path:
    """Scans of many sizes out of the hip sample, and the table that says what is wanted of each."""
    from scipy.ndimage import zoom

    from BoneSAMLib import read_volume

    scan = read_volume(SAMPLES / "hip_ct.nii.gz")
    truth = read_volume(SAMPLES / "hip_ct_bones.nii.gz").array
    boxes = [_box(np.argwhere(truth == value)) for value in np.unique(truth) if value]
    boxes.sort(key=lambda box: -box[5] + box[2])  # the longest bones first
    rows = []
    for number in range(count):
        factor = ZOOMS[number % len(ZOOMS)]
        bones = BONES[number // PROMPTED % len(BONES)] if number % PROMPTED == PROMPTED - 1 else 0
        slices = len(scan.array) if bones else min(SLICES[number % len(SLICES)], len(scan.array))
        slices = min(slices, most_slices)
        first = (len(scan.array) - slices) // 2
        array = scan.array[first : first + slices]
        if factor != 1.0:
            array = zoom(array, (1, factor, factor), order=1, grid_mode=True, mode="nearest")
        # Nothing is the same twice, so nothing that is kept by the way helps a later case.
        noise = np.random.default_rng(number).normal(0, 8, array.shape)
        name = f"scan{number:03}.nii.gz"
        _write(folder / name, (array + noise).astype(np.int16), scan.ijk_to_ras, first, factor)
        row = {"volume": name, "output": name.removesuffix(".nii.gz") + ".seg.nrrd"}
        for box in boxes[:bones]:
            i0, j0, k0, i1, j1, k1 = box
            wide = [int(value * factor) for value in (i0, j0, i1, j1)]
            deep = [min(max(k - first, 0), slices - 1) for k in (k0, k1)]
            rows.append({**row, "box_ijk": ",".join(map(str, (*wide[:2], deep[0], *wide[2:], deep[1])))})
        if not bones:
            rows.append({**row, "box_ijk": ""})
    table = folder / "table.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["volume", "output", "box_ijk"])
        writer.writeheader()
        writer.writerows(rows)
    return table


def _box(voxels: np.ndarray) -> tuple[int, ...]:
    low, high = voxels.min(0)[::-1], voxels.max(0)[::-1]
    return tuple(int(value) for value in (*low, *high))


def _write(path: Path, array: np.ndarray, affine: np.ndarray, first: int, factor: float) -> None:
    """NIfTI of the slices from `first` on of a grid whose pixels became `factor` times as many."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 2] * first
    moved[:3, :2] /= factor
    image = itk_image(array, moved, path.name)
    SimpleITK.WriteImage(image, str(path), True, 1)


# ------------------------------------------------------------------------------------------------- runs


def run_way(way: str, table: Path, out: Path) -> dict:
    """One way in a process of its own, its figures, and the memory of its workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "Testing.bench.batch_bench", "--way", way, str(table), str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    memory = Memory()
    watcher = threading.Thread(target=memory.watch, args=(process,))
    watcher.start()
    printed, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"The run '{way}' ended with exit code {process.returncode}.")
    figures = json.loads(printed.splitlines()[-1])
    workers = memory.workers(process.pid, way == "serial")
    end = max(at for samples in memory.samples.values() for at, _ in samples)
    figures["peak_memory"] = [max(rss for _, rss in samples) for samples in workers]
    figures["peak_memory_by_quarter"] = [
        [_peak(samples, end * n / 4, end * (n + 1) / 4) for n in range(4)] for samples in workers
    ]
    figures["masks"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.seg.nrrd"))
    }
    return figures


def _peak(samples: list[tuple[float, int]], begin: float, end: float) -> int:
    return max((rss for at, rss in samples if begin <= at <= end), default=0)


def measure(way: str, table: Path, out: Path) -> dict:
    """What a run's process does."""
    from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch

    cases = find_cases(table, out, None if table.suffix == ".csv" else BatchPrompts(everything=True))
    outcome = run_batch(cases, out, **WAYS.get(way, ONE_CORE))
    if outcome.exit_code:
        raise SystemExit("; ".join(one.error for one in outcome.failed) or outcome.problem)
    return {
        "seconds": outcome.seconds,
        "volumes": len(cases),
        "cases": [
            {
                "slices": _size(one.record)[2],
                "voxels": int(np.prod(_size(one.record))),
                "bones": 0 if one.case.prompts.everything else len(one.case.prompts.bones),
                "seconds": one.seconds,
                "stages": one.record["seconds"],
            }
            for one in outcome.outcomes
        ],
    }


def _size(record: dict) -> list[int]:
    return [int(part) for part in record["volume"]["Voxels (i, j, k)"].split("x")]


def measure_reference(folder: Path, most_slices: int) -> dict:
    """Seconds of a large CT, every bone, on one core: what the fit must foretell."""
    from Testing.bench.cases import large_ct

    volume = large_ct()
    array = volume.array[:most_slices]
    _write(folder / "large.nii.gz", array, volume.ijk_to_ras, 0, 1.0)
    way = ("--way", "one core", str(folder / "large.nii.gz"), str(folder / "large"))
    ran = subprocess.run(
        [sys.executable, "-m", "Testing.bench.batch_bench", *way],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])["cases"][0]


def main() -> int:
    """Measure, print, write; fail when the ways give different masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=40, help="how many volumes")
    parser.add_argument("--slices", type=int, default=300, help="at most, in a volume; few for a quick try")
    parser.add_argument("--out", type=Path, help="folder for benchmark.json and planning.md")
    parser.add_argument("--way", nargs=3, metavar=("WAY", "TABLE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        way, table, out = options.way
        print(json.dumps(measure(way, Path(table), Path(out))))
        return 0
    console = Console(width=150)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.print("making volumes ...", style="dim")
        table = make_volumes(folder, options.volumes, options.slices)
        runs = {}
        for number, way in enumerate(WAYS):
            console.print(f"running {way} ...", style="dim")
            runs[way] = run_way(way, table, folder / f"out{number}")
        console.print("running one large CT ...", style="dim")
        reference = measure_reference(folder, options.slices)
    figures = {
        "machine": machine(),
        "workers": WORKERS,
        "runs": runs,
        "reference": reference,
        "identical": len({json.dumps(run["masks"], sort_keys=True) for run in runs.values()}) == 1,
    }
    fit = fit_costs(runs["two workers"]["cases"])
    console.print(table_of_runs(figures), markup=False)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "benchmark.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (options.out / "planning.md").write_text(planning_page(figures, fit), encoding="utf-8")
        console.print(f"written: {options.out}/planning.md", style="dim")
    return 0 if figures["identical"] else 1


if __name__ == "__main__":
    sys.exit(main())
