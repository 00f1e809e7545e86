"""Click at random in the viewer and watch it: python -m Testing.browser.random_clicks MINUTES [--bright]

Every action is one that a user could do. It fails when the page or the server has an error, when an accepted
segment is lost, when nothing was ever accepted, or when memory grows: after a third of the time, for filling
caches, the line through what the visitor's process holds must not rise by more than LIMIT in the whole time.
Writes the curve to random_clicks.csv and .png.
"""

import argparse
import csv
import random
import sys
import time
from pathlib import Path

import numpy as np

from Testing.browser.site import SAMPLES, SCREENSHOTS, Visit, browser, serving

LIMIT = 150.0  # MB over the whole time
TAGS = ("Red", "Green", "Yellow")
VIEWS = (*TAGS, "ThreeD")
BUTTONS = ("undo", "redo", "cancel", "segment", "accept", "next_bone", "surfaces", "adjust_window", "fit")
TOOLS = ("box", "slice_box", "positive_point", "negative_point", "paint", "erase", "scissors")
KEYS = ("b", "Shift+B", "p", "n", "s", "l", "Control+z", "Control+y", "c", "a", "Shift+A", "w", "r", "Escape")


class Walk:
    """One random user.

    Args:
        page: with a scan.
        seed: of the choices.
    """

    def __init__(self, page, seed):
        self.page, self.choose = page, random.Random(seed)
        self.done = 0
        self.segments = {}  # that were accepted: name by identifier
        self.accepted = 0  # how many there ever were
        self.removed = set()  # identifiers of those that it removed itself
        self.actions = [self.click, self.click, self.click, self.draw, self.draw, self.scroll, self.press]
        self.actions += [self.button, self.button, self.key, self.option, self.pick, self.drag, self.remove]

    def step(self):
        """One action; returns its name."""
        action = self.choose.choice(self.actions)
        action()
        self.done += 1
        self.page.page.wait_for_timeout(self.choose.choice((20, 60, 200)))
        self.check()
        return action.__name__

    def place(self, tag):
        # Beside an enlarged view the others are hidden, and while the layout changes all are.
        areas = {}
        self.page.wait_for(lambda: areas.update(self.page.areas(VIEWS)) or areas, "a view")
        x, y, width, height = areas.get(tag) or self.choose.choice(list(areas.values()))
        return x + width * self.choose.uniform(0.15, 0.85), y + height * self.choose.uniform(0.15, 0.85)

    def press_button(self, name):
        # As a user does: a button that is disabled is not pressed.
        self.page.page.evaluate('name => document.querySelector(`[data-act="${name}"]`)?.click()', name)

    def click(self):
        self.page.page.mouse.click(*self.place(self.choose.choice(VIEWS)))

    def draw(self):
        tag = self.choose.choice(TAGS)
        self.press_button(self.choose.choice(TOOLS[:2]))
        for _ in range(2):
            self.page.page.mouse.click(*self.place(tag))
            self.page.page.wait_for_timeout(60)

    def drag(self):
        tag = self.choose.choice(VIEWS)
        self.page.page.mouse.move(*self.place(tag))
        self.page.page.mouse.down(button=self.choose.choice(("left", "left", "right", "middle")))
        for _ in range(3):
            self.page.page.mouse.move(*self.place(tag), steps=3)
        for button in ("left", "right", "middle"):
            self.page.page.mouse.up(button=button)

    def scroll(self):
        self.page.page.mouse.move(*self.place(self.choose.choice(TAGS)))
        self.page.page.mouse.wheel(0, self.choose.choice((-240, -120, 120, 240)))

    def press(self):
        self.press_button(self.choose.choice(TOOLS))

    def button(self):
        self.press_button(self.choose.choice(BUTTONS))

    def key(self):
        self.page.press(self.choose.choice(KEYS))

    def option(self):
        name = self.choose.choice(("live", "keep_inside", "remove_small_islands", "two_d"))
        self.page.page.evaluate('name => document.querySelector(`[data-test="${name}"]`)?.click()', name)

    def pick(self):
        what = self.choose.choice((".review button", ".segments li", ".enlarge"))
        self.page.page.evaluate(
            "([what, part]) => { const all = document.querySelectorAll(what);"
            " all[Math.floor(part * all.length)]?.click(); }",
            [what, self.choose.random()],
        )

    def remove(self):
        """Also keeps the list short, so that memory is comparable."""
        segments = self.page.panel["segments"]
        if len(segments) > 3 and not self.page.panel["running"]:
            # When it goes depends on what else the server has to do.
            self.removed.add(segments[0]["id"])
            # By its name: the list in the page may have moved on since.
            self.page.page.evaluate(
                'name => document.querySelector(`[aria-label="Remove ${name}"]`)?.click()',
                segments[0]["name"],
            )

    def check(self):
        now = {one["id"]: one["name"] for one in self.page.panel["segments"]}
        lost = set(self.segments) - set(now) - self.removed
        if lost:
            self.page.page.wait_for_timeout(1000)  # the page may be one picture behind
            now = {one["id"]: one["name"] for one in self.page.panel["segments"]}
            lost = set(self.segments) - set(now) - self.removed
        assert not lost, f"segments were lost: {lost}"
        self.accepted += len(set(now) - set(self.segments))
        self.segments = now
        assert not self.page.errors, self.page.errors
        assert "unexpected" not in self.page.note, self.page.note


def visitor_memory(server):
    """MB that the visitor's process holds, and its number."""
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or "visitor" not in (process / "cmdline").read_text():
                continue
            fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            if int(fields["PPid"]) == server.pid:
                return int(fields["VmRSS"].split()[0]) / 1000
        except (OSError, ValueError):
            continue
    raise AssertionError("the visitor's process has ended")


def main(minutes, bright, seed):
    """Returns whether everything stayed as it should."""
    with serving(SAMPLES / "hip_ct.nii.gz", bright=bright) as (address, server), browser() as chromium:
        page = Visit(chromium, address).wait_for_scan("hip_ct.nii.gz")
        walk, start, rows = Walk(page, seed), time.monotonic(), []
        while (passed := time.monotonic() - start) < 60 * minutes:
            try:
                action = walk.step()
            except AssertionError:
                page.screenshot("random clicks failed")
                raise
            if not rows or passed - rows[-1][0] > min(10.0, 6 * minutes):
                rows.append((passed, visitor_memory(server), walk.done, len(walk.segments)))
                seconds, megabytes, actions, segments = rows[-1]
                print(
                    f"{seconds:6.0f} s {megabytes:5.0f} MB {actions:5} actions, {segments} kept, {action}",
                    flush=True,
                )
        page.press("Escape").press("c")
        page.wait_for(lambda: not page.panel["running"], "rest")
        assert walk.accepted, "nothing was ever segmented: this run shows nothing"
        page.screenshot("random clicks")
    SCREENSHOTS.mkdir(exist_ok=True)
    with (SCREENSHOTS / "random_clicks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("seconds", "megabytes", "actions", "segments"), *rows])
    seconds, megabytes = np.array(rows)[:, 0], np.array(rows)[:, 1]
    _draw(seconds, megabytes)
    late = seconds >= seconds[-1] / 3
    growth = 0.0
    if late.sum() > 2:
        growth = float(np.polyfit(seconds[late], megabytes[late], 1)[0] * (seconds[-1] - seconds[0]))
    print(
        f"{walk.done} actions, no error, no lost segment; {megabytes[0]:.0f} MB at first, at most "
        f"{megabytes.max():.0f} MB, growth {growth:+.0f} MB"
    )
    return growth < LIMIT


def _draw(seconds, megabytes):
    from PIL import Image, ImageDraw

    width, height, margin = 640, 240, 30
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    top = max(megabytes) * 1.1
    points = [
        (
            margin + (width - 2 * margin) * t / max(seconds[-1], 1),
            height - margin - (height - 2 * margin) * m / top,
        )
        for t, m in zip(seconds, megabytes, strict=True)
    ]
    draw.rectangle((margin, margin, width - margin, height - margin), outline="gray")
    if len(points) > 1:
        draw.line(points, fill=(20, 90, 180), width=2)
    draw.text(
        (margin, 8),
        f"memory of the visitor's process, 0 to {top:.0f} MB, over {seconds[-1]:.0f} s",
        fill="black",
    )
    picture.save(SCREENSHOTS / "random_clicks.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("--bright", action="store_true", help="a threshold instead of the network")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(0 if main(arguments.minutes, arguments.bright, arguments.seed) else 1)
