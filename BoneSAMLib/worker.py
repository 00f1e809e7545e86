"""One thread that does the slow work, one job after the other; answers go back to the main thread.

Nothing polls: the thread sleeps until there is a job, and an answer is handed to `post`, which whoever owns
the main thread supplies (a Qt signal, an event loop's call_soon_threadsafe).
"""

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from BoneSAMLib.cropped_mask import CroppedMask

__all__ = ["Job", "Worker"]

T = TypeVar("T")
Call = Callable[[], None]
_log = logging.getLogger(__name__)


def _unseen(mask: CroppedMask) -> None:
    """For whom no part of a result is of use."""


class Job:
    """Work that was handed in. Its owner may cancel it; the work itself asks `is_set`, and reports."""

    def __init__(
        self,
        deliver: Callable[["Job", Call], None],
        on_progress: Callable[[float, str], None],
        on_preview: Callable[[CroppedMask], None] = _unseen,
    ) -> None:
        self._deliver = deliver
        self._on_progress = on_progress
        self._on_preview = on_preview
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._latest: tuple[float, str] | None = None

    def cancel(self) -> None:
        """Ask the work to stop. Call on the main thread: from then on nothing of the job arrives there."""
        self._cancelled.set()

    def is_set(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled.is_set()

    def report(self, fraction: float, text: str) -> None:
        """Progress, 0 to 1 and a word; any thread. A slow main thread gets only the latest."""
        with self._lock:
            waiting = self._latest is not None
            self._latest = (fraction, text)
        if not waiting:
            self._deliver(self, self._hand_over_progress)

    def show(self, mask: CroppedMask) -> None:
        """A part of the result, which is known before the rest; any thread."""
        self._deliver(self, partial(self._on_preview, mask))

    def _hand_over_progress(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
        if latest is not None:
            self._on_progress(*latest)


class Worker:
    """The thread. It starts with the first job and ends with `close`.

    Args:
        post: runs a call on the main thread, soon. Called on the worker thread; must not wait for the call.
    """

    def __init__(self, post: Callable[[Call], None]) -> None:
        self._post = post
        self._queue: queue.SimpleQueue[tuple[Job, Call] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._jobs: set[Job] = set()
        # Held while posting, so that after close() nothing is posted to a view that is gone.
        self._lock = threading.RLock()
        self._closed = False

    def submit(
        self,
        work: Callable[[Job], T],
        on_result: Callable[[T], None],
        on_error: Callable[[Exception], None],
        on_progress: Callable[[float, str], None],
        on_preview: Callable[[CroppedMask], None] = _unseen,
    ) -> Job:
        """Do `work(job)` on the worker thread after the jobs before it.

        One of `on_result` and `on_error` is then called on the main thread, the others any number of times
        before; none of them once the job was cancelled.

        Raises:
            RuntimeError: the worker is closed.
        """
        job = Job(self._deliver, on_progress, on_preview)
        with self._lock:
            if self._closed:
                raise RuntimeError("The worker is closed.")
            self._jobs.add(job)
            if self._thread is None:
                # A daemon: a program that ends must not wait for a mask.
                self._thread = threading.Thread(target=self._loop, name="BoneSAM", daemon=True)
                self._thread.start()
        self._queue.put((job, partial(self._run, job, work, on_result, on_error)))
        return job

    def close(self, timeout: float = 0.5) -> bool:
        """Cancel everything and end the thread; nothing is posted afterwards.

        Returns whether the thread ended within `timeout` seconds; else it ends with its present batch.
        """
        with self._lock:
            self._closed = True
            for job in self._jobs:
                job.cancel()
            thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._queue.put(None)
        thread.join(timeout)
        return not thread.is_alive()

    def _loop(self) -> None:
        while True:
            entry = self._queue.get()
            if entry is None:
                return
            job, run = entry
            try:
                if not job.is_set():
                    run()
            except Exception:  # `post` failed: the view is gone, and nobody is left to be told
                _log.exception("An answer could not be delivered.")
            finally:
                with self._lock:
                    self._jobs.discard(job)
            # Else the last job's volume and mask would stay in memory until the next one comes.
            del entry, job, run

    def _run(
        self,
        job: Job,
        work: Callable[[Job], T],
        on_result: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        try:
            value = work(job)
        except Exception as error:  # whatever it is, the main thread must learn that the job is over
            self._deliver(job, partial(on_error, error))
        else:
            self._deliver(job, partial(on_result, value))

    def _deliver(self, job: Job, call: Call) -> None:
        def call_unless_cancelled() -> None:
            # Asked on the main thread, where jobs are cancelled: no answer slips through.
            if not job.is_set():
                call()

        with self._lock:
            if not self._closed and not job.is_set():
                self._post(call_unless_cancelled)
