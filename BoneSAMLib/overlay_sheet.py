"""Overlay contact sheet: the slices that hold a bone on one picture (PNG), to check a segmentation by eye."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from BoneSAMLib.drawn_text import FAINT, TEXT, fitted, font
from BoneSAMLib.slice_pictures import SlicePictures
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import Color, SegmentInfo, open_complete

__all__ = ["contact_sheet", "overlay_sheet"]

_MAX_SLICES = 24
_MAX_LEGEND = 12
_BACKGROUND = (18, 20, 23)


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
    image = contact_sheet(SlicePictures(volume, labels, segments))
    with open_complete(Path(path)) as file:
        image.save(file, format="PNG")


def contact_sheet(pictures: SlicePictures) -> Image.Image:
    """The slices that hold a label on one picture, under a title, above the names of the bones."""
    occupied = pictures.occupied_slices()
    count = pictures.volume.size[pictures.axis]
    indices = _evenly(occupied or list(range(count)), _MAX_SLICES if occupied else 6)
    window = pictures.window()
    columns = _columns(len(indices), pictures.tile_size(window, 300))
    long_side = {1: 960, 2: 640, 3: 430}.get(columns, 300)
    width, height = pictures.tile_size(window, long_side)
    gap, rows = 6, math.ceil(len(indices) / columns)
    legend, legend_height = _legend_layout(pictures, columns * (width + gap) - gap)
    title_height = 46
    sheet = Image.new(
        "RGB",
        (columns * (width + gap) + gap, title_height + rows * (height + gap) + legend_height + gap),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    room = sheet.width - 2 * (gap + 4)
    title, shown = pictures.volume.name or "Scan", f"{len(indices)} of {len(occupied)} slices with bone"
    if not occupied:
        shown = "no bone was found"
    elif len(indices) == len(occupied):
        shown = f"{len(occupied)} slices with bone" if len(occupied) > 1 else ""
    subtitle = ", ".join(part for part in (*_description(pictures), shown) if part)
    draw.text((gap + 4, 6), fitted(title, 17, room), TEXT, font(17))
    draw.text((gap + 4, 27), fitted(subtitle, 12, room), FAINT, font(12))
    for number, index in enumerate(indices):
        row, column = divmod(number, columns)
        place = (gap + column * (width + gap), title_height + row * (height + gap))
        sheet.paste(pictures.tile(index, window, long_side), place)
    for x, y, color, text in legend:
        y += sheet.height - legend_height - gap
        if color is not None:
            fill = tuple(round(255 * part) for part in color)
            draw.rounded_rectangle((gap + x, y + 2, gap + x + 12, y + 14), 3, fill)
        draw.text((gap + x + (18 if color is not None else 0), y), text, TEXT, font(13))
    return sheet


def _description(pictures: SlicePictures) -> list[str]:
    modality = pictures.volume.modality_guess
    if pictures.volume.is_projection:
        return [
            modality,
            f"{pictures.volume.size[pictures.horizontal]} x {pictures.volume.size[pictures.vertical]} pixels",
        ]
    size = " x ".join(str(n) for n in pictures.volume.size)
    return [modality, f"{size} voxels of {' x '.join(f'{x:.3g}' for x in pictures.volume.spacing)} mm"]


def _legend_layout(
    pictures: SlicePictures, room: int
) -> tuple[list[tuple[int, int, Color | None, str]], int]:
    """Where color squares and names go (x, y, color, name), and the height they take."""
    present = sorted({int(value) for plane in pictures.labels for value in np.unique(plane[plane > 0])})
    entries: list[tuple[Color | None, str]] = [
        (pictures.segment(value).color, pictures.segment(value).name) for value in present[:_MAX_LEGEND]
    ]
    if len(present) > _MAX_LEGEND:
        entries.append((None, f"and {len(present) - _MAX_LEGEND} more"))
    placed: list[tuple[int, int, Color | None, str]] = []
    x, y = 4, 6
    for color, name in entries:
        text = fitted(name, 13, min(room - 30, 260))
        width = math.ceil(font(13).getlength(text)) + 18 + 20
        if x + width > room and x > 4:
            x, y = 4, y + 22
        placed.append((x, y, color, text))
        x += width
    return placed, y + 22 if placed else 0


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
