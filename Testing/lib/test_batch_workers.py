"""Several processes, and what happens when they, or the whole run, are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch
from BoneSAMLib.batch.output_lock import only_run_in
from BoneSAMLib.batch.worker_pool import thread_variables
from BoneSAMLib.errors import BoneSAMError
from Testing.lib.batch_scans import write_scan
from Testing.lib.bright_segmenter import BrightSegmenter, no_weights

ALL = BatchPrompts(everything=True)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


@pytest.fixture
def scans(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCH_DIED_ONCE", str(tmp_path / "died"))
    for number in range(4):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", seed=number)
    return tmp_path / "in"


def run(scans, out, make_segmenter=BrightSegmenter, **options):
    return run_batch(find_cases(scans, out, ALL), out, make_segmenter=make_segmenter, **options)


def masks(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.nrrd")}


def nothing_unfinished(folder):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    hidden = list(folder.rglob(".*"))
    statuses = {
        json.loads(path.read_text(encoding="utf-8"))["status"] for path in folder.rglob("*.bonesam.json")
    }
    return hidden == [] and statuses <= {"complete", "failed"} and not [n for n in names if "part" in n]


def endings(outcome):
    return {one.case.name: one.ending for one in outcome.outcomes}


def test_two_workers_write_the_same_as_none(scans, tmp_path):
    assert run(scans, tmp_path / "serial", workers=0).exit_code == 0
    outcome = run(scans, tmp_path / "out", workers=2)
    assert outcome.exit_code == 0
    assert [one.case.name for one in outcome.outcomes] == ["scan0", "scan1", "scan2", "scan3"]
    assert masks(tmp_path / "out") == masks(tmp_path / "serial")
    assert len(masks(tmp_path / "out")) == 4
    assert nothing_unfinished(tmp_path / "out")


def test_case_of_a_killed_worker_is_done_again(scans, tmp_path):
    write_scan(scans / "dies_once.nii.gz", seed=9)
    outcome = run(scans, tmp_path / "out", workers=2)
    assert (tmp_path / "died").exists()
    assert outcome.exit_code == 0
    assert len(masks(tmp_path / "out")) == 5
    assert nothing_unfinished(tmp_path / "out")


def test_case_that_kills_every_worker_is_given_up(scans, tmp_path):
    write_scan(scans / "dies.nii.gz")
    outcome = run(scans, tmp_path / "out", workers=1)
    assert endings(outcome) == dict.fromkeys(["scan0", "scan1", "scan2", "scan3"], "done") | {
        "dies": "failed"
    }
    assert "was given up: its process was ended 2 times (signal 9)" in outcome.failed[0].error
    assert nothing_unfinished(tmp_path / "out")
    assert len(masks(tmp_path / "out")) == 4


def test_case_over_the_time_limit_is_given_up(scans, tmp_path):
    write_scan(scans / "sleeps.nii.gz")
    outcome = run(scans, tmp_path / "out", workers=2, time_limit=25)
    assert endings(outcome)["sleeps"] == "failed"
    assert "longer than 25 seconds" in outcome.failed[0].error
    assert len(masks(tmp_path / "out")) == 4
    assert nothing_unfinished(tmp_path / "out")


def test_missing_weights_are_one_error(scans, tmp_path):
    with pytest.raises(BoneSAMError, match="There are no weights"):
        run(scans, tmp_path / "out", no_weights, workers=1)
    assert nothing_unfinished(tmp_path / "out")


class ThreadCounting(BrightSegmenter):
    def __init__(self):
        super().__init__(os.environ["OMP_NUM_THREADS"] + os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"])


def test_cores_are_shared(scans, tmp_path, monkeypatch):
    monkeypatch.setattr("BoneSAMLib.batch.batch_run.available_cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    outcome = run(scans, tmp_path / "out", ThreadCounting, workers=2)
    assert {one.record["digests"]["weights"] for one in outcome.outcomes} == {"33"}
    assert os.environ["OMP_NUM_THREADS"] == "5"
    with thread_variables(7):
        assert os.environ["OMP_NUM_THREADS"] == "7"


def test_one_run_at_a_time(scans, tmp_path):
    with only_run_in(tmp_path / "out"), pytest.raises(BoneSAMError, match="Another batch"):
        run(scans, tmp_path / "out", workers=0)
    assert run(scans, tmp_path / "out", workers=0).exit_code == 0


# ------------------------------------------------------------------------------- the run itself ends


@pytest.fixture
def command(scans, tmp_path):
    """Starts the command line with a fake network, two workers, over 2 of 6 scans that take 30 s."""
    for name in ("sleeps1", "sleeps2"):
        write_scan(scans / f"{name}.nii.gz", seed=7)
    arguments = ["batch", str(scans), str(tmp_path / "out"), "--all", "--workers", "2", "--resume"]
    started = []

    def start(sleep):
        process = subprocess.Popen(
            [sys.executable, "-m", "Testing.lib.batch_driver", *arguments],
            env={**os.environ, "BATCH_SLEEP": str(sleep), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests themselves run in the background, Ctrl-C is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def statuses(folder):
    found = {}
    for path in folder.glob("*.bonesam.json"):
        found[path.name.split(".")[0]] = json.loads(path.read_text(encoding="utf-8"))["status"]
    return found


def in_mid_case(folder):
    """All quick ones are done and both slow ones have begun."""
    found = list(statuses(folder).values())
    return found.count("complete") == 4 and found.count("started") == 2


def children_of(process):
    """Process ids, as the system lists them."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(text) for text in listed.stdout.split()]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def undisturbed(scans, tmp_path, monkeypatch):
    monkeypatch.setenv("BATCH_SLEEP", "0")
    run(scans, tmp_path / "undisturbed", workers=0)
    return masks(tmp_path / "undisturbed")


def test_killed_run_is_resumed_to_the_same_masks(scans, tmp_path, command, monkeypatch):
    out = tmp_path / "out"
    process = command(sleep=60)
    wait_for(lambda: in_mid_case(out))
    orphans = children_of(process)
    assert len(orphans) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in orphans), 20)
    assert not nothing_unfinished(out)
    before = {name: (out / name).stat().st_mtime_ns for name in masks(out)}
    assert len(before) == 4
    process = command(sleep=0)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "6 of 6 volumes have a mask, 4 from before." in stdout
    assert masks(out) == undisturbed(scans, tmp_path, monkeypatch)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert nothing_unfinished(out)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_cleans_up(scans, tmp_path, command, ending):
    out = tmp_path / "out"
    process = command(sleep=60)
    wait_for(lambda: in_mid_case(out))
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)  # as Ctrl-C does: to all processes
    else:
        process.send_signal(ending)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "--resume does what is left" in stderr
    assert "Traceback" not in stderr
    assert nothing_unfinished(out)
    assert len(masks(out)) == 4
    assert sorted(statuses(out)) == ["scan0", "scan1", "scan2", "scan3"]
    assert "stopped before 2 others" in (out / "summary.html").read_text(encoding="utf-8")


def test_partial_makers_travel(scans, tmp_path):
    outcome = run(scans, tmp_path / "out", partial(BrightSegmenter, "weights 2"), workers=1)
    assert {one.record["digests"]["weights"] for one in outcome.outcomes} == {"weights 2"}
