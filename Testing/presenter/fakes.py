"""Everything around a presenter, without a network, a scene, or a window."""

import threading
import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from BoneSAMLib.bone_finding import BoneNotFound, FoundBox
from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.panel import SegmentEntry
from BoneSAMLib.presenter import Presenter
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.settings import Settings
from BoneSAMLib.volume import Volume
from BoneSAMLib.worker import Job

SHAPE = (10, 12, 14)
BONE = Box.from_ijk((2, 2, 2), (6, 6, 6))
OTHER_BONE = Box.from_ijk((8, 7, 3), (12, 10, 7))
OUTSIDE = Box.from_ijk((50, 50, 50), (60, 60, 60))


def inside(i, j, k):
    return Point.from_ijk((i, j, k))


def beside(i, j, k):
    return Point.from_ijk((i, j, k), positive=False)


class FakeSource:
    """A volume that may change, move, or become something that cannot be segmented."""

    def __init__(self, identifier="volume", shape=SHAPE, error=None):
        self.identifier, self.modified_time, self.error, self.reads = identifier, 1, error, 0
        self.shape, self.offset = shape, 0.0

    def read(self):
        self.reads += 1
        if self.error:
            raise BoneSAMError(self.error)
        affine = np.eye(4)
        affine[:3, 3] = self.offset
        return Volume(np.zeros(self.shape, np.int16), affine, name=self.identifier)

    def change(self, offset=None, error=None):
        self.modified_time += 1
        self.error = error
        self.offset = self.offset if offset is None else offset


@dataclass(frozen=True)
class FakeResult:
    mask: np.ndarray
    confidence: float
    slice_confidence: dict
    review: list
    points: tuple
    axis: int
    seconds: float = 0.0


@dataclass(frozen=True)
class FakeAllBones:
    labels: np.ndarray
    count: int
    confidence: dict
    names: dict


class FakeSession:
    """The box is bone; a positive point adds a small cube, a negative one removes it."""

    def __init__(self, segmenter, volume):
        self.segmenter, self.volume = segmenter, volume

    def segment(
        self, box=None, points=(), mask=None, depth_attention=True, progress=None, cancel=None, preview=None,
        bone="",
    ):  # fmt: skip
        self.segmenter.asked.append((box, points, mask, depth_attention))
        self.segmenter.called.append(bone)
        if self.segmenter.preview is not None:
            preview(self.segmenter.preview)
        self._work(progress, cancel)
        known = set()
        if isinstance(mask, FakeResult):
            found, known = mask.mask.copy(), set(mask.points)
        elif mask is not None:
            assert mask.any()
            found = mask.copy()
        else:
            found = np.zeros(self.volume.shape, bool)
            if box is not None:
                low, high = box.to_ijk(self.volume)
                found[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))] = True
            else:
                assert any(point.positive for point in points)
        for point in points:
            if point not in known:
                k, j, i = (max(0, round(n) - 1) for n in point.to_ijk(self.volume)[::-1])
                found[k : k + 3, j : j + 3, i : i + 3] = point.positive
        slices = np.flatnonzero(found.any((1, 2))).tolist()
        confidence = {n: 0.5 + n / 100 for n in slices}
        return FakeResult(found, 0.9, confidence, slices[:3], tuple(points), self.volume.through_plane_axis)

    def find(self, phrase):
        boxes = self.segmenter.shown
        names = [part.strip() for part in phrase.split(" and ")]
        missing = [name for name in names if name not in boxes]
        if len(missing) == len(names):
            raise BoneNotFound(f"This scan does not show the {phrase}.", missing)
        return [FoundBox(name, boxes[name], 0.9, True) for name in names if name in boxes], missing

    def segment_all(self, depth_attention=True, progress=None, cancel=None, named=False):
        self._work(progress, cancel)
        labels = np.zeros(self.volume.shape, np.uint8)
        count = self.segmenter.bones
        for number in range(1, count + 1):
            labels[:, :, 3 * number - 3 : 3 * number - 1] = number
        names = {} if named is False else self.segmenter.names
        return FakeAllBones(labels, count, dict.fromkeys(range(1, count + 1), 0.8), names)

    def _work(self, progress, cancel):
        fake = self.segmenter
        fake.started.set()
        progress(0.5, "segmenting")
        if fake.stubborn:
            time.sleep(fake.delay)
        end = time.monotonic() + fake.delay
        while time.monotonic() < end:
            if cancel.is_set():
                raise Cancelled
            time.sleep(0.01)
        if fake.error is not None:
            raise fake.error
        if cancel.is_set() and not fake.stubborn:
            raise Cancelled


@dataclass
class FakeBundle:
    digest: str
    manifest: dict


class FakeSegmenter:
    """Opens sessions and counts them.

    `stubborn`: does not look at `cancel`. `shown`: boxes of bones that are found by name. `names`: what the
    numbers of all bones are called. `preview`: a mask that is known before the rest.
    """

    def __init__(self):
        self.bundle = FakeBundle("one", {})
        self.delay, self.stubborn, self.error, self.bones = 0.0, False, None, 3
        self.asked, self.called, self.opened, self.loads = [], [], [], []
        self.preview = None
        self.others, self.fusions = [], []  # of each opened volume
        self.shown = {"femur": BONE, "left femur": BONE, "right femur": OTHER_BONE}
        self.names, self.refused = {}, ()  # devices
        self.started = threading.Event()

    def load(self, device, weights):
        self.loads.append((device, weights))
        if weights == "missing":
            raise BoneSAMError("There are no weights in 'missing'.")
        if device in self.refused:
            raise BoneSAMError("No CUDA device can be used.")
        return self

    def open(self, volume, others=(), fusion="average"):
        self.opened.append(volume)
        self.others.append(list(others))
        self.fusions.append(fusion)
        return FakeSession(self, volume)


class FakeStore:
    """Segments in a dictionary; may refuse to be written."""

    def __init__(self):
        self.entries, self.masks, self.added = {}, {}, 0
        self.elsewhere = set()  # segments with voxels that the volume does not show
        self.fail_on_write = self.read_only = False
        self.presenter = None

    def segments(self):
        return list(self.entries.values())

    def add(self, name, source):
        self._check()
        self.added += 1
        identifier = f"segment{self.added}"
        self.entries[identifier] = SegmentEntry(identifier, name, (1.0, 0.0, 0.0))
        self.masks[identifier] = CroppedMask.from_array(np.zeros(SHAPE, bool))
        self._notify()
        return identifier

    def add_all(self, bones, source):
        if self.fail_on_write:
            raise BoneSAMError("The disk is full.")
        identifiers = [self.add(name, source) for name, _ in bones]
        self.masks.update(zip(identifiers, (mask for _, mask in bones), strict=True))
        return identifiers

    def remove(self, identifier):
        self._check()
        del self.entries[identifier], self.masks[identifier]
        self._notify()

    def rename(self, identifier, name):
        self._set(identifier, name=name)

    def recolor(self, identifier, color):
        self._set(identifier, color=color)

    def show(self, identifier, visible):
        self._set(identifier, visible=visible)

    def read(self, identifier, source):
        return self.masks[identifier]

    def is_empty(self, identifier):
        return self.masks[identifier].is_empty and identifier not in self.elsewhere

    def write(self, mask, identifier, source, base=None):
        self._check()
        if self.fail_on_write:
            raise BoneSAMError("The disk is full.")
        assert identifier in self.entries
        self.masks[identifier] = mask
        if self.presenter:
            self.presenter.segment_edited(identifier)  # as a scene's observers do

    def _set(self, identifier, **values):
        self._check()
        self.entries[identifier] = replace(self.entries[identifier], **values)
        self._notify()

    def _check(self):
        if self.read_only:
            raise BoneSAMError("The segmentation is read-only: choose another one.")

    def _notify(self):
        if self.presenter:
            self.presenter.segments_changed()


class FakeView:
    """Keeps what it is told. What is posted waits for `pump`, as in an event loop."""

    def __init__(self):
        self.calls = deque()
        self.posted = threading.Event()
        self.panels, self.masks, self.messages, self.jumps = [], [], [], []
        self.on_render = lambda panel: None

    def post(self, call):
        self.calls.append(call)
        self.posted.set()

    def render(self, panel):
        self.panels.append(panel)
        self.on_render(panel)

    def show_mask(self, mask):
        self.masks.append(mask)

    def show_message(self, message):
        self.messages.append(message)

    def jump_to(self, axis, index, position):
        self.jumps.append((axis, index, position))

    def pump(self):
        self.posted.clear()
        while self.calls:
            self.calls.popleft()()

    @property
    def panel(self):
        return self.panels[-1]

    @property
    def mask(self):
        return self.masks[-1] if self.masks else None

    @property
    def texts(self):
        return [message.text for message in self.messages]


class ManualRunner:
    """Does jobs when told, on this thread; answers go through the view's queue, so they can be late."""

    def __init__(self, view):
        self.view, self.waiting, self.closed = view, deque(), False

    def submit(self, work, on_result, on_error, on_progress, on_preview):
        job = Job(self._deliver, on_progress, on_preview)
        self.waiting.append((job, work, on_result, on_error))
        return job

    def close(self):
        self.closed = True
        return True

    def work(self):
        """Do what waits, without delivering the answers."""
        while self.waiting:
            job, work, on_result, on_error = self.waiting.popleft()
            if job.is_set():
                continue
            try:
                value = work(job)
            except Exception as error:
                self._deliver(job, lambda error=error, on_error=on_error: on_error(error))
            else:
                self._deliver(job, lambda value=value, on_result=on_result: on_result(value))

    def _deliver(self, job, call):
        if not self.closed:
            self.view.post(lambda: None if job.is_set() else call())


class FakeSettingsStore:
    def __init__(self, values=None):
        self.values, self.error = dict(values or {}), None

    def load(self):
        return self.values

    def save(self, values):
        if self.error:
            raise BoneSAMError(self.error)
        self.values = dict(values)


class Desk:
    """A presenter and everything around it."""

    def __init__(self, live=True, threaded=False, **arguments):
        self.view, self.store, self.segmenter = FakeView(), FakeStore(), FakeSegmenter()
        self.settings_store = FakeSettingsStore(Settings(live=live).to_strings())
        self.runner = None if threaded else ManualRunner(self.view)
        self.others = {}  # further volumes by identifier
        self.presenter = Presenter(
            self.view,
            self.store,
            self.settings_store,
            self.segmenter.load,
            self.runner,
            find_volume=self.others.get,
            **arguments,
        )
        self.store.presenter = self.presenter
        self.source = FakeSource()
        self.presenter.refresh()

    def open(self):
        self.presenter.choose_volume(self.source)
        return self

    def run(self):
        """Let everything that runs finish."""
        for _ in range(5):
            self.runner.work()
            self.view.pump()
        return self

    def wait(self, done, timeout=10.0):
        """With a real thread: run the event loop until `done()`."""
        end = time.monotonic() + timeout
        while not done():
            left = end - time.monotonic()
            assert left > 0, "nothing came back"
            self.view.posted.wait(left)
            self.view.pump()

    def set(self, **changes):
        self.presenter.change_settings(replace(self.presenter.settings, **changes))

    @property
    def panel(self):
        return self.view.panel

    @property
    def state(self):
        """What the user would call the state: all but what can be redone and how long it took."""
        return (
            self.panel.box,
            self.panel.points,
            self.panel.active_segment,
            self.panel.state,
            self.view.mask,
        )

    def contents(self):
        return {entry.name: self.store.masks[entry.identifier] for entry in self.store.segments()}
