"""Pictures of results: upright, square in mm, and with every outline where it belongs."""

import numpy as np
import pytest
from PIL import Image

from BoneSAMLib.prompts import Box
from BoneSAMLib.volume import Volume
from training.contact_sheet import (
    BOX_COLOR,
    CAPTION_PIXELS,
    GREEN,
    PREDICTION_COLORS,
    Drawn,
    draw_case,
    write_sheet,
)


def affine(directions, spacing):
    """An affine whose i, j, k axes run along the named directions of the body."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis, (letter, length) in enumerate(zip(directions, spacing, strict=True)):
        row, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[letter]
        matrix[row, axis] = sign * length
    return matrix


def where(picture, color):
    """Mean (x, y) of the pixels of one color."""
    rows, columns = np.nonzero((np.asarray(picture) == color).all(axis=-1))
    return columns.mean(), rows.mean()


def drawn_at(shape, center_kji, **prediction_shift):
    truth = np.zeros(shape, dtype=bool)
    k, j, i = center_kji
    truth[k - 3 : k + 4, j - 3 : j + 4, i - 3 : i + 4] = True
    box = Box.from_ijk((i - 8, j - 8, k - 8), (i + 8, j + 8, k + 8))
    return Drawn("femur", truth, np.roll(truth, **prediction_shift), box, 0.5)


@pytest.mark.parametrize(
    ("directions", "spacing", "shift", "moves"),
    [
        ("LPS", (1, 1, 4), {"shift": 5, "axis": 2}, "right"),  # axial: to the patient's left
        ("LPS", (1, 1, 4), {"shift": 5, "axis": 1}, "down"),  # to the back
        ("RAS", (1, 1, 4), {"shift": 5, "axis": 2}, "left"),
        ("RAS", (1, 1, 4), {"shift": 5, "axis": 1}, "up"),
        ("LIP", (1, 1, 4), {"shift": 5, "axis": 1}, "down"),  # coronal: to the feet
        ("LSP", (1, 1, 4), {"shift": 5, "axis": 1}, "up"),
        ("PIR", (1, 1, 4), {"shift": 5, "axis": 2}, "right"),  # sagittal: to the back
        ("SAR", (1, 1, 4), {"shift": 5, "axis": 2}, "up"),  # transposed
        ("RPS", (4, 1, 1), {"shift": 5, "axis": 0}, "up"),  # sagittal, stacked along i
    ],
)
def test_pictures_are_upright(directions, spacing, shift, moves):
    volume = Volume(np.random.default_rng(0).random((40, 40, 40)), affine(directions, spacing), "a", "MR")
    picture = draw_case("a", volume, [drawn_at(volume.shape, (20, 20, 20), **shift)])
    truth, prediction = where(picture, GREEN), where(picture, PREDICTION_COLORS[0])
    dx, dy = prediction[0] - truth[0], prediction[1] - truth[1]
    main = {"right": dx, "left": -dx, "down": dy, "up": -dy}[moves]
    assert main > 10
    assert main > 2 * min(abs(dx), abs(dy))


def test_pixels_are_square_in_millimetres():
    volume = Volume(np.random.default_rng(0).random((40, 40, 40)), affine("LPS", (0.5, 2, 5)), "a", "MR")
    picture = np.asarray(draw_case("a", volume, [drawn_at(volume.shape, (20, 20, 20), shift=0, axis=0)]))
    rows, columns = np.nonzero((picture == BOX_COLOR).all(axis=-1))
    first_panel = columns < picture.shape[1] / 3
    height = np.ptp(rows[first_panel])
    width = np.ptp(columns[first_panel])
    assert height / width == pytest.approx(4, rel=0.1)


def test_sheet_of_narrow_cases_uses_columns(tmp_path):
    volume = Volume(np.random.default_rng(0).random((1, 90, 40)), affine("LPS", (1, 1, 1)), "a", "X-ray")
    truth = np.zeros(volume.shape, dtype=bool)
    truth[0, 10:80, 10:30] = True
    bone = Drawn("metacarpal", truth, truth, Box.from_ijk((8, 8, 0), (32, 84, 0)), 1.0)
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.png")
        draw_case("hand", volume, [bone]).save(paths[-1])
    write_sheet("hand-xray, test", paths, tmp_path / "sheet.png")
    with Image.open(paths[0]) as case, Image.open(tmp_path / "sheet.png") as sheet:
        assert case.height > case.width - CAPTION_PIXELS
        assert sheet.width > 3 * case.width
        assert sheet.height < 4 * case.height
