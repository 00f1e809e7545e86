"""Files and tables with random damage: a sentence or a sound volume, never a crash, and never another place.

A short run, the same each time, is part of the tests. BONESAM_FUZZ=5000 tries as many new examples of each.
"""

import csv
import gzip
import io
import math
import os
import re

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless

from BoneSAMLib.batch import find_cases
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import lps_to_ras
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume
from Testing.lib.batch_scans import bright_block
from Testing.lib.dicom_scans import ct_scan, write_ct, write_enhanced_ct

MORE = os.environ.get("BONESAM_FUZZ")
EXAMPLES = int(MORE or 60)
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=MORE is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

KINDS = ["nii", "nii.gz", "nrrd", "mha", "mhd", "png", "tif", "jpg", "bmp", "dcm", "frames.dcm", "rle.dcm"]


def image():
    made = SimpleITK.GetImageFromArray(bright_block((3, 20, 18)))
    made.SetSpacing((0.7, 0.8, 2.5))
    made.SetOrigin((-12.0, 30.0, 5.0))
    return made


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The content of one sound file of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    for kind in ("nii", "nrrd", "mha", "mhd"):
        SimpleITK.WriteImage(image(), str(folder / f"scan.{kind}"), kind == "nrrd")
    for kind in ("png", "tif", "jpg", "bmp"):
        Image.fromarray(bright_block((3, 20, 18))[1].astype(np.uint8)).save(folder / f"scan.{kind}")
    scan = ct_scan(count=2, size=(12, 14))
    (folder / "scan.dcm").write_bytes(next(write_ct(folder / "ct", scan).iterdir()).read_bytes())
    write_enhanced_ct(folder / "scan.frames.dcm", scan)
    write_enhanced_ct(folder / "scan.rle.dcm", scan, compress=lambda made: made.compress(RLELossless))
    content = {kind: (folder / f"scan.{kind}").read_bytes() for kind in KINDS if kind != "nii.gz"}
    return content | {"nii.gz": content["nii"], "raw": (folder / "scan.raw").read_bytes()}


# Where: a part of the file, so that short headers are hit as often as long data. What: bytes, and the numbers
# that make trouble in headers.
TROUBLE = [
    *(b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f"),
    *(b"\0\0\x80\xff", b"\0\0\x80\x3f", b"-1", b"nan", b"1e30", b"0", b" ", b"\n"),
]
damages = st.lists(
    st.tuples(
        st.sampled_from(["replace", "replace", "insert", "remove", "cut"]),
        st.one_of(st.integers(0, 400), st.floats(0, 1)),
        st.one_of(st.sampled_from(TROUBLE), st.binary(min_size=1, max_size=8)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content, changes):
    content = bytearray(content)
    for what, where, data in changes:
        place = min(int(where * len(content)) if isinstance(where, float) else where, len(content))
        if what == "replace":
            content[place : place + len(data)] = data
        elif what == "insert":
            content[place:place] = data
        elif what == "remove":
            del content[place : place + len(data)]
        else:
            del content[place:]
    return bytes(content)


def read_or_sentence(path):
    """The volume, sound by itself; or None, after one clear sentence."""
    try:
        volume = read_volume(path)
    except BoneSAMError as error:
        message = str(error)
        assert "\n" not in message
        assert message.endswith(".")
        assert path.name in message
        assert len(message) < 600
        return None
    assert isinstance(volume, Volume)
    assert volume.array.ndim == 3
    assert np.isfinite([volume.array.min(), volume.array.max()]).all()
    assert np.isfinite(volume.ijk_to_ras).all()
    assert np.isfinite(np.linalg.inv(volume.ijk_to_ras)).all()
    assert all(0 < step < 1e5 for step in volume.spacing)
    return volume


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path, sound, kind):
    path = tmp_path / f"scan.{kind}"
    (tmp_path / "scan.raw").write_bytes(sound["raw"])

    @fuzzed
    @given(damages)
    def check(changes):
        content = damaged(sound[kind], changes)
        path.write_bytes(gzip.compress(content, 1) if kind == "nii.gz" else content)
        read_or_sentence(path)

    check()


@pytest.mark.filterwarnings("ignore")
def test_damaged_gzip(tmp_path, sound):
    path = tmp_path / "scan.nii.gz"
    packed = gzip.compress(sound["nii"], mtime=0)
    expected = None

    @fuzzed
    @given(damages)
    def check(changes):
        path.write_bytes(damaged(packed, changes))
        volume = read_or_sentence(path)
        # The checksum leaves no way to other voxels.
        assert volume is None or np.array_equal(volume.array, expected)

    path.write_bytes(packed)
    expected = read_volume(path).array
    check()


def itk_volume(path):
    """Size and affine in RAS as ITK sees them; None where it refuses."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    if reader.GetDimension() != 3 or not min(reader.GetSpacing()) > 0:
        return None  # where pixdim is negative, ITK has negative spacings, which nothing can show
    affine = lps_to_ras(reader.GetOrigin(), reader.GetSpacing(), reader.GetDirection())
    # With an sform that is no number, ITK puts the image nowhere; we take the qform, or refuse.
    return (reader.GetSize(), affine) if np.isfinite(affine).all() else None


HEADER_FIELDS = [*range(40, 56), *range(70, 108), *range(252, 344)]


@pytest.mark.filterwarnings("ignore")
def test_damaged_nifti_headers_mean_the_same_as_in_itk(tmp_path, sound, caplog):
    """The geometry is read by our own code: where ITK takes the file too, it must be the same place."""
    path = tmp_path / "scan.nii"
    compared = []
    values = st.one_of(st.sampled_from(TROUBLE), st.binary(min_size=1, max_size=2))

    @fuzzed
    @given(st.lists(st.tuples(st.sampled_from(HEADER_FIELDS), values), min_size=1, max_size=2))
    def check(changes):
        path.write_bytes(damaged(sound["nii"], [("replace", *change) for change in changes]))
        caplog.clear()
        volume = read_or_sentence(path)
        seen = itk_volume(path) if volume is not None and "straightened" not in caplog.text else None
        if seen is None:
            return
        compared.append(changes)
        assert volume.size == tuple(seen[0])
        corners = np.array([[0, 0, 0, 1], [*volume.size, 1]])
        scale = 1 + np.abs(volume.ijk_to_ras).max()
        assert np.abs(corners @ (volume.ijk_to_ras - seen[1]).T).max() < 1e-4 * scale

    check()
    assert len(compared) > EXAMPLES / 10


# -------------------------------------------------------------------------------------------- prompt tables

numbers = st.floats(-500, 500).map(lambda value: round(value, 3))
names = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=10).map(str.strip)


def listed(values):
    return ",".join(f"{value:g}" if value == int(value) else repr(value) for value in values)


@fuzzed
@given(
    st.lists(
        st.tuples(
            names,
            st.lists(numbers, min_size=6, max_size=6),
            st.lists(st.lists(numbers, min_size=3, max_size=3)),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.permutations(["volume", "bone", "box", "points"]),
)
def test_prompts_come_back_as_they_were_written(
    tmp_path_factory, bones, delimiter, line_end, encoding, columns
):
    folder = tmp_path_factory.getbasetemp()
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator=line_end)
    writer.writeheader()
    for name, box, points in bones:
        listed_points = " ; ".join(listed(point) for point in points)
        writer.writerow({"volume": "a scan.nii", "bone": name, "box": listed(box), "points": listed_points})
    (folder / "list.csv").write_bytes(text.getvalue().encode(encoding))
    (case,) = find_cases(folder / "list.csv", folder / "out")
    if case.error:  # flat boxes are refused
        assert any(len({*one[1][:3]} & {*one[1][3:]}) for one in bones)
        return
    for (name, box, points), read in zip(bones, case.prompts.bones, strict=True):
        assert read.name == name
        assert sorted([*read.box.first, *read.box.second]) == sorted(box)
        assert [list(point.position) for point in read.points] == points


TABLE = (
    "volume,output,bone,box,points,negative_points\n"
    'a.nii,,left femur,"-1.5,2,3,40,50,60","1,2,3;4,5,6","7,8,9"\n'
    'b.nii,b.nrrd,,"10,20,30,41,52,63",,\n'
    "c.nii,,,,,\n"
)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@fuzzed
@given(damages)
def test_damaged_table_invents_no_prompt(tmp_path_factory, changes):
    folder = tmp_path_factory.getbasetemp()
    content = damaged(TABLE.encode(), changes)
    (folder / "list.csv").write_bytes(content)
    cases, sentence = [], ""
    try:
        cases = find_cases(folder / "list.csv", folder / "out")
    except BoneSAMError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert bool(cases) != bool(sentence)
    if sentence:
        return
    written = {float(number) for number in NUMBER.findall(content.decode("utf-8-sig"))}
    for case in cases:
        assert (case.prompts is None) == bool(case.error)
        assert "\n" not in case.error
        assert (folder / "out") in case.output.parents
        for bone in case.prompts.bones if case.prompts else ():
            used = [
                *(bone.box.first + bone.box.second if bone.box else ()),
                *(x for p in bone.points for x in p.position),
            ]
            assert all(math.isfinite(value) for value in used)
            assert set(used) <= written
