"""Pictures of slices: what is shown, how it is turned, and where the outline runs."""

import numpy as np
import pytest

from BoneSAMLib.slice_pictures import SlicePictures, _outline
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo
from Testing.lib.ball_scan import ball, scan

RED = (1.0, 0.2, 0.2)


def drawn(pictures, index, **options):
    return np.asarray(pictures.tile(index, pictures.window(), 200, **options)).astype(int)


def colored(picture):
    return (picture.max(-1) - picture.min(-1)) > 60


def test_outline_follows_the_mask():
    made, labels = scan(), ball()
    pictures = SlicePictures(made, labels, [SegmentInfo(1, "a", RED)])
    window = pictures.window()
    picture = drawn(pictures, 15)
    rows, _ = np.nonzero(colored(picture))
    millimeters = (window.bottom - window.top) / picture.shape[0]
    assert window.top + rows.min() * millimeters == pytest.approx(30 - 9, abs=1.5)
    assert window.top + rows.max() * millimeters == pytest.approx(30 + 9, abs=1.5)
    center = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert 5 < center[0] - center[2] < 60  # a tint, through which the scan is seen
    assert not colored(drawn(SlicePictures(made, np.zeros_like(labels), []), 15)).any()


def test_pixels_are_shown_in_their_true_proportion():
    pictures = SlicePictures(scan(spacing=(0.5, 2.0, 3.0)), np.zeros((30, 60, 50), np.uint8), [])
    width, height = pictures.tile_size(pictures.window(), 400)
    assert height / width == pytest.approx(60 * 2.0 / (50 * 0.5), rel=0.03)


def test_pictures_show_the_part_around_the_bones():
    window = SlicePictures(scan(), ball(), []).window()
    assert window.top in range(8, 13)
    assert window.bottom in range(48, 53)
    small = np.zeros((30, 60, 50), np.uint8)
    small[15, 30, 5:45] = 1  # long and flat
    window = SlicePictures(scan(), small, []).window()
    height, width = window.bottom - window.top, window.right - window.left
    assert height >= 0.58 * width


@pytest.mark.parametrize(
    ("directions", "left", "top"),
    [
        (np.diag([-1, -1, 1]), "R", "A"),
        (np.diag([1, 1, 1]), "R", "A"),
        (np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]), "R", "S"),  # coronal
        (np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), "A", "S"),  # sagittal
        (np.array([[0, -1, 0], [-1, 0, 0], [0, 0, 1]]), "R", "A"),  # rows and columns swapped
    ],
)
def test_every_orientation_is_turned_to_the_radiologists_view(directions, left, top):
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array([1.0, 1.0, 4.0])
    made = Volume(np.zeros((5, 20, 30), np.uint8), affine, modality="MR")
    pictures = SlicePictures(made, np.zeros((5, 20, 30), np.uint8), [])
    assert (pictures.left_letter, pictures.top_letter) == (left, top)
    k, j, i = np.indices(made.shape)
    ras = np.stack([i, j, k], -1) @ affine[:3, :3].T
    to_left = {"R": ras[..., 0], "A": ras[..., 1]}[left]
    to_top = {"A": ras[..., 1], "S": ras[..., 2]}[top]
    assert (np.diff(pictures.turned(to_left, 2), axis=1) < 0).all()
    assert (np.diff(pictures.turned(to_top, 2), axis=0) < 0).all()


def test_radiograph_is_shown_as_stored():
    array = np.arange(600, dtype=np.uint16).reshape(1, 20, 30)
    made = Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]))
    pictures = SlicePictures(made, np.zeros_like(array), [])
    assert np.array_equal(pictures.turned(array, 0), array[0])
    assert pictures.left_letter == pictures.top_letter == ""


def test_slices_through_another_axis():
    labels = np.zeros((40, 45, 50), np.uint8)
    labels[10:30, 15:25, 20:23] = 4
    made = Volume(np.zeros((40, 45, 50), np.int16), np.diag([4.0, 1.0, 1.0, 1.0]))
    assert made.through_plane_axis == 0
    assert SlicePictures(made, labels, []).occupied_slices() == [20, 21, 22]


def test_outline_touching_the_border_is_closed():
    border = _outline(np.ones((20, 30), bool))
    assert border[0].all()
    assert border[-1].all()
    assert border[:, 0].all()
    assert not border[5:-5, 5:-5].any()
