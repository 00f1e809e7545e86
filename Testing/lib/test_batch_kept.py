"""What a batch never replaces or loses: corrections, masks of other scans, a mask whose rerun fails."""

import json
import os
import sys

import numpy as np
import pytest
import SimpleITK

from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch
from BoneSAMLib.reading import read_volume
from Testing.lib.batch_scans import write_scan
from Testing.lib.bright_segmenter import BrightSegmenter

ALL = BatchPrompts(everything=True)


class Failing(BrightSegmenter):
    """Opens no volume."""

    def open(self, *_):
        raise RuntimeError("CUDA out of memory")


def run(source, out, make=BrightSegmenter, ending=".seg.nrrd", stl=False, **options):
    cases = find_cases(source, out, ALL, ending, surfaces=stl)
    return run_batch(cases, out, workers=0, make_segmenter=make, **options)


@pytest.fixture
def done(tmp_path):
    """A folder with one mask, of `in/a.nii.gz`."""
    write_scan(tmp_path / "in" / "a.nii.gz")
    assert run(tmp_path / "in", tmp_path / "out").exit_code == 0
    return tmp_path / "out"


def everything_in(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix != ".html"}


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("ending", [".seg.nrrd", ".nii.gz", ".nrrd"])
def test_a_correction_in_overlapping_layers_is_kept(tmp_path, ending, resume):
    """3D Slicer stores layers as a fourth axis, which is no mask to BoneSAM."""
    write_scan(tmp_path / "in" / "a.nii.gz")
    run(tmp_path / "in", tmp_path / "out", ending=ending)
    mask = tmp_path / "out" / f"a{ending}"
    layers = np.zeros((2, 6, 24, 20), np.uint8)
    image = SimpleITK.GetImageFromArray(layers) if ending == ".nii.gz" else None
    if image is None:
        image = SimpleITK.GetImageFromArray(np.moveaxis(layers, 0, -1), isVector=True)
    SimpleITK.WriteImage(image, str(mask), True)
    corrected = mask.read_bytes()
    outcome = run(tmp_path / "in", tmp_path / "out", ending=ending, resume=resume)
    assert "was changed after it was written" in outcome.failed[0].error
    assert mask.read_bytes() == corrected


def test_a_mask_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch):
    """The network disk is away for a moment."""

    def away(*_):
        raise OSError(5, "Input/output error")

    write_scan(tmp_path / "in" / "a.nii.gz")
    run(tmp_path / "in", tmp_path / "out", ending=".nii.gz")
    monkeypatch.setattr("BoneSAMLib.batch.record.file_digest", away)
    monkeypatch.setattr("BoneSAMLib.batch.record.gzip.open", away)
    assert "is kept" in run(tmp_path / "in", tmp_path / "out", ending=".nii.gz").failed[0].error
    assert (tmp_path / "out" / "a.nii.gz").exists()


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nii.gz"])
def test_a_mask_that_was_cut_off_is_made_again(tmp_path, ending):
    write_scan(tmp_path / "in" / "a.nii.gz")
    run(tmp_path / "in", tmp_path / "out", ending=ending)
    mask = tmp_path / "out" / f"a{ending}"
    whole = mask.read_bytes()
    mask.write_bytes(whole[:-30])
    assert run(tmp_path / "in", tmp_path / "out", ending=ending, resume=True).exit_code == 0
    assert mask.read_bytes() == whole


def test_a_rerun_that_fails_leaves_the_mask_and_its_record(done):
    before = everything_in(done)
    outcome = run(done.parent / "in", done, Failing)
    assert "CUDA out of memory" in outcome.failed[0].error
    assert everything_in(done) == before
    assert [one.ending for one in run(done.parent / "in", done, resume=True).outcomes] == ["kept"]


def test_a_rerun_that_is_interrupted_leaves_the_mask_and_its_record(done, monkeypatch):
    before = everything_in(done)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("BoneSAMLib.batch.case_run.write_mask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(done.parent / "in", done)
    assert everything_in(done) == before


def test_a_rerun_that_is_killed_is_done_again(done):
    """After the record said that it had begun; the mask is still the earlier one."""
    record = json.loads((done / "a.bonesam.json").read_text())
    begun = {**record, "status": "started", "digests": {"input": "x"}, "earlier": record}
    (done / "a.bonesam.json").write_text(json.dumps(begun))
    assert [one.ending for one in run(done.parent / "in", done, resume=True).outcomes] == ["done"]
    (done / "a.bonesam.json").write_text(json.dumps(begun))
    write_scan(done / "a.seg.nrrd", np.ones((6, 24, 20), np.uint8))
    assert "was changed" in run(done.parent / "in", done, resume=True).failed[0].error


def test_the_mask_of_another_scan_is_kept(done):
    write_scan(done.parent / "other" / "a.nii.gz", seed=5)
    before = everything_in(done)
    outcome = run(done.parent / "other", done)
    assert f"is the mask of another volume, '{done.parent / 'in' / 'a.nii.gz'}'" in outcome.failed[0].error
    assert everything_in(done) == before
    (done.parent / "in").rename(done.parent / "moved")  # the same scan at another place is no other one
    assert run(done.parent / "moved", done).exit_code == 0


def test_the_mask_in_another_format_is_kept(done):
    before = everything_in(done)
    outcome = run(done.parent / "in", done, ending=".nii.gz")
    assert "is the same volume's mask in another format" in outcome.failed[0].error
    assert everything_in(done) == before
    assert [one.ending for one in run(done.parent / "in", done, resume=True).outcomes] == ["kept"]


def test_surfaces_that_were_changed_are_kept_and_old_ones_are_not(tmp_path):
    write_scan(tmp_path / "in" / "a.nii.gz")
    out = tmp_path / "out"
    run(tmp_path / "in", out, stl=True)
    (surface,) = (out / "a_stl").iterdir()
    made = surface.read_bytes()
    by_hand = b"smoothed by hand" + made[16:]
    surface.write_bytes(by_hand)
    for stl in (True, False):
        assert "was changed after it was written" in run(tmp_path / "in", out, stl=stl).failed[0].error
    assert surface.read_bytes() == by_hand
    surface.write_bytes(made)
    assert run(tmp_path / "in", out, stl=False).exit_code == 0
    assert not (out / "a_stl").exists()  # they were those of the mask before


def test_masks_are_no_scans_for_a_pattern_that_reaches_them(tmp_path):
    write_scan(tmp_path / "study" / "p1" / "ct.nii.gz")
    pattern, out = str(tmp_path / "study" / "**" / "*.nii.gz"), tmp_path / "study" / "masks"
    for _ in range(2):
        assert [case.name for case in find_cases(pattern, out, ALL, ".nii.gz")] == ["p1/ct"]
        assert run(pattern, out, ending=".nii.gz").exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_in_another_encoding_stops_no_other(tmp_path):
    write_scan(tmp_path / "in" / "b.nii.gz")
    strange = os.fsencode(tmp_path / "in") + b"/K\xf6rper.nii.gz"
    os.rename(write_scan(tmp_path / "in" / "a.nii.gz"), strange)
    outcome = run(tmp_path / "in", tmp_path / "out")
    assert outcome.exit_code == 0, outcome.failed
    assert sorted(os.listdir(os.fsencode(tmp_path / "out")))[0].startswith(b"K\xf6rper")
    assert read_volume(tmp_path / "out" / "b.seg.nrrd").array.any()
