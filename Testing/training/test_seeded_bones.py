"""A CT without annotation, and points in its bones: labels, a folder for the ingest, and what is refused."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from training.cases import load_cases
from training.seeded_bones import MOST_LENGTH_MM, Seeds, main, read_seeds, seeded_bones

SOFT, MARROW, JOINT, CORTEX = 40, 60, 220, 900
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 0, 2, -20], [0, -2, 0, 10], [0, 0, 0, 1]])


FACTS = '{"id": "x", "license": "", "body_region": "", "bones": %s}'


def ras(i, j, k):
    return (AFFINE @ [i, j, k, 1])[:3].tolist()


def scan():
    """Two bones that touch at i = 20, a ring with a canal along k, as a vertebra, and a calcification."""
    array = np.full((24, 40, 44), SOFT, np.int16)
    array[4:20, 4:14, 4:20] = CORTEX
    array[6:18, 6:12, 6:17] = MARROW
    array[4:20, 4:14, 20] = JOINT
    array[4:20, 4:14, 21:40] = CORTEX
    array[:16, 22:36, 10:26] = CORTEX
    array[:16, 26:32, 14:22] = SOFT
    array[2:6, 24:28, 36:40] = CORTEX
    return array


FACE = [(j, k) for j in (5, 8, 12) for k in (5, 10, 15, 18)]  # of both bones, two voxels from the joint
SEEDS = {
    "left femur": [ras(5, 8, 10), *(ras(18, j, k) for j, k in FACE)],
    "left tibia": [ras(36, 8, 10), *(ras(22, j, k) for j, k in FACE)],
    "L1": [ras(12, 24, 3), ras(24, 24, 12)],
}


def seeds(**bones):
    points = {name: np.array(rows) for name, rows in (bones or SEEDS).items()}
    return Seeds("knee", "ours", "knee", points)


def test_points_tell_bones_apart_and_marrow_is_filled():
    array = scan()
    labels = seeded_bones(Volume(array, AFFINE, "knee", "CT"), seeds())
    assert (labels[6:18, 6:12, 6:17] == 1).all()
    assert (labels[5:19, 5:13, 5:19] == 1).all()
    assert (labels[5:19, 5:13, 22:39] == 2).all()
    assert (labels[:15, 23:26, 11:25] == 3).all()
    assert not labels[2:, 27:31, 15:21].any()  # the canal
    assert not labels[2:6, 24:28, 36:40].any()  # nobody's
    assert (labels[array == SOFT] > 0).mean() < 0.01


@pytest.mark.parametrize("place", [(2, 2, 2), (100, 8, 10), (-3, 8, 10)])
def test_a_seed_beside_the_bones_is_refused(place):
    point = ras(*place)
    with pytest.raises(BoneSAMError, match=r"of 'rib' lies in no bone of 'knee'"):
        seeded_bones(Volume(scan(), AFFINE, "knee", "CT"), seeds(rib=[point]))


def test_values_stored_with_an_offset_mean_the_same():
    plain, array = scan(), scan() + 1024
    array[:2] = 0  # air, which tells that there is an offset
    plain[:2] = -1024
    volumes = [Volume(each, AFFINE, "knee", "CT") for each in (plain, array)]
    told = seeds(**{"left femur": SEEDS["left femur"], "left tibia": SEEDS["left tibia"]})
    first, second = (seeded_bones(volume, told) for volume in volumes)
    assert first.any()
    assert np.array_equal(first, second)


def test_a_bone_that_the_scan_cuts_is_full_up_to_its_end():
    array = np.full((24, 20, 20), SOFT, np.int16)
    array[4:23, 4:16, 4:16] = CORTEX  # the last slice is blank
    array[8:23, 6:14, 6:14] = MARROW
    labels = seeded_bones(Volume(array, AFFINE, "knee", "CT"), seeds(femur=[ras(5, 5, 10)]))
    assert (labels[5:22, 5:15, 5:15] == 1).all()


def test_what_is_far_from_all_seeds_is_nobodys():
    array = np.full((12, 12, 240), SOFT, np.int16)
    array[4:8, 4:8, 4:236] = CORTEX
    labels = seeded_bones(Volume(array, AFFINE, "knee", "CT"), seeds(femur=[ras(6, 6, 6)]))
    assert 0.9 < (labels[6, 6] > 0).sum() * 2 / MOST_LENGTH_MM < 1.1


@pytest.fixture
def files(tmp_path):
    image = sitk.GetImageFromArray(scan())
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    image.SetSpacing([2.0, 2.0, 2.0])
    image.SetDirection((lps[:3, :3] / 2).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, tmp_path / "knee.nii.gz")
    told = {"id": "knee", "license": "ours", "body_region": "knee", "bones": SEEDS}
    (tmp_path / "knee.json").write_text(json.dumps(told))
    return tmp_path


def invoke(files):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(
        app, [str(files / "knee.nii.gz"), str(files / "knee.json"), "--out", str(files / "made")]
    )


def test_the_ingest_finds_what_was_made(files):
    run = invoke(files)
    assert run.exit_code == 0, run.output
    (case,) = load_cases(files / "made", "train")
    volume, labels, bones = case.load()
    assert [bone.name for bone in bones] == ["left_femur", "left_tibia", "L1"]
    assert np.array_equal(labels, seeded_bones(volume, read_seeds(files / "knee.json")))
    assert (case.license, case.label_quality, case.partial_label) == ("ours", "made by rule", False)
    before = (files / "made" / "index.json").read_bytes()
    again = invoke(files)
    assert again.exit_code == 2
    assert "name another folder" in again.output
    assert (files / "made" / "index.json").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_one_sentence(files):
    (files / "made").write_text("a file")
    run = invoke(files)
    assert run.exit_code == 2
    assert "cannot be written" in run.output


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"id": "x"}', *(FACTS % bones for bones in ("3", "{}", '{"rib": []}', '{"rib": [[1, 2]]}'))],
)
def test_seeds_that_are_none_are_refused_and_nothing_is_written(files, text):
    (files / "knee.json").write_text(text)
    run = invoke(files)
    assert run.exit_code == 2
    assert "cannot be read" in run.output
    assert not (files / "made").exists()
