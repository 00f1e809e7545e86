"""Random training samples on one sheet, to be looked at: ``python -m training.synthesis.gallery``.

A row of three pictures per sample: its two slices, and the plane of its cube that holds the first slice. The
target is outlined in red, the box (in 3D where it cuts the slice) in green, the cube's other bones yellow;
what the annotation leaves unknown is blue.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from BoneSAMLib.model.prompt_encoder import INPUT_SIZE
from training.sampling import ALL_BONES, ANYTHING, OBJECT, UNKNOWN, Mixture, draw_sample
from training.store import load_subjects

RED, GREEN, YELLOW, BLUE = (255, 60, 60), (60, 255, 60), (255, 220, 60), (40, 90, 255)
MODES = {OBJECT: "bone", ALL_BONES: "all bones", ANYTHING: "anything"}
SLICE_SIZE = 192
CAPTION_PIXELS, GAP_PIXELS = 14, 6
COLUMNS = 3

Pixels = NDArray[np.uint8]


def draw_pictures(sample: dict[str, Any]) -> Image.Image:
    """The two slices and the cube's plane of one sample of training.sampling, under a caption."""
    pictures = [_slice_picture(sample, index) for index in range(2)] + [_cube_picture(sample)]
    size = pictures[0].width
    sheet = Image.new("RGB", (3 * size, size + CAPTION_PIXELS))
    caption = MODES[sample["mode"]]
    if sample["mode"] != ALL_BONES:
        caption += ", box on the first slice" if sample["flat"] else ", box in 3D"
    ImageDraw.Draw(sheet).text((2, 1), caption, fill=(235, 235, 235))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index * size, CAPTION_PIXELS))
    return sheet


def _slice_picture(sample: dict[str, Any], index: int) -> Image.Image:
    pixels = _gray(sample["slices"][index, 1])
    _tint(pixels, sample["weight"][index] == 0)
    _outline(pixels, sample["target"][index] == 1, RED)
    picture = Image.fromarray(pixels)
    box, depth = sample["box"], sample["depths"][index]
    cut = index == 0 if sample["flat"] else box[2] <= depth <= box[5]
    if cut and sample["mode"] != ALL_BONES:
        corners = box[[0, 1, 3, 4]] * (picture.width / INPUT_SIZE)
        ImageDraw.Draw(picture).rectangle([float(corner) for corner in corners], outline=GREEN)
    return picture


def _cube_picture(sample: dict[str, Any]) -> Image.Image:
    size = sample["slices"].shape[-1]
    if not sample["has_cube"]:
        return Image.new("RGB", (size, size))
    plane = int(np.clip(np.rint(sample["cube_plane"][0]), 0, len(sample["cube"]) - 1))
    pixels, bone, target = (
        np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.NEAREST)).copy()
        for array in (_gray(sample["cube"][plane]), sample["cube_bone"][plane], sample["cube_target"][plane])
    )
    _tint(pixels, bone == UNKNOWN)
    _outline(pixels, bone == 1, YELLOW)
    _outline(pixels, target == 1, RED)
    return Image.fromarray(pixels)


def _gray(values: NDArray[np.floating]) -> Pixels:
    return np.repeat(np.rint(values.astype(np.float32) * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _outline(pixels: Pixels, mask: NDArray[np.bool_], color: tuple[int, int, int]) -> None:
    pixels[mask & ~ndimage.binary_erosion(mask, border_value=1)] = color


def _tint(pixels: Pixels, mask: NDArray[np.bool_]) -> None:
    pixels[mask] = (0.75 * pixels[mask] + 0.25 * np.array(BLUE)).astype(np.uint8)


def main(
    store: Annotated[Path, typer.Option(help="Training store.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Picture to write (PNG).")],
    seed: Annotated[int, typer.Option(help="Other seeds draw other samples.")] = 0,
    count: Annotated[int, typer.Option(help="How many samples.", min=1)] = 48,
) -> None:
    """Draw random training samples and put them on one sheet."""
    rng = np.random.default_rng(seed)
    subjects = load_subjects(store, "train")
    sheet = Image.new("RGB", (1, 1))
    for number in range(count):
        picture = draw_pictures(draw_sample(subjects, Mixture(), SLICE_SIZE, True, rng))
        width, height = picture.width + GAP_PIXELS, picture.height + GAP_PIXELS
        if number == 0:
            size = (min(count, COLUMNS) * width, -(-count // COLUMNS) * height)
            sheet = Image.new("RGB", size, (60, 60, 70))
        sheet.paste(picture, (number % COLUMNS * width, number // COLUMNS * height))
    sheet.save(out)


if __name__ == "__main__":
    typer.run(main)
