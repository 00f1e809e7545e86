"""A segmenter for worker processes that finds what is bright; the names of volumes make it misbehave."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

from BoneSAMLib.batch import case_run
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.session import Session
from Testing.lib.fake_engine import FakeEngine


class BrightSegmenter:
    """Takes the place of `Segmenter`. Volumes named dies..., dies_once..., sleeps... and breaks... do so.

    Those named waits... write their process's id into BATCH_WAITING/<name>, and wait for BATCH_WAITING/go.
    """

    def __init__(self, digest="weights 1"):
        self.bundle = SimpleNamespace(digest=digest, name="bright")
        self.engine = FakeEngine()
        self.opened = []

    def open(self, volume):
        self.opened.append(volume.name)
        if volume.name.startswith("sleeps"):
            time.sleep(float(os.environ.get("BATCH_SLEEP", "60")))
        if volume.name.startswith("waits"):
            _wait_to_go(Path(os.environ["BATCH_WAITING"]), volume.name)
        if volume.name.startswith("breaks"):
            raise ZeroDivisionError("a mistake in the program")
        if volume.name.startswith("dies"):
            flag = os.environ.get("BATCH_DIED_ONCE", "")
            if not (volume.name.startswith("dies_once") and Path(flag).exists()):
                case_run.write_mask = _die_while_writing
        return Session(volume, self.engine)


def _die_while_writing(labels, volume, path, segments):
    path.with_name("half.part").write_bytes(b"half a mask")
    Path(os.environ["BATCH_DIED_ONCE"]).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_to_go(folder, name):
    if not (folder / "go").exists():
        (folder / name).write_text(f"{os.getpid()}")
    end = time.monotonic() + 120
    while not (folder / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)


def no_weights():
    raise BoneSAMError("There are no weights.")
