"""The real thread: order, cancelling within half a second, closing."""

import threading
import time

import pytest

from BoneSAMLib.errors import Cancelled
from BoneSAMLib.panel import State
from BoneSAMLib.worker import Worker
from Testing.presenter.fakes import BONE, OTHER_BONE, Desk, beside


class Post:
    """An event loop that runs when asked."""

    def __init__(self):
        self.calls, self.called = [], threading.Event()

    def __call__(self, call):
        assert threading.current_thread() is not threading.main_thread()
        self.calls.append(call)
        self.called.set()

    def run(self):
        assert self.called.wait(10)
        self.called.clear()
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def post():
    return Post()


@pytest.fixture
def worker(post):
    worker = Worker(post)
    yield worker
    assert worker.close(timeout=10)


def fail(*arguments):
    raise AssertionError(arguments)


def test_answers_arrive_on_the_main_thread(worker, post):
    answers = []
    worker.submit(lambda job: threading.current_thread().name, answers.append, fail, fail)
    post.run()
    assert answers == ["BoneSAM"]


def test_errors_arrive_too_and_the_thread_goes_on(worker, post):
    errors, answers = [], []
    worker.submit(lambda job: 1 // 0, fail, errors.append, fail)
    post.run()
    worker.submit(lambda job: 2, answers.append, fail, fail)
    post.run()
    assert isinstance(errors[0], ZeroDivisionError)
    assert answers == [2]


def test_no_answer_of_a_cancelled_job_arrives_even_if_it_was_posted(worker, post):
    job = worker.submit(lambda job: 1, fail, fail, fail)
    assert post.called.wait(10)
    job.cancel()
    post.run()


def test_a_job_that_waits_is_not_begun_after_it_was_cancelled(worker, post):
    gate, begun, answers = threading.Event(), [], []
    worker.submit(lambda job: gate.wait(10), answers.append, fail, fail)
    second = worker.submit(lambda job: begun.append(2), fail, fail, fail)
    worker.submit(lambda job: begun.append(3), answers.append, fail, fail)
    second.cancel()
    gate.set()
    while len(answers) < 2:
        post.run()
    assert begun == [3]


def test_a_slow_main_thread_gets_the_latest_progress_only(worker, post):
    progress, answers = [], []

    def work(job):
        for n in range(1000):
            job.report(n / 1000, "busy")

    worker.submit(work, answers.append, fail, lambda fraction, text: progress.append(fraction))
    while not answers:
        time.sleep(0.02)
        post.run()
    assert len(progress) < 1000
    assert progress == sorted(progress)
    assert progress[-1] == 0.999


def test_a_post_that_fails_does_not_end_the_thread(caplog):
    failing = [True]
    answers, done = [], threading.Event()

    def post(call):
        if failing.pop() if failing else False:
            raise RuntimeError("the page is gone")
        call()
        done.set()

    worker = Worker(post)
    worker.submit(lambda job: 1, answers.append, answers.append, fail)
    worker.submit(lambda job: 2, answers.append, fail, fail)
    assert done.wait(10)
    assert 2 in answers
    assert worker.close(timeout=10)


def test_closing_ends_the_thread_and_posts_nothing_more(post):
    worker = Worker(post)
    begun = threading.Event()

    def work(job):
        begun.set()
        while not job.is_set():
            time.sleep(0.01)
        raise Cancelled

    worker.submit(work, fail, fail, fail)
    assert begun.wait(10)
    assert worker.close(timeout=10)
    assert post.calls == []
    assert "BoneSAM" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(RuntimeError):
        worker.submit(work, fail, fail, fail)


def test_closing_without_a_job_and_twice(post):
    worker = Worker(post)
    assert worker.close()
    assert worker.close()


def test_closing_does_not_wait_for_work_that_does_not_stop(post):
    worker = Worker(post)
    gate, begun = threading.Event(), threading.Event()
    worker.submit(lambda job: (begun.set(), gate.wait(10)), fail, fail, fail)
    assert begun.wait(10)
    assert not worker.close(timeout=0.05)
    gate.set()


# ------------------------------------------------------------------------------- the presenter with a thread


def test_prompts_to_mask_through_the_thread(threaded):
    threaded.presenter.set_box(BONE)
    threaded.wait(lambda: threaded.panel.state == State.PREVIEW)
    threaded.presenter.next_bone()
    threaded.presenter.set_box(OTHER_BONE)
    threaded.wait(lambda: threaded.panel.state == State.PREVIEW)
    threaded.presenter.accept()
    assert [mask.to_array().sum() for mask in threaded.contents().values()] == [125, 100]


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancel_is_back_within_half_a_second_and_the_late_answer_is_dropped(threaded, stubborn):
    threaded.presenter.set_box(BONE)
    threaded.wait(lambda: threaded.panel.state == State.PREVIEW)
    before = threaded.state
    threaded.segmenter.delay, threaded.segmenter.stubborn = 1.0 if stubborn else 60.0, stubborn
    threaded.segmenter.started.clear()
    threaded.presenter.add_point(beside(3, 3, 3))
    assert threaded.segmenter.started.wait(10)
    start = time.perf_counter()
    threaded.presenter.cancel()
    assert time.perf_counter() - start < 0.5
    assert threaded.state == before
    # The next job waits for the old one to stop, and the old one's answer is not taken for its own.
    threaded.segmenter.delay = 0.0
    threaded.presenter.add_point(beside(6, 6, 6))
    threaded.wait(lambda: threaded.panel.state == State.PREVIEW)
    assert threaded.panel.points == (beside(6, 6, 6),)
    assert threaded.view.mask.to_array().sum() == 125 - 8
    assert threaded.view.messages == []


def test_closing_the_presenter_while_it_runs_ends_its_thread():
    desk = Desk(threaded=True).open()
    desk.segmenter.delay = 60.0
    desk.presenter.set_box(BONE)
    assert desk.segmenter.started.wait(10)
    thread = next(thread for thread in threading.enumerate() if thread.name == "BoneSAM")
    told = len(desk.view.panels)
    desk.presenter.close()
    thread.join(10)
    assert not thread.is_alive()
    desk.view.pump()
    assert len(desk.view.panels) == told
