"""The report: what the page says, and that it stands alone."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.report import ReportedBone, write_report
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import distinct_color
from Testing.lib.ball_scan import ball, scan


def bone(value=1, **options):
    return ReportedBone(
        value, f"Bone {value}", distinct_color(value), 0.91, "box RAS (1, 2, 3) to (4, 5, 6) mm", **options
    )


class Page(HTMLParser):
    """Collects the text, the pictures and whatever else the page would load; checks that tags are closed."""

    def __init__(self, content):
        super().__init__()
        self.words, self.pictures, self.links, self.open = [], [], [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        for name, value in attributes:
            if name == "src":
                self.pictures.append(value)
            elif name in ("href", "srcset", "data"):
                self.links.append(value)
        assert tag not in ("script", "link", "iframe", "object")

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def test_page_stands_alone_and_says_everything(tmp_path):
    confidence = {index: 0.95 - 0.02 * index for index in range(5, 25)}
    bones = [bone(slice_confidence=confidence, review=[24, 23, 22, 21, 20])]
    path = tmp_path / "report é.html"
    write_report(path, scan(), ball(), bones, {"Computed on": "cpu <fast>"})
    content = path.read_text("utf-8")
    page = Page(content)
    assert page.links == []
    assert re.search(r"url\(|@import|http", content) is None
    assert len(page.pictures) == 4 + 1  # the worst four slices and the overview
    for source in page.pictures:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == "PNG"
    for words in (
        "knee.nii.gz", "Bone 1", "0.91", "box RAS (1, 2, 3) to (4, 5, 6) mm", "24, 23, 22, 21, 20", "k 24",
        "0.47", "50 x 60 x 30", "1 x 1 x 3 mm", "i: L, j: P, k: S",
        "R -49.5 to 0.5", "cpu <fast>", "not for diagnosis",
    ):  # fmt: skip
        assert words in page.text
    milliliters = ball().sum() * 3 / 1000
    assert f"{milliliters:.1f}" in page.text
    assert "prefers-color-scheme: dark" in content


def test_names_are_escaped(tmp_path):
    made = Volume(scan().array, scan().ijk_to_ras, "<script>alert(1)</script>.nii", "MR")
    hostile = ReportedBone(1, '<img src="x">', (1.0, 0.2, 0.2), 0.5, "<b>", {6: 0.5}, [6])
    write_report(tmp_path / "report.html", made, ball(), [hostile])
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert all(source.startswith("data:") for source in page.pictures)


def test_worst_slices_of_all_bones_come_first(tmp_path):
    labels = ball() + ball(value=2, first=26, last=29)
    bones = [
        bone(1, slice_confidence={10: 0.8, 11: 0.9}, review=[10, 11]),
        bone(2, slice_confidence={27: 0.4, 28: 0.85}, review=[27, 28]),
    ]
    write_report(tmp_path / "report.html", scan(), labels, bones)
    text = Page((tmp_path / "report.html").read_text("utf-8")).text
    places = [text.index(f"Bone {value}, k {index}") for value, index in ((2, 27), (1, 10), (2, 28), (1, 11))]
    assert places == sorted(places)


def test_slices_along_another_axis_are_pictured_along_it(tmp_path):
    """A 2D box that was drawn across it: index 30 lies beyond the end of the through-plane axis."""
    volume = Volume(np.zeros((8, 40, 12), np.int16), np.diag([1.0, 1.0, 4.0, 1.0]), modality="CT")
    labels = np.zeros(volume.shape, np.uint8)
    labels[2:6, 25:35, 3:9] = 1
    across = bone(slice_confidence={30: 0.4}, review=[30], axis=1)
    write_report(tmp_path / "r.html", volume, labels, [across])
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "j 30" in page.text
    assert len(page.pictures) == 2


def test_a_radiograph_has_pixels_and_no_slices(tmp_path):
    made = Volume(np.zeros((1, 100, 80), np.uint8), np.diag([-0.5, -0.5, 1.0, 1.0]))
    labels = np.zeros((1, 100, 80), np.uint8)
    labels[0, 20:60, 30:40] = 1
    write_report(tmp_path / "report.html", made, labels, [bone(slice_confidence={0: 0.9}, review=[0])])
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert "Pixels" in page.text
    assert " 400 " in page.text
    assert "review" not in page.text
    assert len(page.pictures) == 1


def test_an_empty_mask_still_gives_a_page(tmp_path):
    write_report(tmp_path / "report.html", scan(), np.zeros((30, 60, 50), np.uint8), [])
    assert "No bone was found" in (tmp_path / "report.html").read_text("utf-8")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BoneSAMError, match="no folder"):
        write_report(tmp_path / "nowhere" / "report.html", scan(), ball(), [bone()])


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(BoneSAMError, match="disk is full"):
        write_report(tmp_path / "report.html", scan(), ball(), [bone()])
    assert list(tmp_path.iterdir()) == []
