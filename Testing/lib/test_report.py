"""Contact sheet and report: what is shown, how it is turned, and that the page stands alone."""

import base64
import io
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from BoneSAMLib import report
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.report import ReportedBone, overlay_sheet, write_report
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, distinct_color

RED, BLUE = (1.0, 0.2, 0.2), (0.3, 0.6, 1.0)


def scan(shape=(30, 60, 50), spacing=(1.0, 1.0, 3.0), modality="MR"):
    k, j, i = np.indices(shape)
    array = (100 + 40 * np.sin(i / 5) + 30 * np.cos(j / 7) + k).astype(np.int16)
    return Volume(array, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), "knee.nii.gz", modality)


def ball(shape=(30, 60, 50), value=1, first=5, last=25):
    _, j, i = np.indices(shape)
    labels = (np.hypot(j - shape[1] / 2, i - shape[2] / 2) < 9).astype(np.uint8) * value
    labels[:first] = labels[last:] = 0
    return labels


def bone(value=1, **options):
    return ReportedBone(
        value, f"Bone {value}", distinct_color(value), 0.91, "box RAS (1, 2, 3) to (4, 5, 6) mm", **options
    )


def drawn(sheet, index, **options):
    return np.asarray(sheet.tile(index, sheet.window(), 200, **options)).astype(int)


def colored(picture):
    return (picture.max(-1) - picture.min(-1)) > 60


# ----------------------------------------------------------------------------------------------- sheet


def test_sheet_is_a_readable_png(tmp_path):
    path = tmp_path / "overlay of é.png"
    overlay_sheet(scan(), ball(), path, [SegmentInfo(1, "Left fibula", RED)])
    image = Image.open(path)
    assert image.format == "PNG"
    assert image.mode == "RGB"
    assert 600 < image.width < 2400
    assert 400 < image.height < 2400
    assert colored(np.asarray(image).astype(int)).sum() > 1000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_only_slices_with_bone_evenly_and_at_most_24(monkeypatch):
    shown = []
    original = report._Sheet.tile

    def record(self, index, *arguments):
        shown.append(index)
        return original(self, index, *arguments)

    monkeypatch.setattr(report._Sheet, "tile", record)
    report._Sheet(scan(), ball(), []).contact_sheet()
    assert shown == list(range(5, 25))
    shown.clear()
    tall = (100, 60, 50)
    report._Sheet(scan(tall), ball(tall, first=10, last=90), []).contact_sheet()
    assert len(shown) == 24
    assert (shown[0], shown[-1]) == (10, 89)
    assert set(np.diff(shown)) <= {3, 4}


def test_outline_follows_the_mask():
    made, labels = scan(), ball()
    sheet = report._Sheet(made, labels, [SegmentInfo(1, "a", RED)])
    window = sheet.window()
    picture = drawn(sheet, 15)
    rows, _ = np.nonzero(colored(picture))
    millimeters = (window.bottom - window.top) / picture.shape[0]
    assert window.top + rows.min() * millimeters == pytest.approx(30 - 9, abs=1.5)
    assert window.top + rows.max() * millimeters == pytest.approx(30 + 9, abs=1.5)
    center = picture[picture.shape[0] // 2, picture.shape[1] // 2]
    assert 5 < center[0] - center[2] < 60  # a tint, through which the scan is seen
    assert not colored(drawn(report._Sheet(made, np.zeros_like(labels), []), 15)).any()


def test_pixels_are_shown_in_their_true_proportion():
    sheet = report._Sheet(scan(spacing=(0.5, 2.0, 3.0)), np.zeros((30, 60, 50), np.uint8), [])
    width, height = sheet.tile_size(sheet.window(), 400)
    assert height / width == pytest.approx(60 * 2.0 / (50 * 0.5), rel=0.03)


def test_pictures_show_the_part_around_the_bones():
    window = report._Sheet(scan(), ball(), []).window()
    assert window.top in range(8, 13)
    assert window.bottom in range(48, 53)
    small = np.zeros((30, 60, 50), np.uint8)
    small[15, 30, 5:45] = 1  # long and flat
    window = report._Sheet(scan(), small, []).window()
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
    sheet = report._Sheet(made, np.zeros((5, 20, 30), np.uint8), [])
    assert (sheet.left_letter, sheet.top_letter) == (left, top)
    k, j, i = np.indices(made.shape)
    ras = np.stack([i, j, k], -1) @ affine[:3, :3].T
    to_left = {"R": ras[..., 0], "A": ras[..., 1]}[left]
    to_top = {"A": ras[..., 1], "S": ras[..., 2]}[top]
    assert (np.diff(sheet.turned(to_left, 2), axis=1) < 0).all()
    assert (np.diff(sheet.turned(to_top, 2), axis=0) < 0).all()


def test_radiograph_is_shown_as_stored():
    array = np.arange(600, dtype=np.uint16).reshape(1, 20, 30)
    made = Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]))
    sheet = report._Sheet(made, np.zeros_like(array), [])
    assert np.array_equal(sheet.turned(array, 0), array[0])
    assert sheet.left_letter == sheet.top_letter == ""
    assert "30 x 20 pixels" in sheet._description()


def test_slices_through_another_axis():
    labels = np.zeros((40, 45, 50), np.uint8)
    labels[10:30, 15:25, 20:23] = 4
    made = Volume(np.zeros((40, 45, 50), np.int16), np.diag([4.0, 1.0, 1.0, 1.0]))
    assert made.through_plane_axis == 0
    assert report._Sheet(made, labels, []).occupied_slices() == [20, 21, 22]


def test_an_empty_mask_still_gives_a_sheet_and_a_page(tmp_path):
    overlay_sheet(scan(), np.zeros((30, 60, 50), np.uint8), tmp_path / "overlay.png")
    assert Image.open(tmp_path / "overlay.png").width > 600
    write_report(tmp_path / "report.html", scan(), np.zeros((30, 60, 50), np.uint8), [])
    assert "No bone was found" in (tmp_path / "report.html").read_text("utf-8")


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
    assert report._fitted("Fémur 骨 Knöchel", 13, 500) == "Femur ? Knochel"
    assert report._fitted("a" * 200, 13, 100).count(".") == 3


def test_outline_touching_the_border_is_closed():
    border = report._outline(np.ones((20, 30), bool))
    assert border[0].all()
    assert border[-1].all()
    assert border[:, 0].all()
    assert not border[5:-5, 5:-5].any()


# ------------------------------------------------------------------------------------------------ page


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
    hostile = ReportedBone(1, '<img src="x">', RED, 0.5, "<b>", {6: 0.5}, [6])
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


def test_bad_input(tmp_path):
    with pytest.raises(BoneSAMError, match="shape"):
        overlay_sheet(scan(), ball()[1:], tmp_path / "overlay.png")
    with pytest.raises(BoneSAMError, match="no folder"):
        overlay_sheet(scan(), ball(), tmp_path / "nowhere" / "overlay.png")
    with pytest.raises(BoneSAMError, match="no folder"):
        write_report(tmp_path / "nowhere" / "report.html", scan(), ball(), [bone()])


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    for write in (
        lambda: overlay_sheet(scan(), ball(), tmp_path / "overlay.png"),
        lambda: write_report(tmp_path / "report.html", scan(), ball(), [bone()]),
    ):
        with pytest.raises(BoneSAMError, match="disk is full"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_in_proportion(tmp_path):
    shape = (60, 200, 200)
    made, labels = scan(shape), ball(shape, first=5, last=55)
    tracemalloc.start()
    overlay_sheet(made, labels, tmp_path / "overlay.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20  # pictures, and single bytes for the voxels
