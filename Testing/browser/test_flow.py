"""With a real mouse from a box to a saved file, on the sample and with the bundled weights."""

import time
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("trame_slicer", reason="needs the extra web: run make test")

from BoneSAMLib.writing import SegmentInfo, write_mask
from Testing.browser.block_scans import write_block
from Testing.browser.site import SAMPLES, Scan, Visit, dice, on_grid, sample, serving

pytestmark = pytest.mark.long

# Not how good the weights are, which the evaluation measures: only that the mask lies where the bone is.
LEAST_DICE = 0.4


def blue(picture):
    """Where the mask that is not accepted yet is drawn."""
    return picture[..., 2] - picture[..., 0] > 70


def wait_for_picture(page, tag, seen, what):
    """Until a view's picture is as it should be; returns it."""
    pictures = []

    def look():
        pictures.append(page.picture(tag))
        return seen(pictures[-1])

    page.wait_for(look, what)
    return pictures[-1]


def test_from_a_box_to_a_saved_file(chromium, tmp_path):
    right, left = (sample("hip_ct", f"{side} femur") for side in ("right", "left"))
    with serving(SAMPLES / "hip_ct.nii.gz", bright=False) as (address, process):
        page = Visit(chromium, address).wait_for_scan("hip_ct.nii.gz")
        low, high, middle = right.corners()
        page.go_to("Green", middle).screenshot("flow 1 opened")
        assert blue(page.picture("Green")).sum() < 20

        # A box, and the mask is seen inside of it.
        page.draw_box("Green", low, high)
        started = time.perf_counter()
        wait_for_picture(page, "Green", lambda picture: blue(picture).sum() > 200, "a mask in the view")
        drawn = time.perf_counter() - started
        page.wait_for_mask()
        waited = time.perf_counter() - started
        computed = page.panel["result"]
        print(
            f"\na mask is seen {drawn:.1f} s after the box, the whole bone after {waited:.1f} s ({computed})"
        )
        first = blue(page.settle(2).picture("Green"))
        rows, columns = np.nonzero(first)
        left_edge, top_edge, *_ = page.area("Green")
        ends = [page.pixel("Green", corner)[:2] for corner in (low, high)]
        (x_low, x_high), (y_low, y_high) = (sorted(end[n] for end in ends) for n in range(2))
        inside = (
            (columns > x_low - left_edge - 12)
            & (columns < x_high - left_edge + 12)
            & (rows > y_low - top_edge - 12)
            & (rows < y_high - top_edge + 12)
        )
        assert inside.mean() > 0.98
        assert page.panel["percent_sure"] > 0
        page.screenshot("flow 2 box")

        # A negative point takes something away; undo and redo lead back and forth.
        page.add_points("Green", _in_slice(right, middle), positive=False)
        page.wait_for(
            lambda: page.panel["enabled"].get("undo") and not page.panel["running"], "the correction"
        )
        page.wait_for_mask()
        wait_for_picture(page, "Green", lambda picture: (blue(picture) ^ first).sum() > 20, "another mask")
        corrected = blue(page.settle(1).picture("Green"))
        page.screenshot("flow 3 negative point")
        page.press("Control+z")
        wait_for_picture(page, "Green", lambda picture: (blue(picture) ^ first).sum() < 60, "the first mask")
        page.press("Control+y")
        wait_for_picture(page, "Green", lambda picture: (blue(picture) ^ corrected).sum() < 60, "the second")
        page.press("Control+z")
        wait_for_picture(page, "Green", lambda picture: (blue(picture) ^ first).sum() < 60, "the first again")

        # Accepted; the second bone with keys.
        page.page.fill('[data-test="name"]', "right femur")
        page.act("accept").wait_for(lambda: len(page.panel["segments"]) == 1, "the first segment")
        assert page.panel["segments"][0]["name"] == "right femur"
        low, high, middle = left.corners()
        page.go_to("Green", middle)
        page.press("b").wait_for(lambda: page.panel["tool"] == "box", "the box in hand")
        page.click("Green", low).click("Green", high).wait_for_mask()
        page.press("Shift+A").wait_for(lambda: len(page.panel["segments"]) == 2, "the second segment")
        page.settle(2).screenshot("flow 4 two bones")

        # Saved in three formats, which agree.
        saved = page.download("seg.nrrd", tmp_path)
        labels = page.download("nii.gz", tmp_path)
        surfaces = page.download("stl", tmp_path)
        assert saved.name == "hip_ct-bones.seg.nrrd"
        before = [on_grid(labels, right.volume, number) for number in (1, 2)]
        for found, scan in zip(before, (right, left), strict=True):
            assert dice(found, scan.mask) > LEAST_DICE
        header = sitk.ReadImage(str(saved))
        names = {header.GetMetaData(key) for key in header.GetMetaDataKeys() if key.endswith("_Name")}
        assert "right femur" in names
        np.testing.assert_array_equal(on_grid(saved, right.volume) > 0, before[0] | before[1])
        _check_surface(surfaces, right, before[0])

        # Removed, opened again from the saved file: the same voxels.
        for segment in page.panel["segments"]:
            page.page.click(f'[aria-label="Remove {segment["name"]}"]')
        page.wait_for(lambda: not page.panel["segments"], "no segment")
        page.send(saved).wait_for(lambda: len(page.panel["segments"]) == 2, "the saved segments")
        assert page.panel["segments"][0]["name"] == "right femur"
        again = page.download("nii.gz", tmp_path / "again")
        for number, mask in enumerate(before, 1):
            np.testing.assert_array_equal(on_grid(again, right.volume, number), mask)
        assert page.note == ""
        assert page.errors == []
        assert process.poll() is None
        page.close()


def _in_slice(bone, middle):
    """RAS of the voxel of a coronal slice that is most surrounded by the bone."""
    j = round(float((bone.volume.ras_to_ijk @ [*middle, 1.0])[1]))
    only = np.zeros_like(bone.mask)
    only[:, j - 1 : j + 2] = bone.mask[:, j : j + 1]
    return bone.deepest(only)


def _check_surface(archive, scan, mask):
    """The surface, in LPS mm, reaches as far as the mask."""
    with zipfile.ZipFile(archive) as files:
        assert "right_femur.stl" in files.namelist()
        content = files.read("right_femur.stl")
    count = int(np.frombuffer(content[80:84], "<u4")[0])
    triangles = np.frombuffer(
        content[84:], [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")]
    )
    assert len(triangles) == count > 100
    points = triangles["corners"].reshape(-1, 3) * [-1, -1, 1]
    voxels = np.argwhere(mask)[:, ::-1] @ scan.volume.ijk_to_ras[:3, :3].T + scan.volume.ijk_to_ras[:3, 3]
    tolerance = 2 * max(scan.volume.spacing)
    np.testing.assert_allclose(points.min(0), voxels.min(0), atol=tolerance)
    np.testing.assert_allclose(points.max(0), voxels.max(0), atol=tolerance)


def test_it_begins_with_a_scan_and_its_segments(chromium, tmp_path):
    scan = Scan(tmp_path / "block.nrrd", write_block(tmp_path / "block.nrrd"))
    mask = tmp_path / "bones.seg.nrrd"
    write_mask(scan.mask.astype(np.uint8), scan.volume, mask, [SegmentInfo(1, "left tibia", (0.2, 0.6, 1.0))])
    with serving(scan.path, "--mask", mask) as (address, _):
        page = Visit(chromium, address).wait_for_scan("block.nrrd")
        page.wait_for(lambda: page.panel["segments"], "the segments")
        (segment,) = page.panel["segments"]
        assert (segment["name"], segment["color"]) == ("left tibia", "#3399ff")
        page.settle(2).screenshot("scan and mask")
        np.testing.assert_array_equal(on_grid(page.download("nii.gz", tmp_path), scan.volume, 1), scan.mask)
        surfaces = page.download("stl", tmp_path)
        assert zipfile.ZipFile(surfaces).namelist() == ["left_tibia.stl"]
        saved = page.download("seg.nrrd", tmp_path)
        page.page.click('[aria-label="Remove left tibia"]')
        page.wait_for(lambda: not page.panel["segments"], "no segment")
        page.send(saved).wait_for(lambda: page.panel["segments"], "the saved segment")
        again = page.download("nii.gz", tmp_path / "again")
        np.testing.assert_array_equal(on_grid(again, scan.volume, 1), scan.mask)
        assert page.note == ""
        assert page.errors == []


@pytest.fixture(scope="module")
def block_page(shared_page, tmp_path_factory):
    """A page with a bright block, which is a segment already."""
    path = tmp_path_factory.mktemp("scan") / "block.nrrd"
    scan = Scan(path, write_block(path))
    page = shared_page.send(path).wait_for_scan(path.name)
    low, high, middle = scan.corners()
    page.go_to("Red", middle).draw_box("Red", low, high).wait_for_mask()
    page.act("accept").wait_for(lambda: page.panel["segments"], "a segment")
    page.scan = scan
    return page


def present(page, folder):
    return on_grid(page.download("nii.gz", folder), page.scan.volume, 1)


def test_paint_erase_and_scissors(block_page, tmp_path):
    page = block_page
    before = present(page, tmp_path)
    outside, inside = page.scan.world((33, 17, 15)), page.scan.world((20, 17, 15))
    page.go_to("Red", inside)

    def undoing(changed):
        page.wait_for(lambda: page.value("touch")["can_undo"], "a stroke")
        found = present(page, tmp_path)
        assert changed(found)
        page.act("undo").wait_for(lambda: not page.value("touch")["can_undo"], "the stroke undone")
        np.testing.assert_array_equal(present(page, tmp_path), before)
        return found

    page.act("paint").wait_for(lambda: page.value("touch")["tool"] == "paint", "the brush")
    page.drag("Red", outside, page.scan.world((33, 20, 15)))
    page.screenshot("touch up paint")
    painted = undoing(lambda found: (found & ~before).sum() > 10 and not (before & ~found).any())
    places = np.argwhere(painted & ~before)
    assert np.abs(places.mean(0)[::-1] - (33, 18.5, 15)).max() < 2.5

    page.act("erase").wait_for(lambda: page.value("touch")["tool"] == "erase", "the eraser")
    page.drag("Red", inside, page.scan.world((20, 20, 15)))
    undoing(lambda found: (before & ~found).sum() > 10 and not (found & ~before).any())

    page.act("scissors").wait_for(lambda: page.value("touch")["tool"] == "scissors", "the scissors")
    corners = [(10, 8), (20, 8), (20, 28), (10, 28), (10, 9)]
    page.drag("Red", *(page.scan.world((*corner, 15)) for corner in corners))
    cut = undoing(lambda found: 0.2 < found.sum() / before.sum() < 0.8)
    assert not cut[:, :, :19].any()
    page.press("Escape").wait_for(lambda: not page.value("touch")["tool"], "no tool")
    assert page.note == ""


def test_segments_are_renamed_recolored_hidden_and_shown(block_page):
    page = block_page
    field = page.page.locator(".segments li input[type=text]").first
    field.fill("left femur")
    field.press("Enter")
    page.wait_for(lambda: page.panel["segments"][0]["name"] == "left femur", "the new name")
    page.page.locator(".segments li input[type=color]").first.evaluate(
        "one => { one.value = '#12ab34'; one.dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    page.wait_for(lambda: page.panel["segments"][0]["color"] == "#12ab34", "the new color")
    page.page.click('[aria-label="Hide left femur"]')
    page.wait_for(lambda: not page.panel["segments"][0]["visible"], "hidden")
    page.page.click('[aria-label="Show left femur"]')
    page.wait_for(lambda: page.panel["segments"][0]["visible"], "shown")


def test_windows_views_and_themes(block_page):
    page = block_page
    assert page.value("windows")[0] == "Bone"
    bone = page.settle().picture("Green")
    page.page.select_option('[data-test="window"]', "Soft tissue")
    wait_for_picture(page, "Green", lambda picture: np.abs(picture - bone).mean() > 5, "another window")
    page.page.select_option('[data-test="window"]', "Bone")
    page.act("adjust_window").wait_for(lambda: page.value("adjusting"), "adjusting")
    low, high, _ = page.scan.corners()
    adjusted = page.settle().picture("Red")
    page.drag("Red", low, high)
    wait_for_picture(page, "Red", lambda picture: np.abs(picture - adjusted).mean() > 2, "a dragged window")
    page.press("Escape").wait_for(lambda: not page.value("adjusting"), "no longer adjusting")
    page.page.click('[data-view="ThreeD"] .enlarge')
    page.wait_for(lambda: page.area("ThreeD")[2] > 800, "a large 3D view")
    solid = page.settle(2).picture("ThreeD")
    page.act("volume_rendering").wait_for(lambda: page.value("solid")["volume"], "the scan in 3D")
    wait_for_picture(page, "ThreeD", lambda picture: np.abs(picture - solid).mean() > 1, "the scan in 3D")
    page.act("volume_rendering").wait_for(lambda: not page.value("solid")["volume"], "no scan in 3D")
    page.page.click('[data-view="ThreeD"] .enlarge')
    page.page.click('[data-test="theme"]')
    page.wait_for(lambda: page.page.query_selector(".bonesam.light") is not None, "light")
    page.screenshot("light")
    page.page.click('[data-test="theme"]')


def test_keep_inside_a_box_that_is_turned_in_the_patient(shared_page, tmp_path):
    """On an oblique volume the box lies along its voxels; the mask, which would be larger, stays in it."""
    path = tmp_path / "oblique.nrrd"
    scan = Scan(path, write_block(path, "oblique"))
    page = shared_page.send(path).wait_for_scan(path.name)
    low, high = (15, 13), (23, 21)  # voxels; a part of the block
    page.go_to("Red", scan.corners()[2])
    page.draw_box("Red", scan.world((*low, 15)), scan.world((*high, 15))).wait_for_mask()

    def beside():
        page.act("accept").wait_for(lambda: page.panel["segments"], "a segment")
        found = np.argwhere(on_grid(page.download("nii.gz", tmp_path), scan.volume, 1))[:, ::-1]
        assert len(found) > 100
        return (found[:, :2] < np.array(low) - 0.7).any(1) | (found[:, :2] > np.array(high) + 0.7).any(1)

    assert beside().any()
    page.page.click('[aria-label^="Remove"]')
    page.wait_for(lambda: not page.panel["segments"], "no segment")
    page.page.click("summary")
    page.page.click('[data-test="keep_inside"]')
    page.wait_for(lambda: page.panel["keep_inside"], "the option")
    page.draw_box("Red", scan.world((*low, 15)), scan.world((*high, 15))).wait_for_mask()
    page.screenshot("keep inside")
    assert not beside().any()
