"""Text in pictures: its colors, its font, and what fits into a width."""

import unicodedata

from PIL import ImageDraw, ImageFont

__all__ = ["FAINT", "TEXT", "fitted", "font", "label"]

TEXT, FAINT = (235, 236, 238), (150, 155, 162)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def fitted(text: str, size: int, room: float) -> str:
    """`text` in the letters of the font (ASCII), shortened in the middle until it fits `room` pixels."""
    parts = unicodedata.normalize("NFKD", text)
    whole = "".join(letter for letter in parts if not unicodedata.combining(letter))
    whole = whole.encode("ascii", "replace").decode()
    letters, kept = font(size), len(whole)
    shortened = whole
    while letters.getlength(shortened) > room and kept > 4:
        kept -= 1
        shortened = whole[: (kept + 1) // 2] + "..." + whole[len(whole) - kept // 2 :]
    return shortened


def label(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    anchor: str,
    color: tuple[int, int, int] = TEXT,
) -> None:
    """Write text that stays readable on any picture; `anchor` is Pillow's, its place in pixels (x, y)."""
    draw.text(place, text, color, font(size), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))
