"""Pictures of what was evaluated, to be looked at: truth, prediction, box on three slices of every case."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from BoneSAMLib.prompts import Box
from BoneSAMLib.volume import Volume
from training.masks import Mask, bounding_slices, slice_view

GREEN = (40, 230, 60)
# Neighboring bones take turns, so that one can see which outline belongs to which.
PREDICTION_COLORS = ((255, 60, 50), (255, 220, 40))
BOX_COLOR = (90, 170, 255)
BACKGROUND = (18, 18, 20)
TEXT_COLOR = (235, 235, 235)

# Where between the first and the last slice with an annotated bone the pictures are taken.
SLICE_POSITIONS = (0.25, 0.5, 0.75)
# Slices of any proportion get about the same area, but none a longer side than this.
PANEL_AREA_PIXELS = 420 * 420
LONGEST_SIDE_PIXELS = 640
# A caption needs this much, however narrow the slice.
NARROWEST_CASE_PIXELS = 220
SHEET_PIXELS = 1300
CAPTION_PIXELS = 20
GAP_PIXELS = 4
# How much is seen around the bones, as a share of their extent, and at least in mm.
CONTEXT_FRACTION = 0.2
CONTEXT_MM = 15.0
CT_WINDOW_HU = (-300.0, 1200.0)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Drawn:
    """One bone of a picture: masks [k, j, i], the box that was the prompt, and the prediction's Dice."""

    name: str
    truth: Mask
    prediction: Mask
    box: Box
    dice: float


def draw_case(title: str, volume: Volume, drawn: Sequence[Drawn]) -> Image.Image:
    """The slices of one case side by side (one for a radiograph), each cut to the bones and captioned.

    Pixels are square in mm, superior (else anterior) is up and the body's right is on the left, as usual.
    """
    axis = volume.through_plane_axis
    shown = np.zeros(volume.shape, dtype=np.bool_)
    for bone in drawn:
        shown |= bone.truth | _filled(bone.box, volume)
    extent = bounding_slices(shown)
    dice = ", ".join(f"{bone.name} {bone.dice:.2f}" for bone in drawn)
    panels = []
    for index in _slice_indices(drawn, axis):
        panels.append(_panel(volume, drawn, axis, index, extent))
    width = max(sum(panel.width + GAP_PIXELS for panel in panels), NARROWEST_CASE_PIXELS)
    lines = _wrapped(f"{title}   Dice: {dice}", width)
    top = CAPTION_PIXELS * len(lines)
    sheet = Image.new("RGB", (width, top + max(panel.height for panel in panels)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((4, 2 + number * CAPTION_PIXELS), line, fill=TEXT_COLOR, font=_font())
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, top))
        left += panel.width + GAP_PIXELS
    return sheet


def write_sheet(title: str, pictures: Sequence[Path], path: Path) -> None:
    """Put the pictures of all cases of a source under a legend, in as many columns as fit."""
    images = [Image.open(picture).convert("RGB") for picture in pictures]
    columns = max(1, SHEET_PIXELS // max(image.width + 2 * GAP_PIXELS for image in images))
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    width = max(sum(image.width + 2 * GAP_PIXELS for image in row) for row in rows)
    heights = [max(image.height for image in row) + 3 * GAP_PIXELS for row in rows]
    legend = [
        (title, TEXT_COLOR),
        ("truth (where it differs)", GREEN),
        ("prediction", PREDICTION_COLORS[0]),
        ("(next bone)", PREDICTION_COLORS[1]),
        ("box prompt", BOX_COLOR),
    ]
    top = 2 * CAPTION_PIXELS
    sheet = Image.new("RGB", (max(width, SHEET_PIXELS // 2), top + sum(heights)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    left = 4.0
    for text, color in legend:
        draw.text((left, 8), text, fill=color, font=_font())
        left += draw.textlength(text, font=_font()) + 18
    for row, height in zip(rows, heights, strict=True):
        column = 0
        for image in row:
            sheet.paste(image, (column, top))
            column += image.width + 2 * GAP_PIXELS
        top += height
    sheet.save(path)


def _slice_indices(drawn: Sequence[Drawn], axis: int) -> list[int]:
    extents = [bounding_slices(bone.truth)[2 - axis] for bone in drawn]
    first = min(extent.start for extent in extents)
    last = max(extent.stop for extent in extents) - 1
    return sorted({round(first + position * (last - first)) for position in SLICE_POSITIONS})


def _panel(
    volume: Volume, drawn: Sequence[Drawn], axis: int, index: int, extent: tuple[slice, slice, slice]
) -> Image.Image:
    view = _View(volume, axis, index, extent)
    gray = view.seen(volume.array).astype(np.float64)
    low, high = _window(volume, gray)
    gray = np.clip((gray - low) / max(high - low, 1e-6), 0, 1) * 255
    size = view.picture_size
    picture = np.repeat(
        np.asarray(Image.fromarray(gray.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC))[..., None],
        3,
        axis=2,
    ).copy()
    for number, bone in enumerate(drawn):
        color = PREDICTION_COLORS[number % len(PREDICTION_COLORS)]
        # The prediction last: truth stays visible only where the two differ.
        outlines = ((_filled(bone.box, volume), BOX_COLOR), (bone.truth, GREEN), (bone.prediction, color))
        for mask, line_color in outlines:
            picture[_outline(view.seen(mask), size)] = line_color
    panel = Image.fromarray(picture)
    ImageDraw.Draw(panel).text(
        (4, panel.height - CAPTION_PIXELS),
        f"{'ijk'[axis]} = {index}",
        fill=TEXT_COLOR,
        font=_font(),
        stroke_width=2,
        stroke_fill=BACKGROUND,
    )
    return panel


class _View:
    """One slice as a reader expects it: cut out, turned upright, with square pixels."""

    def __init__(self, volume: Volume, axis: int, index: int, extent: tuple[slice, slice, slice]) -> None:
        self._axis, self._index = axis, index
        vertical, horizontal = _upright(volume, axis)
        self._cut = []
        lengths = []
        for side in (vertical, horizontal):
            extent_of_side = extent[2 - side]
            context = max(
                CONTEXT_FRACTION * (extent_of_side.stop - extent_of_side.start),
                CONTEXT_MM / volume.spacing[side],
            )
            start = max(0, extent_of_side.start - round(context))
            stop = min(volume.size[side], extent_of_side.stop + round(context))
            self._cut.append(slice(start, stop))
            lengths.append((stop - start) * volume.spacing[side])
        # Of the two remaining array axes (k before j before i) the first is the rows.
        self._transposed = vertical < horizontal
        directions = volume.ijk_to_ras[:3, :3]
        self._flips = [
            bool(directions[np.argmax(np.abs(directions[:, side])), side] > 0)
            for side in (vertical, horizontal)
        ]
        scale = min(
            math.sqrt(PANEL_AREA_PIXELS / (lengths[0] * lengths[1])), LONGEST_SIDE_PIXELS / max(lengths)
        )
        self.picture_size = (max(1, round(lengths[1] * scale)), max(1, round(lengths[0] * scale)))

    def seen(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """The part of ``array`` [k, j, i] that the picture shows, as [row, column]."""
        flat = slice_view(array, self._axis, self._index)
        if self._transposed:
            flat = flat.T
        flat = flat[self._cut[0], self._cut[1]]
        for side, flipped in enumerate(self._flips):
            if flipped:
                flat = np.flip(flat, side)
        return flat


def _upright(volume: Volume, axis: int) -> tuple[int, int]:
    """The in-plane IJK axes that run down and across the picture: S-I, else A-P, runs down."""
    first, second = (other for other in range(3) if other != axis)
    directions = np.abs(volume.ijk_to_ras[:3, :3]) / volume.spacing
    # Superior outweighs anterior, anterior outweighs right, however oblique the slice.
    upward = [float(directions[:, side] @ (0.0, 1.0, 2.0)) for side in (first, second)]
    return (first, second) if upward[0] > upward[1] else (second, first)


def _window(volume: Volume, gray: NDArray[np.float64]) -> tuple[float, float]:
    if volume.modality_guess == "CT":
        return CT_WINDOW_HU[0] - volume.intensity_offset, CT_WINDOW_HU[1] - volume.intensity_offset
    low, high = np.percentile(gray, (0.5, 99.5))
    return float(low), float(high)


def _outline(mask: NDArray[np.generic], size: tuple[int, int]) -> Mask:
    """The inner border of a 2D mask, one picture pixel wide, at picture size (width, height)."""
    enlarged = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST))
    inside = np.pad(enlarged > 0, 1)
    core = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return inside[1:-1, 1:-1] & ~core


def _filled(box: Box, volume: Volume) -> Mask:
    (i0, j0, k0), (i1, j1, k1) = box.to_ijk(volume)
    mask = np.zeros(volume.shape, dtype=np.bool_)
    mask[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = True
    return mask


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13)


def _wrapped(text: str, width: int) -> list[str]:
    characters = max(20, math.floor(width / 7.2))
    words, lines = text.split(" "), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > characters:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
