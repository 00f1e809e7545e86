"""DICOM series as scanners and archives make them: compressed, tilted, multi-frame, mixed, and incomplete."""

import io
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from BoneSAMLib.description import describe_volume
from BoneSAMLib.dicom_reading import read_series
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from Testing.lib.dicom_scans import AXIAL, LPS, OBLIQUE, SAGITTAL, ct_scan, write_ct, write_enhanced_ct

HTJ2K = UID("1.2.840.10008.1.2.4.201")


def affine_of(scan):
    """To RAS mm, of a scan that is not tilted."""
    affine = np.eye(4)
    affine[:3, :2] = scan.axes[:, :2] * scan.spacing
    affine[:3, 2] = scan.positions[1] - scan.positions[0]
    affine[:3, 3] = scan.positions[0]
    return LPS @ affine


def refused(path, words):
    with pytest.raises(BoneSAMError, match=words) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------- compression


def by_pydicom(syntax):
    return lambda dataset: dataset.compress(syntax)


def stored_as(syntax):
    def change(dataset):
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


def by_itk(compressor, syntax, folder):
    """Compressed by ITK's GDCM, whose frames are put into the dataset."""

    def compress(dataset):
        frames = []
        for frame in np.atleast_3d(dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)):
            writer = SimpleITK.ImageFileWriter()
            writer.SetImageIO("GDCMImageIO")
            writer.SetFileName(str(folder / "frame.dcm"))
            writer.UseCompressionOn()
            writer.SetCompressor(compressor)
            writer.Execute(SimpleITK.GetImageFromArray(frame[np.newaxis]))
            made = pydicom.dcmread(folder / "frame.dcm")
            assert made.file_meta.TransferSyntaxUID == syntax
            frames += generate_frames(made.PixelData, number_of_frames=1)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"

    return compress


@pytest.mark.parametrize("multi_frame", [False, True])
@pytest.mark.parametrize("kind", ["implicit", "deflated", "RLE", "JPEG-LS", "JPEG lossless", "JPEG 2000"])
def test_compressed_series(tmp_path, kind, multi_frame):
    if kind == "JPEG-LS":
        pytest.importorskip("jpeg_ls", reason="needs pyjpegls, which highdicom brings along")
    (tmp_path / "made").mkdir()
    compress = {
        "implicit": stored_as(ImplicitVRLittleEndian),
        "deflated": stored_as(DeflatedExplicitVRLittleEndian),
        "RLE": by_pydicom(RLELossless),
        "JPEG-LS": by_pydicom(JPEGLSLossless),
        "JPEG lossless": by_itk("JPEG", JPEGLosslessSV1, tmp_path / "made"),
        "JPEG 2000": by_itk("JPEG2000", JPEG2000Lossless, tmp_path / "made"),
    }[kind]
    scan = ct_scan(OBLIQUE, count=4)
    if multi_frame:
        source = write_enhanced_ct(tmp_path / "ct.dcm", scan, order=[2, 0, 3, 1], compress=compress)
    else:
        source = write_ct(tmp_path / "ct", scan, compress=compress)
    volume = read_volume(source)
    assert np.array_equal(volume.array, scan.array)
    assert np.allclose(volume.ijk_to_ras, affine_of(scan), atol=1e-5)


def test_jpeg_of_eight_bits(tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8)

    def compress(dataset):
        buffer = io.BytesIO()
        Image.fromarray(smooth).save(buffer, format="JPEG", quality=95)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        dataset.Rows, dataset.Columns = smooth.shape
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit = 7
        dataset.PixelData = encapsulate([buffer.getvalue()])
        dataset["PixelData"].VR = "OB"

    source = write_ct(tmp_path / "ct", ct_scan(count=3), compress=compress)
    assert np.abs(read_volume(source).array - (smooth.astype(int) - 1024)).max() < 6


def junk_frames(syntax):
    def compress(dataset):
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51 no picture "])
        dataset["PixelData"].VR = "OB"

    return compress


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        (HTJ2K, r"High-Throughput JPEG 2000.*: install the Python package pylibjpeg\[openjpeg\], or export"),
        (JPEG2000Lossless, r"JPEG 2000.*cannot be read: it is damaged"),
        (RLELossless, r"RLE Lossless.*cannot be read: it is damaged"),
        (UID("1.2.840.10008.1.2.4.102"), r"MPEG-4.*cannot be read"),
    ],
)
def test_compression_that_cannot_be_read_is_named(tmp_path, syntax, words):
    refused(write_ct(tmp_path / "ct", ct_scan(count=3), compress=junk_frames(syntax)), words)


def test_unknown_transfer_syntax(tmp_path):
    source = write_ct(tmp_path / "ct", ct_scan(count=3), compress=junk_frames(RLELossless))
    for file in source.iterdir():
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.9.9.9\0"))
    refused(source, "compression that is not supported")


def test_pydicom_reads_what_gdcm_does_not(tmp_path, monkeypatch):
    """High-throughput JPEG 2000 once its decoder is installed, for which nothing here has an encoder."""
    scan = ct_scan(count=3)
    source = write_ct(tmp_path / "ct", scan, compress=by_pydicom(RLELossless))

    def unknown(image):
        raise RuntimeError("no codec")

    monkeypatch.setattr("BoneSAMLib.dicom_pixels._reader", unknown)
    volume = read_volume(source)
    assert np.array_equal(volume.array, scan.array)
    assert volume.array.dtype == np.int32


# ---------------------------------------------------------------------------------------- gantry tilt


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("tilt", [16.1, -11.0])
def test_tilted_gantry_is_straightened(tmp_path, axes, tilt, caplog):
    """A ball whose center is known in mm comes back round, and in its place."""
    scan = ct_scan(axes, count=20, tilt=tilt, size=(60, 50))
    center = scan.positions[10] + scan.axes[:, :2] @ (24 * scan.spacing[0], 30 * scan.spacing[1])
    k, j, i = np.indices(scan.array.shape)
    places = (
        scan.positions[k]
        + i[..., None] * scan.spacing[0] * axes[:, 0]
        + j[..., None] * scan.spacing[1] * axes[:, 1]
    )
    scan.array[:] = 900 * np.clip(14.5 - np.linalg.norm(places - center, axis=-1), 0, 1)
    volume = read_volume(write_ct(tmp_path / "ct", scan))
    directions = volume.ijk_to_ras[:3, :3] / volume.spacing
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    assert volume.spacing == pytest.approx((0.8, 1.1, 2.5), abs=1e-5)
    ball = np.argwhere(volume.array > 0)[:, ::-1]
    found = ball @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
    middle = LPS[:3, :3] @ center
    weights = volume.array[volume.array > 0]
    truth = np.average(places.reshape(-1, 3), axis=0, weights=scan.array.ravel())
    assert np.abs(np.average(found, axis=0, weights=weights) - LPS[:3, :3] @ truth).max() < 0.01
    assert np.linalg.norm(truth - center) < 0.3
    assert np.linalg.norm(found[weights > 450] - middle, axis=1).max() < 14.8
    assert weights.sum() == pytest.approx(scan.array.sum(), rel=1e-3)
    assert volume.array.min() == 0
    assert volume.array.dtype.kind == "i"
    assert f"tilted gantry ({abs(tilt):.1f} degrees)" in volume.notes[0]
    assert describe_volume(volume)["Note"] == volume.notes[0]
    assert volume.notes[0] in caplog.text


def test_tilted_slices_keep_their_values_where_they_are_moved_by_whole_pixels(tmp_path):
    scan = ct_scan(count=6, step=2.2)
    scan.positions[:, 1] += np.arange(6) * 2.2  # two pixels of 1.1 mm each
    series = write_ct(tmp_path / "ct", scan)
    volume = read_volume(series)
    assert volume.shape == (6, 26 + 10, 30)
    for k, plane in enumerate(volume.array):
        assert np.array_equal(plane[2 * k : 2 * k + 26], scan.array[k])
        assert (np.delete(plane, np.s_[2 * k : 2 * k + 26], axis=0) == scan.array.min()).all()
    assert np.allclose(volume.ijk_to_ras[:3, 3], LPS[:3, :3] @ scan.positions[0])
    stack = read_series(series).stack
    images = read_series(series).images
    masks = stack.on_slices(volume.array)
    for image, mask in zip(images, masks, strict=True):
        k = np.abs(scan.positions - np.array(image.dataset.ImagePositionPatient, float)).sum(1).argmin()
        assert np.array_equal(mask, scan.array[k])


def test_straight_series_have_no_notes(tmp_path):
    assert read_volume(write_ct(tmp_path / "ct", ct_scan(OBLIQUE))).notes == ()


def test_slices_that_lie_like_fallen_dominoes_are_refused(tmp_path):
    refused(write_ct(tmp_path / "ct", ct_scan(tilt=75)), "tilted against each other by 75.0 degrees")


# ------------------------------------------------------------------- what a series is, and what it is not


def test_exact_copies_count_once(tmp_path, caplog):
    scan = ct_scan()
    source = write_ct(tmp_path / "ct", scan)
    for name in ("IM000", "IM003"):
        shutil.copy(source / name, source / f"{name} (1)")
    volume = read_volume(source)
    assert np.array_equal(volume.array, scan.array)
    assert "2 files are exact copies of others" in volume.notes[0]
    assert volume.notes[0] in caplog.text
    (source / "IM003 (1)").unlink()
    assert "1 file is an exact copy of another" in read_volume(source / "IM005").notes[0]


def test_copies_that_differ_are_refused(tmp_path):
    source = write_ct(tmp_path / "ct", ct_scan())
    dataset = pydicom.dcmread(source / "IM002")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(source / "again")
    refused(source, r"10 slices lie at 9 positions")


def test_image_without_a_place_among_slices(tmp_path):
    source = write_ct(
        tmp_path / "ct",
        ct_scan(),
        ImagePositionPatient=lambda k: None if k == 4 else [-41, 17, 103 + 2.5 * k],
    )
    refused(source, "1 of 9 images of the series say not where they lie")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PixelSpacing": lambda k: [1.1, 0.8] if k else [1.1, 0.9]}, "differ in the size of their pixels"),
        (
            {"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 0, 0, -1]},
            "in direction",
        ),
        ({"ImageOrientationPatient": [1, 0, 0, 0.5, 0.866, 0]}, "not perpendicular"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 1, 0]}, "not valid"),
        ({"ImageOrientationPatient": [3, 0, 0, 0, 3, 0]}, "not valid"),
        ({"PixelSpacing": [0, 1]}, "not valid"),
        ({"ImagePositionPatient": ["nan", 0, 0]}, "not valid"),
        ({"ImagePositionPatient": ["inf", 0, 0]}, "not valid"),
        ({"ImagePositionPatient": [1, 2]}, "not valid"),
        ({"ImagePositionPatient": []}, "says not where"),
        ({"PixelSpacing": None}, "says not where"),
        ({"RescaleSlope": None, "PixelData": b"\0\0"}, "lacks pixels"),
        ({"Rows": 0}, "more pixels than its header says"),
        ({"Columns": 3}, "more pixels than its header says"),
        ({"Rows": 25}, "more pixels than its header says"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wrong_headers(tmp_path, changes, words):
    refused(write_ct(tmp_path / "ct", ct_scan(), **changes), words)


# --------------------------------------------------------------------------------------------- multi-frame


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, OBLIQUE])
def test_enhanced_multi_frame(tmp_path, axes):
    scan = ct_scan(axes)
    path = write_enhanced_ct(tmp_path / "ct.dcm", scan, order=[4, 2, 0, 1, 3, 8, 7, 6, 5])
    volume = read_volume(path)
    assert np.array_equal(volume.array, scan.array)
    assert np.allclose(volume.ijk_to_ras, affine_of(scan), atol=1e-5)
    assert volume.modality == "CT"


def test_frames_that_are_rescaled_differently(tmp_path):
    """Enhanced MR does that; one slope for all would change the contrast from slice to slice."""
    scan = ct_scan()
    scan.array[:] = np.abs(scan.array) // 4 * 4
    path = write_enhanced_ct(
        tmp_path / "mr.dcm",
        scan,
        order=range(9)[::-1],
        rescaling=lambda k: (2 if k % 2 else 4, 0),
        Modality="MR",
    )
    volume = read_volume(path)
    assert np.array_equal(volume.array, scan.array)
    assert volume.modality == "MR"


def test_tilted_multi_frame(tmp_path):
    scan = ct_scan(tilt=16.1)
    frames = read_volume(write_enhanced_ct(tmp_path / "ct.dcm", scan, order=[4, 2, 0, 1, 3, 8, 7, 6, 5]))
    slices = read_volume(write_ct(tmp_path / "ct", scan))
    assert np.array_equal(frames.array, slices.array)
    assert np.allclose(frames.ijk_to_ras, slices.ijk_to_ras, atol=1e-5)


def test_one_frame_with_functional_groups(tmp_path):
    scan = ct_scan(OBLIQUE)
    volume = read_volume(write_enhanced_ct(tmp_path / "ct.dcm", scan, order=[4]))
    assert np.array_equal(volume.array, scan.array[4:5])
    assert np.allclose(volume.ijk_to_ras[:3, 3], LPS[:3, :3] @ scan.positions[4], atol=1e-5)
    assert volume.spacing == pytest.approx((0.8, 1.1, 2.0))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([0, 1, 2, 4, 5, 6], "1 of 7 slices are missing"),
        ([0, 1, 1, 2, 3], "5 slices lie at 4 positions"),
    ],
)
def test_irregular_frames(tmp_path, order, words):
    refused(write_enhanced_ct(tmp_path / "ct.dcm", ct_scan(), order=order), words)


@pytest.mark.parametrize(("frames", "words"), [(7, "more pixels than its header says"), (10, "lacks pixels")])
def test_other_number_of_frames_than_pixels(tmp_path, frames, words):
    refused(write_enhanced_ct(tmp_path / "ct.dcm", ct_scan(), NumberOfFrames=frames), words)


def test_fewer_pixels_than_places(tmp_path):
    scan = ct_scan()
    path = write_enhanced_ct(
        tmp_path / "ct.dcm", scan, NumberOfFrames=7, PixelData=(scan.array[:7] + 1024).astype("<u2").tobytes()
    )
    refused(path, "names 9 frames but holds 7")


def test_damaged_file_among_slices_is_said(tmp_path):
    scan = ct_scan()
    source = write_ct(tmp_path / "ct", scan)
    last = max(source.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:400])
    for path in (source, next(file for file in source.iterdir() if file != last)):
        volume = read_volume(path)
        assert np.array_equal(volume.array, scan.array[:-1])
        assert f"'{last}' is damaged and left out" in volume.notes[0]
    shutil.copy(last, source / "another")
    assert "and 1 more are damaged" in read_volume(source).notes[0]
