"""Images and masks find each other in every usual layout of folders."""

import json

import numpy as np
import pytest
import SimpleITK

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.writing import SegmentInfo, write_mask
from Testing.training.dicom_objects import write_segmentation, write_series, write_structure_set
from training.ingest.discovery import Reading, find_scans, read_names

SQUARE = np.array([[3, 3, 2], [12, 3, 2], [12, 12, 2], [3, 12, 2]], float)


def put(folder, *names):
    """Small files, each with a gray cube; `.seg.nrrd` files name a femur."""
    labels = np.zeros((6, 16, 16), np.uint8)
    labels[2:4, 4:12, 4:12] = 1
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = SimpleITK.GetImageFromArray(labels[0] if name.endswith(".png") else labels)
        if name.endswith(".seg.nrrd"):
            SimpleITK.WriteImage(image, folder / "plain.nrrd")
            volume = read_volume(folder / "plain.nrrd")
            write_mask(volume.array, volume, path, [SegmentInfo(1, "left femur", (1.0, 1.0, 1.0), "")])
            (folder / "plain.nrrd").unlink()
        else:
            SimpleITK.WriteImage(image, path)


def pairs(found, folder):
    """Image and mask of every case, relative to the folder."""
    return {
        (row["image"].removeprefix(f"{folder}/"), row["mask"].removeprefix(f"{folder}/"))
        for row in found.rows
    }


@pytest.mark.parametrize(
    ("image", "mask", "subject"),
    [
        ("p1/image.nii.gz", "p1/mask.nii.gz", "p1"),
        ("p1/ct.nii.gz", "p1/ct_mask.nii.gz", "p1"),
        ("p1/ct.nii.gz", "p1/ct.seg.nrrd", "p1"),
        ("p1/ct.nrrd", "p1/Segmentation.seg.nrrd", "p1"),
        ("p1_image.nrrd", "p1-label.nrrd", "p1"),
        ("p1.nii", "p1_bones.nii", "p1"),
        ("images/p1.nii.gz", "labels/p1.nii.gz", "p1"),
        ("imagesTr/p1_0000.nii.gz", "labelsTr/p1.nii.gz", "p1"),
        ("images/p1/t1.mha", "masks/p1/t1.mha", "p1"),
        ("hand.png", "hand_mask.png", "hand"),
        ("sub-07/anat/sub-07_T1w.nii.gz", "sub-07/anat/sub-07_T1w_seg.nii.gz", "sub-07"),
    ],
)
def test_usual_layouts(tmp_path, image, mask, subject):
    put(tmp_path, image, mask)
    found = find_scans(tmp_path, Reading(source="knees"))
    assert pairs(found, tmp_path) == {(image, mask)}
    (row,) = found.rows
    assert row["subject"] == f"knees/{subject}"
    assert row["source"] == "knees"
    assert row["partial_label"] is True
    assert row["split"] == ""
    assert not found.unlabelled
    assert not found.problems


def test_several_patients_and_scans_without_a_mask(tmp_path):
    put(tmp_path, "p1/t1.nii.gz", "p1/t1_mask.nii.gz", "p1/t2.nii.gz", "p2/t1.nii.gz", "p2/t1_mask.nii.gz")
    found = find_scans(tmp_path, Reading(source="s", complete=True, modality="MR"))
    assert pairs(found, tmp_path) == {(f"p{n}/t1.nii.gz", f"p{n}/t1_mask.nii.gz") for n in (1, 2)}
    assert [(row["id"], row["modality"], row["subject"]) for row in found.unlabelled] == [
        ("s-p1_t2", "MR", "s/p1")
    ]
    assert not any(row["partial_label"] for row in found.rows)


def test_given_splits_are_kept(tmp_path):
    names = [f"{kind}/{split}/{split}1.nii.gz" for kind in ("images", "masks") for split in ("train", "val")]
    put(tmp_path, *names, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz")
    put(tmp_path, "labelsTs/b.nii.gz")
    found = find_scans(tmp_path, Reading())
    assert {row["image"].rsplit("/")[-1]: row["split"] for row in found.rows} == {
        "train1.nii.gz": "train",
        "val1.nii.gz": "validation",
        "a_0000.nii.gz": "",
        "b_0000.nii.gz": "test",
    }


def test_masks_in_another_folder(tmp_path):
    scans, bones = tmp_path / "scans", tmp_path / "out"
    put(scans, "p1/ct.nii.gz", "p2/ct.nii.gz")
    put(bones, "p1/ct.seg.nrrd", "p2/ct.seg.nrrd")
    found = find_scans(scans, Reading(masks=bones))
    assert {(row["image"], row["mask"]) for row in found.rows} == {
        (str(scans / f"p{n}/ct.nii.gz"), str(bones / f"p{n}/ct.seg.nrrd")) for n in (1, 2)
    }


def test_masks_in_a_folder_among_the_scans(tmp_path):
    put(tmp_path, "p1/ct.nii.gz", "drawn/p1/ct.nii.gz")
    found = find_scans(tmp_path, Reading(masks=tmp_path / "drawn"))
    assert pairs(found, tmp_path) == {("p1/ct.nii.gz", "drawn/p1/ct.nii.gz")}
    assert not found.unlabelled


def test_persons_by_a_pattern(tmp_path):
    put(tmp_path, "knee_0012_left.nii.gz", "knee_0012_left_mask.nii.gz")
    (row,) = find_scans(tmp_path, Reading(source="s", subject=r"knee_(\d+)")).rows
    assert row["subject"] == "s/0012"


def test_what_cannot_be_matched_is_said(tmp_path):
    put(tmp_path, "p1/t1.nii.gz", "p1/t2.nii.gz", "p1/mask.nii.gz", "p2/a.nii.gz", "p2/a_mask.nii.gz")
    put(tmp_path, "p2/a_seg.nii.gz")
    found = find_scans(tmp_path, Reading())
    first, second = (sentence for _, sentence in found.problems)
    assert "not clear which image" in first
    assert first.count("p1/mask.nii.gz") == 1
    assert "Both" in second
    assert "a_seg" in second


def test_names_from_files(tmp_path):
    put(tmp_path, "p1.nii.gz", "p1_mask.nii.gz", "p2.nii.gz", "p2.seg.nrrd")
    (tmp_path / "names.json").write_text('{"1": "femur", "2": null, "left femur": "right tibia"}')
    plain, slicer = find_scans(tmp_path, Reading()).rows
    assert plain["labels"] == {"1": "femur", "2": None}
    assert slicer["labels"] == {"1": "right tibia"}
    assert read_names(tmp_path / "names.json")["2"] is None
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "tibia": 3}}))
    assert read_names(tmp_path / "dataset.json") == {"3": "tibia"}
    for text in ("[1]", '{"1": 2.5}', "{"):
        (tmp_path / "names.json").write_text(text)
        with pytest.raises(BoneSAMError, match="The names in"):
            read_names(tmp_path / "names.json")


def test_segmentations_without_a_bone_are_said(tmp_path):
    put(tmp_path, "p1.nii.gz", "p1.seg.nrrd")
    (tmp_path / "names.json").write_text('{"left femur": null}')
    found = find_scans(tmp_path, Reading())
    assert not found.rows
    assert "No structure" in found.problems[0][1]
    assert "--names" in found.problems[0][1]


def test_dicom_objects_name_their_series(tmp_path):
    array = np.zeros((6, 16, 16), np.int16)
    mask = array == 0
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    first = write_series(tmp_path / "p1", array, affine, "Ada", 1)
    second = write_series(tmp_path / "p1", array, affine, "Ada", 2)
    write_segmentation(tmp_path / "p1" / "seg.dcm", first, {"Left femur": mask})
    loop = SQUARE * (-1, -1, 2)
    write_structure_set(tmp_path / "p1" / "rs.dcm", second, {"Femur_R": [loop], "Body": [loop]})
    write_series(tmp_path / "p2", array, affine, "Bea", 1)
    found = find_scans(tmp_path, Reading(source="s"))
    assert found.problems == []
    assert {
        (row["image"][-12:], row["mask"][-6:], row["subject"], row["modality"]) for row in found.rows
    } == {
        ("p1/1_000.dcm", "eg.dcm", "s/Ada", "CT"),
        ("p1/2_000.dcm", "rs.dcm", "s/Ada", "CT"),
    }
    assert {json.dumps(row["labels"]) for row in found.rows} == {
        '{"1": "Left femur"}',
        '{"1": "Femur_R", "2": null}',
    }
    assert [(row["subject"], row["id"]) for row in found.unlabelled] == [("s/Bea", "s-p2_series-1")]


def test_an_index_says_it_itself(scans):
    found = find_scans(scans, Reading(source="ignored"))
    assert [(row["id"], row["split"], row["subject"]) for row in found.rows] == [
        ("ct_0", "test", "ct_0"),
        ("ct_1", "train", "ct_1"),
        ("mr_0", "test", "mr_0"),
        ("xr_0", "test", "xr_0"),
    ]
    assert all(row["image"].startswith(str(scans)) for row in found.rows)


def test_nothing_found_is_said(tmp_path):
    with pytest.raises(BoneSAMError, match="no scans in"):
        find_scans(tmp_path, Reading())
    with pytest.raises(BoneSAMError, match="no folder"):
        find_scans(tmp_path / "none", Reading())
