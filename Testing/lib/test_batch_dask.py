"""The same work on a Dask cluster. The workers are threads here; `test_batch_faults` kills real ones."""

import subprocess
import sys
import threading
import time

import pytest

from BoneSAMLib.batch import BatchPrompts, dask_run, find_cases, run_batch
from BoneSAMLib.batch.attempt import Attempt, LostCaseError
from BoneSAMLib.batch.case_run import CaseSettings, run_case
from BoneSAMLib.errors import BoneSAMError
from Testing.lib.batch_scans import write_scan
from Testing.lib.bright_segmenter import BrightSegmenter, no_weights

distributed = pytest.importorskip("distributed")
ALL = BatchPrompts(everything=True)


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def scans(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCH_WAITING", str(tmp_path / "waiting"))
    (tmp_path / "waiting").mkdir()
    for number in range(3):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", seed=number)
    yield tmp_path / "in"
    (tmp_path / "waiting" / "go").touch()


def run(scans, out, make_segmenter=BrightSegmenter, **options):
    return run_batch(find_cases(scans, out, ALL), out, make_segmenter=make_segmenter, **options)


def masks(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.seg.nrrd")}


def names(folder):
    return {path.name for path in folder.iterdir()}


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


class Counting(BrightSegmenter):
    made = 0

    def __init__(self):
        super().__init__()
        Counting.made += 1


def test_cluster_writes_the_same_and_loads_weights_once(scans, tmp_path, cluster):
    assert run(scans, tmp_path / "serial", workers=0).exit_code == 0
    seen = []
    Counting.made = 0
    outcome = run(scans, tmp_path / "out", Counting, scheduler=cluster, progress=seen.append)
    assert outcome.exit_code == 0
    assert [one.case.name for one in outcome.outcomes] == ["scan0", "scan1", "scan2"]
    assert sorted(one.case.name for one in seen) == ["scan0", "scan1", "scan2"]
    assert masks(tmp_path / "out") == masks(tmp_path / "serial")
    assert names(tmp_path / "out") == names(tmp_path / "serial")
    assert Counting.made == 1


def test_bad_case_on_a_cluster_stops_no_other(scans, tmp_path, cluster):
    write_scan(scans / "breaks.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"no scan")
    outcome = run(scans, tmp_path / "out", scheduler=cluster)
    assert {one.case.name for one in outcome.failed} == {"bad", "breaks"}
    assert len(masks(tmp_path / "out")) == 3
    assert {one.ending for one in run(scans, tmp_path / "out", scheduler=cluster, resume=True).outcomes} == {
        "kept",
        "failed",
    }


def test_relative_paths_reach_the_workers(scans, tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = find_cases("in", "out", ALL)
    outcome = run_batch(cases, "out", scheduler=cluster, make_segmenter=BrightSegmenter)
    assert [one.case for one in outcome.outcomes] == cases


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheduler": "tcp://127.0.0.1:1"}, "No Dask scheduler answers at 'tcp://127.0.0.1:1'"),
        ({"scheduler": "nonsense://x"}, "No Dask scheduler answers"),
        ({"make_segmenter": no_weights}, "There are no weights"),
    ],
)
def test_what_no_case_can_do_without_is_one_error(scans, tmp_path, cluster, monkeypatch, options, words):
    monkeypatch.setattr(dask_run, "_SECONDS_TO_CONNECT", 2)
    with pytest.raises(BoneSAMError, match=words):
        run(scans, tmp_path / "out", **{"scheduler": cluster, **options})
    assert names(tmp_path / "out") == set()


def test_worker_without_the_common_disk_is_one_error(scans, tmp_path, cluster):
    work = dask_run.DaskRun(cluster, BrightSegmenter, CaseSettings(), tmp_path / "elsewhere" / "lock", None)
    with pytest.raises(BoneSAMError, match=r"does not see the folder '.*elsewhere'"):
        list(work.run(find_cases(scans, tmp_path / "out", ALL)))


def test_worker_with_other_weights_is_one_error(scans, tmp_path, cluster):
    work = dask_run.DaskRun(cluster, BrightSegmenter, CaseSettings(), tmp_path, "weights 2")
    with pytest.raises(BoneSAMError, match="has other weights"):
        list(work.run(find_cases(scans, tmp_path / "out", ALL)))


def test_missing_dask_is_one_sentence(scans, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(BoneSAMError, match="Dask is not installed"):
        run(scans, tmp_path / "out", scheduler="local")


def test_dask_is_not_loaded_without_need():
    code = "import sys, BoneSAMLib.batch; sys.exit('dask' in sys.modules or 'distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_case_over_the_time_limit_on_a_cluster(scans, tmp_path, cluster):
    write_scan(scans / "waits.nii.gz")
    outcome = run(scans, tmp_path / "out", scheduler=cluster, time_limit=3)
    assert [one.case.name for one in outcome.failed] == ["waits"]
    assert "longer than 3 seconds" in outcome.failed[0].error
    before = names(tmp_path / "out")
    (tmp_path / "waiting" / "go").touch()  # a worker that cannot be killed goes on, and must change nothing
    time.sleep(1)
    assert names(tmp_path / "out") == before
    assert "waits.seg.nrrd" not in before


class WaitingOnce(BrightSegmenter):
    """Takes forever at its first case called waits: a worker that hangs."""

    waited = 0

    def open(self, volume):
        if volume.name.startswith("waits"):
            WaitingOnce.waited += 1
            if WaitingOnce.waited == 1:
                return super().open(volume)
        return BrightSegmenter.open(self, type(volume)(volume.array, volume.ijk_to_ras, "quick"))


def test_straggler_is_done_by_an_idle_worker(scans, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(dask_run, "_SHORTEST_STRAGGLER", 1.0)
    monkeypatch.setattr(dask_run, "_STRAGGLER", 1.0)
    write_scan(scans / "waits.nii.gz", seed=5)
    WaitingOnce.waited = 0
    outcome = run(scans, tmp_path / "out", WaitingOnce, scheduler=cluster)
    assert outcome.exit_code == 0
    assert WaitingOnce.waited == 2
    assert not (tmp_path / "waiting" / "go").exists(), "the first attempt was waited for"
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "waiting" / "go").touch()
    time.sleep(1)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


# ------------------------------------------------------------------- two attempts at the same case


def test_attempt_that_was_taken_over_changes_nothing(scans, tmp_path):
    write_scan(scans / "waits.nii.gz", seed=5)
    case = next(one for one in find_cases(scans, tmp_path / "out", ALL) if one.name == "waits")
    first = []
    thread = threading.Thread(
        target=lambda: first.append(run_case(case, BrightSegmenter(), CaseSettings())), daemon=True
    )
    thread.start()
    wait_for((tmp_path / "waiting" / "waits.nii.gz").exists)
    second = Attempt(case)
    second.begin({})
    (tmp_path / "waiting" / "go").touch()
    thread.join(60)
    assert first[0].ending == "failed"
    assert "taken over" in first[0].error
    second.confirm()
    assert not case.output.exists()
    second.clean_up()
    assert names(tmp_path / "out") == set()
    with pytest.raises(LostCaseError):
        second.confirm()


def test_attempt_notices_while_it_works(scans, tmp_path, monkeypatch):
    monkeypatch.setattr("BoneSAMLib.batch.attempt._SECONDS_BETWEEN_LOOKS", 0.0)
    case = find_cases(scans, tmp_path / "out", ALL)[0]
    tmp_path.joinpath("out").mkdir()
    attempt = Attempt(case)
    attempt.begin({})
    attempt.progress(0.5, "")
    case.record.unlink()
    with pytest.raises(LostCaseError):
        attempt.progress(0.5, "")
