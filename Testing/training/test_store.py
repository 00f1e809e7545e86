"""What is written into the training store comes back, and only for the split it belongs to."""

import json

import numpy as np
import pytest
import SimpleITK

from BoneSAMLib.intensity import CT_HIGH_HU, CT_LOW_HU
from Testing.training.spheres import BALLS, LARGE, SIZE, SMALL, anatomy, write_anatomy
from training.cases import load_cases
from training.store import load_subjects, read_unlabelled, store_case, store_unlabelled
from training.warp import Slicing


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def test_a_case_comes_back(scans, store):
    (case,) = load_cases(scans, "train")
    store_case(case, store)
    (subject,) = load_subjects(store, "train")
    volume, annotation, objects = case.load()
    assert (subject.id, subject.source, subject.kind, subject.modality) == ("ct_1", "some-ct", "image", "CT")
    assert subject.partial
    assert subject.size.tolist() == [48, 40, 16]
    assert subject.spacing.tolist() == [1.0, 1.0, 2.5]
    assert subject.slicing == Slicing(2, True, volume.orientation)
    window = np.clip((volume.array - CT_LOW_HU) / (CT_HIGH_HU - CT_LOW_HU), 0, 1)
    assert np.abs(subject.image / 255 - window).max() < 0.003
    assert [target.name for target in subject.targets] == [bone.name for bone in objects]
    for target, bone in zip(subject.targets, objects, strict=True):
        assert np.array_equal(subject.labels == target.label, bone.mask)
        places = np.argwhere(bone.mask)[:, ::-1]
        assert (list(target.low), list(target.high)) == (places.min(0).tolist(), places.max(0).tolist())
        assert subject.tissues[target.label] == "bone"
    assert (subject.labels > 0).sum() <= (annotation > 0).sum()


def test_a_radiograph_is_one_slice(scans, store):
    (case,) = load_cases(scans, "test", ["some-xray"])
    store_case(case, store)
    (subject,) = load_subjects(store, "test")
    assert subject.size[2] == 1
    assert (subject.slicing.axis, subject.slicing.thick) == (2, True)
    assert subject.spacing[:2].tolist() == [0.5, 0.25]


def test_splits_do_not_mix(scans, store):
    for split in ("train", "test"):
        for case in load_cases(scans, split):
            store_case(case, store)
    assert [subject.id for subject in load_subjects(store, "train")] == ["ct_1"]
    assert [subject.id for subject in load_subjects(store, "test")] == ["ct_0", "mr_0", "xr_0"]
    assert load_subjects(store, "validation") == []


def test_an_anatomy_comes_back_and_belongs_to_training(store):
    write_anatomy(store)
    (subject,) = load_subjects(store, "train")
    expected = anatomy()
    assert subject.kind == "labels"
    assert subject.image is None
    assert tuple(subject.size) == SIZE
    assert np.array_equal(subject.labels, expected.labels)
    assert np.array_equal(subject.depth, expected.depth)
    assert subject.tissues == expected.tissues
    assert [target.label for target in subject.targets] == [LARGE, SMALL]
    assert subject.slicing == Slicing(2, False, "RAS")
    assert load_subjects(store, "test") == []


def test_an_interrupted_subject_is_left_out(store):
    write_anatomy(store)
    (store / "spheres.labels.npy").unlink()
    assert load_subjects(store, "train") == []


def test_an_unlabelled_scan_comes_back(scans, store):
    row = {"id": "free", "file": "mr_0_image.nii.gz", "modality": "MRI", "license": "none"}
    store_unlabelled(row, read_unlabelled(row, scans), store)
    (subject,) = load_subjects(store, "train")
    assert subject.kind == "unlabelled"
    assert subject.modality == "MR"
    assert subject.labels is None
    assert subject.targets == []
    assert tuple(subject.size) == (48, 40, 16)


@pytest.mark.parametrize(
    ("spacing", "kept"),
    [
        ((1.0, 1.0, 3.0), (2, True)),
        ((3.0, 1.0, 1.0), (0, True)),
        ((1.0, 1.0, 1.1), (2, False)),
        ((3.9, 3.9, 2.5), (2, False)),
    ],
)
def test_only_thick_slices_are_kept_as_they_are(store, tmp_path, spacing, kept):
    array = np.random.default_rng(0).normal(100, 50, (30, 32, 34)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, tmp_path / "scan.nrrd")
    row = {"id": "free", "file": "scan.nrrd", "modality": "MRI", "license": "none"}
    store_unlabelled(row, read_unlabelled(row, tmp_path), store)
    (subject,) = load_subjects(store, "train")
    assert subject.spacing.tolist() == pytest.approx(list(spacing))
    assert (subject.slicing.axis, subject.slicing.thick) == kept


def test_a_ct_rescaled_to_8_bit_counts_as_mr(scans, store):
    row = {"id": "free", "file": "mr_0_image.nii.gz", "modality": "CT", "license": "none"}
    store_unlabelled(row, read_unlabelled(row, scans), store)
    assert json.loads((store / "free.json").read_text())["modality"] == "MR"


def test_points_outline_the_target():
    subject = anatomy()
    small = subject.targets[1]
    points = subject.points_of(small)
    center, radius = BALLS[SMALL]
    distance = np.linalg.norm(points - center, axis=1)
    assert (distance <= radius).all()
    assert (distance > radius - 2).all()
    assert points.min(0).tolist() == list(small.low)
    assert points.max(0).tolist() == list(small.high)
    assert subject.points_of(small) is points


def test_the_outermost_points_of_a_large_target_are_kept():
    subject = anatomy()
    large = subject.targets[0]
    points = subject.points_of(large)
    assert points.min(0).tolist() == list(large.low)
    assert points.max(0).tolist() == list(large.high)


def test_a_coarser_image_is_the_mean_of_its_voxels(store):
    write_anatomy(store)
    (subject,) = load_subjects(store, "train")
    subject.image = np.random.default_rng(0).integers(0, 255, (7, 9, 11)).astype(np.uint8)
    assert np.array_equal(subject.averaged((1, 1, 1)), subject.image)
    coarse = subject.averaged((3, 2, 1))  # i, j, k; what fills no block is left out
    assert coarse.shape == (7, 4, 3)
    assert abs(float(coarse[5, 1, 2]) - subject.image[5, 2:4, 6:9].mean()) <= 0.5
