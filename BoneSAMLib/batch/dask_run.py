"""The cases of a batch on a Dask cluster, on many machines or on this one.

Dask gives out the cases and gives those of a dead worker to another one. What it cannot know is added here: a
worker that hangs, or that is taken for dead and still writes, and a scheduler that is lost.
"""

import contextlib
import logging
import queue
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from BoneSAMLib.batch.attempt import clean_up_case
from BoneSAMLib.batch.case import Case
from BoneSAMLib.batch.case_run import CaseOutcome, CaseSettings, failed_case, run_case
from BoneSAMLib.batch.memory import available_memory
from BoneSAMLib.batch.worker_pool import (
    ATTEMPTS,
    SegmenterMaker,
    interrupts_ignored,
    thread_environment,
    thread_variables,
)
from BoneSAMLib.errors import BoneSAMError

if TYPE_CHECKING:
    from distributed import Client, Future

    from BoneSAMLib.session import Segmenter

__all__ = ["LOCAL", "ClusterLostError", "DaskRun"]

LOCAL = "local"
_SECONDS_TO_CONNECT = 15
_SECONDS_BETWEEN_LOOKS = 0.5
# A case is a straggler when it takes this many times as long as the longest one so far, and at least so many
# seconds, while a worker is idle.
_STRAGGLER = 5.0
_SHORTEST_STRAGGLER = 120.0
_KEPT_SEGMENTERS = 2


class ClusterLostError(BoneSAMError):
    """The scheduler is gone. What the workers had not finished was cleaned up."""


@dataclass(frozen=True)
class _Work:
    """What is the same for all cases, and goes to the workers with each."""

    run: str
    make_segmenter: SegmenterMaker
    settings: CaseSettings
    shared: Path
    weights: str | None


@dataclass
class _Pending:
    case: Case
    future: "Future"
    began: float | None = None
    worker: str = ""
    may_restart: bool = False
    moved: bool = False


class DaskRun:
    """Runs cases on a Dask cluster.

    Args:
        scheduler: address of a running scheduler, or `LOCAL` to start a cluster on this machine, which ends
            with the run.
        make_segmenter: called once in every worker process; must be picklable.
        settings: for all cases; without a limit of memory, each worker takes its own.
        shared: a file that exists while the run does. A worker that does not see it is on no common disk.
        weights: digest that the segmenter of every worker must have; None for any.
        workers: of a local cluster.
        threads: that each worker of a local cluster computes on.
        time_limit: seconds after which a case is given up; None for none.
    """

    def __init__(
        self,
        scheduler: str,
        make_segmenter: SegmenterMaker,
        settings: CaseSettings,
        shared: Path,
        weights: str | None,
        workers: int = 1,
        threads: int = 1,
        time_limit: float | None = None,
    ) -> None:
        self._scheduler, self._workers, self._threads = scheduler, workers, threads
        self._time_limit = time_limit
        self._work = _Work(uuid.uuid4().hex[:12], make_segmenter, settings, shared.absolute(), weights)
        self._pending: dict[str, _Pending] = {}
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._begun: queue.SimpleQueue[tuple[dict[str, Any], float]] = queue.SimpleQueue()
        self._longest = 0.0

    def run(self, cases: Sequence[Case]) -> Iterator[CaseOutcome]:
        """Outcomes as they come. Closing the iterator stops the work and cleans up what was not finished.

        Raises:
            ClusterLostError: the scheduler does not answer any more.
            BoneSAMError: there is no Dask, no scheduler, or a worker cannot work.
        """
        unfinished = {case.name: case for case in cases}
        try:
            with self._connected() as client:
                for outcome in self._outcomes(client, cases):
                    del unfinished[outcome.case.name]
                    yield outcome
        finally:
            # Attempts that still run on other machines find their records gone, and change nothing more.
            for case in unfinished.values():
                clean_up_case(case)

    @contextlib.contextmanager
    def _connected(self) -> Iterator["Client"]:
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise BoneSAMError(
                "Dask is not installed: install BoneSAM with it, pip install --editable '.[cluster]'."
            ) from error
        with contextlib.ExitStack() as ends:
            ends.enter_context(_quiet_dask())
            if self._scheduler != LOCAL:
                try:
                    client = Client(self._scheduler, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
                except (OSError, ValueError) as error:
                    raise BoneSAMError(
                        f"No Dask scheduler answers at '{self._scheduler}': start one with 'dask scheduler', "
                        "or correct the address."
                    ) from error
                ends.callback(client.close, timeout=2)
                yield client
                return
            environment = dask.config.get("distributed.nanny.pre-spawn-environ")
            # Giving every freed page back to the system, as Dask's workers do, makes convolutions slower.
            environment = {name: one for name, one in environment.items() if "TRIM" not in name}
            settings = {
                "distributed.scheduler.allowed-failures": ATTEMPTS - 1,
                "distributed.scheduler.worker-saturation": 1.0,  # none waits at a busy worker
                "distributed.nanny.pre-spawn-environ": {**environment, **thread_environment(self._threads)},
            }
            with dask.config.set(settings), thread_variables(self._threads), interrupts_ignored():
                cluster = ends.enter_context(
                    LocalCluster(
                        n_workers=self._workers,
                        threads_per_worker=1,
                        memory_limit=0,
                        dashboard_address=None,
                        host="127.0.0.1",
                        silence_logs=logging.CRITICAL,
                    )
                )
            yield ends.enter_context(Client(cluster, set_as_default=False))

    def _outcomes(self, client: "Client", cases: Sequence[Case]) -> Iterator[CaseOutcome]:
        client.subscribe_topic(self._work.run, self._note_begin)
        keys = [f"bonesam-{self._work.run}-{number}" for number in range(len(cases))]
        # Workers have another working directory.
        sent = [replace(case, source=case.source.absolute(), output=case.output.absolute()) for case in cases]
        futures = client.map(_work_on, keys, sent, key=keys, work=self._work, pure=False, retries=0)
        self._pending = {
            key: _Pending(case, future) for key, case, future in zip(keys, cases, futures, strict=True)
        }
        del futures  # what nobody holds any more is forgotten by the cluster
        for pending in self._pending.values():
            pending.future.add_done_callback(self._ended.put)
        next_look = time.monotonic()
        while self._pending:
            with contextlib.suppress(queue.Empty):
                ended = self._ended.get(timeout=_SECONDS_BETWEEN_LOOKS)
                done = self._pending.pop(str(ended.key), None)
                if done is not None:
                    yield self._outcome(ended, done)
            if client.status not in ("running", "newly-created"):
                raise ClusterLostError(_LOST)
            if time.monotonic() > next_look:
                yield from self._look_after(client)
                next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS

    def _note_begin(self, event: tuple[float, dict[str, Any]]) -> None:
        self._begun.put((event[1], time.monotonic()))

    def _outcome(self, future: "Future", pending: _Pending) -> CaseOutcome:
        from distributed import CancelledError, KilledWorker

        case = pending.case
        try:
            outcome: CaseOutcome = future.result()
        except CancelledError as error:
            raise ClusterLostError(_LOST) from error
        except KilledWorker as error:
            message = (
                f"'{case.source}' was given up: its process was ended {error.allowed_failures + 1} times, "
                "perhaps for lack of memory: use fewer workers, or crop it."
            )
            clean_up_case(case)
            return failed_case(case, message, _since(pending.began))
        except BoneSAMError:
            raise
        except Exception as error:  # run_case raises nothing: it could not even be called
            raise BoneSAMError(
                f"A worker of the Dask cluster cannot run BoneSAM ({type(error).__name__}: {error}): install "
                "the same version on all its machines."
            ) from error
        self._longest = max(self._longest, outcome.seconds)
        return replace(outcome, case=case)

    def _look_after(self, client: "Client") -> Iterator[CaseOutcome]:
        """Give up what takes too long, and give what takes suspiciously long to an idle worker."""
        with contextlib.suppress(queue.Empty):
            while True:
                said, began = self._begun.get_nowait()
                begun = self._pending.get(said["key"])
                if begun is not None:
                    begun.began, begun.worker, begun.may_restart = began, said["worker"], said["may_restart"]
        running = {key: one for key, one in self._pending.items() if one.began is not None}
        for key, pending in running.items():
            if self._time_limit is not None and _since(pending.began) > self._time_limit:
                self._take_away(client, key)
                message = f"'{pending.case.source}' was given up: it took longer than {self._time_limit:g} "
                yield failed_case(pending.case, message + "seconds.", _since(pending.began))
        limit = max(_STRAGGLER * self._longest, _SHORTEST_STRAGGLER)
        suspects = [key for key, one in running.items() if not one.moved and _since(one.began) > limit]
        if not suspects or not self._longest or len(running) < len(self._pending):
            return
        threads = client.nthreads()
        for key in suspects:
            others = [worker for worker in threads if worker != self._pending[key].worker]
            if key in self._pending and others and sum(threads.values()) > len(running):
                self._move(client, key, others)

    def _move(self, client: "Client", key: str, others: list[str]) -> None:
        case = self._take_away(client, key).case
        again = f"{key}-again"
        sent = replace(case, source=case.source.absolute(), output=case.output.absolute())
        future = client.submit(
            _work_on, again, sent, key=again, work=self._work, pure=False, workers=others,
            allow_other_workers=True,
        )  # fmt: skip
        self._pending[again] = _Pending(case, future, moved=True)
        future.add_done_callback(self._ended.put)

    def _take_away(self, client: "Client", key: str) -> _Pending:
        """Stop a case on its worker: at once where that has only this to do, else it stops by itself."""
        pending = self._pending.pop(key)
        pending.future.cancel()
        clean_up_case(pending.case)
        if pending.may_restart:
            with contextlib.suppress(Exception):  # a worker that is gone needs no restart
                client.restart_workers([pending.worker], timeout=10, raise_for_error=False)
            clean_up_case(pending.case)
        return pending


_LOST = "The Dask scheduler was lost: start it again; --resume does what is left."


def _since(began: float | None) -> float:
    return 0.0 if began is None else time.monotonic() - began


@contextlib.contextmanager
def _quiet_dask() -> Iterator[None]:
    """What goes wrong on a cluster is said in our own words, once."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


# What runs in the workers.

_segmenters: "OrderedDict[str, Segmenter]" = OrderedDict()
_loading = threading.Lock()


def _work_on(key: str, case: Case, work: _Work) -> CaseOutcome:
    from distributed import get_worker

    worker = get_worker()
    threads = max(1, worker.state.nthreads)
    may_restart = worker.nanny is not None and threads == 1  # nothing else would be lost with it
    worker.log_event(work.run, {"key": key, "worker": worker.address, "may_restart": may_restart})
    if not work.shared.exists():
        raise BoneSAMError(
            f"The worker {worker.address} does not see the folder '{work.shared.parent}': all machines of a "
            "Dask cluster need the scans and the masks under the same path."
        )
    settings = work.settings
    if settings.memory is None:
        limit = worker.memory_manager.memory_limit or available_memory()
        settings = replace(settings, memory=None if limit is None else limit // threads)
    return run_case(case, _segmenter(work, worker.address), settings)


def _segmenter(work: _Work, worker: str) -> "Segmenter":
    """The network, loaded once per process however many cases and threads there are."""
    with _loading:
        if work.run not in _segmenters:
            segmenter = work.make_segmenter()
            if work.weights not in (None, segmenter.bundle.digest):
                raise BoneSAMError(f"The worker {worker} has other weights: install the same everywhere.")
            _segmenters[work.run] = segmenter
            while len(_segmenters) > _KEPT_SEGMENTERS:
                _segmenters.popitem(last=False)
        return _segmenters[work.run]
