"""What goes wrong overnight, for real: killed processes, full and read-only disks, vanished scans.

After each fault, `--resume` must end with every case complete, the same as in an undisturbed run, those done
before left alone, and nothing temporary left.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch
from Testing.lib.batch_scans import write_scan
from Testing.lib.bright_segmenter import BrightSegmenter

ALL = BatchPrompts(everything=True)
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("scan0", "scan1", "waits0", "waits1", "zscan")  # in the order in which they are done
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, quotas and mounts of Linux")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The masks of a run without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCH_WAITING", str(folder))
        (folder / "go").touch()
        write_scans(folder / "in")
        cases = find_cases(folder / "in", folder / "out", ALL)
        run_batch(cases, folder / "out", workers=0, make_segmenter=BrightSegmenter)
    found = masks(folder / "out" / "s")
    assert len(found) == len(NAMES)
    return found


def write_scans(folder):
    for seed, name in enumerate(NAMES):
        write_scan(folder / "s" / f"{name}.nii.gz", seed=seed)


@pytest.fixture
def site(tmp_path, monkeypatch, undisturbed):
    """A folder of scans of which two wait in mid-case, and what runs over it."""
    site = Site(tmp_path, monkeypatch, undisturbed)
    yield site
    site.close()


class Site:
    def __init__(self, folder, monkeypatch, undisturbed):
        self.undisturbed = undisturbed
        self.folder, self.scans, self.out, self.waiting = (
            folder,
            *(folder / name for name in ("in", "out", "waiting")),
        )
        self.waiting.mkdir()
        write_scans(self.scans)
        monkeypatch.setenv("BATCH_WAITING", str(self.waiting))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        self.started = []

    @property
    def there(self):
        """Where the masks lie; the folder above has the lock and the summary."""
        return self.out / "s"

    def start(self, *arguments):
        """Something in the background, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def command(self, *options):
        arguments = ("batch", self.scans, self.out, "--all", "--resume", *options)
        return self.start("Testing.lib.batch_driver", *arguments)

    def close(self):
        self.go()
        for process in self.started:
            kill_group(process)
            process.communicate()

    def go(self):
        (self.waiting / "go").touch()

    def in_mid_case(self):
        """Wait until two processes work on the scans that wait; their ids."""
        paths = [self.waiting / "waits0.nii.gz", self.waiting / "waits1.nii.gz"]
        wait_for(lambda: all(path.exists() and path.read_text() for path in paths))
        # The other worker may still be busy with the quick ones that came first.
        wait_for(lambda: {"scan0", "scan1"} <= set(self.complete()))
        return [int(path.read_text()) for path in paths]

    def complete(self):
        """Cases with a complete record, and when their masks were written."""
        found = {}
        for path in self.there.glob("*.bonesam.json"):
            if json.loads(path.read_text(encoding="utf-8"))["status"] == "complete":
                name = path.name.split(".")[0]
                found[name] = (self.there / f"{name}.seg.nrrd").stat().st_mtime_ns
        return found

    def resumed(self, before):
        """The last run: does what is missing, and nothing that is there."""
        self.go()
        cases = find_cases(self.scans, self.out, ALL)
        outcome = run_batch(cases, self.out, workers=0, resume=True, make_segmenter=BrightSegmenter)
        endings = {one.case.name.removeprefix("s/"): one.ending for one in outcome.outcomes}
        assert endings == {name: "kept" if name in before else "done" for name in NAMES}
        self.check(before)

    def check(self, before=()):
        """Everything is there once, as in an undisturbed run, and nothing else is."""
        assert masks(self.there) == self.undisturbed
        after = self.complete()
        assert sorted(after) == sorted(NAMES)
        assert {name: after[name] for name in before} == dict(before), "done twice"
        expected = {f"{name}{end}" for name in NAMES for end in (".seg.nrrd", ".bonesam.json")}
        # A worker whose scheduler died may still be at it; it removes its own files when it notices.
        wait_for(lambda: {path.name for path in self.out.rglob("*")} == {*expected, "summary.html", "s"}, 60)
        assert masks(self.there) == self.undisturbed
        assert self.complete() == after, "written after the end"


def masks(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.seg.nrrd")}


def wait_for(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------ killed processes


@pytest.mark.parametrize("how", [("--workers", 2), ("--workers", 2, "--scheduler", "local")])
def test_killed_worker(site, how):
    run = site.command(*how)
    victim, other = site.in_mid_case()
    before = site.complete()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not alive(victim))
    site.go()
    stdout, stderr = run.communicate(timeout=180)
    assert run.returncode == 0, stderr
    assert victim != other
    # A volume that the victim had finished is given out again with Dask, and counted as being from before.
    assert f"{len(NAMES)} of {len(NAMES)} volumes have a mask" in stdout
    site.check(before)


@pytest.mark.parametrize("how", [("--workers", 2), ("--workers", 2, "--scheduler", "local")])
def test_killed_run(site, how):
    run = site.command(*how)
    workers = site.in_mid_case()
    before = site.complete()
    run.kill()
    run.wait()
    wait_for(lambda: not any(map(alive, workers)))  # they must not write into what the next run does
    assert len(before) == 2
    assert list(site.out.rglob(".bonesam-*")), "nothing was unfinished: the fault came too late"
    site.resumed(before)


@pytest.fixture
def cluster(site):
    """A scheduler and two workers of a Dask cluster, as an administrator starts them."""
    file = site.folder / "scheduler.json"
    where = ("--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1")
    scheduler = site.start("distributed.cli.dask_scheduler", *where, "--port", "0")
    wait_for(file.exists)
    wait_for(lambda: '"address"' in file.read_text())
    workers = site.start("distributed.cli.dask_worker", *where, "--nworkers", "2", "--nthreads", "1")
    return json.loads(file.read_text())["address"], scheduler, workers


@pytest.mark.long
def test_killed_scheduler(site, cluster):
    address, scheduler, _ = cluster
    run = site.command("--scheduler", address)
    site.in_mid_case()
    before = site.complete()
    kill_group(scheduler)
    stdout, stderr = run.communicate(timeout=180)
    assert run.returncode == 1, stderr
    assert "The Dask scheduler was lost" in stderr
    assert "Traceback" not in stderr
    assert f"{len(before)} of 5 volumes have a mask" in stdout  # Dask chooses the order
    assert set(site.complete()) == set(before)
    assert not list(site.there.glob("waits*")), "what was not finished stayed"
    site.resumed(before)  # while the workers may still believe that the cases are theirs


@pytest.mark.long
def test_killed_client_of_a_cluster(site, cluster):
    run = site.command("--scheduler", cluster[0])
    site.in_mid_case()
    before = site.complete()
    kill_group(run)
    run.wait()
    again = site.command("--scheduler", cluster[0])
    time.sleep(0.5)
    site.go()
    _, stderr = again.communicate(timeout=180)
    assert again.returncode == 0, stderr
    site.check(before)


@pytest.mark.long
def test_interrupted_client_of_a_cluster_cleans_up(site, cluster):
    run = site.command("--scheduler", cluster[0])
    site.in_mid_case()
    before = site.complete()
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=180)
    assert run.returncode == 130, stderr
    site.go()  # the workers go on, and must see that nobody wants the cases any more
    time.sleep(1.5)
    names = {path.name for path in site.there.iterdir()}
    assert names == {f"{name}{end}" for name in before for end in (".seg.nrrd", ".bonesam.json")}
    assert {path.name for path in site.out.iterdir()} == {"s", "summary.html"}
    site.resumed(before)


# --------------------------------------------------------------------------------------------- disks


@pytest.mark.long
def test_no_space_for_larger_files(site, monkeypatch):
    """A quota stands in for a full disk where none can be mounted: the system refuses to write on."""
    with monkeypatch.context() as patch:
        patch.setenv("BATCH_LARGEST_FILE", "900")  # between the record of a failure and a mask
        site.go()
        run = site.command()
        _, stderr = run.communicate(timeout=180)
    assert run.returncode == 3, stderr
    assert stderr.count("the disk is full") == len(NAMES) + 1  # and the summary
    assert ".bonesam-" not in stderr
    assert {path.name for path in site.there.iterdir()} == {f"{name}.bonesam.json" for name in NAMES}
    site.resumed({})


def mounted(site, *lines):
    """Run a shell script where `out` is a disk of its own; what is on it at the end is in `kept`."""
    script = site.folder / "script.sh"
    driver = f"{sys.executable} -m Testing.lib.batch_driver batch {site.scans} {site.out} --all --resume"
    before = ["set -u", f"out={site.out} wait={site.waiting}", f"run() {{ {driver} $*; }}"]
    script.write_text("\n".join([*before, *lines]))
    site.out.mkdir(exist_ok=True)
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    allowed = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", site.out], capture_output=True, check=False
    )
    if allowed.returncode:
        pytest.skip("mounting is not permitted here")
    return subprocess.run(
        ["unshare", "-rm", "sh", script], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )


def test_full_disk(site):
    site.go()
    ran = mounted(
        site,
        f"mount -t tmpfs -o size=28k tmpfs {site.out}",
        "run; echo first run $?",
        f"ls -A {site.out} {site.there} > {site.folder}/full",
        f"mount -o remount,size=9m {site.out}",
        "run; echo second run $?",
        f"cp -a {site.out} {site.folder}/kept",
    )
    assert "the disk is full" in ran.stderr or "No space left" in ran.stderr, ran.stderr
    first = int(ran.stdout.partition("first run ")[2][0])
    assert first in (1, 2), ran.stdout  # 2 where even the summary found no space
    left = (site.folder / "full").read_text().split()
    assert not [name for name in left if name.startswith(".")]
    assert {name.partition(".")[0] for name in left if name.endswith(".seg.nrrd")} < set(NAMES)
    assert "second run 0" in ran.stdout, ran.stderr
    site.out = site.folder / "kept"
    site.check()


def test_disk_that_becomes_read_only(site):
    ran = mounted(
        site,
        f"mkdir {site.there}; mount -t tmpfs tmpfs {site.there}",
        "run --workers 2 & pid=$!",
        "until [ -e $wait/waits0.nii.gz -a -e $wait/waits1.nii.gz -a -e $out/s/scan1.seg.nrrd ]; do",
        "kill -0 $pid || exit; sleep .05; done",
        f"mount -o remount,ro {site.there}",
        f"touch {site.waiting}/go",
        "wait $pid; echo first run $?",
        f"mount -o remount,rw {site.there}",
        "run; echo second run $?",
        f"cp -a {site.out} {site.folder}/kept",
    )
    assert ran.stderr.count("Read-only file system") >= 3, ran.stderr
    assert "2 of 5 volumes have a mask." in ran.stdout
    assert "first run 1" in ran.stdout, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "5 of 5 volumes have a mask, 2 from before." in ran.stdout
    site.out = site.folder / "kept"
    site.check()


# --------------------------------------------------------------------------------------------- inputs


def test_input_deleted_meanwhile(site):
    run = site.command("--workers", "2")
    site.in_mid_case()
    before = site.complete()
    waiting, queued = (site.scans / "s" / f"{name}.nii.gz" for name in ("waits0", "zscan"))
    contents = {path: path.read_bytes() for path in (waiting, queued)}
    for path in contents:
        path.unlink()
    site.go()
    stdout, stderr = run.communicate(timeout=180)
    assert run.returncode == 1, stderr
    assert f"Failed: s/zscan: There is no file or folder '{queued}'." in stderr
    assert "4 of 5 volumes have a mask." in stdout
    for path, content in contents.items():
        path.write_bytes(content)
    site.resumed(site.complete())
    assert set(before) == {"scan0", "scan1"}
