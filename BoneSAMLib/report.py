"""Pictures and a page to check a segmentation by eye: overlay contact sheet (PNG) and report (HTML).

Both are for the person who answers for the mask: what was found, how sure the model is of it, and which
slices most need a look. The page holds everything in one file and loads nothing from elsewhere.
"""

import base64
import datetime
import html
import io
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from BoneSAMLib.description import describe_volume
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import Color, SegmentInfo, distinct_color, open_complete

__all__ = ["ReportedBone", "overlay_sheet", "thumbnail", "write_report"]

_MAX_SLICES = 24
_MAX_REVIEW_PER_BONE = 4
_MAX_REVIEW_PICTURES = 24
_MAX_LEGEND = 12
# Everything is drawn at this multiple and reduced at the end, for smooth outlines.
_OVERSAMPLING = 2
_FILL_OPACITY = 0.14
_BACKGROUND, _TEXT, _FAINT = (18, 20, 23), (235, 236, 238), (150, 155, 162)
# A tile shows the bones with this margin: enough to see what lies beside them.
_MARGIN_MM, _MARGIN_PART = 10.0, 0.15
_FLATTEST_TILE, _FLATTEST_REVIEW = 0.6, 0.95


@dataclass(frozen=True)
class ReportedBone:
    """One bone in the report.

    Attributes:
        value: its label in the mask.
        name: shown to the user.
        color: red, green, blue, each 0 to 1; as in the mask's file.
        confidence: predicted IoU of the whole bone, 0 to 1.
        prompt: what the user drew or clicked, in words.
        slice_confidence: the same per slice: {index along the through-plane axis: 0 to 1}.
        review: slices that most need a look, worst first.
    """

    value: int
    name: str
    color: Color
    confidence: float
    prompt: str = ""
    slice_confidence: Mapping[int, float] = field(default_factory=dict)
    review: Sequence[int] = ()


def overlay_sheet(
    volume: Volume,
    labels: NDArray[Any],
    path: str | os.PathLike[str],
    segments: Sequence[SegmentInfo] = (),
) -> None:
    """Write a PNG of the slices that hold a label, outlined in color; at most 24 of them, evenly chosen.

    Args:
        volume: the scan.
        labels: shape [k, j, i] like `volume.array`; 0 is background.
        path: ends in .png.
        segments: names and colors; other labels get a number and a color of their own.

    Raises:
        BoneSAMError: the shapes differ, or the file cannot be written; nothing is left behind then.
    """
    image = _Sheet(volume, labels, segments).contact_sheet()
    with open_complete(Path(path)) as file:
        image.save(file, format="PNG")


def thumbnail(
    volume: Volume,
    labels: NDArray[Any],
    segments: Sequence[SegmentInfo] = (),
    index: int | None = None,
    long_side: int = 260,
) -> Image.Image:
    """One slice with the bones outlined, `long_side` pixels high or wide.

    Args:
        volume: the scan.
        labels: shape [k, j, i] like `volume.array`; 0 is background.
        segments: names and colors; other labels get a number and a color of their own.
        index: of the slice, along the volume's through-plane axis; None for the one with the most bone.

    Raises:
        BoneSAMError: the shapes differ.
    """
    sheet = _Sheet(volume, labels, segments)
    if index is None:
        occupied = sheet.occupied_slices() or [volume.size[sheet.axis] // 2]
        index = max(occupied, key=lambda one: np.count_nonzero(sheet.turned(labels, one)))
    return sheet.tile(index, sheet.window(), long_side)


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
    sheet = _Sheet(volume, labels, [SegmentInfo(bone.value, bone.name, bone.color) for bone in bones])
    page = "".join(_page(sheet, bones, facts or {}))
    with open_complete(Path(path)) as file:
        file.write(page.encode())


# ------------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class _Window:
    """Part of a slice as displayed: rows and columns, end excluded."""

    top: int
    bottom: int
    left: int
    right: int


class _Sheet:
    """Draws slices across the through-plane axis, turned as radiologists look at them."""

    def __init__(self, volume: Volume, labels: NDArray[Any], segments: Sequence[SegmentInfo]) -> None:
        if labels.shape != volume.shape:
            raise BoneSAMError(
                f"The mask has shape {labels.shape} and the volume {volume.shape} (k, j, i): "
                "they must be the same."
            )
        self.volume = volume
        self.labels = labels
        self.segments = {segment.value: segment for segment in segments}
        self.axis = volume.through_plane_axis
        in_plane = [axis for axis in (0, 1, 2) if axis != self.axis]
        letters = volume.orientation
        # The patient's right is on the left of the picture; from the side, the face looks to the left.
        across = [axis for axis in in_plane if letters[axis] in "LR"]
        self.horizontal = across[0] if across else next(a for a in in_plane if letters[a] in "PA")
        self.vertical = next(axis for axis in in_plane if axis != self.horizontal)
        self.flip_horizontal = letters[self.horizontal] not in "LP"
        self.flip_vertical = letters[self.vertical] not in "PI"
        # A picture file does not say how the patient was turned.
        known = not (volume.is_projection and volume.modality_guess == "X-ray")
        self.left_letter = ("R" if across else "A") if known else ""
        self.top_letter = ("A" if letters[self.vertical] in "PA" else "S") if known else ""
        self.gray_window = intensity_window(volume)
        self.gamma = self._gamma()

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Height and width of a displayed pixel in mm."""
        return self.volume.spacing[self.vertical], self.volume.spacing[self.horizontal]

    def segment(self, value: int) -> SegmentInfo:
        return self.segments.get(value) or SegmentInfo(value, f"Bone {value}", distinct_color(value))

    def occupied_slices(self, value: int | None = None) -> list[int]:
        mask = self.labels if value is None else self.labels == value
        others = tuple(axis for axis in range(3) if axis != 2 - self.axis)
        return [int(index) for index in np.flatnonzero(mask.any(axis=others))]

    def turned(self, array: NDArray[Any], index: int) -> NDArray[Any]:
        """One slice of a [k, j, i] array as displayed: rows from the top, columns from the left."""
        plane: NDArray[Any] = np.moveaxis(array, 2 - self.axis, 0)[index]
        if self.vertical < self.horizontal:
            plane = plane.T
        if self.flip_vertical:
            plane = plane[::-1]
        return plane[:, ::-1] if self.flip_horizontal else plane

    def _gamma(self) -> float:
        """Exponent that brings tissue to a middle gray: what the network sees may be too dark for eyes."""
        occupied = self.occupied_slices() or [self.volume.size[self.axis] // 2]
        gray = normalize(self.turned(self.volume.array, occupied[len(occupied) // 2]), self.gray_window)
        inside = gray[gray > 0.02]
        middle = float(np.median(inside)) if inside.size else 0.5
        return min(1.0, max(0.6, math.log(0.4) / math.log(min(max(middle, 0.01), 0.9))))

    def window(self, value: int | None = None, flattest: float = _FLATTEST_TILE) -> _Window:
        """Where the bones (or one bone) are, on any slice, with a margin.

        The short side is at least `flattest` times the long one, as far as the scan reaches.
        """
        mask = self.labels > 0 if value is None else self.labels == value
        shadow = self.turned(np.any(mask, axis=2 - self.axis, keepdims=True), 0)
        height, width = shadow.shape
        if not shadow.any():
            return _Window(0, height, 0, width)
        ranges = []
        sizes_mm = []
        for axis, pixel in ((1, self.pixel_size[0]), (0, self.pixel_size[1])):
            filled = np.flatnonzero(shadow.any(axis=axis))
            first, last = int(filled[0]), int(filled[-1]) + 1
            margin = max(_MARGIN_MM / pixel, _MARGIN_PART * (last - first))
            ranges.append([first - margin, last + margin])
            sizes_mm.append((ranges[-1][1] - ranges[-1][0]) * pixel)
        for one, pixel in enumerate(self.pixel_size):  # no slivers
            missing = (flattest * max(sizes_mm) - sizes_mm[one]) / pixel
            if missing > 0:
                ranges[one] = [ranges[one][0] - missing / 2, ranges[one][1] + missing / 2]
        (top, bottom), (left, right) = (
            (max(0, math.floor(low)), min(n, math.ceil(high)))
            for (low, high), n in zip(ranges, (height, width), strict=True)
        )
        return _Window(top, bottom, left, right)

    def tile_size(self, window: _Window, long_side: int) -> tuple[int, int]:
        """Width and height in pixels of the picture, true to the millimeters."""
        height = (window.bottom - window.top) * self.pixel_size[0]
        width = (window.right - window.left) * self.pixel_size[1]
        scale = long_side / max(height, width)
        return max(32, round(width * scale)), max(32, round(height * scale))

    def tile(self, index: int, window: _Window, long_side: int, meant: int | None = None) -> Image.Image:
        """One slice with outlines, its number and directions; only the bone `meant` is tinted, else all."""
        part = (slice(window.top, window.bottom), slice(window.left, window.right))
        gray = normalize(self.turned(self.volume.array, index)[part], self.gray_window)
        size = self.tile_size(window, long_side)
        large = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
        shown = np.asarray(Image.fromarray(gray).resize(large, Image.Resampling.BICUBIC))
        picture = np.repeat(np.clip(shown, 0, 1)[..., np.newaxis] ** self.gamma, 3, axis=-1)
        here = self.turned(self.labels, index)[part]
        values = [int(value) for value in np.unique(here[here > 0])]
        masks = [_enlarged(here == value, large) for value in values]
        for value, mask in zip(values, masks, strict=True):
            if meant in (None, value):
                color = np.array(self.segment(value).color, dtype=np.float32)
                picture[mask] += _FILL_OPACITY * (color - picture[mask])
        for value, mask in zip(values, masks, strict=True):
            picture[_outline(mask)] = self.segment(value).color
        image = Image.fromarray((picture * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)
        draw = ImageDraw.Draw(image)
        if not self.volume.is_projection:
            _label(draw, (6, 4), f"{'ijk'[self.axis]} {index}", 14, "la")
        if self.top_letter:
            _label(draw, (size[0] / 2, 3), self.top_letter, 12, "ma", _FAINT)
            _label(draw, (5, size[1] / 2), self.left_letter, 12, "lm", _FAINT)
        return image

    def contact_sheet(self) -> Image.Image:
        occupied = self.occupied_slices()
        count = self.volume.size[self.axis]
        indices = _evenly(occupied or list(range(count)), _MAX_SLICES if occupied else 6)
        window = self.window()
        columns = _columns(len(indices), self.tile_size(window, 300))
        long_side = {1: 960, 2: 640, 3: 430}.get(columns, 300)
        width, height = self.tile_size(window, long_side)
        gap, rows = 6, math.ceil(len(indices) / columns)
        legend, legend_height = self._legend_layout(columns * (width + gap) - gap)
        title_height = 46
        sheet = Image.new(
            "RGB",
            (columns * (width + gap) + gap, title_height + rows * (height + gap) + legend_height + gap),
            _BACKGROUND,
        )
        draw = ImageDraw.Draw(sheet)
        room = sheet.width - 2 * (gap + 4)
        title, shown = self.volume.name or "Scan", f"{len(indices)} of {len(occupied)} slices with bone"
        if not occupied:
            shown = "no bone was found"
        elif len(indices) == len(occupied):
            shown = f"{len(occupied)} slices with bone" if len(occupied) > 1 else ""
        subtitle = ", ".join(part for part in (*self._description(), shown) if part)
        draw.text((gap + 4, 6), _fitted(title, 17, room), _TEXT, _font(17))
        draw.text((gap + 4, 27), _fitted(subtitle, 12, room), _FAINT, _font(12))
        for number, index in enumerate(indices):
            row, column = divmod(number, columns)
            place = (gap + column * (width + gap), title_height + row * (height + gap))
            sheet.paste(self.tile(index, window, long_side), place)
        for x, y, color, text in legend:
            y += sheet.height - legend_height - gap
            if color is not None:
                fill = tuple(round(255 * part) for part in color)
                draw.rounded_rectangle((gap + x, y + 2, gap + x + 12, y + 14), 3, fill)
            draw.text((gap + x + (18 if color is not None else 0), y), text, _TEXT, _font(13))
        return sheet

    def _description(self) -> list[str]:
        modality = self.volume.modality_guess
        if self.volume.is_projection:
            return [
                modality,
                f"{self.volume.size[self.horizontal]} x {self.volume.size[self.vertical]} pixels",
            ]
        size = " x ".join(str(n) for n in self.volume.size)
        return [modality, f"{size} voxels of {' x '.join(f'{x:.3g}' for x in self.volume.spacing)} mm"]

    def _legend_layout(self, room: int) -> tuple[list[tuple[int, int, Color | None, str]], int]:
        """Where color squares and names go (x, y, color, name), and the height they take."""
        present = sorted({int(value) for plane in self.labels for value in np.unique(plane[plane > 0])})
        entries: list[tuple[Color | None, str]] = [
            (self.segment(value).color, self.segment(value).name) for value in present[:_MAX_LEGEND]
        ]
        if len(present) > _MAX_LEGEND:
            entries.append((None, f"and {len(present) - _MAX_LEGEND} more"))
        placed: list[tuple[int, int, Color | None, str]] = []
        x, y = 4, 6
        for color, name in entries:
            text = _fitted(name, 13, min(room - 30, 260))
            width = math.ceil(_font(13).getlength(text)) + 18 + 20
            if x + width > room and x > 4:
                x, y = 4, y + 22
            placed.append((x, y, color, text))
            x += width
        return placed, y + 22 if placed else 0


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    smooth = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(smooth) >= 0.5


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The border of a mask, three pixels wide; closed where the mask leaves the picture."""
    height, width = mask.shape
    padded = np.pad(mask, 2)

    def neighborhood(combine: np.ufunc, reach: int) -> NDArray[np.bool_]:
        """The mask grown (logical_or) or shrunk (logical_and) by a square, one axis after the other."""
        steps = range(2 - reach, 3 + reach)
        tall = combine.reduce([padded[step : step + height] for step in steps])
        square: NDArray[np.bool_] = combine.reduce([tall[:, step : step + width] for step in steps])
        return square

    return neighborhood(np.logical_or, 1) & ~neighborhood(np.logical_and, 2)


def _evenly(indices: Sequence[int], most: int) -> list[int]:
    if len(indices) <= most:
        return list(indices)
    return [indices[round(place)] for place in np.linspace(0, len(indices) - 1, most)]


def _columns(count: int, tile: tuple[int, int]) -> int:
    """The number of columns that makes the sheet about as wide as a screen."""
    return min(
        range(1, min(count, 8) + 1),
        key=lambda columns: (
            abs(math.log(columns * tile[0] / (math.ceil(count / columns) * tile[1]) / 1.5))
            + 0.3 * (columns * math.ceil(count / columns) - count) / count
        ),
    )


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(text: str, size: int, room: float) -> str:
    """`text` in the letters that Pillow's font has (ASCII), shortened in the middle until it fits."""
    parts = unicodedata.normalize("NFKD", text)
    text = "".join(letter for letter in parts if not unicodedata.combining(letter))
    text = text.encode("ascii", "replace").decode()
    font, kept = _font(size), len(text)
    fitted = text
    while font.getlength(fitted) > room and kept > 4:
        kept -= 1
        fitted = text[: (kept + 1) // 2] + "..." + text[len(text) - kept // 2 :]
    return fitted


def _label(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    anchor: str,
    color: tuple[int, int, int] = _TEXT,
) -> None:
    draw.text(place, text, color, _font(size), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


# --------------------------------------------------------------------------------------------- page

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


def _page(sheet: _Sheet, bones: Sequence[ReportedBone], facts: Mapping[str, str]) -> Iterator[str]:
    title = html.escape(sheet.volume.name or "Scan")
    found = "1 bone" if len(bones) == 1 else f"{len(bones)} bones"
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} - BoneSAM</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body>"
    yield f'<h1>{title}</h1><p class="faint">{found} segmented by BoneSAM. '
    yield "For research, not for diagnosis: check the mask before you use it.</p>"
    yield "<h2>Bones</h2>"
    yield from _bone_table(sheet, bones)
    yield from _review_pictures(sheet, bones)
    yield "<h2>Overview</h2>"
    yield f'<img class="sheet" alt="Slices with outlined bones" src="{_embedded(sheet.contact_sheet())}">'
    yield "<h2>Scan</h2>"
    yield from _fact_table(sheet.volume, facts)
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written {today}. This page contains images of the patient.</footer></body></html>\n"


def _bone_table(sheet: _Sheet, bones: Sequence[ReportedBone]) -> Iterator[str]:
    if not bones:
        yield "<p>No bone was found.</p>"
        return
    counts = _voxel_counts(sheet.labels)
    flat = sheet.volume.is_projection
    milliliters = abs(float(np.linalg.det(sheet.volume.ijk_to_ras[:3, :3]))) / 1000
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
            yield f"<td>{', '.join(str(index) for index in list(bone.review)[:6])}</td>"
        yield f"<td>{html.escape(bone.prompt)}</td></tr>"
    yield "</table></div>"
    if by_slice:
        axis = "ijk"[sheet.axis]
        yield '<p class="faint">Confidence is the overlap (IoU) with the true bone that the model expects. '
        yield f"Slices are counted from 0 along {axis}.</p>"


def _review_pictures(sheet: _Sheet, bones: Sequence[ReportedBone]) -> Iterator[str]:
    wanted = [
        (bone.slice_confidence.get(index, bone.confidence), rank, bone, index)
        for bone in bones
        for rank, index in enumerate(list(bone.review)[:_MAX_REVIEW_PER_BONE])
    ]
    wanted.sort(key=lambda entry: (entry[0], entry[1]))
    if not wanted or sheet.volume.is_projection:
        return
    del wanted[_MAX_REVIEW_PICTURES:]
    windows = {
        value: sheet.window(value, _FLATTEST_REVIEW) for value in {bone.value for _, _, bone, _ in wanted}
    }
    yield '<h2>Slices to review, worst first</h2><div class="pictures">'
    for confidence, _, bone, index in wanted:
        picture = _embedded(sheet.tile(index, windows[bone.value], 360, bone.value))
        name = html.escape(bone.name)
        place = f"{'ijk'[sheet.axis]} {index}"
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
