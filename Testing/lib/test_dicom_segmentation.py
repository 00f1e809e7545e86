"""DICOM segmentations, read back by highdicom, by dcmqi, and by pydicom with arithmetic of our own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from typer.testing import CliRunner

from BoneSAMLib import dicom_segmentation
from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch
from BoneSAMLib.cli import app
from BoneSAMLib.dicom_segmentation import is_segmentation, write_dicom_segmentation
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo
from Testing.lib.bright_segmenter import BrightSegmenter
from Testing.lib.dicom_scans import (
    AXIAL,
    OBLIQUE,
    SAGITTAL,
    ct_scan,
    frames_of_segments,
    in_order,
    write_ct,
    write_enhanced_ct,
)

highdicom = pytest.importorskip("highdicom", reason="needs the extra dicom")

FEMUR = SegmentInfo(1, "left femur", (1.0, 0.5, 0.0), bone_meaning("left femur").terminology)
GEOMETRIES = {
    "axial": (AXIAL, {}),
    "feet first": (AXIAL, {"step": -2.5}),
    "sagittal": (SAGITTAL, {}),
    "oblique": (OBLIQUE, {}),
    # No slice is moved by half a pixel more than whole ones: there is no doubt which pixel is the nearest.
    "tilted": (AXIAL, {"tilt": 16.1}),
    "tilted to the side": (AXIAL, {"sideways": -12.3, "step": -2.5}),
    "tilted oblique": (OBLIQUE, {"tilt": -16.1}),
}


def scan_named(name):
    axes, options = GEOMETRIES[name]
    return ct_scan(axes, **options)


def write(volume, source, path, labels=None, segments=(FEMUR,), **options):
    labels = (volume.array > 450).astype(np.uint8) if labels is None else labels
    write_dicom_segmentation(
        labels, volume, source, path, segments, **{"prompted": True, "weights": "w", **options}
    )
    return path


def one(sequence):
    (item,) = sequence
    return item


@pytest.fixture
def axial(tmp_path):
    source = write_ct(tmp_path / "ct", ct_scan())
    return read_volume(source), source


@pytest.mark.parametrize("multi_frame", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_same_voxels_at_the_same_places(tmp_path, name, multi_frame):
    scan = scan_named(name)
    if multi_frame:
        source = write_enhanced_ct(tmp_path / "ct.dcm", scan, order=[4, 2, 0, 1, 3, 8, 7, 6, 5])
    else:
        source = write_ct(tmp_path / "ct", scan)
    path = write(read_volume(source), source, tmp_path / "mask.dcm")
    assert is_segmentation(path)
    places = frames_of_segments(path)[1]
    expected = scan.places(scan.bone)
    assert len(places) == len(expected) == scan.bone.sum() > 500
    assert np.abs(places - expected).max() < 2e-3


@pytest.mark.parametrize("name", GEOMETRIES)
def test_highdicom_finds_the_mask_of_each_source_image(tmp_path, name):
    scan = scan_named(name)
    source = write_ct(tmp_path / "ct", scan)
    path = write(read_volume(source), source, tmp_path / "mask.dcm")
    images = sorted(
        (pydicom.dcmread(file, stop_before_pixels=True) for file in source.iterdir()),
        key=lambda image: (
            np.abs(scan.positions - np.array(image.ImagePositionPatient, float)).sum(1).argmin()
        ),
    )
    read = highdicom.seg.segread(path)
    masks = read.get_pixels_by_source_instance(
        [image.SOPInstanceUID for image in images], ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True, combine_segments=True,
    )  # fmt: skip
    assert np.array_equal(masks, scan.bone)


@pytest.mark.parametrize("name", ["axial", "feet first", "sagittal", "oblique"])
def test_highdicom_gives_the_volume_in_space(tmp_path, name):
    scan = scan_named(name)
    source = write_ct(tmp_path / "ct", scan)
    path = write(read_volume(source), source, tmp_path / "mask.dcm")
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    found = np.argwhere(volume.array > 0) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    assert np.abs(in_order(found) - scan.places(scan.bone)).max() < 2e-3


def dcmqi():
    """The converter of the package dcmqi, beside this Python or on the path; None where there is none."""
    return shutil.which("segimage2itkimage", path=Path(sys.executable).parent) or shutil.which(
        "segimage2itkimage"
    )


@pytest.mark.skipif(dcmqi() is None, reason="needs dcmqi")
@pytest.mark.parametrize("name", ["axial", "feet first", "sagittal", "oblique"])
def test_dcmqi_reads_the_same(tmp_path, name):
    scan = scan_named(name)
    source = write_ct(tmp_path / "ct", scan)
    labels = (scan.bone * (1 + (np.arange(30) > 9))).astype(np.uint8)  # two bones, side by side
    volume = read_volume(source)
    if name == "feet first":
        labels = labels[::-1]
    tibia = SegmentInfo(2, "right tibia", (0.1, 0.6, 0.9), bone_meaning("right tibia").terminology)
    path = write(volume, source, tmp_path / "mask.dcm", labels, [FEMUR, tibia])
    subprocess.run(
        [dcmqi(), "--inputDICOM", path, "--outputDirectory", tmp_path, "-p", "read", "-t", "nrrd"],
        check=True, capture_output=True,
    )  # fmt: skip
    for number in (1, 2):
        image = SimpleITK.ReadImage(str(tmp_path / f"read-{number}.nrrd"))
        kji = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)
        places = [image.TransformIndexToPhysicalPoint([int(n) for n in index[::-1]]) for index in kji]
        expected = scan.places((labels[::-1] if name == "feet first" else labels) == number)
        assert np.abs(in_order(np.array(places)) - expected).max() < 2e-3
    described = json.loads((tmp_path / "read-meta.json").read_text())["segmentAttributes"]
    femur, tibia = (segment for group in described for segment in group)
    assert femur["SegmentLabel"] == "left femur"
    assert femur["SegmentedPropertyTypeCodeSequence"]["CodeValue"] == "71341001"
    assert femur["SegmentedPropertyTypeModifierCodeSequence"]["CodeMeaning"] == "Left"
    assert tibia["SegmentedPropertyTypeModifierCodeSequence"]["CodeMeaning"] == "Right"
    assert np.abs(np.array(femur["recommendedDisplayRGBValue"]) - [255, 128, 0]).max() <= 3
    assert femur["SegmentAlgorithmType"] == "SEMIAUTOMATIC"


def test_meaning_algorithm_and_source(axial, tmp_path):
    volume, source = axial
    patella = SegmentInfo(
        7, "Kniescheibe \\ 骨\nrechts" + "!" * 80, (0, 0, 1), bone_meaning("patella").terminology
    )
    some = SegmentInfo(9, "  ", (0, 1, 0), "nonsense")
    labels = np.where(volume.array > 450, 7, 0)
    labels[4, 15, 8] = 12
    made = pydicom.dcmread(
        write(
            volume,
            source,
            tmp_path / "m.dcm",
            labels,
            [patella, FEMUR, some],
            prompted=False,
            weights="bones 2",
        )
    )
    first, femur, other, unnamed = made.SegmentSequence
    assert [segment.SegmentNumber for segment in made.SegmentSequence] == [1, 2, 3, 4]
    assert first.SegmentLabel == ("Kniescheibe   骨 rechts" + "!" * 80)[:64]
    assert "SegmentedPropertyTypeModifierCodeSequence" not in one(first.SegmentedPropertyTypeCodeSequence)
    kind = one(femur.SegmentedPropertyTypeCodeSequence)
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("71341001", "SCT", "Femur")
    side = one(kind.SegmentedPropertyTypeModifierCodeSequence)
    assert (side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) == ("7771000", "SCT", "Left")
    assert one(femur.SegmentedPropertyCategoryCodeSequence).CodeValue == "123037004"
    assert (other.SegmentLabel, unnamed.SegmentLabel) == ("Bone", "Bone 12")
    assert one(other.SegmentedPropertyTypeCodeSequence).CodeMeaning == "Bone"
    assert {segment.SegmentAlgorithmType for segment in made.SegmentSequence} == {"AUTOMATIC"}
    algorithm = one(first.SegmentationAlgorithmIdentificationSequence)
    assert algorithm.AlgorithmName == "BoneSAM"
    assert algorithm.AlgorithmVersion.endswith("weights bones 2")
    assert one(algorithm.AlgorithmFamilyCodeSequence).CodeMeaning == "Artificial Intelligence"

    original = pydicom.dcmread(next(source.iterdir()))
    assert made.PatientName == original.PatientName == "Müller^Jürgen"
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate", "AccessionNumber"):
        assert made[keyword].value == original[keyword].value
    referred = one(made.ReferencedSeriesSequence)
    assert referred.SeriesInstanceUID == original.SeriesInstanceUID != made.SeriesInstanceUID
    everywhere = {pydicom.dcmread(file).SOPInstanceUID for file in source.iterdir()}
    assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} == everywhere
    places = frames_of_segments(tmp_path / "m.dcm")
    assert [len(places[number]) for number in (1, 2, 3, 4)] == [(labels == 7).sum(), 0, 0, 1]


def test_empty_mask_is_an_empty_segment(axial, tmp_path):
    volume, source = axial
    path = write(volume, source, tmp_path / "m.dcm", np.zeros(volume.shape, np.uint8), ())
    assert is_segmentation(path)
    assert {number: len(places) for number, places in frames_of_segments(path).items()} == {1: 0}


def test_more_labels_than_eight_bits(axial, tmp_path):
    volume, source = axial
    labels = np.zeros(volume.shape, np.int32)
    labels.flat[:300] = np.arange(1, 301) * 200
    path = write(volume, source, tmp_path / "m.dcm", labels, ())
    assert [len(places) for places in frames_of_segments(path).values()] == [1] * 300
    with pytest.raises(BoneSAMError, match="65535"):
        write(volume, source, tmp_path / "n.dcm", labels * 2, ())


def test_anonymized_headers_are_completed(tmp_path):
    gone = dict.fromkeys(
        (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "StudyDate",
            "StudyTime",
            "StudyID",
            "AccessionNumber",
        )
    )
    scan = ct_scan()
    source = write_ct(tmp_path / "ct", scan, PatientSex="X", ReferringPhysicianName=None, **gone)
    path = write(read_volume(source), source, tmp_path / "mask.dcm")
    assert np.abs(frames_of_segments(path)[1] - scan.places(scan.bone)).max() < 2e-3
    assert pydicom.dcmread(path).PatientSex == ""


@pytest.mark.parametrize(
    "changes", [{"StudyDate": "00000000"}, {"PatientBirthDate": "19XX"}, {"StudyTime": "noon"}]
)
def test_senseless_dates_are_left_out(tmp_path, changes):
    with pytest.warns(UserWarning, match="nvalid value"):
        source = write_ct(tmp_path / "ct", ct_scan(), **changes)
    made = pydicom.dcmread(write(read_volume(source), source, tmp_path / "mask.dcm"))
    assert made[next(iter(changes))].value == ""


def test_radiograph(tmp_path):
    source = write_ct(
        tmp_path / "xr", ct_scan(count=1), Modality="DX", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        ImagePositionPatient=None, ImageOrientationPatient=None, RescaleSlope=None, RescaleIntercept=None,
    )  # fmt: skip
    volume = read_volume(source)
    labels = np.zeros(volume.shape, np.uint8)
    labels[0, 3:9, 4:20] = 1
    path = write(volume, source, tmp_path / "mask.dcm", labels)
    assert np.array_equal(pydicom.dcmread(path).pixel_array.reshape(labels.shape), labels)


# -------------------------------------------------------------------------------------------- bad input


def test_source_must_be_dicom(tmp_path):
    other = tmp_path / "scan.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(other))
    with pytest.raises(BoneSAMError, match=r"scan.nii.gz' is none: choose .seg.nrrd"):
        write(read_volume(other), other, tmp_path / "mask.dcm")
    assert not (tmp_path / "mask.dcm").exists()


def test_highdicom_is_named_where_it_is_missing(axial, tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_segmentation, "find_spec", lambda name: None)
    with pytest.raises(BoneSAMError, match="pip install highdicom"):
        write(*axial, tmp_path / "mask.dcm")


def test_series_that_changed_meanwhile(axial, tmp_path):
    volume, source = axial
    last = max(source.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    last.unlink()
    with pytest.raises(BoneSAMError, match="has changed"):
        write(volume, source, tmp_path / "mask.dcm")
    with pytest.raises(BoneSAMError, match="same"):
        write(volume, source, tmp_path / "mask.dcm", np.zeros((2, 3, 4), np.uint8))


def test_moved_series_is_not_the_same(axial, tmp_path):
    volume, source = axial
    moved = Volume(volume.array, volume.ijk_to_ras + np.outer([0, 0, 1, 0], [0, 0, 0, 0.5]))
    with pytest.raises(BoneSAMError, match="has changed"):
        write(moved, source, tmp_path / "mask.dcm")


def test_headers_that_are_not_fit(tmp_path):
    source = write_ct(tmp_path / "ct", ct_scan(), StudyInstanceUID=None)
    with pytest.raises(
        BoneSAMError, match=r"not fit for a DICOM segmentation \(.*StudyInstanceUID"
    ) as caught:
        write(read_volume(source), source, tmp_path / "mask.dcm")
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["ct"]


def test_older_file_stays_when_the_disk_is_full(axial, tmp_path, monkeypatch):
    (tmp_path / "mask.dcm").write_bytes(b"older")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("BoneSAMLib.writing.os.fsync", full)
    with pytest.raises(BoneSAMError, match="disk is full"):
        write(*axial, tmp_path / "mask.dcm")
    assert (tmp_path / "mask.dcm").read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ct", "mask.dcm"]


@pytest.mark.parametrize("damage", [b"", b"text", "half", "image"])
def test_what_is_no_whole_segmentation(axial, tmp_path, damage):
    path = write(*axial, tmp_path / "mask.dcm")
    content = path.read_bytes()
    image = next(axial[1].iterdir()).read_bytes()
    path.write_bytes({"half": content[:-200], "image": image}.get(damage, damage))
    assert not is_segmentation(path)


# ------------------------------------------------------------------------------------- batch and command line


def voxels_of(path):
    """Places of all voxels of an image in LPS mm, by ITK."""
    image = SimpleITK.ReadImage(str(path))
    kji = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)
    return in_order(
        np.array([image.TransformIndexToPhysicalPoint([int(n) for n in one[::-1]]) for one in kji])
    )


def batch(folder, output, **options):
    cases = find_cases(folder, output, BatchPrompts(everything=True), **options)
    return run_batch(cases, output, workers=0, make_segmenter=BrightSegmenter)


def test_batch_of_series_to_segmentations(tmp_path):
    pytest.importorskip("skimage", reason="needs scikit-image")
    for name in ("axial", "oblique", "tilted"):
        write_ct(tmp_path / "in" / name, scan_named(name))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ct_scan().array), str(tmp_path / "in" / "other.nrrd"))
    done = batch(tmp_path / "in", tmp_path / "out", ending=".dcm", surfaces=True)
    assert done.exit_code == 1
    (failed,) = done.failed
    assert "other.nrrd' is none: choose .seg.nrrd" in failed.error
    batch(tmp_path / "in", tmp_path / "images")
    for name in ("axial", "oblique", "tilted"):
        places = np.concatenate(list(frames_of_segments(tmp_path / "out" / f"{name}.dcm").values()))
        truth = scan_named(name).places(scan_named(name).bone)
        assert np.linalg.norm(places.mean(axis=0) - truth.mean(axis=0)) < 1
        assert 0.7 * len(truth) < len(places) < 1.3 * len(truth)
        as_image = voxels_of(tmp_path / "images" / f"{name}.seg.nrrd")
        if name == "tilted":  # the image lies on straightened slices: at most half a pixel aside
            assert np.linalg.norm(as_image.mean(axis=0) - places.mean(axis=0)) < 0.55
        else:
            assert np.abs(in_order(places) - as_image).max() < 2e-3
        assert list((tmp_path / "out" / f"{name}_stl").glob("*.stl"))
    assert not list((tmp_path / "out").glob(".bonesam-*"))


def test_batch_resumes_segmentations_and_surfaces(tmp_path):
    pytest.importorskip("skimage", reason="needs scikit-image")
    write_ct(tmp_path / "in" / "ct", ct_scan())
    out = tmp_path / "out"

    def endings(**options):
        cases = find_cases(tmp_path / "in", out, BatchPrompts(everything=True), ".dcm", **options)
        outcome = run_batch(cases, out, workers=0, resume=True, make_segmenter=BrightSegmenter)
        return [one.ending for one in outcome.outcomes], [one.error for one in outcome.failed]

    assert endings() == (["done"], [])
    (out / "ct_stl").mkdir()
    (_, (error,)) = endings(surfaces=True)
    assert "ct_stl' exists and was not written by a batch" in error
    (out / "ct_stl").rmdir()
    assert endings(surfaces=True) == (["done"], [])
    assert endings(surfaces=True) == (["kept"], [])
    assert endings() == (["kept"], [])
    bone = next((out / "ct_stl").iterdir())
    bone.write_bytes(bone.read_bytes()[:-50])
    assert endings(surfaces=True) == (["done"], [])
    (out / "ct.dcm").write_bytes((out / "ct.dcm").read_bytes()[:-100])
    assert endings() == (["done"], [])
    assert not (out / "ct_stl").exists(), "surfaces of an older mask"


@pytest.fixture
def command(monkeypatch):
    class OfOneVolume(BrightSegmenter):
        def open(self, volume, *others):
            return super().open(volume)

    monkeypatch.setattr("BoneSAMLib.session.Segmenter", lambda **options: OfOneVolume())
    return lambda *arguments: CliRunner().invoke(app, ["segment", *map(str, arguments)])


def test_command_writes_segmentation_and_surfaces(tmp_path, command):
    pytest.importorskip("skimage", reason="needs scikit-image")
    source = write_ct(tmp_path / "ct", ct_scan())
    result = command(source, "--all", "--output", tmp_path / "mask.dcm", "--stl", tmp_path / "stl")
    assert result.exit_code == 0, result.output
    assert is_segmentation(tmp_path / "mask.dcm")
    assert pydicom.dcmread(tmp_path / "mask.dcm").SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert list((tmp_path / "stl").glob("*.stl"))
    assert f"STL:     {tmp_path / 'stl'}" in result.stdout


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("scan.nrrd", ["-o", "mask.dcm"], "is none: choose .seg.nrrd"),
        ("nowhere.dcm", ["-o", "mask.dcm"], "no file or folder"),
        ("scan.nrrd", ["-o", "mask.nrrd", "--stl", "scan.nrrd"], "it is no folder"),
        ("flat.nrrd", ["-o", "mask.nrrd", "--stl", "stl"], "has no surface"),
    ],
)
def test_command_refuses_before_the_long_work(tmp_path, command, monkeypatch, source, options, words):
    monkeypatch.chdir(tmp_path)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ct_scan().array), "scan.nrrd")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ct_scan().array[:1]), "flat.nrrd")
    result = command(source, "--all", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["flat.nrrd", "scan.nrrd"]
