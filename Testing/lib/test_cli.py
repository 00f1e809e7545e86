"""The command line: grouping of prompts, labels, files, errors. A thresholding fake replaces the networks."""

import shutil
import sys
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from BoneSAMLib.bone_finding import BoneNotFound, FoundBox
from BoneSAMLib.cli import app
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.many_bones import group_prompts
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import BONE_TERMINOLOGY
from Testing.lib.batch_scans import write_series

SHAPE = (12, 40, 50)  # k, j, i


@dataclass
class FakeResult:
    mask: np.ndarray
    confidence: float
    axis: int = 2
    slice_confidence: dict = field(default_factory=lambda: {3: 0.5, 4: 0.9})
    review: tuple = (3,)
    seconds: float = 0.0


@dataclass
class FakeAllBones:
    labels: np.ndarray
    count: int
    confidence: dict
    slice_confidence: dict = field(default_factory=lambda: {2: 0.9, 5: 0.4})
    names: dict = field(default_factory=dict)


class FakeSession:
    """Fills a box wherever the volume is bright; a point gives the slices around it."""

    calls: list = []  # noqa: RUF012
    opened: list = []  # noqa: RUF012
    confidences: tuple = (0.9, 0.8, 0.7, 0.6)
    shown: dict = {  # noqa: RUF012
        "left femur": Box.from_ijk((5, 5, 1), (14, 14, 5)),
        "right femur": Box.from_ijk((30, 5, 1), (39, 14, 5)),
    }

    def __init__(self, volume):
        self.volume = volume

    def segment(
        self, box=None, points=(), mask=None, depth_attention=True, progress=None, cancel=None, bone=""
    ):
        number = len(self.calls)
        asked = {"box": box, "points": list(points), "depth_attention": depth_attention, "bone": bone}
        self.calls.append(asked)
        progress(0.5, "half")
        result = np.zeros(self.volume.shape, bool)
        if box is not None:
            (i0, j0, k0), (i1, j1, k1) = box.to_ijk(self.volume)
            result[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = True
        else:
            i, j, k = (round(x) for x in points[0].to_ijk(self.volume))
            result[k, max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2] = True
        return FakeResult(result & (self.volume.array > 0), self.confidences[number])

    def find(self, phrase):
        names = ["left femur", "right femur"] if phrase == "both femurs" else [phrase]
        missing = [name for name in names if name not in self.shown]
        if missing == names:
            raise BoneNotFound(f"This scan does not show the {phrase}.", missing)
        return [FoundBox(name, self.shown[name], 0.9, True) for name in names if name in self.shown], missing

    def segment_all(self, progress=None, cancel=None, named=False):
        progress(1.0, "done")
        labels = np.zeros(self.volume.shape, np.uint16)
        labels[2], labels[5] = 1, 2
        return FakeAllBones(labels, 2, {1: 0.9, 2: 0.4}, names={2: "sacrum"} if named else {})


class FakeSegmenter:
    def __init__(self, device="auto", weights=None, naming=None):
        if device not in ("auto", "cpu", "cuda"):
            raise BoneSAMError(f"There is no device '{device}': use auto, cpu or cuda.")
        self.weights = weights

    def open(self, volume, others=(), fusion="average"):
        FakeSession.opened.append((volume.name, [other.name for other in others], fusion))
        return FakeSession(volume)


@pytest.fixture(autouse=True)
def fake_session(monkeypatch):
    module = ModuleType("BoneSAMLib.session")
    module.Segmenter = FakeSegmenter
    monkeypatch.setitem(sys.modules, "BoneSAMLib.session", module)
    monkeypatch.setattr(FakeSession, "calls", [])
    monkeypatch.setattr(FakeSession, "opened", [])
    return FakeSession


@pytest.fixture
def scan(tmp_path):
    """50 x 40 x 12 voxels of 1 x 1 x 3 mm; RAS runs from -50..0, -40..0, 0..36."""
    image = sitk.GetImageFromArray(np.full(SHAPE, 100, np.int16))
    image.SetSpacing((1.0, 1.0, 3.0))
    path = tmp_path / "scan.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def volume():
    return Volume(np.full(SHAPE, 100, np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def labels_of(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def refused(result, *words):
    """Exit code 2 and one sentence that contains the words."""
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]


def test_label_values_follow_the_prompts(scan, tmp_path):
    out = tmp_path / "mask.nii.gz"
    result = run(
        *("segment", scan, "--output", out),
        *("--box-ijk", "20,20,2,29,29,4", "--box", "-9.5,-9.5,0,0,0,9", "--point", "-45,-35,33"),
    )
    assert result.exit_code == 0, result.output
    labels = labels_of(out)
    assert labels[0, 5, 5] == 1  # --box comes before --box-ijk
    assert labels[3, 25, 25] == 2
    assert labels[11, 35, 45] == 3
    assert labels.max() == 3


def test_mask_lies_on_the_grid_of_the_input(scan, tmp_path):
    out = tmp_path / "mask.nrrd"
    assert run("segment", scan, "-o", out, "--box-ijk", "1,1,1,9,9,9").exit_code == 0
    mask, image = sitk.ReadImage(str(out)), sitk.ReadImage(str(scan))
    assert mask.GetSize() == image.GetSize()
    assert mask.GetOrigin() == image.GetOrigin()
    assert mask.GetDirection() == image.GetDirection()
    assert mask.GetSpacing() == image.GetSpacing()


def test_slicer_segmentation_has_names(scan, tmp_path):
    out = tmp_path / "mask.seg.nrrd"
    assert run("segment", scan, "-o", out, "--all").exit_code == 0
    image = sitk.ReadImage(str(out))
    assert image.GetMetaData("Segment0_Name") == "Bone 1"
    assert image.GetMetaData("Segment1_LabelValue") == "2"


def test_bones_are_called_by_their_names(scan, tmp_path):
    out = tmp_path / "mask.seg.nrrd"
    boxes = ["--box-ijk", "1,1,1,9,9,9", "--box-ijk", "20,20,1,29,29,9", "--box-ijk", "31,20,1,39,29,9"]
    result = run(
        "segment", scan, "-o", out, *boxes, "--name", "femur l", "--name", "Kreuzbein", "--name", "my cyst"
    )
    assert result.exit_code == 0, result.output
    image = sitk.ReadImage(str(out))
    names = [image.GetMetaData(f"Segment{n}_Name") for n in range(3)]
    assert names == ["femur l", "Kreuzbein", "my cyst"]  # as given, as in a batch and in the panel
    assert [call["bone"] for call in FakeSession.calls] == names
    assert BONE_TERMINOLOGY in image.GetMetaData("Segment2_Tags")
    assert "SCT^71341001^" in image.GetMetaData("Segment0_Tags")
    assert "^Left" in image.GetMetaData("Segment0_Tags")


def test_what_a_text_means():
    result = run("name", "both femurs and L2-L4")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        *("L2 vertebra", "L3 vertebra", "L4 vertebra", "left femur", "right femur")
    ]
    assert "71341001" in lines[-1]
    refused(run("name", "liver"), "liver")


def test_more_confident_bone_keeps_disputed_voxels(scan, tmp_path, fake_session, monkeypatch):
    out = tmp_path / "mask.nii.gz"
    boxes = ["--box-ijk", "0,0,0,19,19,5", "--box-ijk", "10,10,0,29,29,5"]
    monkeypatch.setattr(fake_session, "confidences", (0.6, 0.9))
    assert run("segment", scan, "-o", out, *boxes).exit_code == 0
    assert labels_of(out)[2, 15, 15] == 2
    fake_session.calls.clear()
    monkeypatch.setattr(fake_session, "confidences", (0.9, 0.6))
    assert run("segment", scan, "-o", out, *boxes).exit_code == 0
    assert labels_of(out)[2, 15, 15] == 1


def test_more_than_255_bones_fit(scan, tmp_path, fake_session, monkeypatch):
    out = tmp_path / "mask.nii.gz"
    monkeypatch.setattr(fake_session, "confidences", [0.5] * 300)
    boxes = []
    for n in range(256):
        i, j = 3 * (n % 16), 2 * (n // 16)
        boxes += ["--box-ijk", f"{i},{j},0,{i + 1},{j + 1},1"]
    assert run("segment", scan, "-o", out, *boxes).exit_code == 0
    labels = labels_of(out)
    assert labels[0, 30, 45] == 256
    assert np.unique(labels).size == 257


def test_options_reach_the_session(scan, tmp_path, fake_session):
    run("segment", scan, "-o", tmp_path / "m.nii", "--box-ijk", "1,1,1,9,9,9", "--2d-only")
    run("segment", scan, "-o", tmp_path / "m.nii", "--box-ijk", "1,1,1,9,9,9")
    assert [call["depth_attention"] for call in fake_session.calls] == [False, True]


def test_every_bone(scan, tmp_path):
    out = tmp_path / "mask.nii.gz"
    result = run("segment", scan, "-o", out, "--all")
    assert result.exit_code == 0
    assert set(np.unique(labels_of(out))) == {0, 1, 2}
    assert "0.90" in result.stdout
    assert [line.split()[-2:] for line in result.stdout.splitlines()[1:3]] == [["2", "none"], ["5", "none"]]
    assert f"Mask:    {out}" in result.stdout


def names_in(path):
    image = sitk.ReadImage(str(path))
    keys = [key for key in image.GetMetaDataKeys() if key.endswith("_Name")]
    return [image.GetMetaData(key) for key in sorted(keys)]


def test_every_bone_with_names(scan, tmp_path):
    out = tmp_path / "mask.seg.nrrd"
    assert run("segment", scan, "-o", out, "--all", "--named").exit_code == 0
    assert names_in(out) == ["Bone 1", "sacrum"]
    refused(run("segment", scan, "-o", out, "--named", "--box-ijk", "1,1,1,9,9,9"), "--named", "--all")
    refused(run("segment", scan, "-o", out, "--all", "--bone", "sacrum"), "--all", "names")


def test_bones_are_found_by_name(scan, tmp_path):
    out = tmp_path / "mask.seg.nrrd"
    result = run(
        *("segment", scan, "-o", out, "--bone", "both femurs", "--bone", "sacrum"),
        *("--box-ijk", "20,20,2,29,29,4"),
    )
    assert result.exit_code == 0, result.output
    assert names_in(out) == ["Bone 1", "left femur", "right femur"]
    labels = labels_of(out)
    assert labels[3, 25, 25] == 1
    assert labels[3, 10, 10] == 2
    assert labels[3, 10, 35] == 3
    assert result.stderr.splitlines() == ["The sacrum was not found in this scan."]


def test_no_bone_is_found_by_name(scan, tmp_path):
    out = tmp_path / "mask.seg.nrrd"
    result = run("segment", scan, "-o", out, "--bone", "sacrum", "--bone", "left tibia")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "does not show the sacrum or the left tibia" in line
    assert not out.exists()


def test_a_misspelled_bone_is_refused_before_the_volume_is_read(tmp_path):
    nowhere = tmp_path / "missing.nii.gz"
    refused(run("segment", nowhere, "-o", tmp_path / "m.nii", "--bone", "livver"), "livver")
    assert "livver" not in run("segment", nowhere, "-o", tmp_path / "m.nii", "--bone", "sacrum").stderr


def test_overlay_and_report_are_written_and_named(scan, tmp_path):
    picture, page = tmp_path / "overlay.png", tmp_path / "report.html"
    result = run(
        *(
            "segment",
            scan,
            "-o",
            tmp_path / "m.nii",
            "--box-ijk",
            "1,1,1,9,9,9",
            "--negative-point",
            "-5,-5,9",
        ),
        *("--overlay", picture, "--report", page, "--2d-only"),
    )
    assert result.exit_code == 0, result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    html = page.read_text(encoding="utf-8")
    assert "box IJK (1, 1, 1) to (9, 9, 9), not RAS (-5, -5, 9) mm" in html
    assert "<th>Depth attention</th><td>off</td>" in html
    assert f"Overlay: {picture}" in result.stdout
    assert f"Report:  {page}" in result.stdout


def test_empty_bone_is_said(scan, tmp_path):
    empty = sitk.ReadImage(str(scan)) * 0
    sitk.WriteImage(empty, str(scan))
    result = run("segment", scan, "-o", tmp_path / "m.nii", "--box-ijk", "1,1,1,9,9,9")
    assert result.exit_code == 0
    assert "Bone 1 is empty" in result.stderr


def test_point_in_boxes_belongs_to_the_smallest(volume):
    large, small = Box.from_ijk((0, 0, 0), (40, 30, 10)), Box.from_ijk((5, 5, 2), (15, 15, 6))
    point = Point.from_ijk((10, 10, 4))
    bones = group_prompts(volume, [large, small], [point])
    assert [bone.points for bone in bones] == [[], [point]]


def test_point_outside_boxes_starts_a_bone(volume):
    box = Box.from_ijk((0, 0, 0), (10, 10, 10))
    first, second = Point.from_ijk((30, 30, 4)), Point.from_ijk((40, 30, 4))
    bones = group_prompts(volume, [box], [first, second])
    assert [(bone.box, bone.points) for bone in bones] == [(box, []), (None, [first]), (None, [second])]


def test_negative_point_counts_for_bones_around_it_and_bones_without_box(volume):
    here, there = Box.from_ijk((0, 0, 0), (10, 10, 10)), Box.from_ijk((20, 0, 0), (30, 10, 10))
    click = Point.from_ijk((40, 30, 4))
    negative = Point.from_ijk((5, 5, 5), positive=False)
    bones = group_prompts(volume, [here, there], [negative, click])
    assert [bone.points for bone in bones] == [[negative], [], [click, negative]]


def test_thin_box_holds_points_on_other_slices(volume):
    box = Box.from_ijk((5, 5, 6), (20, 20, 6))
    point = Point.from_ijk((10, 10, 9))
    assert [bone.points for bone in group_prompts(volume, [box], [point])] == [[point]]


def test_border_of_a_box_belongs_to_it(volume):
    box = Box.from_ijk((5, 5, 2), (20, 20, 6))
    assert len(group_prompts(volume, [box], [Point.from_ijk((20.5, 5, 2))])) == 1
    assert len(group_prompts(volume, [box], [Point.from_ijk((20.6, 5, 2))])) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--box", "1,2,3"], ["box", "6 numbers"]),
        (["--box", "0,0,0,0,0,20"], ["no size"]),
        (["--box", "500,500,500,600,600,600"], ["outside", "R -49.5 to 0.5"]),
        (["--point", "5,5,x"], ["point", "3 numbers"]),
        (["--point", "500,0,0"], ["outside"]),
        (["--box-ijk", "1,1,1,9,9,9.5"], ["whole numbers"]),
        (["--box-ijk", "1,1,1,9,9,9", "--negative-point", "-40,-30,33"], ["belongs to no bone"]),
        (["--negative-point", "-5,-5,3"], ["belongs to no bone"]),
        (["--all", "--box-ijk", "1,1,1,9,9,9"], ["--all"]),
        (["--all", "--2d-only"], ["--2d-only"]),
        (["--all", "--name", "left femur"], ["--name"]),
        (["--box-ijk", "1,1,1,9,9,9", "--name", "femur", "--name", "tibia"], ["2 names", "1 bones"]),
        ([], ["No prompt"]),
        (["--all", "--device", "quantum"], ["quantum", "cpu"]),
    ],
)
def test_bad_prompts_and_options(scan, tmp_path, arguments, words):
    out = tmp_path / "out" / "mask.nii.gz"
    out.parent.mkdir()
    refused(run("segment", scan, "--output", out, *arguments), *words)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--output", "mask.txt", [".nii.gz"]),
        ("--output", "missing/mask.nii.gz", ["folder", "missing"]),
        ("--output", "folder.nrrd", ["is a folder"]),
        ("--output", "scan.nii.gz", ["it is the input"]),
        ("--overlay", "overlay.jpg", [".png"]),
        ("--report", "report.pdf", [".html"]),
    ],
)
def test_bad_destinations_are_refused_before_the_work(scan, tmp_path, fake_session, option, name, words):
    (tmp_path / "folder.nrrd").mkdir()
    before = scan.read_bytes()
    arguments = {"--output": tmp_path / "mask.nii.gz", option: tmp_path / name}
    options = [text for pair in arguments.items() for text in pair]
    refused(run("segment", scan, "--box-ijk", "1,1,1,9,9,9", *options), *words)
    assert fake_session.calls == []
    assert scan.read_bytes() == before
    assert not (tmp_path / "mask.nii.gz").exists()


@pytest.mark.parametrize("command", [["info"], ["segment", "--all", "--output", "mask.nii.gz"]])
def test_unreadable_input(tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *options = command
    refused(run(name, "nowhere.nii.gz", *options), "nowhere.nii.gz")
    (tmp_path / "text.nii.gz").write_text("not an image")
    refused(run(name, "text.nii.gz", *options), "text.nii.gz")
    assert not (tmp_path / "mask.nii.gz").exists()


def test_other_sequences_are_looked_at_as_well(scan, tmp_path, fake_session):
    other = tmp_path / "t2.nii.gz"
    other.write_bytes(scan.read_bytes())
    out, page = tmp_path / "mask.nii.gz", tmp_path / "report.html"
    result = run(
        *("segment", scan, "-o", out, "--all", "--report", page),
        *("--also", other, "--also", scan, "--fusion", "maximum"),
    )
    assert result.exit_code == 0, result.output
    assert fake_session.opened == [("scan.nii.gz", ["t2.nii.gz", "scan.nii.gz"], "maximum")]
    assert "t2.nii.gz, scan.nii.gz (maximum of all)" in page.read_text(encoding="utf-8")
    assert run("segment", scan, "-o", out, "--all").exit_code == 0
    assert fake_session.opened[-1] == ("scan.nii.gz", [], "average")


def test_other_sequences_that_cannot_be_used(scan, tmp_path):
    out = tmp_path / "mask.nii.gz"
    prompts = ("-o", out, "--all")
    refused(run("segment", scan, *prompts, "--also", scan, "--fusion", "median"), "average, maximum")
    refused(run("segment", scan, *prompts, "--also", tmp_path / "t2.nii.gz"), "t2.nii.gz")
    refused(
        run("segment", scan, "--all", "-o", tmp_path / "t2.nii.gz", "--also", tmp_path / "t2.nii.gz"), "input"
    )
    assert not out.exists()


def test_full_disk_leaves_an_older_mask_alone(scan, tmp_path, monkeypatch):
    out = tmp_path / "out" / "mask.nii.gz"
    out.parent.mkdir()
    out.write_bytes(b"older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(run("segment", scan, "-o", out, "--all"), "disk is full")
    assert [path.name for path in out.parent.iterdir()] == ["mask.nii.gz"]
    assert out.read_bytes() == b"older"


def test_info(scan):
    result = run("info", scan)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "50 x 40 x 12" in text
    assert "1 x 1 x 3 mm" in text
    assert "i: L, j: P, k: S" in text
    assert "Slices 12 along k, 3 mm apart" in text
    assert "MR (guessed from the values)" in text
    assert "100 to 100, int16" in text


def test_a_path_is_no_markup(scan, tmp_path):
    folder = tmp_path / "[ct] [" / "[/old]"
    folder.mkdir(parents=True)
    result = run("info", shutil.copy(scan, folder))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("phrase", ["femur ²", "rib ⅔", "L①"])
def test_strange_digits_are_no_numbers(phrase):
    result = run("name", phrase)
    assert result.exit_code in (0, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_slice_of_the_series_is_not_written_over(tmp_path):
    folder = write_series(tmp_path / "ct")
    one = sorted(folder.iterdir())[2]
    before = one.read_bytes()
    result = run("segment", folder, "--all", "-o", shutil.move(one, one.with_suffix(".dcm")))
    assert result.exit_code == 2
    assert "it is no segmentation, so it is kept" in " ".join(result.stderr.split())
    assert one.with_suffix(".dcm").read_bytes() == before


def test_help_says_how_prompts_combine():
    text = " ".join(run("segment", "--help").stdout.split())
    for option in ("--box-ijk", "--negative-point", "--2d-only", "--overlay", "--weights"):
        assert option in text
    assert "starts a bone of its own" in text
