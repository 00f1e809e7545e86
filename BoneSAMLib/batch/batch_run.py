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
from BoneSAMLib.batch.dask_run import LOCAL, ClusterLostError, DaskRun
from BoneSAMLib.batch.memory import available_memory
from BoneSAMLib.batch.output_lock import only_run_in
from BoneSAMLib.batch.shard import Shard
from BoneSAMLib.batch.summary_page import write_summary
from BoneSAMLib.batch.worker_pool import SegmenterMaker, WorkerPool
from BoneSAMLib.bundle import open_bundle
from BoneSAMLib.engine import available_cores, check_device
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.session import Segmenter

__all__ = ["SUMMARY", "BatchOutcome", "BatchProgress", "run_batch"]

SUMMARY = "summary.html"
_SMALLEST_MEMORY = 1_000_000_000
BatchProgress = Callable[[CaseOutcome], None]


@dataclass
class BatchOutcome:
    """How a batch ended.

    Attributes:
        outcomes: of every case that ended, in the order of the cases.
        total: how many cases there are.
        seconds: wall time.
        summary: the page, which shows the worst cases first.
        problem: a sentence, when the run ended before all cases did, or could not write its summary.
    """

    outcomes: list[CaseOutcome] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0
    summary: Path = Path(SUMMARY)
    problem: str = ""

    @property
    def failed(self) -> list[CaseOutcome]:
        """The cases without a mask."""
        return [outcome for outcome in self.outcomes if outcome.ending == "failed"]

    @property
    def exit_code(self) -> int:
        """0: all cases have their mask; 1: some have, or there is a problem; 3: none has.

        2 is for what was never begun.
        """
        if not self.failed and not self.problem:
            return 0
        return 1 if len(self.failed) < len(self.outcomes) else 3


def run_batch(
    cases: Sequence[Case],
    output: str | os.PathLike[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    shard: Shard | None = None,
    resume: bool = False,
    device: str = "auto",
    weights: str | Path | None = None,
    memory: int | None = None,
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
        scheduler: address of a Dask scheduler whose workers do the work, instead of `workers` of this
            machine; "local" starts a Dask cluster of `workers` here.
        shard: do a part of the cases only, beside runs that do the other parts.
        resume: leave complete masks alone that come from the same input, prompts and weights.
        device, weights: as for `Segmenter`.
        memory: bytes that a case may take; what would take more by its header is refused. None for an equal
            share of what is free at the start.
        time_limit: seconds after which a case is given up; needs workers.
        progress: called after every case.
        make_segmenter: makes what segments, instead of `Segmenter`; picklable, called once per process.

    Raises:
        BoneSAMError: no cases, weights that cannot be loaded, a folder that cannot be written to or in which
            another batch works, no scheduler at that address.
    """
    if not cases:
        raise BoneSAMError("There are no volumes to segment.")
    if workers < 0 or (time_limit is not None and (time_limit <= 0 or workers == 0)):
        raise BoneSAMError(
            "Use 0 or more workers; a time limit must be positive, and needs 1 worker or more."
        )
    if memory is not None and memory < _SMALLEST_MEMORY:
        raise BoneSAMError("Segmenting takes at least 1 GB of memory: allow that much.")
    check_device(device)
    cores = available_cores()
    elsewhere = scheduler not in (None, LOCAL)
    threads = 1 if elsewhere else max(1, cores // max(workers, 1))
    digest = None
    if make_segmenter is None:
        # Damaged weights are one error, not one of every case.
        digest = open_bundle(weights).digest
        folder_of_weights = None if weights is None else Path(weights).absolute()
        make_segmenter = partial(Segmenter, device, folder_of_weights, threads)
    if memory is None and not elsewhere:
        free = available_memory()
        memory = None if free is None else free // max(workers, 1)
    settings = CaseSettings(resume, memory)
    folder, start = Path(output), time.perf_counter()
    part = "" if shard is None else shard.suffix
    summary = (folder / SUMMARY).with_stem(f"summary{part}")
    if shard is not None:
        cases = shard.of(cases)
    finished: dict[str, CaseOutcome] = {}
    problem = ""

    def outcomes(lock: Path) -> Iterator[CaseOutcome]:
        if not cases or (workers == 0 and scheduler is None):
            return _one_by_one(cases, make_segmenter, settings)
        if scheduler is None:
            return WorkerPool(make_segmenter, settings, workers, threads, time_limit).run(cases)
        run = DaskRun(scheduler, make_segmenter, settings, lock, digest, workers, threads, time_limit)
        return run.run(cases)

    with only_run_in(folder, part) as lock:
        try:
            with closing(outcomes(lock)) as ended:  # type: ignore[type-var]
                for outcome in ended:
                    finished[outcome.case.name] = outcome
                    if progress is not None:
                        progress(outcome)
        except ClusterLostError as error:
            problem = str(error)
        finally:
            if finished:
                seconds = time.perf_counter() - start
                try:
                    write_summary(summary, list(finished.values()), len(cases), seconds)
                except BoneSAMError as error:
                    problem = problem or str(error)
    ordered = [finished[case.name] for case in cases if case.name in finished]
    return BatchOutcome(ordered, len(cases), time.perf_counter() - start, summary, problem)


def _one_by_one(
    cases: Sequence[Case], make_segmenter: SegmenterMaker, settings: CaseSettings
) -> Iterator[CaseOutcome]:
    segmenter = make_segmenter()
    for case in cases:
        yield run_case(case, segmenter, settings)
