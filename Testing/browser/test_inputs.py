"""Every kind of scan from the browser to a mask, and every kind of bad input to a sentence."""

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("trame_slicer", reason="needs the extra web: run make test")

from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000

from Testing.browser.block_scans import write_block, write_picture
from Testing.browser.site import Scan, dice, on_grid
from Testing.lib.batch_scans import write_series

pytestmark = pytest.mark.long


def segment(page, scan, tag, tool="box"):
    """Draw a box around the bone, accept the mask; returns the downloaded one on the scan's grid."""
    low, high, middle = scan.corners()
    page.go_to(tag, middle)
    page.draw_box(tag, low, high, tool).wait_for_mask()
    page.screenshot(f"input {scan.path.name}")
    page.act("accept").wait_for(lambda: page.panel["segments"], "a segment")
    return page


@pytest.mark.parametrize("geometry", ["straight", "oblique"])
def test_a_volume_as_a_file(shared_page, tmp_path, geometry):
    path = tmp_path / f"{geometry}.nrrd"
    scan = Scan(path, write_block(path, geometry))
    page = shared_page.send(path).wait_for_scan(path.name)
    assert "CT, 40 x 36 x 30" in page.value("scan")["details"]
    segment(page, scan, "Red" if geometry == "straight" else "Yellow")
    found = on_grid(page.download("nii.gz", tmp_path), scan.volume, 1)
    assert dice(found, scan.mask) > 0.85
    assert page.note == ""


def test_a_dicom_folder(shared_page, tmp_path):
    folder = write_series(tmp_path / "series", count=7)
    volume = Scan(folder, None).volume
    mask = np.zeros(volume.shape, bool)
    mask[1:-1, 6:18, 5:15] = True
    page = shared_page.send_folder(folder).wait_for_scan()
    page.wait_for(lambda: page.value("scan")["details"].startswith("CT, 20 x 24 x 7"), "the series")
    segment(page, Scan(folder, mask), "Red")
    assert dice(on_grid(page.download("nii.gz", tmp_path), volume, 1), mask) > 0.75


def test_a_radiograph_fills_the_page(shared_page, tmp_path):
    path = tmp_path / "leg.png"
    scan = Scan(path, write_picture(path))
    page = shared_page.send(path).wait_for_scan("leg.png")
    assert page.value("scan")["flat"]
    assert page.value("layout") == "Red"
    segment(page, scan, "Red")
    assert dice(on_grid(page.download("nii.gz", tmp_path), scan.volume, 1), scan.mask) > 0.85
    page.page.click('[data-view="Red"] .enlarge')
    page.wait_for(lambda: page.value("layout") == "quad", "all views")


def test_two_series_in_one_folder_ask_which(shared_page, tmp_path):
    write_series(tmp_path / "both" / "a", number=3, count=5, SeriesDescription="Bone kernel")
    write_series(tmp_path / "both" / "b", number=4, count=7, SeriesDescription="Soft tissue")
    page = shared_page.send_folder(tmp_path / "both")
    page.wait_for(lambda: page.value("choices"), "the question")
    titles = {one["title"]: one["details"] for one in page.value("choices")}
    assert titles == {"Bone kernel": "series 3, CT, 5 images", "Soft tissue": "series 4, CT, 7 images"}
    page.screenshot("input two series")
    page.page.click(".choices >> text=Soft tissue")  # a window of CT is called so, too
    page.wait_for(lambda: page.value("scan")["name"] == "Soft tissue", "the chosen series")
    assert "20 x 24 x 7" in page.value("scan")["details"]
    assert page.value("choices") == []


def test_another_scan_asks_before_it_takes_the_place_of_segments(shared_page, tmp_path):
    first, second = (tmp_path / name for name in ("first.nrrd", "second.nrrd"))
    scan = Scan(first, write_block(first))
    write_block(second)
    page = shared_page.send(first).wait_for_scan("first.nrrd")
    segment(page, scan, "Red")
    page.page.set_input_files("#bonesam-files", str(second))
    page.wait_for(lambda: page.value("choices"), "the question")
    assert "download them first" in page.page.inner_text("[data-loss]")
    page.screenshot("input another scan")
    page.page.click(".dialog > button")
    page.wait_for(lambda: not page.value("choices"), "no question")
    assert page.value("scan")["name"] == "first.nrrd"
    assert len(page.panel["segments"]) == 1
    page.send(second).wait_for_scan("second.nrrd")
    assert page.panel["segments"] == []


def bad_file(name, folder):
    path = folder / name
    if name == "letter.txt":
        path.write_text("Dear colleague, thank you for the referral.")
    elif name == "empty.nii.gz":
        path.touch()
    elif name == "cut off.nii.gz":
        write_block(folder / "whole.nii.gz")
        path.write_bytes((folder / "whole.nii.gz").read_bytes()[:9000])
    elif name == "color.png":
        sitk.WriteImage(
            sitk.GetImageFromArray(
                np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8), isVector=True
            ),
            str(path),
        )
    elif name == "damaged.dcm":
        source = next(write_series(folder / "s", count=1).iterdir())
        path.write_bytes(source.read_bytes()[:300])
    elif name == "compressed.dcm":
        source = next(write_series(folder / "s", count=1).iterdir())
        _claim(source, path, JPEG2000)
    elif name == "unknown syntax.dcm":
        source = next(write_series(folder / "s", count=1).iterdir())
        _claim(source, path, "1.2.840.10008.1.2.4.106")  # JPIP: the pixels are on a server
    return path


def _claim(source, path, syntax):
    import pydicom

    dataset = pydicom.dcmread(source)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].is_undefined_length = True
    dataset.PixelData = encapsulate([b"abcd"])
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("letter.txt", "is no scan that BoneSAM knows"),
        ("empty.nii.gz", "is empty"),
        ("cut off.nii.gz", "cut off.nii.gz"),
        ("color.png", "color"),
        ("damaged.dcm", "damaged"),
        ("compressed.dcm", "cannot be read"),
        ("unknown syntax.dcm", "cannot be read"),
    ],
)
def test_bad_input_gets_a_sentence_and_changes_nothing(shared_page, tmp_path, name, said):
    page = shared_page
    page.page.evaluate("() => window.trame.trigger('dismiss')")
    page.wait_for(lambda: not page.note, "no message")
    before = page.value("scan"), page.panel["segments"]
    note = page.send(bad_file(name, tmp_path)).wait_for_note()
    assert said in note
    # Where files lie on the server is not the visitor's business.
    assert not re.search(r"(^|[\s'\"(])/\w", note)
    assert (page.value("scan"), page.panel["segments"]) == before
    assert not page.value("opening")


def test_too_large_is_said_before_anything_is_sent(shared_page, tmp_path):
    path = tmp_path / "huge.nii"
    path.write_bytes(bytes(3_500_000))
    note = shared_page.send(path).wait_for_note()
    assert "4 MB large" in note
    assert "3 MB at once" in note


def test_and_refused_if_a_page_sends_it_all_the_same(shared_page):
    answer = shared_page.page.evaluate(
        """async () => {
            const form = new FormData();
            form.append("file", new Blob([new Uint8Array(3500000)]), "huge.nii");
            const answer = await fetch("upload", {method: "POST", body: form});
            return [answer.status, (await answer.json()).error];
        }"""
    )
    assert answer[0] == 400
    assert "3 MB" in answer[1]


def test_a_name_cannot_leave_the_visitors_folder(shared_page, tmp_path):
    path = tmp_path / "block.nrrd"
    write_block(path)
    answer = shared_page.page.evaluate(
        """async (bytes) => {
            const form = new FormData();
            form.append("file", new Blob([new Uint8Array(bytes)]), "../../escaped.nrrd");
            return (await fetch("upload", {method: "POST", body: form})).status;
        }""",
        list(path.read_bytes()),
    )
    assert answer == 200
    shared_page.wait_for_scan("escaped.nrrd")
    assert not list(Path(tempfile.gettempdir()).glob("escaped.nrrd"))  # where the visitors' folders lie
    assert shared_page.page.evaluate("async () => (await fetch('download/../../etc/passwd')).status") in (
        404,
        410,
    )
    for address in (
        "bonesam/../../../../etc/passwd",
        "bonesam/%2e%2e/%2e%2e/viewer.py",
        "icons/..%2f..%2f..%2fREADME.md",
    ):
        status = shared_page.page.evaluate("async address => (await fetch(address)).status", address)
        assert status in (403, 404, 410), address
