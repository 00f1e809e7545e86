"""Processes that work on cases: a dead one is replaced, and its case is tried once more.

Python's own pools give up when a worker is killed. Here every worker has a pipe of its own, and what it is
working on is known.
"""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from BoneSAMLib.batch.attempt import clean_up_case
from BoneSAMLib.batch.case import Case
from BoneSAMLib.batch.case_run import CaseOutcome, CaseSettings, failed_case, run_case
from BoneSAMLib.errors import BoneSAMError

if TYPE_CHECKING:
    from BoneSAMLib.session import Segmenter

__all__ = [
    "ATTEMPTS",
    "SegmenterMaker",
    "WorkerPool",
    "interrupts_ignored",
    "thread_environment",
    "thread_variables",
]

SegmenterMaker = Callable[[], "Segmenter"]
ATTEMPTS = 2
_SECONDS_TO_END = 5.0
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass
class _Task:
    case: Case
    attempts: int = 0


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: "Connection[object, object]"
    task: _Task | None = None
    began: float = 0.0


class WorkerPool:
    """Runs cases in processes of their own.

    Args:
        make_segmenter: called once in every process; must be picklable.
        settings: for all cases.
        workers: how many processes.
        threads: how many each computes on.
        time_limit: seconds after which a case is given up; None for none.
    """

    def __init__(
        self,
        make_segmenter: SegmenterMaker,
        settings: CaseSettings,
        workers: int,
        threads: int,
        time_limit: float | None = None,
    ) -> None:
        self._make_segmenter, self._settings = make_segmenter, settings
        self._count, self._threads, self._time_limit = workers, threads, time_limit
        self._workers: list[_Worker] = []

    def run(self, cases: Sequence[Case]) -> Iterator[CaseOutcome]:
        """Outcomes as they come. Closing the iterator stops the workers and cleans up what they were doing.

        Raises:
            BoneSAMError: no worker can load the network.
        """
        waiting = deque(_Task(case) for case in cases)
        try:
            for _ in range(min(self._count, len(waiting))):
                self._workers.append(self._start())
            while waiting or any(worker.task for worker in self._workers):
                for worker in self._workers:
                    if worker.task is None and waiting:
                        self._give(worker, waiting.popleft())
                yield from self._collect(waiting)
        finally:
            self._stop()

    def _start(self) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._make_segmenter, self._settings), daemon=True
        )
        # Libraries look at these when they are imported, which comes before the first line of ours.
        with thread_variables(self._threads), interrupts_ignored():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, task: _Task) -> None:
        task.attempts += 1
        worker.task, worker.began = task, time.monotonic()
        with contextlib.suppress(OSError):  # a worker that is dead already is found by its sentinel
            worker.pipe.send(task.case)

    def _collect(self, waiting: deque[_Task]) -> Iterator[CaseOutcome]:
        """Wait until something happens, and see what it was."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for ready in wait(list(pipes), self._patience()):
            worker = pipes[ready]  # type: ignore[index]
            try:
                answer = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._bury(worker, waiting)
                continue
            if isinstance(answer, BoneSAMError):
                raise answer
            assert isinstance(answer, CaseOutcome)
            worker.task = None
            yield answer
        if self._time_limit is not None:
            for worker in list(self._workers):
                if worker.task and time.monotonic() - worker.began > self._time_limit:
                    worker.task.attempts = ATTEMPTS  # it would take as long again
                    worker.process.kill()
                    yield from self._bury(
                        worker, waiting, f"it took longer than {self._time_limit:g} seconds"
                    )

    def _patience(self) -> float | None:
        if self._time_limit is None:
            return None
        now = time.monotonic()
        left = [worker.began + self._time_limit - now for worker in self._workers if worker.task]
        return max(0.01, min(left, default=0.01) + 0.01)

    def _bury(self, worker: _Worker, waiting: deque[_Task], reason: str = "") -> Iterator[CaseOutcome]:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        task = worker.task
        if task is not None:
            clean_up_case(task.case)
            if task.attempts < ATTEMPTS:
                waiting.append(task)  # last: should it need much memory, others are done by then
            else:
                reason = reason or (
                    f"its process was ended {ATTEMPTS} times ({_how_it_ended(worker.process)}), perhaps for "
                    "lack of memory: use fewer workers, or crop it"
                )
                message = f"'{task.case.source}' was given up: {reason}."
                yield failed_case(task.case, message, time.monotonic() - worker.began)
        if len(self._workers) < min(self._count, len(waiting) + sum(bool(w.task) for w in self._workers)):
            self._workers.append(self._start())

    def _stop(self) -> None:
        busy = [worker for worker in self._workers if worker.task is not None]
        for worker in busy:
            worker.process.kill()
        for worker in self._workers:
            worker.pipe.close()  # the others end by themselves
            worker.process.join(_SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        for worker in busy:
            if worker.task is not None:
                clean_up_case(worker.task.case)
        self._workers.clear()


def thread_environment(threads: int) -> dict[str, str]:
    """What the libraries of a process look at when they are imported, to compute on so many threads."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


@contextlib.contextmanager
def thread_variables(threads: int) -> Iterator[None]:
    """Environment in which a new process computes on so many threads."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(thread_environment(threads))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ctrl-C reaches all processes, and the first one decides: one that starts here never heeds it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: "Connection[object, object]", make_segmenter: SegmenterMaker, settings: CaseSettings) -> None:
    """What a worker does until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    segmenter = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            case = pipe.recv()
            assert isinstance(case, Case)
            if segmenter is None:
                try:
                    segmenter = make_segmenter()
                except Exception as error:  # without the network no case can be done: say it and stop
                    pipe.send(error if isinstance(error, BoneSAMError) else BoneSAMError(f"{error}"))
                    return
            pipe.send(run_case(case, segmenter, settings))


def _end_with_parent() -> None:
    """A worker whose run was killed must not write into what the next run is doing."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
