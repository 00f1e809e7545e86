"""Draw the tutorial's picture and the samples' thumbnails with the bundled weights. Run it when these change:

python -m Testing.tutorial_pictures
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from BoneSAMLib import Box, Point, Segmenter, Volume, read_volume

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "Resources" / "samples"
ICONS = ROOT / "BoneSAM" / "Resources" / "Icons"
TUTORIAL = ROOT / "Resources" / "Screenshots" / "tutorial.png"
# Name in the Sample Data module, slice (axis of [k, j, i], index), darkest and brightest value.
THUMBNAILS = {
    "hip_ct": ("BoneSAMHipCT", 1, 80, (-200, 900)),
    "knee_mr": ("BoneSAMKneeMR", 0, 12, None),
    "hand_xray": ("BoneSAMHandXray", 0, 0, None),
}
THUMBNAIL_SIZE = (260, 280)
CLICKS = 3
SCALE = 2.0  # pixels per mm
BACKGROUND, TEXT = (24, 24, 26), (235, 235, 235)
MASK, OUTLINE, BOX, POSITIVE, NEGATIVE = (
    (241, 214, 145),
    (255, 200, 60),
    (80, 200, 255),
    (60, 220, 90),
    (240, 70, 60),
)


class Slice:
    """One slice of a volume as a picture: patient's right on the left, anterior or superior on top."""

    def __init__(self, volume: Volume, axis: int, index: int, window: tuple[float, float] | None) -> None:
        self._axis, self._index, self._shape = axis, index, volume.shape
        self._rows, self._columns = (n for n in range(3) if n != axis)
        spacing = volume.spacing[::-1]
        values = volume.array.take(index, axis).astype(np.float64)
        low, high = window or np.percentile(values, (1, 99.7))
        gray = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        self._step = spacing[self._rows] * SCALE, spacing[self._columns] * SCALE
        height, width = (round(n * step) for n, step in zip(gray.shape, self._step, strict=True))
        picture = Image.fromarray(gray).resize((width, height), Image.Resampling.BICUBIC)
        self.picture = picture.convert("RGB")
        # Only the vertical axis may point down in the files' own order; the samples' i points to the left.
        self._upside_down = axis != 0 and volume.ijk_to_ras[2, 2] > 0

    def draw(self, mask: NDArray[np.bool_] | None, box: Box, points: Sequence[Point], volume: Volume) -> None:
        """Add what a user would see: mask, box and clicks, all on the grid of `volume`."""
        if mask is not None:
            self._draw_mask(mask.take(self._index, self._axis))
        pen = ImageDraw.Draw(self.picture)
        low, high = (corner[::-1] for corner in box.to_ijk(volume))
        (top, left), (bottom, right) = self._place(low, -0.5), self._place(high, 0.5)
        pen.rectangle([left, top, right, bottom], outline=BOX, width=2)
        for point in points:
            y, x = self._place(point.to_ijk(volume)[::-1], 0)
            color = POSITIVE if point.positive else NEGATIVE
            pen.ellipse([x - 5, y - 5, x + 5, y + 5], fill=color, outline=(0, 0, 0))

    def finished(self) -> Image.Image:
        """The picture, the right way up."""
        if self._upside_down:
            return self.picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return self.picture

    def _draw_mask(self, mask: NDArray[np.bool_]) -> None:
        large = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            self.picture.size, Image.Resampling.BILINEAR
        )
        inside = np.asarray(large) > 127
        edge = inside & ~ndimage.binary_erosion(inside, iterations=1)
        values = np.array(self.picture, np.float64)
        values[inside] = 0.72 * values[inside] + 0.28 * np.array(MASK)
        values[edge] = OUTLINE
        self.picture = Image.fromarray(values.astype(np.uint8))

    def _place(self, kji: Sequence[float], shift: float) -> tuple[float, float]:
        """Pixel (y, x) of a voxel, from its center."""
        y, x = (
            (kji[n] + 0.5 + shift) * step
            for n, step in zip((self._rows, self._columns), self._step, strict=True)
        )
        return y, x


def main() -> None:
    """Write all of them."""
    samples = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))
    for scan, (name, axis, index, window) in THUMBNAILS.items():
        volume = read_volume(SAMPLES / samples[scan]["image"])
        picture = Slice(volume, axis, index, window).finished()
        picture.thumbnail(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
        canvas = Image.new("RGB", THUMBNAIL_SIZE, (0, 0, 0))
        canvas.paste(picture, tuple((n - m) // 2 for n, m in zip(THUMBNAIL_SIZE, picture.size, strict=True)))
        canvas.save(ICONS / f"{name}.png", optimize=True)
    _tutorial(samples["hip_ct"]).save(TUTORIAL, optimize=True)


def _tutorial(sample: dict[str, Any]) -> Image.Image:
    """A box, its mask, and the mask after clicks where most is wrong, as a person would choose them."""
    volume = read_volume(SAMPLES / sample["image"])
    truth = read_volume(SAMPLES / sample["truth"]).array == sample["prompt"]["value"]
    corners = sample["prompt"]["box_ras"]
    box = Box.from_ras(corners[:3], corners[3:])
    session = Segmenter(device="cpu").open(volume)
    result = first = session.segment(box=box)
    points: list[Point] = []
    for _ in range(CLICKS):
        wrong = result.mask ^ truth
        k = int(wrong.sum((1, 2)).argmax())
        depth = ndimage.distance_transform_edt(wrong[k])
        j, i = (int(n) for n in np.unravel_index(int(depth.argmax()), depth.shape))
        points.append(Point.from_ijk((i, j, k), positive=bool(truth[k, j, i])))
        result = session.segment(box=box, points=points, mask=result)
    _, j, k = points[0].to_ijk(volume)
    columns = (
        ("1  Draw a box around the bone", None, ()),
        ("2  Look at the mask", first.mask, ()),
        (f"3  Click where it is wrong ({CLICKS} clicks)", result.mask, points),
    )
    parts = []
    for title, mask, shown in columns:
        views = []
        for axis, index in ((0, round(k)), (1, round(j))):
            view = Slice(volume, axis, index, THUMBNAILS["hip_ct"][3])
            view.draw(mask, box, shown, volume)
            # The samples' box is on the right hip: the left half of the picture.
            views.append(view.finished().crop((0, 0, round(view.picture.width * 0.58), view.picture.height)))
        parts.append((title, views))
    width, gap, line = parts[0][1][0].width, 10, 34
    height = line + sum(view.height + gap for view in parts[0][1]) - gap
    picture = Image.new("RGB", (len(parts) * (width + gap) - gap, height), BACKGROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=18)
    for number, (title, views) in enumerate(parts):
        left, top = number * (width + gap), line
        pen.text((left + 8, 8), title, font=font, fill=TEXT)
        for view in views:
            picture.paste(view, (left, top))
            top += view.height + gap
    return picture


if __name__ == "__main__":
    main()
