"""The viewer as a user meets it: `bonesam view`, headless Chromium, a real mouse."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from BoneSAMLib.reading import read_volume

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "Resources" / "samples"
SCREENSHOTS = Path(__file__).parent / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
WINDOW = {"width": 1360, "height": 840}
_ADDRESS = re.compile(r"http://\S+")


@contextmanager
def serving(*arguments, bright=True):
    """`bonesam view` at a free port; gives its address and process. `bright`: with a threshold as network."""
    program = ["Testing.browser.bright_viewer"] if bright else ["BoneSAMLib.cli", "view"]
    command = [sys.executable, "-m", *program, "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    )
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if found := _ADDRESS.search(line):
                break
        else:
            raise AssertionError(f"no address was printed: {''.join(said)}")
        yield found[0], process
    finally:
        process.terminate()
        process.wait(300)


@contextmanager
def browser():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


class Visit:
    """A visitor's page.

    Args:
        chromium: a browser.
        address: as printed.
    """

    def __init__(self, chromium, address, dark=True):
        self.page = chromium.new_page(viewport=WINDOW, accept_downloads=True)
        self.page.set_default_timeout(300_000)
        self.errors = []  # of the page's script
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector(".side", timeout=300_000)
        self.page.wait_for_function("window.trame && window.trame.trigger")

    # What the page shows.

    def value(self, name):
        return self.page.evaluate("name => window.trame.state.get(name)", name)

    @property
    def panel(self):
        return self.value("panel")

    @property
    def note(self):
        found = self.page.query_selector('[data-test="note"]')
        return found.inner_text() if found else ""

    def wait_for(self, condition, what, timeout=300.0):
        """Until `condition()` is true."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, (
                f"waited in vain: {what}; the page says: {self.panel['hint']} {self.note}"
            )
            self.page.wait_for_timeout(40)
        return self

    def wait_for_scan(self, name="", timeout=300.0):
        self.wait_for(
            lambda: (
                (self.value("scan") or {}).get("name", "").startswith(name or "")
                and self.value("scan")
                and not self.value("opening")
            ),
            f"scan {name}",
            timeout,
        )
        return self.settle()

    def wait_for_mask(self, timeout=300.0):
        """Until nothing runs and a mask is shown."""
        return self.wait_for(lambda: not self.panel["running"] and self.panel["bones"] > 0, "a mask", timeout)

    def wait_for_note(self, timeout=300.0):
        self.wait_for(lambda: self.note, "a message", timeout)
        return self.note

    def settle(self, seconds=0.6):
        """Until the pictures of the views have come."""
        self.page.wait_for_timeout(1000 * seconds)
        return self

    # What a user does.

    def act(self, name):
        self.page.click(f'[data-act="{name}"]')
        return self

    def press(self, keys):
        self.page.keyboard.press(keys)
        return self

    def areas(self, tags):
        """Left, top, width and height of the pictures of those views that are visible, by tag."""
        boxes = {tag: self.page.locator(f'[data-view="{tag}"] img').first.bounding_box() for tag in tags}
        return {tag: (box["x"], box["y"], box["width"], box["height"]) for tag, box in boxes.items() if box}

    def area(self, tag):
        """The same of one view, which is visible."""
        return self.areas([tag])[tag]

    def pixel(self, tag, ras):
        """Where a place, RAS mm, lies in the page; and its distance from the shown slice in mm."""
        place = self.value(f"slice_{tag}")
        to_ras = np.array(place["to_ras"])
        across = np.cross(to_ras[:, 0], to_ras[:, 1])
        across /= np.linalg.norm(across)
        x, y, depth = np.linalg.solve(
            np.column_stack([to_ras[:, :2], across]), np.asarray(ras) - to_ras[:, 2]
        )
        left, top, width, height = self.area(tag)
        return left + x / place["size"][0] * width, top + (1 - y / place["size"][1]) * height, depth

    def move_to(self, tag, ras):
        x, y, _ = self.pixel(tag, ras)
        self.page.mouse.move(x, y, steps=4)
        self.page.wait_for_timeout(60)
        return x, y

    def click(self, tag, ras):
        """A click in a view where a place lies, or before or behind it."""
        self.move_to(tag, ras)
        self.page.mouse.down()
        self.page.wait_for_timeout(40)
        self.page.mouse.up()
        self.page.wait_for_timeout(80)
        return self

    def drag(self, tag, *places):
        """Press at the first place, move through the others, release at the last."""
        self.move_to(tag, places[0])
        self.page.mouse.down()
        for place in places[1:]:
            x, y, _ = self.pixel(tag, place)
            self.page.mouse.move(x, y, steps=5)
            self.page.wait_for_timeout(60)
        self.page.mouse.up()
        self.page.wait_for_timeout(80)
        return self

    def go_to(self, tag, ras):
        """Move a view's slider to the slice through a place."""
        place = self.value(f"slice_{tag}")
        distance = self.pixel(tag, ras)[2]
        # Slicer may count either way, as the volume lies.
        for offset in (place["offset"] + distance, place["offset"] - distance):
            move = "([tag, offset]) => window.trame.trigger('move_slice', [tag, offset])"
            self.page.evaluate(move, [tag, offset])  # returns when the slice has moved
            self.settle(0.5)
            if abs(self.pixel(tag, ras)[2]) <= 0.51 * place["step"] + 1e-6:
                return self
        raise AssertionError(f"{ras} is in no slice of the {tag} view")

    def draw_box(self, tag, first, second, tool="box"):
        """Press the button, then click two corners."""
        self.act(tool)
        self.wait_for(lambda: self.panel["tool"] == tool, tool)
        return self.click(tag, first).click(tag, second)

    def add_points(self, tag, *places, positive=True):
        """Press the button, click, and put the tool down."""
        tool = "positive_point" if positive else "negative_point"
        self.act(tool)
        self.wait_for(lambda: self.panel["tool"] == tool, tool)
        for place in places:
            self.click(tag, place)
        return self.press("Escape").wait_for(lambda: not self.panel["tool"], "no tool")

    def send(self, *paths):
        """Through the dialog of "Open file"; says yes where segments would be lost."""
        return self._send("#bonesam-files", [str(path) for path in paths])

    def send_folder(self, folder):
        """Through the dialog of "Open folder", likewise."""
        return self._send("#bonesam-folder", str(folder))

    def _send(self, dialog, what):
        loses, note = bool(self.panel["segments"]), self.note
        self.page.set_input_files(dialog, what)
        if loses:
            self.wait_for(lambda: self.value("choices") or self.note != note, "the question")
            if len(self.value("choices")) == 1:
                self.page.click("[data-choice]")
        return self

    def download(self, ending, folder):
        """Press a download button; returns the saved file."""
        with self.page.expect_download() as download:
            self.page.click(f'[data-download="{ending}"]')
        path = Path(folder) / download.value.suggested_filename
        download.value.save_as(path)
        return path

    # Pictures.

    def picture(self, tag):
        """What a view shows, RGB [row, column, 3]."""
        from io import BytesIO

        from PIL import Image

        x, y, width, height = self.area(tag)
        clip = {"x": x, "y": y, "width": width, "height": height}
        return np.asarray(Image.open(BytesIO(self.page.screenshot(clip=clip))).convert("RGB"), int)

    def screenshot(self, name):
        """In `screenshots`, to be looked at."""
        SCREENSHOTS.mkdir(exist_ok=True)
        self.settle(0.8)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        return self

    def close(self):
        self.page.close()


class Scan:
    """A scan on disk and a mask of it.

    Args:
        path: what `read_volume` reads.
        mask: bool [k, j, i].
    """

    def __init__(self, path, mask):
        self.path, self.mask = Path(path), mask
        self.volume = read_volume(path)

    def world(self, ijk):
        return (self.volume.ijk_to_ras @ [*ijk, 1.0])[:3]

    def corners(self, margin=1.5):
        """RAS of two opposite corners around what is in the mask, and of its middle."""
        found = np.argwhere(self.mask)[:, ::-1]
        last = np.array(self.volume.size) - 1
        low, high = np.maximum(found.min(0) - margin, 0), np.minimum(found.max(0) + margin, last)
        return self.world(low), self.world(high), self.world((found.min(0) + found.max(0)) // 2)

    def deepest(self, mask):
        """RAS of the voxel that is most surrounded by a mask [k, j, i] on the scan's grid."""
        return self.world(deepest(mask)[::-1])


def sample(name, bone):
    """A sample scan and one of its bones."""
    path = SAMPLES / (f"{name}.png" if name == "hand_xray" else f"{name}.nii.gz")
    labels = read_volume(SAMPLES / path.name.replace(".", "_bones.", 1))
    bones = json.loads((SAMPLES / "samples.json").read_text())[name]["bones"]
    return Scan(path, labels.array == next(int(value) for value, one in bones.items() if one == bone))


def deepest(mask):
    """The voxel that is most surrounded by its mask, [k, j, i]."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return np.array(np.unravel_index(distance.argmax(), distance.shape))


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other))


def on_grid(path, volume, label=None):
    """A downloaded labelmap on the grid of a volume [k, j, i]; `label`: whether it is this one."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    to_labels = np.linalg.inv(lps_to_ras @ affine) @ volume.ijk_to_ras
    moved = ndimage.affine_transform(
        array, to_labels[2::-1, 2::-1], to_labels[2::-1, 3], output_shape=volume.shape, order=0
    )
    return moved if label is None else moved == label
