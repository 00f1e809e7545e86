"""Cases, one by one in this process: masks, records, summary, resuming, and everything that can go wrong."""

import json
import re

import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner

from BoneSAMLib import batch
from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch
from BoneSAMLib.cli import app
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import Box
from BoneSAMLib.reading import read_volume
from Testing.lib.batch_scans import bright_block, write_scan, write_series
from Testing.lib.bright_segmenter import BrightSegmenter

ALL = BatchPrompts(everything=True)
BOX = BatchPrompts(boxes=(Box.from_ijk((5, 6, 1), (14, 17, 4)),))


@pytest.fixture
def scans(tmp_path):
    for name, seed in (("a", 1), ("sub/b", 2), ("c", 3)):
        write_scan(tmp_path / "in" / f"{name}.nii.gz", seed=seed)
    return tmp_path / "in"


class Run:
    """One run over the folder `in`; keeps what was opened."""

    def __init__(self, folder, prompts=ALL, source="in", digest="weights 1", **options):
        self.segmenter = BrightSegmenter(digest)
        self.cases = find_cases(folder / source, folder / "out", prompts)
        self.outcome = run_batch(
            self.cases, folder / "out", workers=0, make_segmenter=lambda: self.segmenter, **options
        )

    @property
    def endings(self):
        return {one.case.name: one.ending for one in self.outcome.outcomes}

    def error(self, name):
        return next(one.error for one in self.outcome.outcomes if one.case.name == name)


def contents(folder):
    """Masks byte by byte, and all names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() if "mask" in path.name or
            path.name.endswith(".seg.nrrd") else b"" for path in files}  # fmt: skip


def record_of(folder, name):
    return json.loads((folder / "out" / f"{name}.bonesam.json").read_text(encoding="utf-8"))


def test_masks_records_and_summary(scans, tmp_path):
    run = Run(tmp_path)
    assert run.outcome.exit_code == 0
    assert sorted(contents(tmp_path / "out")) == [
        *("a.bonesam.json", "a.seg.nrrd", "c.bonesam.json", "c.seg.nrrd"),
        *("sub/b.bonesam.json", "sub/b.seg.nrrd", "summary.html"),
    ]
    mask = read_volume(tmp_path / "out" / "sub" / "b.seg.nrrd")
    assert np.allclose(mask.ijk_to_ras, read_volume(scans / "sub" / "b.nii.gz").ijk_to_ras)
    overlap = (mask.array > 0) & (bright_block(seed=2) > 100)
    assert overlap.sum() > 0.8 * (bright_block(seed=2) > 100).sum()
    record = record_of(tmp_path, "sub/b")
    assert record["status"] == "complete"
    assert record["digests"]["weights"] == "weights 1"
    assert record["bones"][0]["voxels"] == (mask.array == 1).sum()
    assert {one["slice"] for one in record["bones"][0]["slices to review"]} <= set(range(6))
    assert record["bones"][0]["slices to review"][0]["confidence"] > 0
    assert {"hash", "read", "segment", "write", "total"} <= set(record["seconds"])
    assert {"Python", "numpy", "SimpleITK"} <= set(record["versions"])


def test_named_bones_with_slices_to_review(scans, tmp_path):
    table = scans / "list.csv"
    table.write_text('volume,output,bone,box_ijk\na.nii.gz,m.seg.nrrd,right femur,"5,6,1,14,17,4"\n')
    run = Run(tmp_path, None, "in/list.csv")
    assert run.outcome.exit_code == 0
    image = SimpleITK.ReadImage(str(tmp_path / "out" / "m.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") == "right femur"
    assert "SCT^71341001^Femur~SCT^24028007^Right" in image.GetMetaData("Segment0_Tags")
    (bone,) = record_of(tmp_path, "m")["bones"]
    assert bone["name"] == "right femur"
    assert 0 <= bone["slices to review"][0]["slice"] < 6
    assert bone["milliliters"] == pytest.approx(bone["voxels"] * 0.016, rel=0.01)


def test_dicom_series(tmp_path):
    write_series(tmp_path / "in" / "p", 1, seed=1)
    write_series(tmp_path / "in" / "p", 2, seed=2)
    assert Run(tmp_path).endings == {"p/series-1": "done", "p/series-2": "done"}
    assert read_volume(tmp_path / "out" / "p" / "series-1.seg.nrrd").array.any()


def test_one_bad_case_stops_no_other(scans, tmp_path):
    (scans / "bad.nii.gz").write_bytes((scans / "a.nii.gz").read_bytes()[:200])
    write_scan(scans / "breaks.nrrd")
    run = Run(tmp_path)
    assert run.outcome.exit_code == 1
    assert run.endings == {"a": "done", "bad": "failed", "breaks": "failed", "c": "done", "sub/b": "done"}
    assert "damaged or incomplete" in run.error("bad")
    assert "ZeroDivisionError: a mistake in the program" in run.error("breaks")
    assert record_of(tmp_path, "bad") == record_of(tmp_path, "bad") | {"status": "failed"}
    assert not (tmp_path / "out" / "bad.seg.nrrd").exists()


def test_prompt_outside_of_every_volume_fails_all(scans, tmp_path):
    run = Run(tmp_path, BatchPrompts(boxes=(Box.from_ras((900, 900, 900), (950, 950, 950)),)))
    assert run.outcome.exit_code == 3
    assert "outside the volume" in run.error("a")
    assert not list((tmp_path / "out").rglob("*.nrrd"))


# ---------------------------------------------------------------------------------------------- summary


def test_summary_shows_the_worst_first_and_loads_nothing(scans, tmp_path):
    (scans / "<b>&bad.nii").write_bytes(b"broken")
    write_scan(scans / "dark.nii.gz", np.zeros((6, 24, 20), np.int16))
    run = Run(tmp_path, BOX)
    page = run.outcome.summary.read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;bad" in page
    assert "<b>&bad" not in page
    assert page.index("&amp;bad") < page.index("dark.bonesam.json") < page.index('"a.bonesam.json')
    assert page.count("data:image/jpeg;base64,") == 4
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)
    assert "is empty" in page
    assert "4 of 5 volumes segmented, 1 failed" in page


# --------------------------------------------------------------------------------------------- resuming


def test_resume_leaves_complete_cases_alone(scans, tmp_path):
    Run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    run = Run(tmp_path, resume=True)
    assert set(run.endings.values()) == {"kept"}
    assert run.segmenter.opened == []
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path.name for path in before if after[path] != before[path]} == {"summary.html"}
    assert run.outcome.summary.read_text().count("data:image/jpeg") == 3


def test_resume_redoes_what_is_missing_damaged_or_unfinished(scans, tmp_path):
    Run(tmp_path)
    expected, out = contents(tmp_path / "out"), tmp_path / "out"
    (out / "a.seg.nrrd").unlink()
    (out / "c.seg.nrrd").write_bytes((out / "c.seg.nrrd").read_bytes()[:-30])
    started = record_of(tmp_path, "sub/b") | {"status": "started"}
    (out / "sub" / "b.bonesam.json").write_text(json.dumps(started))
    run = Run(tmp_path, resume=True)
    assert set(run.endings.values()) == {"done"}
    assert contents(out) == expected


@pytest.mark.parametrize("what", ["input", "prompts", "weights", "record"])
def test_resume_redoes_what_comes_from_something_else(scans, tmp_path, what):
    Run(tmp_path)
    if what == "input":
        write_scan(scans / "a.nii.gz", seed=9)
    if what == "record":
        (tmp_path / "out" / "a.bonesam.json").write_text('{"format": 0}')
        (tmp_path / "out" / "a.seg.nrrd").unlink()
    options = {"prompts": {"prompts": BOX}, "weights": {"digest": "weights 2"}}.get(what, {})
    run = Run(tmp_path, resume=True, **options)
    redone = {name for name, ending in run.endings.items() if ending == "done"}
    assert redone == ({"a"} if what in ("input", "record") else {"a", "c", "sub/b"})


def test_corrected_mask_is_never_overwritten(scans, tmp_path):
    Run(tmp_path)
    mask = tmp_path / "out" / "a.seg.nrrd"
    write_scan(mask, np.ones((6, 24, 20), np.uint8))
    corrected = mask.read_bytes()
    record = record_of(tmp_path, "a")
    for resume in (True, False):
        run = Run(tmp_path, resume=resume)
        assert run.endings["a"] == "failed"
        assert "was changed after it was written" in run.error("a")
        assert mask.read_bytes() == corrected
        assert record_of(tmp_path, "a") == record


def test_foreign_file_is_never_overwritten(scans, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.seg.nrrd").write_bytes(b"of somebody else")
    for _ in range(2):  # the failure's own record must not make it ours
        run = Run(tmp_path)
        assert "was not written by a batch" in run.error("a")
        assert (tmp_path / "out" / "a.seg.nrrd").read_bytes() == b"of somebody else"
    assert run.endings["c"] == "done"


def test_input_is_never_overwritten(scans, tmp_path):
    scan = scans / "a.nii.gz"
    before = scan.read_bytes()
    cases = find_cases(scan, scans, ALL, ".nii.gz")
    outcome = run_batch(cases, scans, workers=0, make_segmenter=BrightSegmenter)
    assert "over its own volume" in outcome.failed[0].error
    assert scan.read_bytes() == before


# ----------------------------------------------------------------------------------------------- faults


def test_input_deleted_meanwhile(scans, tmp_path):
    cases = find_cases(scans, tmp_path / "out", ALL)
    (scans / "a.nii.gz").unlink()
    outcome = run_batch(cases, tmp_path / "out", workers=0, make_segmenter=BrightSegmenter)
    assert outcome.exit_code == 1
    assert outcome.failed[0].error == f"There is no file or folder '{scans / 'a.nii.gz'}'."


def test_full_disk_leaves_nothing_and_resume_mends_it(scans, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr("os.fsync", full)
        run = Run(tmp_path)
        assert run.outcome.exit_code == 3
        assert "disk is full" in run.outcome.problem  # not even the summary can be written
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    assert Run(tmp_path, resume=True).outcome.exit_code == 0


def test_disk_that_fills_up_while_the_mask_is_written(scans, tmp_path, monkeypatch):
    def half_written(labels, volume, path, segments):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("BoneSAMLib.batch.case_run.write_mask", half_written)
        run = Run(tmp_path)
    assert run.outcome.exit_code == 3
    assert "No space left" in run.error("a")
    assert not [path for path in (tmp_path / "out").rglob("*") if "seg" in path.name or "half" in path.name]
    assert not list((tmp_path / "out").glob(".bonesam-*"))
    assert Run(tmp_path, resume=True).outcome.exit_code == 0


def test_unwritable_output(scans, tmp_path):
    (tmp_path / "out").write_text("a file, where a folder should be")
    with pytest.raises(BoneSAMError, match="Cannot write to the folder"):
        Run(tmp_path)
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file, where a folder should be")
    run = Run(tmp_path)
    assert run.endings == {"a": "done", "c": "done", "sub/b": "failed"}
    assert "Cannot make the folder" in run.error("sub/b")


def test_interrupted_case_leaves_nothing(scans, tmp_path, monkeypatch):
    def interrupted(labels, volume, path, segments):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("BoneSAMLib.batch.case_run.write_mask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Run(tmp_path)
    assert contents(tmp_path / "out") == {}


# ----------------------------------------------------------------------------------------- command line


@pytest.fixture
def command(monkeypatch):
    def in_this_process(cases, output, workers, time_limit=None, **options):
        return run_batch(cases, output, workers=0, make_segmenter=BrightSegmenter, **options)

    monkeypatch.setattr(batch, "run_batch", in_this_process)
    return lambda *arguments: CliRunner().invoke(app, ["batch", *map(str, arguments)])


def test_command_tells_all_some_or_none(scans, tmp_path, command):
    out = tmp_path / "out"
    result = command(scans, out, "--all")
    assert result.exit_code == 0, result.output
    assert "3 of 3 volumes have a mask." in result.stdout
    assert f"Summary: {out / 'summary.html'}" in result.stdout
    result = command(scans, out, "--all", "--resume")
    assert "3 of 3 volumes have a mask, 3 from before." in result.stdout
    (scans / "bad.nrrd").write_bytes(b"bad")
    result = command(scans, out, "--all", "--resume")
    assert result.exit_code == 1
    assert "Failed: bad: Cannot read" in result.stderr
    assert command(scans / "bad.nrrd", tmp_path / "none", "--all").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in", "out"], "No prompt"),
        (["in", "out", "--all", "--box", "1,2,3,4,5,6"], "not both"),
        (["in", "out", "--all", "--format", "stl"], "Unknown mask format"),
        (["in", "out", "--all", "--device", "quantum"], "Unknown device"),
        (["in", "in", "--all"], "it is the input"),
        (["nowhere", "out", "--all"], "no file or folder"),
        (["in", "out", "--point", "1,2"], "3 numbers"),
        (["in", "out", "--all", "--memory", "inf"], "--memory takes a number"),
        (["in", "out", "--all", "--time-limit", "nan"], "--time-limit takes a number"),
    ],
)
def test_command_refuses_before_it_begins(scans, tmp_path, command, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_command_takes_prompts_and_formats(scans, tmp_path, command):
    box = ["--box-ijk", "5,6,1,14,17,4", "--format", "nii.gz", "--2d-only"]
    assert command(scans / "sub" / "*.nii.gz", tmp_path / "out", *box).exit_code == 0
    assert read_volume(tmp_path / "out" / "b.nii.gz").array.max() == 1
