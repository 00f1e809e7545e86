"""Training cubes of the naming network: what labels mean, what nobody knows, left and right."""

import numpy as np
import pytest

from BoneSAMLib.bone_kinds import KINDS, BonePlace
from Testing.training.named_bodies import FAT, FEMUR_L, FEMUR_R, body, partial_scan
from training.label_places import LEFT, NO_SIDE, RIGHT, UNKNOWN, label_place
from training.naming import cubes
from training.naming.cubes import draw_cube, nameable

FEMUR = 1 + KINDS.index("femur")


@pytest.fixture(autouse=True)
def small_cubes(monkeypatch):
    monkeypatch.setattr(cubes, "SIZE", 16)


def draw(subject, count=6):
    rng = np.random.default_rng(0)
    return [draw_cube({"made up": [subject]}, 0.5, rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("femur_left", BonePlace("femur", 0, "left")),
        ("left femur, piece 2", BonePlace("femur", 0, "left")),
        ("rib_left_7, piece 2", BonePlace("rib", 7, "left")),
        ("Rib10", BonePlace("rib", 10)),  # on either side
        ("vertebrae_L3", BonePlace("vertebra", 22)),
        ("vertebral_body_3", BonePlace("vertebra")),  # counted from anywhere
        ("ilium", BonePlace("hip bone")),
        ("carpals", BonePlace("carpal")),
        ("sacrum", BonePlace("sacrum")),
        ("skull", BonePlace("skull")),
        ("mandible", BonePlace("mandible")),
        ("teeth", None),
        ("coccyx", None),
        ("femur and tibia", None),
        ("large", None),
    ],
)
def test_what_names_of_labels_mean(name, expected):
    assert label_place(name) == expected


def test_labels_of_a_whole_body():
    places = body().places
    assert places.kind.tolist() == [0, 0, FEMUR, FEMUR, UNKNOWN]  # the last is bone without a name
    assert places.side[[FEMUR_L, FEMUR_R]].tolist() == [LEFT, RIGHT]
    assert places.complete.all()
    assert [target.label for target in nameable(body())] == [FEMUR_L, FEMUR_R]


def test_what_a_partial_annotation_leaves_out_is_not_background():
    places = partial_scan().places
    assert places.kind.tolist() == [UNKNOWN, FEMUR]
    assert np.flatnonzero(places.complete).tolist() == [FEMUR]
    bodies = partial_scan()
    bodies.names[1] = "vertebral_body_3"
    assert not bodies.places.complete.any()  # the rest of the vertebra is not annotated
    for sample in draw(partial_scan(), 4):
        beyond = sample["cube"][0] == 0
        assert set(np.unique(sample["kind"])) <= {0, FEMUR, UNKNOWN}
        assert (sample["kind"] == UNKNOWN).any()
        # Where the scan has ended there is certainly no bone.
        assert beyond[sample["kind"] == 0].mean() > 0.9


def test_cubes_have_the_shapes_that_the_network_takes():
    for sample in draw(body(), 2):
        assert (sample["cube"].shape, sample["cube"].dtype) == ((2, 16, 16, 16), np.float16)
        assert np.ptp(sample["cube"][1]) == 0
        for key in ("kind", "number", "side"):
            assert (sample[key].shape, sample[key].dtype) == ((16, 16, 16), np.uint8)
        assert (sample["kind"] == FEMUR).any()


def test_left_is_left_in_mirrored_cubes_too(monkeypatch):
    mirrored = []
    straight = cubes.anatomical_frame

    def note(subject, mirror, rng):
        mirrored.append(mirror)
        return straight(subject, mirror, rng)

    monkeypatch.setattr(cubes, "anatomical_frame", note)
    monkeypatch.setattr(cubes, "rotation", lambda axis, angle: np.eye(3))
    both = 0
    for sample in draw(body(), 16):
        u = np.indices(sample["side"].shape)[2]
        left, right = (u[(sample["side"] == side) & (sample["kind"] == FEMUR)] for side in (LEFT, RIGHT))
        if len(left) and len(right):
            both += 1
            assert left.mean() > right.mean()  # u leads to the left
        assert (sample["side"][sample["kind"] == 0] == NO_SIDE).all()  # beyond the ends of a scan, too
        assert set(np.unique(sample["side"])) <= {LEFT, RIGHT, NO_SIDE}
    assert both >= 4
    assert set(mirrored) == {True, False}


def test_the_brighter_bone_is_where_its_label_is():
    scan = partial_scan()
    for sample in draw(scan, 4):
        bone, other = sample["kind"] == FEMUR, sample["kind"] == UNKNOWN
        image = sample["cube"][0].astype(float)
        assert image[bone].mean() > image[other].mean()
    assert scan.tissues != {1: FAT}
