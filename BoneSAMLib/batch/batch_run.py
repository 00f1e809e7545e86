"""All cases of a batch, in this process or in several, and the page that sums them up."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from BoneSAMLib.batch.case import Case
from BoneSAMLib.batch.case_run import CaseOutcome, CaseSettings, run_case
from BoneSAMLib.batch.output_lock import only_run_in
from BoneSAMLib.batch.summary_page import write_summary
from BoneSAMLib.batch.worker_pool import SegmenterMaker, WorkerPool
from BoneSAMLib.bundle import open_bundle
from BoneSAMLib.engine import check_device
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.session import Segmenter

__all__ = ["SUMMARY", "BatchOutcome", "BatchProgress", "run_batch"]

SUMMARY = "summary.html"
BatchProgress = Callable[[CaseOutcome], None]


@dataclass
class BatchOutcome:
    """How a batch ended.

    Attributes:
        outcomes: of every case, in the order of the cases.
        seconds: wall time.
        summary: the page, which shows the worst cases first.
    """

    outcomes: list[CaseOutcome] = field(default_factory=list)
    seconds: float = 0.0
    summary: Path = Path(SUMMARY)

    @property
    def failed(self) -> list[CaseOutcome]:
        """The cases without a mask."""
        return [outcome for outcome in self.outcomes if outcome.ending == "failed"]

    @property
    def exit_code(self) -> int:
        """0: all cases have their mask; 1: some have; 3: none has (2 is for what was never begun)."""
        if not self.failed:
            return 0
        return 1 if len(self.failed) < len(self.outcomes) else 3


def run_batch(
    cases: Sequence[Case],
    output: str | os.PathLike[str],
    *,
    workers: int = 1,
    resume: bool = False,
    device: str = "auto",
    weights: str | Path | None = None,
    time_limit: float | None = None,
    progress: BatchProgress | None = None,
    make_segmenter: SegmenterMaker | None = None,
) -> BatchOutcome:
    """Segment all cases; one that fails does not stop the others.

    Every mask and its record are written under a temporary name and renamed. Stopped by Ctrl-C, it removes
    what belongs to unfinished cases, writes the summary of the others, and raises KeyboardInterrupt.

    Args:
        cases: from `find_cases`.
        output: folder of the summary, made if missing.
        workers: processes; the cores are shared among them. 0 works in this process, as is needed in
            3D Slicer's console; then nothing protects it from a case that takes all memory.
        resume: leave complete masks alone that come from the same input, prompts and weights.
        device, weights: as for `Segmenter`.
        time_limit: seconds after which a case is given up; needs workers.
        progress: called after every case.
        make_segmenter: makes what segments, instead of `Segmenter`; picklable, called once per process.

    Raises:
        BoneSAMError: no cases, weights that cannot be loaded, a folder that cannot be written to or in which
            another batch works.
    """
    if not cases:
        raise BoneSAMError("There are no volumes to segment.")
    if workers < 0 or (time_limit is not None and (time_limit <= 0 or workers == 0)):
        raise BoneSAMError(
            "Use 0 or more workers; a time limit must be positive, and needs 1 worker or more."
        )
    check_device(device)
    cores = available_cores()
    threads = max(1, cores // max(workers, 1))
    if make_segmenter is None:
        open_bundle(weights)  # damaged weights are one error, not one of every case
        make_segmenter = partial(Segmenter, device, weights, threads)
    settings = CaseSettings(resume)
    folder, start = Path(output), time.perf_counter()
    finished: dict[str, CaseOutcome] = {}

    def outcome_so_far() -> BatchOutcome:
        ordered = [finished[case.name] for case in cases if case.name in finished]
        return BatchOutcome(ordered, time.perf_counter() - start, folder / SUMMARY)

    with only_run_in(folder):
        try:
            outcomes: Iterator[CaseOutcome] = (
                WorkerPool(make_segmenter, settings, workers, threads, time_limit).run(cases)
                if workers
                else _one_by_one(cases, make_segmenter, settings)
            )
            with closing(outcomes):  # type: ignore[type-var]
                for outcome in outcomes:
                    finished[outcome.case.name] = outcome
                    if progress is not None:
                        progress(outcome)
        finally:
            if finished:
                write_summary(
                    folder / SUMMARY, list(finished.values()), len(cases), time.perf_counter() - start
                )
    return outcome_so_far()


def available_cores() -> int:
    """The cores that this process may use; on a shared machine they may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_by_one(
    cases: Sequence[Case], make_segmenter: SegmenterMaker, settings: CaseSettings
) -> Iterator[CaseOutcome]:
    segmenter = make_segmenter()
    for case in cases:
        yield run_case(case, segmenter, settings)
