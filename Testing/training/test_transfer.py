"""Masks go from one sequence to the next where the scans fit, and nowhere else."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from Testing.training.two_sequences import T1, T2, moved, scan, write
from training.cases import load_cases
from training.ingest.discovery import Reading, find_scans
from training.itk_image import itk_image
from training.sequence_transfer.__main__ import main, pairs_in
from training.sequence_transfer.quality import Quality, body_mask, dice
from training.sequence_transfer.registration import align, carried, mutual_information

GOOD = Quality(1.05, 1.1, 1.12, 0.05, 0.95, 0.8, 2.0, 1.0, 0.01)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """One person with two sequences, and a folder where the second sequence is another person's."""
    folder = tmp_path_factory.mktemp("studies")
    image, bones = scan(T1, 1)
    for name, other in (("right", scan(T2, 1, moved)[0]), ("wrong", scan(T2, 2)[0])):
        write(image, folder / name / "t1.nii.gz")
        write(bones, folder / name / "t1_mask.nii.gz")
        write(other, folder / name / "t2.nii.gz")
    (folder / "names.json").write_text('{"1": "left femur", "2": "left patella"}')
    return folder


@pytest.fixture(scope="module")
def outcome(studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    app = typer.Typer()
    app.command()(main)
    arguments = [str(studies), "--out", str(out), "--source", "thighs", "--complete"]
    return CliRunner().invoke(app, arguments), out


def test_the_same_person_is_accepted_and_another_refused(outcome):
    result, out = outcome
    assert result.exit_code == 0, result.output
    assert "thighs-right_t2: accepted" in result.output
    assert "thighs-wrong_t2: refused." in result.output
    with (out / "pairs.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["thighs-right_t2"]["accepted"] == "True"
    right = rows["thighs-right_t2"]
    assert float(right["before"]) < float(right["after"])
    assert rows["thighs-wrong_t2"]["accepted"] == "False"
    assert rows["thighs-wrong_t2"]["why_not"]
    assert not (out / "thighs-wrong_t2.seg.nrrd").exists()
    assert {path.name for path in out.glob("*.png")} == {"thighs-right_t2.png", "thighs-wrong_t2.png"}


def test_the_masks_land_on_the_moved_and_bent_bones(outcome, studies):
    _, out = outcome
    truth = scan(T2, 1, moved)[1]
    before = scan(T1, 1)[1]
    rows = json.loads((out / "index.json").read_text())
    assert [row["id"] for row in rows] == ["thighs-right_t2"]
    rows[0]["split"] = "train"
    (out / "index.json").write_text(json.dumps(rows))
    (case,) = load_cases(out, "train")
    bones = {bone.name: bone.mask for bone in case.load()[2]}
    assert sorted(bones) == ["left_femur", "left_patella"]
    for value, name in ((1, "left_femur"), (2, "left_patella")):
        assert dice(bones[name], truth == value) > 0.88
        assert dice(before == value, truth == value) < 0.75
    assert not case.partial_label
    assert "carried over from thighs-right_t1" in case.label_quality


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"after": 1.04}, "less in common"),
        ({"peak": 0.001}, "nearly as well"),
        ({"body_dice": 0.6}, "outlines of the bodies"),
        ({"edge_gain": 1.6}, "1.6 times better elsewhere"),
        ({"bend_mm": 20.0}, "bent by 20 mm"),
        ({"kept": 0.4}, "sees 40% of the bones"),
        ({"volume_change": -0.4}, "changed by -40%"),
    ],
)
def test_every_check_can_refuse(change, words):
    assert GOOD.reasons == []
    (reason,) = Quality(**{**vars(GOOD), **change}).reasons
    assert words in reason


def test_mutual_information_is_1_of_strangers_and_2_of_the_same():
    values = np.random.default_rng(0).random(50_000)
    assert mutual_information(values, values) == pytest.approx(2)
    assert mutual_information(values, -3 * values + 1) == pytest.approx(2)
    assert mutual_information(values, np.random.default_rng(1).random(50_000)) == pytest.approx(1, abs=0.01)


def test_arrays_are_carried_through_oblique_grids():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (1.0, 1.5, 3.0), (4.0, -8.0, 15.0)
    volume = Volume(rng.random((8, 12, 14)).astype(np.float32), affine)
    same = carried(volume.array, volume, volume, sitk.Transform(), nearest=False)
    assert np.abs(same - volume.array).max() < 1e-4
    image = itk_image(volume.array, affine, "a")
    place = image.TransformContinuousIndexToPhysicalPoint((3.0, 2.0, 5.0))
    assert np.allclose(np.array(place) * (-1, -1, 1), affine[:3, :3] @ (3, 2, 5) + affine[:3, 3])
    with pytest.raises(BoneSAMError, match="not perpendicular"):
        itk_image(
            volume.array, affine @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "a"
        )


def test_the_body_is_found_without_holes():
    image, _ = scan(T1, 1)
    body = body_mask(Volume(image, np.diag([-4.0, -4.0, 6.0, 1.0]), "a", "MR"))
    assert body[13, 22, 24]
    assert not body[13, 1, 1]
    assert 0.35 < body.mean() < 0.75


def test_unclear_or_missing_studies_are_said(studies, tmp_path):
    image, bones = scan(T1, 1)
    for name in ("a", "b"):
        write(image, tmp_path / "s" / f"{name}.nii.gz")
        write(bones, tmp_path / "s" / f"{name}_mask.nii.gz")
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "no study with a scan that has a mask" in result.output
    write(image, tmp_path / "s" / "c.nii.gz")
    with pytest.raises(BoneSAMError, match="2 annotated scans"):
        pairs_in(find_scans(tmp_path, Reading()))


def test_single_slices_cannot_be_aligned():
    flat = Volume(np.random.default_rng(0).random((1, 30, 30)), np.eye(4), "flat")
    with pytest.raises(BoneSAMError, match="fewer than 4 slices"):
        align(flat, flat)
