"""Measure weights on annotated scans with imitated prompts, beside references without learning.

    python -m training.evaluate --data DIR --split validation
    python -m training.evaluate --data DIR --split validation --studies interactive,robustness --most-cases 2

The main tables are ``rows.csv`` (one row per bone and protocol), ``summary.json``, ``summary.md`` and one
contact sheet per source; each study is a CSV of its trials and a part of ``studies.json``; ``report.html``
shows all that the folder holds. A run that was stopped goes on where it was: finished work is in JSON-lines
files and is not done again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from BoneSAMLib.errors import BoneSAMError
from training import contact_sheet
from training.annotator import OpensVolumes
from training.cases import SPLITS, Case, load_cases, read_index
from training.evaluation_report import write_report
from training.journal import Journal
from training.measure import BOX_ONLY, FULL, QUICK, LoadedCase, Plan, evaluate_case
from training.opened_weights import open_weights, weights_digest
from training.protocols import SEED
from training.robustness import SEVERITIES
from training.studies import STUDIES, TABLES
from training.summary import Row, row_of, write_rows, write_summary
from training.trial import Study, trial_of, write_trials

QUICK_CASES = QUICK_BONES = 2
# Names of the protocols on the command line, and the field of `Plan` that each switches on.
PROTOCOLS = {
    "box": "boxes",
    "box-and-clicks": "box_corrections",
    "2d-box": "slice_boxes",
    "clicks": "clicks",
    "no-prompt": "no_prompt",
}
ATTENTION = {"both": (True, False), "on": (True,), "off": (False,)}


@dataclass
class Clock:
    """How long the work may take; without ``minutes`` as long as it takes."""

    minutes: float | None = None
    start: float = 0.0

    def __post_init__(self) -> None:
        self.start = time.monotonic()

    def is_over(self) -> bool:
        """Whether to begin nothing more."""
        return self.minutes is not None and time.monotonic() - self.start > 60 * self.minutes


def evaluate(
    cases: Sequence[Case],
    segmenter: OpensVolumes,
    out: Path,
    settings: dict[str, Any],
    plan: Plan = FULL,
    fresh: bool = False,
    clock: Clock | None = None,
) -> list[Row]:
    """Evaluate ``cases`` into the folder ``out`` and return all rows.

    ``settings`` (plain values for JSON) say what is measured; ``most_bones`` of them limits the bones of a
    case. Finished cases found in ``out`` are kept unless ``fresh``.

    Raises:
        BoneSAMError: ``out`` holds a run with other settings: their rows would mix.
    """
    clock = clock or Clock()
    pictures = out / "cases"
    pictures.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / f"{TABLES}.jsonl", settings, fresh)
    for number, case in enumerate(in_turn(cases), start=1):
        if (case.id,) in journal:
            print(f"[{number}/{len(cases)}] {case.id}: done before")
            continue
        if clock.is_over():
            break
        start = time.perf_counter()
        loaded = LoadedCase.read(case, settings.get("most_bones"))
        scored = evaluate_case(loaded, segmenter, plan)
        if scored.drawn:
            title = f"{case.source}  {case.id}"
            contact_sheet.draw_case(title, scored.volume, scored.drawn).save(pictures / f"{case.id}.png")
        journal.append((case.id,), [asdict(row) for row in scored.rows])
        dice = [f"{bone.name} {bone.dice:.3f}" for bone in scored.drawn]
        print(
            f"[{number}/{len(cases)}] {case.id} ({time.perf_counter() - start:.0f} s): {', '.join(dice)}",
            flush=True,
        )

    order = {case.id: number for number, case in enumerate(cases)}
    rows = [row_of(values) for values in journal.rows() if values["case"] in order]
    rows.sort(key=lambda row: order[row.case])
    if rows:
        write_rows(out / "rows.csv", rows)
        write_summary(rows, settings, out)
    for source in dict.fromkeys(case.source for case in cases):
        drawn = [pictures / f"{case.id}.png" for case in cases if case.source == source]
        drawn = [picture for picture in drawn if picture.exists()]
        if drawn:
            contact_sheet.write_sheet(f"{source}, {settings['split']}", drawn, out / f"{source}.png")
    return rows


def run_studies(
    studies: Sequence[Study],
    cases: Sequence[Case],
    segmenter: OpensVolumes,
    out: Path,
    settings: dict[str, Any],
    fresh: bool = False,
    clock: Clock | None = None,
) -> None:
    """Do what the studies still lack on ``cases``, case by case, into the folder ``out``.

    Raises:
        BoneSAMError: as `evaluate`, or the segmenter lacks what a study asks for.
    """
    clock = clock or Clock()
    journals = {study.name: Journal(out / f"{study.name}.jsonl", settings, fresh) for study in studies}
    for number, case in enumerate(in_turn(cases), start=1):
        if clock.is_over() or not studies:
            break
        loaded = LoadedCase.read(case, settings.get("most_bones"))
        for study in studies:
            start, done = time.perf_counter(), 0
            for part in study.parts(loaded):
                if clock.is_over():
                    break
                if (case.id, part) not in journals[study.name]:
                    trials = [asdict(one) for one in study.run(loaded, segmenter, part)]
                    journals[study.name].append((case.id, part), trials)
                    done += len(trials)
            took = f"{done} trials, {time.perf_counter() - start:.0f} s" if done else "nothing left to do"
            print(f"[{number}/{len(cases)}] {case.id}, {study.name}: {took}", flush=True)
    for name, journal in journals.items():
        write_trials(out / f"{name}.csv", [trial_of(values) for values in journal.rows()])


def in_turn(cases: Sequence[Case]) -> list[Case]:
    """The cases with their sources taking turns, so that a run that is stopped has seen them all."""
    seen: dict[str, int] = {}
    ranked = []
    for case in cases:
        seen[case.source] = seen.get(case.source, 0) + 1
        ranked.append((seen[case.source], case))
    return [case for _, case in sorted(ranked, key=lambda pair: pair[0])]


def first_cases(cases: Sequence[Case], count: int) -> list[Case]:
    """The first ``count`` cases of every source."""
    seen: dict[str, int] = {}
    kept = []
    for case in cases:
        seen[case.source] = seen.get(case.source, 0) + 1
        if seen[case.source] <= count:
            kept.append(case)
    return kept


def chosen_plan(base: Plan, protocols: str | None, attention: str | None) -> Plan:
    """``base`` with the named protocols only, and depth attention as named.

    Raises:
        BoneSAMError: there is no such protocol.
    """
    if protocols is not None:
        names = protocols.split(",")
        _known(names, PROTOCOLS, "protocol")
        chosen: dict[str, Any] = {field: name in names for name, field in PROTOCOLS.items()}
        base = replace(base, **chosen)
    return base if attention is None else replace(base, attention=ATTENTION[attention])


def _known(names: Sequence[str], known: Any, kind: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BoneSAMError(f"Unknown {kind} '{unknown[0]}': use some of {', '.join(map(str, known))}.")


def _severities(text: str) -> list[int]:
    names = text.split(",")
    _known(names, [str(severity) for severity in SEVERITIES], "severity")
    return [int(name) for name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the annotated scans (index.json)")
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument(
        "--weights",
        type=Path,
        help="folder of a bundle (default: the bundled one) or of a baseline's training, or a checkpoint "
        "(.safetensors), which runs in float32",
    )
    parser.add_argument("--sources", help="only these, separated by commas")
    parser.add_argument("--out", type=Path, help="default: out/evaluation-SPLIT")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--studies",
        default=TABLES,
        help=f"what to do, separated by commas, or 'all': {TABLES} (default), {', '.join(STUDIES)}",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"only {QUICK_CASES} cases a source, {QUICK_BONES} bones a case, 3D box and clicks",
    )
    parser.add_argument("--box-only", action="store_true", help="of the tables only the 3D box")
    parser.add_argument("--protocols", help=f"of the tables only these: {', '.join(PROTOCOLS)}")
    parser.add_argument("--attention", choices=ATTENTION, help="depth attention in the tables")
    parser.add_argument("--severities", default="1,2,3,4,5", help="of the corruptions, such as 3")
    parser.add_argument("--most-cases", type=int, help="only the first so many cases of a source")
    parser.add_argument("--most-bones", type=int, help="only the first so many bones of a case")
    parser.add_argument("--minutes", type=float, help="begin nothing more after so many minutes")
    parser.add_argument("--fresh", action="store_true", help="forget what the folder holds of these studies")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    out = options.out or Path("out") / f"evaluation-{options.split}"
    try:
        _run(options, out)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Everything: {out / 'report.html'}; tables: {out}/*.md, *.json and *.csv")
    return 0


def _run(options: argparse.Namespace, out: Path) -> None:
    names = [TABLES, *STUDIES] if options.studies == "all" else options.studies.split(",")
    _known(names, [TABLES, *STUDIES], "study")
    severities = _severities(options.severities)
    plan = BOX_ONLY if options.box_only else QUICK if options.quick else FULL
    plan = chosen_plan(plan, options.protocols, options.attention)
    sources = options.sources.split(",") if options.sources else None
    cases = load_cases(options.data, options.split, sources)
    if not cases:
        raise BoneSAMError(f"There are no cases of the {options.split} split in {options.data}.")
    most_cases, most_bones = options.most_cases, options.most_bones
    if options.quick:
        most_cases, most_bones = most_cases or QUICK_CASES, most_bones or QUICK_BONES
    if most_cases is not None:
        cases = first_cases(cases, most_cases)
    segmenter = open_weights(options.weights, options.device)
    clock = Clock(options.minutes)
    same = {
        "split": options.split,
        "weights": weights_digest(options.weights),
        "most_bones": most_bones,
        "seed": SEED,
    }
    if TABLES in names:
        chosen = {"quick": options.quick, "box_only": options.box_only}
        if options.protocols or options.attention:
            chosen |= {"protocols": options.protocols, "attention": options.attention}
        evaluate(cases, segmenter, out, {**same, **chosen}, plan, options.fresh, clock)
    every = read_index(options.data)
    studies = [STUDIES[name].make(every, severities) for name in names if name != TABLES]
    run_studies(studies, cases, segmenter, out, same, options.fresh, clock)
    write_report(out)
    if clock.is_over():
        print("The minutes are over; the same command goes on where this one stopped.")


if __name__ == "__main__":
    sys.exit(main())
