"""Reading annotated scans: geometry, splits, and the bones of each case."""

import json

import numpy as np
import pytest

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from training.cases import bone_of, load_cases, read_index, separate_objects


def test_splits_and_sources(scans):
    assert [case.id for case in load_cases(scans, "test")] == ["ct_0", "mr_0", "xr_0"]
    assert [case.id for case in load_cases(scans, "train")] == ["ct_1"]
    assert [case.id for case in load_cases(scans, "test", ["some-xray"])] == ["xr_0"]
    assert load_cases(scans, "validation") == []


def test_an_index_may_say_little(scans):
    rows = json.loads((scans / "index.json").read_text())
    few = {key: rows[0][key] for key in ("id", "image", "mask", "modality")} | {"labels": {}}
    (scans / "index.json").write_text(json.dumps([few, rows[1] | {"subject": "Ada"}]))
    case, other = read_index(scans)
    assert (case.split, case.source, case.subject, case.partial_label) == ("", "scans", "ct_0", True)
    assert other.subject == "Ada"
    assert [bone.name for bone in case.load()[2]] == ["bone_1", "bone_2"]
    (scans / "index.json").write_text(json.dumps([few | {"split": "exam"}]))
    with pytest.raises(BoneSAMError, match="split 'exam' of case ct_0"):
        read_index(scans)


def test_a_case_knows_its_volume_labels_and_bones(scans):
    case = load_cases(scans, "test", ["some-ct"])[0]
    volume, labels, objects = case.load()
    assert (volume.name, volume.modality, volume.shape) == ("ct_0", "CT", (16, 40, 48))
    assert volume.spacing == pytest.approx((1, 1, 2.5))
    assert [(bone.name, bone.label_name, bone.bone) for bone in objects] == [
        ("L1", "L1", "vertebra"),
        ("femur", "femur", "femur"),
    ]
    assert np.array_equal(objects[0].mask, labels == 1)
    # A stray voxel stays in the labels and is no part of the bone.
    assert labels[0, 0, 0] == 2
    assert not objects[1].mask[0, 0, 0]
    assert volume.array[objects[1].mask].min() == 400


def test_both_sides_are_told_apart_and_loose_labels_left_out(scans):
    volume, labels, objects = load_cases(scans, "test", ["pelvic-mr"])[0].load()
    assert volume.modality == "MR"
    assert [bone.name for bone in objects] == ["femur_right", "femur_left"]
    # In LPS, voxels of low i are at the patient's right.
    assert [bone.mask.any(axis=(0, 1)).argmax() for bone in objects] == [6, 30]
    assert (labels == 3).any()


def test_pictures_get_the_pixel_size_of_the_index(scans):
    volume, _, objects = load_cases(scans, "test", ["some-xray"])[0].load()
    assert volume.is_projection
    assert volume.spacing[:2] == pytest.approx((0.5, 0.25))
    assert [bone.name for bone in objects] == ["clavicle_left"]
    assert objects[0].bone == "clavicle"


def blocks(*extents, shape=(20, 40, 60)):
    labels = np.zeros(shape, dtype=np.uint8)
    for extent in extents:
        labels[extent] = 1
    return labels, Volume(labels, np.diag([1.0, 1.0, 1.0, 1.0]))


def test_components_too_small_are_dropped():
    labels, volume = blocks(np.s_[2:18, 5:35, 5:40], np.s_[2:6, 5:9, 50:54], np.s_[8, 5:9, 50:54])
    (bone,) = separate_objects(labels, volume, "any", {1: "femur"})
    assert bone.mask.sum() == 16 * 30 * 35
    labels, volume = blocks(np.s_[2:5, 5:9, 5:9])
    assert separate_objects(labels, volume, "any", {1: "femur"}) == []
    assert separate_objects(labels, volume, "pelvic-mr", {1: "femur"}) == []
    assert separate_objects(labels, volume, "any", {2: "femur"}) == []


def test_sides_joined_by_the_annotator_are_cut():
    right, left = np.s_[2:18, 5:35, 40:55], np.s_[2:18, 5:35, 5:20]
    labels, volume = blocks(right, left, np.s_[4, 30:32, 18:42])
    objects = separate_objects(labels, volume, "pelvic-mr", {1: "ilium/pelvis"})
    assert [bone.name for bone in objects] == ["ilium_right", "ilium_left"]
    assert sum(bone.mask.sum() for bone in objects) == labels.sum()
    assert objects[0].mask[right].all()
    assert objects[1].mask[left].all()
    assert not (objects[0].mask & objects[1].mask).any()


def test_pieces_of_one_side_stay_together():
    labels, volume = blocks(np.s_[2:18, 5:35, 40:55], np.s_[2:18, 5:35, 5:20], np.s_[2:10, 36:40, 44:55])
    right, left = separate_objects(labels, volume, "pelvic-mr", {1: "femur"})
    assert right.mask.sum() == 16 * 30 * 15 + 8 * 4 * 11
    assert left.mask.sum() == 16 * 30 * 15


def test_one_object_a_component_from_superior_to_inferior():
    labels, volume = blocks(np.s_[2:6, 5:15, 5:15], np.s_[14:18, 5:15, 5:15], np.s_[8:12, 5:15, 5:15])
    objects = separate_objects(labels, volume, "spine-mr-2d", {1: "vertebral bodies"})
    assert [bone.name for bone in objects] == [f"vertebral_bodies_{number}" for number in (1, 2, 3)]
    assert [int(np.argwhere(bone.mask)[0, 0]) for bone in objects] == [14, 8, 2]


@pytest.mark.parametrize(
    ("label", "bone"),
    [
        ("vertebral_body_3", "vertebral body"),
        ("vertebral bodies", "vertebral body"),
        ("vertebrae_S1", "vertebra"),
        ("L5", "vertebra"),
        ("T12", "vertebra"),
        ("clavicle_left", "clavicle"),
        ("ilium/pelvis", "ilium"),
        ("metacarpal (one bone)", "metacarpal"),
        ("mandible", "mandible"),
    ],
)
def test_kinds_of_bone(label, bone):
    assert bone_of(label) == bone


def test_bad_input_is_said_clearly(scans, tmp_path):
    with pytest.raises(BoneSAMError, match="Unknown split"):
        load_cases(scans, "everything")
    with pytest.raises(BoneSAMError, match=r"Unknown source nowhere.*pelvic-mr, some-ct, some-xray"):
        load_cases(scans, "test", ["nowhere"])
    with pytest.raises(BoneSAMError, match="name the folder that holds"):
        load_cases(tmp_path / "missing", "test")
    (tmp_path / "index.json").write_text('[{"id": "a"}]')
    with pytest.raises(BoneSAMError, match="not an index"):
        load_cases(tmp_path, "test")


def test_a_mask_on_another_grid_is_refused(scans):
    rows = json.loads((scans / "index.json").read_text())
    rows[0]["mask"] = rows[3]["mask"]
    (scans / "index.json").write_text(json.dumps(rows))
    with pytest.raises(BoneSAMError, match="same grid"):
        load_cases(scans, "test")[0].load()


def test_real_scans_of_every_source(real_scans):
    first = {}
    for split in ("train", "validation", "test"):
        for case in load_cases(real_scans, split):
            first.setdefault(case.source, case)
    assert len(first) == 7
    for case in first.values():
        volume, labels, objects = case.load()
        assert objects
        assert len({bone.name for bone in objects}) == len(objects)
        for bone in objects:
            assert bone.mask.shape == labels.shape == volume.shape
            assert bone.mask.sum() >= 50
            assert (labels[bone.mask] == bone.label_value).all()


def test_real_pelves_have_both_sides(real_scans):
    names = ["femur_right", "femur_left", "ilium_right", "ilium_left", "sacrum"]
    for split in ("validation", "test"):
        for case in load_cases(real_scans, split, ["pelvic-mr"]):
            objects = case.load()[2]
            assert [bone.name for bone in objects] == names
            sizes = [int(bone.mask.sum()) for bone in objects]
            assert 0.8 < sizes[0] / sizes[1] < 1.25
            assert 0.8 < sizes[2] / sizes[3] < 1.25
