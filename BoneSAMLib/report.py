"""A page to check a segmentation by eye (HTML), for the person who answers for the mask.

It says what was found, how sure the model is of it, and which slices most need a look. The page holds
everything in one file and loads nothing from elsewhere.
"""

import base64
import datetime
import html
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from BoneSAMLib.description import describe_volume
from BoneSAMLib.overlay_sheet import contact_sheet
from BoneSAMLib.slice_pictures import SlicePictures
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import Color, SegmentInfo, open_complete

__all__ = ["ReportedBone", "write_report"]

_MAX_REVIEW_PER_BONE = 4
_MAX_REVIEW_PICTURES = 24
# The pictures to review are nearly square: they stand in a grid.
_FLATTEST_REVIEW = 0.95


@dataclass(frozen=True)
class ReportedBone:
    """One bone in the report.

    Attributes:
        value: its label in the mask.
        name: shown to the user.
        color: red, green, blue, each 0 to 1; as in the mask's file.
        confidence: predicted IoU of the whole bone, 0 to 1.
        prompt: what the user drew or clicked, in words.
        slice_confidence: the same per slice: {index along `axis`: 0 to 1}.
        review: slices that most need a look, worst first.
        axis: IJK axis along which its slices are counted, another than the volume's through-plane axis where
            a 2D box was drawn across another one; None for that one.
    """

    value: int
    name: str
    color: Color
    confidence: float
    prompt: str = ""
    slice_confidence: Mapping[int, float] = field(default_factory=dict)
    review: Sequence[int] = ()
    axis: int | None = None

    def slices_to_review(self, most: int) -> str:
        """The first so many, such as "12, 13", or "i 12, i 13" where they are counted along another axis."""
        letter = "" if self.axis is None else "ijk"[self.axis] + " "
        return ", ".join(f"{letter}{index}" for index in list(self.review)[:most])

    @property
    def segment(self) -> SegmentInfo:
        """What is written beside its mask: name, color, and the code of what the name means."""
        return SegmentInfo(self.value, self.name, self.color, bone_meaning(self.name).terminology)


def write_report(
    path: str | os.PathLike[str],
    volume: Volume,
    labels: NDArray[Any],
    bones: Sequence[ReportedBone],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write an HTML page: geometry, prompts, confidence of every bone, slices to review with pictures.

    Args:
        path: ends in .html.
        volume: the scan.
        labels: shape [k, j, i] like `volume.array`; 0 is background.
        bones: what was segmented.
        facts: further lines for the table about the scan, such as {"Computed on": "cpu", "Time": "2.1 s"}.

    Raises:
        BoneSAMError: the shapes differ, or the file cannot be written; nothing is left behind then.
    """
    pictures = SlicePictures(volume, labels, [bone.segment for bone in bones])
    page = "".join(_page(pictures, bones, facts or {}))
    with open_complete(Path(path)) as file:
        file.write(page.encode("utf-8", "replace"))


_STYLE = """
:root {
  color-scheme: light dark;
  --back: #ffffff; --card: #f4f5f7; --text: #1b1d21; --faint: #5d636c; --line: #dcdfe4;
  --good: #1a7f4b; --fair: #9a6700; --poor: #c62f3b; --chart: #6f8fd8;
}
@media (prefers-color-scheme: dark) { :root {
  --back: #16181c; --card: #1f2228; --text: #e8e9eb; --faint: #9aa1ab; --line: #343841;
  --good: #4cc38a; --fair: #e0a83a; --poor: #f2747d; --chart: #7f9ee6;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1180px; padding: 28px 20px 48px; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .8rem; }
p { margin: .3rem 0; }
.faint { color: var(--faint); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 6px 14px 6px 0; vertical-align: top; }
tr > * { border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); }
.facts th { width: 12rem; }
.number { text-align: right; padding-right: 24px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.swatch {
  display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em;
  border: 1px solid var(--line);
}
.level { white-space: nowrap; font-variant-numeric: tabular-nums; }
.bar {
  display: inline-block; width: 80px; height: 8px; border-radius: 4px; background: var(--line);
  margin-right: 8px; overflow: hidden;
}
.bar i { display: block; height: 100%; background: currentColor; }
.good { color: var(--good); }
.fair { color: var(--fair); }
.poor { color: var(--poor); }
svg { display: block; width: 180px; height: 28px; }
svg path { fill: var(--chart); opacity: .75; }
.sheet { width: 100%; max-height: 960px; object-fit: contain; border-radius: 8px; display: block; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--card); border-radius: 8px; overflow: hidden; }
figure img { width: 100%; height: 260px; object-fit: contain; display: block; background: #121417; }
figcaption { padding: 8px 12px; }
footer { margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--faint); }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } }
"""


def _page(pictures: SlicePictures, bones: Sequence[ReportedBone], facts: Mapping[str, str]) -> Iterator[str]:
    title = html.escape(pictures.volume.name or "Scan")
    found = "1 bone" if len(bones) == 1 else f"{len(bones)} bones"
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} - BoneSAM</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body>"
    yield f'<h1>{title}</h1><p class="faint">{found} segmented by BoneSAM. '
    yield "For research, not for diagnosis: check the mask before you use it.</p>"
    yield "<h2>Bones</h2>"
    yield from _bone_table(pictures, bones)
    yield from _review_pictures(pictures, bones)
    yield "<h2>Overview</h2>"
    yield f'<img class="sheet" alt="Slices with outlined bones" src="{_embedded(contact_sheet(pictures))}">'
    yield "<h2>Scan</h2>"
    yield from _fact_table(pictures.volume, facts)
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written {today}. This page contains images of the patient.</footer></body></html>\n"


def _bone_table(pictures: SlicePictures, bones: Sequence[ReportedBone]) -> Iterator[str]:
    if not bones:
        yield "<p>No bone was found.</p>"
        return
    counts = _voxel_counts(pictures.labels)
    flat = pictures.volume.is_projection
    milliliters = abs(float(np.linalg.det(pictures.volume.ijk_to_ras[:3, :3]))) / 1000
    by_slice = not flat and any(bone.slice_confidence or bone.review for bone in bones)
    yield '<div class="scroll"><table><tr><th>Bone</th><th class="number">Label</th>'
    # The pixel size of a picture is seldom known, and a projection magnifies: no area in square millimeters.
    yield f'<th class="number">{"Pixels" if flat else "Volume (mL)"}</th><th>Confidence</th>'
    yield "<th>By slice</th><th>Look at</th>" if by_slice else ""
    yield "<th>Prompt</th></tr>"
    for bone in bones:
        voxels = counts.get(bone.value, 0)
        amount = str(voxels) if flat else f"{voxels * milliliters:.1f}"
        color = "#" + "".join(f"{round(255 * part):02x}" for part in bone.color)
        yield f'<tr><td><span class="swatch" style="background:{color}"></span>{html.escape(bone.name)}</td>'
        yield f'<td class="number">{bone.value}</td><td class="number">{amount}</td>'
        yield f"<td>{_confidence(bone.confidence)}</td>"
        if by_slice:
            yield f"<td>{_chart(bone.slice_confidence)}</td>"
            yield f"<td>{bone.slices_to_review(6)}</td>"
        yield f"<td>{html.escape(bone.prompt)}</td></tr>"
    yield "</table></div>"
    if by_slice:
        axis = "ijk"[pictures.axis]
        yield '<p class="faint">Confidence is the overlap (IoU) with the true bone that the model expects. '
        yield f"Slices are counted from 0 along {axis}, where no other letter stands.</p>"


def _review_pictures(pictures: SlicePictures, bones: Sequence[ReportedBone]) -> Iterator[str]:
    wanted = [
        (bone.slice_confidence.get(index, bone.confidence), rank, bone, index)
        for bone in bones
        for rank, index in enumerate(list(bone.review)[:_MAX_REVIEW_PER_BONE])
    ]
    wanted.sort(key=lambda entry: (entry[0], entry[1]))
    if not wanted or pictures.volume.is_projection:
        return
    del wanted[_MAX_REVIEW_PICTURES:]
    drawn = {
        bone.value: pictures
        if bone.axis is None
        else SlicePictures(pictures.volume, pictures.labels, list(pictures.segments.values()), bone.axis)
        for _, _, bone, _ in wanted
    }
    windows = {value: one.window(value, _FLATTEST_REVIEW) for value, one in drawn.items()}
    yield '<h2>Slices to review, worst first</h2><div class="pictures">'
    for confidence, _, bone, index in wanted:
        one = drawn[bone.value]
        picture = _embedded(one.tile(index, windows[bone.value], 360, bone.value))
        name = html.escape(bone.name)
        place = f"{'ijk'[one.axis]} {index}"
        yield f'<figure><img alt="{name}, slice {place}" src="{picture}">'
        yield f"<figcaption>{name}, {place}<br>{_confidence(confidence)}</figcaption></figure>"
    yield "</div>"


def _fact_table(volume: Volume, facts: Mapping[str, str]) -> Iterator[str]:
    rows = {**describe_volume(volume), **facts}
    yield '<table class="facts">'
    for name, value in rows.items():
        yield f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
    yield "</table>"


def _voxel_counts(labels: NDArray[Any]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for plane in labels:  # plane by plane: a count over the whole would need a sorted copy
        for value, count in zip(*np.unique(plane[plane > 0], return_counts=True), strict=True):
            counts[int(value)] = counts.get(int(value), 0) + int(count)
    return counts


def _confidence(value: float) -> str:
    percent = round(100 * min(max(value, 0.0), 1.0))
    level = "good" if percent >= 85 else "fair" if percent >= 70 else "poor"
    bar = f'<span class="bar"><i style="width:{percent}%"></i></span>'
    return f'<span class="level {level}">{bar}{value:.2f}</span>'


def _chart(confidence: Mapping[int, float]) -> str:
    """Confidence from the first to the last slice, as a filled curve of fixed height 0 to 1."""
    if not confidence:
        return ""
    indices = sorted(confidence)
    first, last = indices[0], indices[-1]
    steps = " ".join(
        f"L{index - first} {1 - confidence[index]:.3f} L{index - first + 1} {1 - confidence[index]:.3f}"
        for index in indices
    )
    width = last - first + 1
    lowest = min(indices, key=lambda index: confidence[index])
    words = f"slices {first} to {last}, lowest {confidence[lowest]:.2f} at {lowest}"
    return (
        f'<svg viewBox="0 0 {width} 1" preserveAspectRatio="none" role="img" aria-label="{words}">'
        f'<title>{words}</title><path d="M0 1 {steps} L{width} 1 Z"/></svg>'
    )


def _embedded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
