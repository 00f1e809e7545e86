"""Measure a bundle of weights on annotated scans with imitated prompts, beside references without learning.

    python -m training.evaluate --data DIR --split test

writes ``rows.csv`` (one row per bone and protocol), ``summary.json``, ``summary.md`` and one contact sheet
per source. A run that was stopped goes on where it was: finished cases are not computed again.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from BoneSAMLib.errors import BoneSAMError
from training import contact_sheet
from training.cases import SPLITS, Case, load_cases
from training.measure import BOX_ONLY, FULL, QUICK, OpensVolumes, Plan, evaluate_case
from training.protocols import SEED
from training.summary import Row, append_rows, read_rows, write_summary

BUNDLED_WEIGHTS = Path(__file__).resolve().parents[1] / "Resources" / "weights"
QUICK_CASES = 2


def evaluate(
    cases: Sequence[Case],
    segmenter: OpensVolumes,
    out: Path,
    settings: dict[str, Any],
    plan: Plan = FULL,
    fresh: bool = False,
) -> list[Row]:
    """Evaluate ``cases`` into the folder ``out`` and return all rows.

    ``settings`` (plain values for JSON) say what is measured. Finished cases found in ``out`` are kept unless
    ``fresh``.

    Raises:
        BoneSAMError: ``out`` holds a run with other settings: their rows would mix.
    """
    pictures = out / "cases"
    pictures.mkdir(parents=True, exist_ok=True)
    rows_path, progress_path = out / "rows.csv", out / "progress.json"
    finished = [] if fresh else _resumed(progress_path, settings)
    # Rows of a case that was stopped halfway, or that is started afresh, are no longer wanted.
    kept = [row for row in read_rows(rows_path) if row.case in finished]
    rows_path.unlink(missing_ok=True)
    append_rows(rows_path, kept)
    _write_progress(progress_path, settings, finished)

    for number, case in enumerate(cases, start=1):
        if case.id in finished:
            print(f"[{number}/{len(cases)}] {case.id}: done before")
            continue
        start = time.perf_counter()
        scored = evaluate_case(case, segmenter, plan)
        if scored.drawn:
            title = f"{case.source}  {case.id}"
            contact_sheet.draw_case(title, scored.volume, scored.drawn).save(pictures / f"{case.id}.png")
        append_rows(rows_path, scored.rows)
        finished.append(case.id)
        _write_progress(progress_path, settings, finished)
        dice = [f"{bone.name} {bone.dice:.3f}" for bone in scored.drawn]
        print(
            f"[{number}/{len(cases)}] {case.id} ({time.perf_counter() - start:.0f} s): {', '.join(dice)}",
            flush=True,
        )

    wanted = {case.id for case in cases}
    rows = [row for row in read_rows(rows_path) if row.case in wanted]
    if rows:
        write_summary(rows, settings, out)
    for source in dict.fromkeys(case.source for case in cases):
        drawn = [pictures / f"{case.id}.png" for case in cases if case.source == source]
        drawn = [picture for picture in drawn if picture.exists()]
        if drawn:
            contact_sheet.write_sheet(f"{source}, {settings['split']}", drawn, out / f"{source}.png")
    return rows


def _resumed(progress_path: Path, settings: dict[str, Any]) -> list[str]:
    """The finished cases of the run in this folder."""
    if not progress_path.exists():
        return []
    progress = json.loads(progress_path.read_text(encoding="utf-8"))
    if progress["settings"] != settings:
        raise BoneSAMError(
            f"The folder {progress_path.parent} holds an evaluation with other settings "
            f"({progress['settings']}): name another with --out, or replace it with --fresh."
        )
    return list(progress["finished"])


def _write_progress(path: Path, settings: dict[str, Any], finished: Sequence[str]) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(
        json.dumps({"settings": settings, "finished": list(finished)}, indent=1), encoding="utf-8"
    )
    os.replace(temporary, path)


def weights_digest(folder: Path) -> str:
    """Short SHA-256 over the files of a bundle of weights, to tell one bundle's rows from another's."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def first_cases(cases: Sequence[Case], count: int) -> list[Case]:
    """The first ``count`` cases of every source."""
    seen: dict[str, int] = {}
    kept = []
    for case in cases:
        seen[case.source] = seen.get(case.source, 0) + 1
        if seen[case.source] <= count:
            kept.append(case)
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the annotated scans (index.json)")
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--weights", type=Path, help="folder of a bundle (default: the bundled one)")
    parser.add_argument("--sources", help="only these, separated by commas")
    parser.add_argument("--out", type=Path, help="default: out/evaluation-SPLIT")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"only {QUICK_CASES} cases a source, {QUICK.most_objects} bones a case, 3D box and clicks",
    )
    parser.add_argument("--box-only", action="store_true", help="only the 3D box, of all cases and bones")
    parser.add_argument("--most-bones", type=int, help="only the first so many bones of a case")
    parser.add_argument("--fresh", action="store_true", help="compute finished cases again")
    options = parser.parse_args(arguments)

    # Imported late: `--help` needs no engine.
    from BoneSAMLib import Segmenter

    try:
        sources = options.sources.split(",") if options.sources else None
        cases = load_cases(options.data, options.split, sources)
        if not cases:
            raise BoneSAMError(f"There are no cases of the {options.split} split in {options.data}.")
        if options.quick:
            cases = first_cases(cases, QUICK_CASES)
        segmenter = Segmenter(device=options.device, weights=options.weights)
        settings = {
            "split": options.split,
            "weights": weights_digest(options.weights or BUNDLED_WEIGHTS),
            "quick": options.quick,
            "box_only": options.box_only,
            "most_bones": options.most_bones,
            "seed": SEED,
        }
        out = options.out or Path("out") / f"evaluation-{options.split}"
        plan = BOX_ONLY if options.box_only else QUICK if options.quick else FULL
        if options.most_bones is not None:
            plan = replace(plan, most_objects=options.most_bones)
        evaluate(cases, segmenter, out, settings, plan, options.fresh)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Tables: {out / 'summary.md'}; contact sheets: {out}/*.png; rows: {out / 'rows.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
