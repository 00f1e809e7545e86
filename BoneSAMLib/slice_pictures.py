"""Pictures of a scan's slices with the bones outlined, turned as radiologists look at them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from BoneSAMLib.drawn_text import FAINT, label
from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, distinct_color

__all__ = ["SlicePictures", "Window", "thumbnail"]

# Everything is drawn at this multiple and reduced at the end, for smooth outlines.
_OVERSAMPLING = 2
_FILL_OPACITY = 0.14
# A tile shows the bones with this margin: enough to see what lies beside them.
_MARGIN_MM, _MARGIN_PART = 10.0, 0.15
_FLATTEST = 0.6


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
    pictures = SlicePictures(volume, labels, segments)
    if index is None:
        occupied = pictures.occupied_slices() or [volume.size[pictures.axis] // 2]
        index = max(occupied, key=lambda one: np.count_nonzero(pictures.turned(labels, one)))
    return pictures.tile(index, pictures.window(), long_side)


@dataclass(frozen=True)
class Window:
    """Part of a slice as displayed: rows and columns, end excluded."""

    top: int
    bottom: int
    left: int
    right: int


class SlicePictures:
    """Draws slices across an IJK axis (None: the through-plane one), turned as radiologists look at them."""

    def __init__(
        self,
        volume: Volume,
        labels: NDArray[Any],
        segments: Sequence[SegmentInfo],
        axis: int | None = None,
    ) -> None:
        volume.check_same_shape(labels)
        self.volume = volume
        self.labels = labels
        self.segments = {segment.value: segment for segment in segments}
        self.axis = volume.through_plane_axis if axis is None else axis
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
        """Name and color of a label."""
        return self.segments.get(value) or SegmentInfo(value, f"Bone {value}", distinct_color(value))

    def occupied_slices(self) -> list[int]:
        """Indices along the axis of the slices that hold a label."""
        others = tuple(axis for axis in range(3) if axis != 2 - self.axis)
        return [int(index) for index in np.flatnonzero(self.labels.any(axis=others))]

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

    def window(self, value: int | None = None, flattest: float = _FLATTEST) -> Window:
        """Where the bones (or one bone) are, on any slice, with a margin.

        The short side is at least `flattest` times the long one, as far as the scan reaches.
        """
        mask = self.labels > 0 if value is None else self.labels == value
        shadow = self.turned(np.any(mask, axis=2 - self.axis, keepdims=True), 0)
        height, width = shadow.shape
        if not shadow.any():
            return Window(0, height, 0, width)
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
        return Window(top, bottom, left, right)

    def tile_size(self, window: Window, long_side: int) -> tuple[int, int]:
        """Width and height in pixels of the picture, true to the millimeters."""
        height = (window.bottom - window.top) * self.pixel_size[0]
        width = (window.right - window.left) * self.pixel_size[1]
        scale = long_side / max(height, width)
        return max(32, round(width * scale)), max(32, round(height * scale))

    def tile(self, index: int, window: Window, long_side: int, meant: int | None = None) -> Image.Image:
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
            label(draw, (6, 4), f"{'ijk'[self.axis]} {index}", 14, "la")
        if self.top_letter:
            label(draw, (size[0] / 2, 3), self.top_letter, 12, "ma", FAINT)
            label(draw, (5, size[1] / 2), self.left_letter, 12, "lm", FAINT)
        return image


def _enlarged(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask with a smooth border, `size` wide and high."""
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
