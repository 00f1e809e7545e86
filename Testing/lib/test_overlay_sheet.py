"""The contact sheet: which slices it shows, that everything fits, and that it stays small in memory."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from BoneSAMLib.drawn_text import fitted
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.overlay_sheet import _description, contact_sheet, overlay_sheet
from BoneSAMLib.slice_pictures import SlicePictures
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo
from Testing.lib.ball_scan import ball, scan

RED, BLUE = (1.0, 0.2, 0.2), (0.3, 0.6, 1.0)


def test_sheet_is_a_readable_png(tmp_path):
    path = tmp_path / "overlay of é.png"
    overlay_sheet(scan(), ball(), path, [SegmentInfo(1, "Left fibula", RED)])
    image = Image.open(path)
    assert image.format == "PNG"
    assert image.mode == "RGB"
    assert 600 < image.width < 2400
    assert 400 < image.height < 2400
    assert (np.ptp(np.asarray(image).astype(int), axis=-1) > 60).sum() > 1000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_only_slices_with_bone_evenly_and_at_most_24(monkeypatch):
    shown = []
    original = SlicePictures.tile

    def record(self, index, *arguments):
        shown.append(index)
        return original(self, index, *arguments)

    monkeypatch.setattr(SlicePictures, "tile", record)
    contact_sheet(SlicePictures(scan(), ball(), []))
    assert shown == list(range(5, 25))
    shown.clear()
    tall = (100, 60, 50)
    contact_sheet(SlicePictures(scan(tall), ball(tall, first=10, last=90), []))
    assert len(shown) == 24
    assert (shown[0], shown[-1]) == (10, 89)
    assert set(np.diff(shown)) <= {3, 4}


def test_a_radiograph_is_described_in_pixels():
    array = np.arange(600, dtype=np.uint16).reshape(1, 20, 30)
    made = Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert "30 x 20 pixels" in _description(SlicePictures(made, np.zeros_like(array), []))


def test_an_empty_mask_still_gives_a_sheet(tmp_path):
    overlay_sheet(scan(), np.zeros((30, 60, 50), np.uint8), tmp_path / "overlay.png")
    assert Image.open(tmp_path / "overlay.png").width > 600


def test_many_bones_and_long_names(tmp_path):
    labels = np.zeros((30, 60, 50), np.uint16)
    labels[4:20, :, ::2] = np.arange(1, 26)
    segments = [
        SegmentInfo(n, f"Bone with a very long name that does not fit anywhere, number {n}", BLUE)
        for n in range(1, 26)
    ]
    overlay_sheet(scan(), labels, tmp_path / "overlay.png", segments)
    assert Image.open(tmp_path / "overlay.png").width < 2400


def test_constant_scan(tmp_path):
    made = Volume(np.zeros((4, 20, 20), np.uint8), np.eye(4), modality="MR")
    overlay_sheet(made, np.ones((4, 20, 20), np.uint8), tmp_path / "overlay.png")


def test_foreign_letters_are_spelled_with_what_the_font_has():
    assert fitted("Fémur 骨 Knöchel", 13, 500) == "Femur ? Knochel"
    assert fitted("a" * 200, 13, 100).count(".") == 3


def test_bad_input(tmp_path):
    with pytest.raises(BoneSAMError, match="shape"):
        overlay_sheet(scan(), ball()[1:], tmp_path / "overlay.png")
    with pytest.raises(BoneSAMError, match="no folder"):
        overlay_sheet(scan(), ball(), tmp_path / "nowhere" / "overlay.png")


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(BoneSAMError, match="disk is full"):
        overlay_sheet(scan(), ball(), tmp_path / "overlay.png")
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_in_proportion(tmp_path):
    shape = (60, 200, 200)
    made, labels = scan(shape), ball(shape, first=5, last=55)
    tracemalloc.start()
    overlay_sheet(made, labels, tmp_path / "overlay.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20  # pictures, and single bytes for the voxels
