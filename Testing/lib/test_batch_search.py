"""Which volumes a tree, a pattern or a file means: found by their content, each once."""

import os
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from BoneSAMLib.batch import BatchPrompts, find_cases
from BoneSAMLib.batch.scan_files import files_of, read_scan, scan_digest
from BoneSAMLib.errors import BoneSAMError
from Testing.lib.batch_scans import bright_block, write_scan, write_series
from Testing.lib.dicom_scans import ct_scan, write_enhanced_ct

ALL = BatchPrompts(everything=True)


def found(source, output, **options):
    return {case.name: case for case in find_cases(source, output, ALL, **options)}


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha"])
def test_content_counts_and_not_the_name(tmp_path, ending):
    scan = write_scan(tmp_path / f"scan.{ending}")
    (tmp_path / "in").mkdir()
    for name in ("without_ending", "wrong.txt", "wrong.dcm"):
        shutil.copy(scan, tmp_path / "in" / name)
    cases = found(tmp_path / "in", tmp_path / "out")
    assert sorted(case.source.name for case in cases.values()) == ["without_ending", "wrong.dcm", "wrong.txt"]
    for case in cases.values():
        assert np.array_equal(read_scan(case.source).array, bright_block())


def test_tree_keeps_its_folders(tmp_path):
    write_scan(tmp_path / "in" / "a" / "Hüfte 骨.nii.gz")
    write_scan(tmp_path / "in" / "b c" / "x.y.mha")
    cases = found(tmp_path / "in", tmp_path / "out")
    assert {name: case.output.relative_to(tmp_path / "out").as_posix() for name, case in cases.items()} == {
        "a/Hüfte 骨": "a/Hüfte 骨.seg.nrrd",
        "b c/x.y": "b c/x.y.seg.nrrd",
    }


def test_what_is_no_scan_is_left_out(tmp_path):
    write_scan(tmp_path / "in" / "scan.nrrd")
    write_scan(tmp_path / "in" / "old.seg.nrrd")
    write_scan(tmp_path / "in" / ".hidden" / "scan.nrrd")
    write_scan(tmp_path / "in" / "out" / "mask.nrrd")
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    (tmp_path / "in" / "empty").touch()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "in" / "overlay.png")
    assert list(found(tmp_path / "in", tmp_path / "in" / "out")) == ["scan"]


def test_damaged_scan_is_a_case_for_its_name(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.nii.gz", "b.nrrd", "c.dcm", "d.mha"):
        (tmp_path / "in" / name).write_bytes(b"\x1f\x8bbroken")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a", "b", "c", "d"]


def test_series_of_one_folder_are_told_apart(tmp_path):
    write_series(tmp_path / "in" / "patient", 3, seed=1)
    write_series(tmp_path / "in" / "patient", 4, seed=2)
    write_series(tmp_path / "in" / "other", 9)
    cases = found(tmp_path / "in", tmp_path / "out")
    assert sorted(cases) == ["other", "patient/series-3", "patient/series-4"]
    for name, seed in (("patient/series-3", 1), ("patient/series-4", 2), ("other", 0)):
        assert np.array_equal(read_scan(cases[name].source).array, bright_block(seed=seed))
        assert len(files_of(cases[name].source)) == 6


def test_a_folder_of_many_series_is_read_once(tmp_path, monkeypatch):
    for number in range(4):
        write_series(tmp_path / "in", number, seed=number)
    cases = found(tmp_path / "in", tmp_path / "out")
    read, dcmread = [], pydicom.dcmread

    def counting(path, *arguments, **options):
        read.append(path)
        return dcmread(path, *arguments, **options)

    monkeypatch.setattr(pydicom, "dcmread", counting)
    counts = []
    for case in cases.values():
        read.clear()
        assert len(files_of(case.source)) == 6
        assert read_scan(case.source).array.shape == (6, *bright_block().shape[1:])
        counts.append(len(read))
    assert len(counts) == 4
    assert counts[0] > 24
    assert max(counts[1:]) < 24  # its own files, several times
    other = sorted((tmp_path / "in").glob("IM1*"))
    before = files_of(other[0])
    dataset = dcmread(other[-1])
    dataset.SeriesInstanceUID = generate_uid()
    dataset.save_as(other[-1])
    assert files_of(other[0]) == before[:-1]  # a file that was changed is looked at again


def test_enhanced_files_of_one_image_each_are_one_series(tmp_path):
    """They say where they lie in a functional group, not at the top."""
    scan, series = ct_scan(count=5), generate_uid()
    for k in range(5):
        path = tmp_path / "in" / "patient" / f"IM{k}.dcm"
        write_enhanced_ct(path, scan, order=[k], SeriesInstanceUID=series)
    cases = found(tmp_path / "in", tmp_path / "out")
    assert list(cases) == ["patient"]
    assert len(files_of(cases["patient"].source)) == 5
    assert read_scan(cases["patient"].source).array.shape == scan.array.shape


def test_series_in_the_folder_itself_is_called_like_it(tmp_path):
    assert list(found(write_series(tmp_path / "knee"), tmp_path / "out")) == ["knee"]


def test_dicom_that_is_no_image_is_left_out(tmp_path):
    write_series(tmp_path / "in" / "ct")
    write_series(tmp_path / "in" / "seg", Modality="SEG")
    write_series(tmp_path / "in" / "report", Rows=None, Modality="SR")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["ct"]


def test_radiographs_are_cases_of_their_own(tmp_path):
    write_series(tmp_path / "in", count=2, ImagePositionPatient=None, Modality="DX")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["IM100", "IM105"]


def test_links_in_circles_end(tmp_path):
    write_scan(tmp_path / "in" / "a" / "scan.nrrd")
    os.symlink(tmp_path / "in", tmp_path / "in" / "a" / "up")
    os.symlink(tmp_path / "in" / "a", tmp_path / "in" / "again")
    os.symlink("nowhere", tmp_path / "in" / "dangling.nii.gz")
    assert list(found(tmp_path / "in", tmp_path / "out")) == ["a/scan"]


def test_equal_names_get_numbers(tmp_path):
    for name in ("scan.nii.gz", "scan.nrrd", "SCAN.mha"):
        write_scan(tmp_path / "in" / name)
    cases = found(tmp_path / "in", tmp_path / "out")
    assert len({case.output.name.lower() for case in cases.values()}) == 3


def test_pattern(tmp_path):
    for name in ("p1/ct.nii.gz", "p1/mr.nii.gz", "p2/ct.nii.gz"):
        write_scan(tmp_path / "in" / name)
    write_series(tmp_path / "in" / "p2" / "ct.dicom")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "in" / "p1" / "ct.png")
    cases = found(str(tmp_path / "in" / "*" / "ct*"), tmp_path / "out", ending=".nii.gz")
    assert sorted(cases) == ["p1/ct", "p1/ct-2", "p2/ct", "p2/ct.dicom"]
    assert cases["p2/ct"].output == tmp_path / "out" / "p2" / "ct.nii.gz"


def test_single_file(tmp_path):
    scan = write_scan(tmp_path / "one.mha")
    assert [case.source for case in find_cases(scan, tmp_path / "out", ALL)] == [scan]


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere", {}, "no file or folder"),
        ("empty", {}, "no volumes"),
        ("empty/*.nii", {}, "no volumes"),
        ("out", {}, "it is the input"),
        ("empty", {"ending": ".stl"}, "Unknown mask format"),
    ],
)
def test_nothing_to_do_is_said(tmp_path, source, options, words):
    for name in ("empty", "out"):
        (tmp_path / name).mkdir()
    with pytest.raises(BoneSAMError, match=words):
        find_cases(tmp_path / source, tmp_path / "out", ALL, **options)


def test_prompts_are_needed():
    with pytest.raises(BoneSAMError, match="not both"):
        BatchPrompts()
    with pytest.raises(BoneSAMError, match="No prompt"):
        find_cases(".", "out")


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_hash_covers_detached_data(tmp_path, ending):
    scan = write_scan(tmp_path / f"scan.{ending}")
    (data,) = set(tmp_path.iterdir()) - {scan}
    before = scan_digest(scan)
    assert before == scan_digest(scan)
    data.write_bytes(data.read_bytes() + b"x")
    assert scan_digest(scan) != before


def test_hash_covers_every_slice_of_the_series_and_no_other(tmp_path):
    folder = write_series(tmp_path / "ct", 1)
    write_series(folder, 2)
    first, *_, last = sorted(folder.glob("IM1*"))
    before = scan_digest(first)
    next(iter(folder.glob("IM2*"))).unlink()
    assert scan_digest(first) == before
    last.unlink()
    assert scan_digest(first) != before
    with pytest.raises(BoneSAMError, match="no file"):
        scan_digest(last)


def test_broken_header_names_the_file(tmp_path):
    folder = write_series(tmp_path / "in" / "ct")
    broken = folder / "IM100"
    content = broken.read_bytes()
    broken.write_bytes(content[:200])
    cases = found(tmp_path / "in", tmp_path / "out")
    error = next(case.error for case in cases.values() if case.source == broken)
    assert error.startswith("The DICOM file")
