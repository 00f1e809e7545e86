"""Bad inputs, all in one batch: each gets one clear sentence and no mask, and the good ones their mask."""

import functools
import gzip
import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    generate_uid,
)

from BoneSAMLib.batch import BatchPrompts, find_cases, run_batch
from BoneSAMLib.reading import read_volume
from Testing.lib.batch_scans import bright_block, write_scan, write_series
from Testing.lib.bright_segmenter import BrightSegmenter
from Testing.lib.dicom_scans import ct_scan, write_ct, write_enhanced_ct

NAN = float("nan")
INFINITY = float("inf")


# ------------------------------------------------------------------------------------- how they are made


def rewritten(name, change):
    def make(folder):
        path = write_scan(folder / name)
        path.write_bytes(change(path.read_bytes()))

    return make


def field(offset, code, *numbers):
    """An uncompressed NIfTI with one field of its header overwritten."""

    def change(data):
        content = bytearray(data)
        struct.pack_into(code, content, offset, *numbers)
        return content

    return change


def fields(*changes):
    return rewritten(
        "bad.nii", lambda data: functools.reduce(lambda data, change: change(data), changes, data)
    )


def array(make, name="bad.nii"):
    return lambda folder: write_scan(folder / name, make())


def colors(name):
    def make(folder):
        image = SimpleITK.GetImageFromArray(np.zeros((6, 7, 8, 3), np.uint8), isVector=True)
        SimpleITK.WriteImage(image, str(folder / name))

    return make


def time_points(name, count):
    def make(folder):
        image = SimpleITK.GetImageFromArray(bright_block())
        image.SetSpacing((2.0, 2.0, 4.0))
        SimpleITK.WriteImage(SimpleITK.JoinSeries([image] * count), str(folder / name))

    return make


def text(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def nrrd(**changes):
    """A plain NRRD of 4 x 3 x 2 bytes whose header lines are replaced."""
    lines = {
        "type": "uint8", "dimension": "3", "space": "right-anterior-superior", "sizes": "4 3 2",
        "space_directions": "(1,0,0) (0,1,0) (0,0,1)", "encoding": "raw", "space_origin": "(0,0,0)",
    } | changes  # fmt: skip
    header = "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in lines.items())
    return text("bad.nrrd", f"NRRD0004\n{header}\n\n".encode() + bytes(24))


def mha(**changes):
    lines = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "ElementSpacing": "1 1 1", "DimSize": "4 3 2", "ElementType": "MET_UCHAR", "ElementDataFile": "LOCAL",
    } | changes  # fmt: skip
    header = "\n".join(f"{key} = {value}" for key, value in lines.items())
    return text("bad.mha", f"{header}\n".encode() + bytes(24))


def series(**changes):
    return lambda folder: write_series(folder / "slices", **changes)


def with_gap(folder):
    sorted(write_series(folder / "slices", count=7).iterdir())[3].unlink()


def compressed(syntax, frame=b"no picture"):
    def change(dataset):
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"

    return lambda folder: write_ct(folder / "slices", ct_scan(count=3), compress=change)


def unknown_syntax(folder):
    compressed(RLELossless)(folder)
    for path in (folder / "slices").iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.9.9.9\0"))


def in_color(dataset):
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    picture = np.zeros((dataset.Rows, dataset.Columns, 3), np.uint8)
    picture[..., 1] = 200
    dataset.PixelData = picture.tobytes()


def slice_changed(change):
    """One file of a series is changed as a whole."""

    def make(folder):
        path = min(write_series(folder / "slices").iterdir())
        path.write_bytes(change(path.read_bytes()))

    return make


def changed_copy(folder):
    path = min(write_series(folder / "slices").iterdir())
    dataset = pydicom.dcmread(path)
    dataset.PixelData = bytes(960)
    dataset.save_as(folder / "slices" / "copy")


def turned_localizer(folder):
    write_series(folder / "slices", seed=1)
    for index, path in enumerate(sorted(write_series(folder / "localizer", count=2).iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = pydicom.dcmread(min((folder / "slices").iterdir())).SeriesInstanceUID
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        dataset.save_as(folder / "slices" / f"localizer{index}")
    shutil.rmtree(folder / "localizer")


def link_to_itself(folder):
    (folder / "bad.nii").symlink_to(folder / "bad.nii")


def huge_png(folder):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    (folder / "bad.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


def picture(name, change=lambda data: data, **options):
    def make(folder):
        pixels = np.zeros((40, 50, 3), np.uint8)
        pixels[..., 0] = 250
        plain = options.pop("gray", False)
        pages = [Image.fromarray(pixels)] * options.pop("pages", 0)
        extra = {"save_all": True, "append_images": pages} if pages else {}
        Image.fromarray(pixels[..., 0] if plain else pixels).save(folder / name, **extra)
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return make


NO_ROWS = (field(76, "<8f", *[0.0] * 8), field(280, "<12f", *[0.0] * 12))
SFORM = field(252, "<2h", 0, 1)

# What is wrong: how it is made, and what the sentence says.
MALFORMED = {
    # NIfTI
    "cut NIfTI": (rewritten("bad.nii", lambda data: data[:1000]), "damaged or incomplete"),
    "NIfTI header only": (rewritten("bad.nii", lambda data: data[:352]), "damaged or incomplete"),
    "half a NIfTI header": (rewritten("bad.nii", lambda data: data[:100]), "damaged or incomplete"),
    "cut gzip": (rewritten("bad.nii.gz", lambda data: data[: len(data) // 2]), "damaged or incomplete"),
    "wrong gzip checksum": (rewritten("bad.nii.gz", lambda data: data[:-8] + bytes(8)), "damaged"),
    "gzip of nothing": (rewritten("bad.nii.gz", lambda data: gzip.compress(b"")), "not a NIfTI|incomplete"),
    "gzip twice": (rewritten("bad.nii.gz", gzip.compress), "not a NIfTI"),
    "bytes flipped in gzip": (
        rewritten("bad.nii.gz", lambda data: data[:300] + bytes(b ^ 255 for b in data[300:340]) + data[340:]),
        "damaged",
    ),
    "a web page": (rewritten("bad.nii.gz", lambda data: b"<html>Not found</html>"), "not a NIfTI"),
    "no bytes": (rewritten("bad.nii.gz", lambda data: b""), "is empty"),
    "zeros": (rewritten("bad.nii", lambda data: bytes(5000)), "not a NIfTI"),
    "NIfTI of another kind": (fields(field(0, "<i", 7)), "not a NIfTI"),
    "NaN voxels": (array(lambda: np.full((6, 24, 20), NAN, np.float32)), "not finite numbers"),
    "infinite voxels": (array(lambda: np.full((6, 24, 20), INFINITY, np.float32)), "not finite numbers"),
    "one row": (array(lambda: np.ones((1, 1, 9), np.int16)), "only one row"),
    "one voxel": (array(lambda: np.ones((1, 1, 1), np.int16)), "only one row"),
    "huge NIfTI": (
        fields(field(40, "<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1)),
        "too large|not fit into memory",
    ),
    "negative size": (fields(field(40, "<8h", 3, -5, 24, 6, 1, 1, 1, 1)), "header"),
    "no voxels": (fields(field(40, "<8h", 3, 0, 24, 6, 1, 1, 1, 1)), "no voxels"),
    "4D": (fields(field(40, "<8h", 4, 20, 24, 3, 2, 1, 1, 1)), r"holds 2 volumes \(size 20 x 24 x 3 x 2\)"),
    "9 dimensions": (fields(field(40, "<8h", 9, 20, 24, 6, 1, 1, 1, 1)), "header"),
    "RGB NIfTI": (fields(field(70, "<2h", 128, 24)), "are RGB colors"),
    "complex NIfTI": (fields(field(70, "<2h", 32, 64)), "are complex numbers"),
    "unknown voxel type": (fields(field(70, "<2h", 77, 16)), "are type 77"),
    "data far behind the end": (fields(field(108, "<f", 1e30)), "damaged"),
    "data inside the header": (fields(field(108, "<f", 40.0)), "header .* damaged"),
    "slope beyond all numbers": (fields(field(112, "<2f", 3e38, 0.0)), "not finite numbers"),
    "no spacing": (fields(*NO_ROWS), "spacing along i, j, k is zero"),
    "spacing NaN": (fields(field(76, "<8f", *[NAN] * 8), field(280, "<12f", *[NAN] * 12)), "not finite"),
    "origin NaN": (fields(field(268, "<3f", NAN, 0, 0), field(252, "<2h", 1, 0)), "not finite"),
    "absurdly wide": (
        fields(SFORM, field(280, "<12f", 1e9, 0, 0, 0, 0, 2, 0, 0, 0, 0, 4, 0)),
        r"1e\+09 x 2 x 4 mm",
    ),
    "absurdly fine": (
        fields(SFORM, field(280, "<12f", 1e-9, 0, 0, 0, 0, 2, 0, 0, 0, 0, 4, 0)),
        "1e-09 x 2 x 4 mm",
    ),
    "absurdly far": (
        fields(SFORM, field(280, "<12f", 2, 0, 0, 1e20, 0, 2, 0, 0, 0, 0, 4, 0)),
        "away from the origin",
    ),
    "singular affine": (
        fields(SFORM, field(280, "<12f", 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0)),
        "singular|not perpendicular",
    ),
    "sheared affine": (
        fields(SFORM, field(280, "<12f", 2, 1, 0, 0, 0, 2, 0, 0, 0, 0, 4, 0)),
        "not perpendicular",
    ),
    # NRRD and MetaImage
    "cut NRRD": (rewritten("bad.nrrd", lambda data: data[:-40]), "damaged"),
    "NRRD header only": (rewritten("bad.nrrd", lambda data: data.split(b"\n\n")[0] + b"\n\n"), "damaged"),
    "NRRD of text": (text("bad.nrrd", b"NRRD0004\nhello\n\n"), "damaged"),
    "NRRD without voxels": (nrrd(sizes="4 0 2"), "damaged"),
    "NRRD with a negative size": (nrrd(sizes="4 -3 2"), "damaged"),
    "NRRD of strange encoding": (nrrd(encoding="morse"), "damaged"),
    "NRRD without directions": (nrrd(space_directions="(0,0,0) (0,0,0) (0,0,0)"), "damaged|singular"),
    "NRRD with NaN directions": (
        nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)"),
        "damaged|not finite|spacing",
    ),
    "NRRD with parallel axes": (nrrd(space_directions="(1,0,0) (1,0,0) (0,0,1)"), "damaged|parallel"),
    "sheared NRRD": (nrrd(space_directions="(1,0,0) (0.5,1,0) (0,0,1)"), "not perpendicular"),
    "absurdly wide NRRD": (nrrd(space_directions="(1e12,0,0) (0,1,0) (0,0,1)"), r"1e\+12 mm"),
    "NRRD in colors": (colors("bad.nrrd"), "3 values per voxel"),
    "4D NRRD": (time_points("bad.nrrd", 2), "holds 2 volumes"),
    "cut MHA": (rewritten("bad.mha", lambda data: data[:-3000]), "damaged"),
    "MHA without data": (rewritten("bad.mha", lambda data: data[:60]), "damaged"),
    "huge MHA": (mha(DimSize="90000 90000 90000"), "damaged|too large"),
    "MHA of unknown voxels": (mha(ElementType="MET_FANCY"), "damaged"),
    "MHA without spacing": (mha(ElementSpacing="0 0 0"), "damaged|zero"),
    "MHA without dimensions": (mha(NDims="x"), "damaged"),
    "detached data missing": (
        rewritten("bad.mhd", lambda data: data.replace(b"bad", b"gone")),
        "data file is missing",
    ),
    # Files and folders
    "unreadable": (lambda folder: write_scan(folder / "unreadable.nii.gz"), "Permission denied"),
    "link to itself": (link_to_itself, None),
    "link to nothing": (lambda folder: (folder / "bad.nii").symlink_to("nowhere"), None),
    "folder called like a file": (lambda folder: (folder / "bad.nii.gz").mkdir(), None),
    "folders in a circle": (lambda folder: (folder / "inner").symlink_to(folder), None),
    "a pipe": (lambda folder: os.mkfifo(folder / "bad.nii.gz"), None),
    # DICOM
    "DICOM of nothing": (text("bad.dcm", bytes(128) + b"DICM\x08\x00"), "damaged"),
    "DICOM without position": (
        series(ImagePositionPatient=lambda k: [0, 0, 4 * k] if k else None),
        "say not where",
    ),
    "DICOM without orientation": (series(ImageOrientationPatient=None), "says not where"),
    "DICOM without pixel spacing": (series(PixelSpacing=None), "says not where"),
    "DICOM pixel spacing zero": (series(PixelSpacing=[0, 0]), "not valid"),
    "DICOM absurdly wide": (series(PixelSpacing=[1e9, 1e9]), r"1e\+09 mm"),
    "DICOM sizes differ": (series(Rows=lambda k: 24 if k else 12), "differ in size"),
    "DICOM pixel sizes differ": (
        series(PixelSpacing=lambda k: [2, 2] if k else [2, 3]),
        "size of their pixels",
    ),
    "DICOM directions differ": (
        series(ImageOrientationPatient=lambda k: [1, 0, 0, 0, 1, 0] if k else [1, 0, 0, 0, 0, 1]),
        "differ in direction",
    ),
    "DICOM localizer among slices": (turned_localizer, "differ in direction"),
    "DICOM axes not perpendicular": (series(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "not perpendicular"),
    "DICOM axes of no length": (series(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]), "not valid"),
    "DICOM changed copy of a slice": (changed_copy, "7 slices lie at 6 positions"),
    "DICOM all slices in one place": (series(ImagePositionPatient=[0, 0, 0]), "6 slices lie at 1 positions"),
    "DICOM slice missing": (with_gap, "1 of 7 slices are missing"),
    "DICOM uneven": (
        series(ImagePositionPatient=lambda k: [0, 0, 4 * k + (1.7 if k == 2 else 0)]),
        "not evenly",
    ),
    "DICOM slices pushed aside": (
        series(ImagePositionPatient=lambda k: [9 * (k == 2), 0, 4 * k]),
        "shifted sideways",
    ),
    "DICOM lacks pixels": (series(PixelData=lambda k: b"\x01\x02" if k == 2 else bytes(960)), "lacks pixels"),
    "DICOM without pixels": (series(PixelData=None), "lacks pixels"),
    "DICOM more pixels than stated": (series(Columns=10), "more pixels"),
    "DICOM rescaled by words": (
        slice_changed(lambda data: re.sub(rb"(\(\x00S\x10DS..).", rb"\1x", data, flags=re.S)),
        "rescaling .* is not a number",
    ),
    "DICOM unknown compression": (unknown_syntax, "compression that is not supported"),
    "DICOM newest JPEG 2000": (compressed(UID("1.2.840.10008.1.2.4.201")), r"pylibjpeg\[openjpeg\]"),
    "DICOM damaged JPEG": (compressed(UID("1.2.840.10008.1.2.4.70")), "cannot be read"),
    "DICOM in colors": (
        lambda folder: write_ct(folder / "slices", ct_scan(count=3), compress=in_color),
        "colors",
    ),
    "DICOM film": (
        lambda folder: write_enhanced_ct(
            folder / "film.dcm", ct_scan(), PerFrameFunctionalGroupsSequence=None
        ),
        "frames without positions",
    ),
    "DICOM frames missing": (
        lambda folder: write_enhanced_ct(folder / "ct.dcm", ct_scan(), order=[0, 1, 3, 4, 5]),
        "1 of 6 slices are missing",
    ),
    # Pictures
    "cut PNG": (picture("bad.png", lambda data: data[: len(data) // 2], gray=True), "damaged"),
    "PNG of a size to fill the memory": (huge_png, "damaged|too large"),
    "colored JPEG": (picture("bad.jpg"), "has colors"),
    "TIFF of several pages": (picture("bad.tif", pages=2), "3 pages"),
    "text called BMP": (text("bad.bmp", b"BM hello"), "damaged or not a picture"),
}


# What looks odd and is right. The sentence, if any, is a note in the record.
def tilted(folder):
    write_series(folder / "slices", ImagePositionPatient=lambda k: [-20, -24 + 1.5 * k, 4 * k])


def with_copy(folder):
    path = min(write_series(folder / "slices").iterdir())
    shutil.copy(path, folder / "slices" / "copy")


def among_others(folder):
    directory = pydicom.Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    write_series(folder / "slices")
    directory.save_as(folder / "slices" / "DICOMDIR", enforce_file_format=True)
    (folder / "slices" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    write_series(folder / "report", count=1, Rows=None, Modality="SR")


ODD = {
    "Ünïcode 骨 and  spaces": (lambda folder: write_scan(folder / "le fémur — 骨 .nii.gz"), ""),
    "one slice": (lambda folder: write_scan(folder / "flat.nii.gz", bright_block()[3]), ""),
    "one volume in 4D": (time_points("4d.nii.gz", 1), ""),
    "tilted gantry": (tilted, "tilted gantry"),
    "slice copied": (with_copy, "exact copy"),
    "no modality": (series(Modality=None), ""),
    "without end of file name": (
        lambda folder: shutil.move(write_scan(folder / "a.nrrd"), folder / "scan"),
        "",
    ),
    "wrong end of file name": (
        lambda folder: shutil.move(write_scan(folder / "a.nii"), folder / "b.mha"),
        "",
    ),
    "other files among slices": (among_others, ""),
    "link": (lambda folder: (folder / "b.nii").symlink_to(write_scan(folder / ".hidden.nii")), ""),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Outcomes of one batch over everything, by the name of the input."""
    home = tmp_path_factory.mktemp("malformed")
    for name, (make, _) in {**MALFORMED, **ODD}.items():
        folder = home / "in" / name
        folder.mkdir(parents=True)
        make(folder)
    opened = Path.open

    def open_or_refuse(self, *arguments, **options):
        if self.name.startswith("unreadable"):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    everything = BatchPrompts(everything=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_or_refuse)
        cases = find_cases(home / "in", home / "out", everything)
        pictures = [str(home / "in" / "*" / f"bad.{ending}") for ending in ("png", "jpg", "tif", "bmp")]
        cases += [case for pattern in pictures for case in find_cases(pattern, home / "out", everything)]
        done = run_batch(cases, home / "out", workers=0, memory=4_000_000_000, make_segmenter=BrightSegmenter)
    by_input = {name: [] for name in {**MALFORMED, **ODD}}
    for outcome in done.outcomes:
        by_input[outcome.case.source.relative_to(home / "in").parts[0]].append(outcome)
    return by_input


def test_there_are_many():
    assert len(MALFORMED) >= 60


@pytest.mark.parametrize("name", MALFORMED)
def test_one_sentence_and_no_mask(outcomes, name):
    words = MALFORMED[name][1]
    if words is None:  # nothing that could be a scan: not even a case
        assert outcomes[name] == []
        return
    assert outcomes[name]
    for outcome in outcomes[name]:
        assert outcome.ending == "failed"
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(outcome.error)
        assert "\n" not in outcome.error
        assert outcome.error.endswith(".")
        assert name in outcome.error or outcome.case.source.name in outcome.error, "which file must be said"
        assert "Error:" not in outcome.error, "an exception that nobody had foreseen"
        assert not outcome.case.output.exists()
        assert outcome.case.record.exists()


@pytest.mark.parametrize("name", ODD)
def test_odd_and_right(outcomes, name):
    (outcome,) = outcomes[name]
    assert (outcome.ending, outcome.error) == ("done", "")
    mask = read_volume(outcome.case.output)
    assert mask.array.any()
    note = outcome.record["volume"].get("Note", "")
    assert ODD[name][1] in note
    assert bool(note) == bool(ODD[name][1])
    found = np.argwhere(mask.array)[:, ::-1] @ mask.ijk_to_ras[:3, :3].T + mask.ijk_to_ras[:3, 3]
    block = np.argwhere(bright_block() > 400)[:, ::-1].mean(axis=0)
    if name == "tilted gantry":
        middle = [20 - 2 * block[0], 24 - 2 * block[1] - 1.5 * block[2], 4 * block[2]]
    elif ("slice" in name and name != "one slice") or name in ("no modality", "other files among slices"):
        middle = [20 - 2 * block[0], 24 - 2 * block[1], 4 * block[2]]
    else:
        depth = 0 if name == "one slice" else 4 * block[2]
        middle = [-2 * block[0], -2 * block[1], depth]
    assert np.abs(found.mean(axis=0) - middle).max() < 1.5


def test_damaged_slice_is_said_and_not_hidden_by_the_others(tmp_path):
    folder = write_series(tmp_path / "in" / "slices")
    broken = min(folder.iterdir())
    broken.write_bytes(broken.read_bytes()[:400])
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    done = run_batch(cases, tmp_path / "out", workers=0, make_segmenter=BrightSegmenter)
    assert done.exit_code == 1
    assert f"'{broken}' is damaged" in done.failed[0].error
