"""Useless cases are refused with a reason; masks that lie wrong are noticed, good ones left in peace."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import ndimage

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from training.annotation import Annotation
from training.cases import BoneObject, load_cases
from training.ingest.boundary import edge_strength, placements
from training.ingest.checks import SHIFT_GAIN, refuse_useless, suspicions

SHAPE = (30, 60, 64)
LPS = np.diag([-1.5, -1.5, 3.0, 1.0])


@pytest.fixture(scope="module")
def body():
    """A noisy scan [k, j, i] of an unsymmetrical body with two bones, and the bones."""
    rng = np.random.default_rng(0)
    k, j, i = np.indices(SHAPE)
    trunk = ((i - 32) / 28) ** 2 + ((j - 32) / 24) ** 2 < 1
    first = ((i - 18) / 6) ** 2 + ((j - 22) / 9) ** 2 + ((k - 10) / 8) ** 2 < 1
    second = ((i - 44) / 8) ** 2 + ((j - 36) / 6) ** 2 + ((k - 18) / 9) ** 2 < 1
    image = 100 * trunk + 90 * first + 120 * second + 30 * (((i - 25) ** 2 + (j - 44) ** 2) < 20)
    image = ndimage.gaussian_filter(image.astype(float), 0.7) + rng.normal(0, 6, SHAPE)
    return Volume(image.astype(np.float32), LPS, "body", "MR"), first, second


def bones(*named):
    return [BoneObject(name, name, 1, name, mask) for name, mask in named]


def test_a_good_mask_is_left_in_peace(body):
    volume, first, second = body
    assert suspicions(volume, bones(("femur_right", first), ("femur_left", second))) == []


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_flipped_masks_are_noticed(body, axes):
    volume, first, second = body
    (found,) = suspicions(volume, bones(("a", np.flip(first, axes)), ("b", np.flip(second, axes))))
    names = " and ".join("kji"[axis] for axis in reversed(axes))
    assert f"better flipped along {names}." in found


@pytest.mark.parametrize("shift", [(0, 8, 0), (0, 0, -8), (0, 8, 8), (-4, -8, 0)])
def test_shifted_masks_are_noticed(body, shift):
    volume, first, second = body
    moved = [np.roll(mask, shift, (0, 1, 2)) for mask in (first, second)]
    (found,) = suspicions(volume, bones(("a", moved[0]), ("b", moved[1])))
    back = ", ".join(f"{-steps * mm:+.0f}" for steps, mm in zip(shift[::-1], volume.spacing, strict=True))
    assert f"shifted by ({back}) mm".replace("-0", "+0") in found.replace("-0", "+0")


def test_loosely_drawn_masks_are_no_shift(body):
    volume, first, second = body
    for mask in (ndimage.binary_dilation(first | second), np.roll(first | second, 2, 2)):
        flip, shift = placements(volume, mask)
        assert flip.gain < 1
        assert shift.gain < SHIFT_GAIN


def test_edges_are_where_the_mask_is_right(body):
    volume, first, _ = body
    assert edge_strength(volume, first) > 3 * edge_strength(volume, np.roll(first, 15, 1))


def test_sides_are_compared_with_the_header(body):
    volume, first, second = body  # in LPS, low i is right
    assert "other side" in suspicions(volume, bones(("femur_left", first), ("femur_right", second)))[0]
    assert "Bones named right" in suspicions(volume, bones(("sacrum", first), ("Femur R", second)))[0]
    assert "named left" in suspicions(volume, bones(("left femur", first), ("L5", second)))[0]
    assert suspicions(volume, bones(("right femur", first), ("L5", second))) == []
    mirrored = dataclasses.replace(volume, ijk_to_ras=LPS * (-1, 1, 1, 1))
    assert "other side" in suspicions(mirrored, bones(("femur_right", first), ("femur_left", second)))[0]


def test_a_mask_that_is_inside_out(body):
    volume, first, second = body
    assert any("swapped" in found for found in suspicions(volume, bones(("a", ~(first | second)))))


def annotation_of(case, values):
    return Annotation(np.array(values, np.uint16).reshape(1, 1, -1))


def test_useless_cases_are_refused(scans):
    case = load_cases(scans, "train")[0]
    volume, annotation = case.read()
    objects = case.objects(volume, annotation)
    refuse_useless(case, annotation, objects)
    with pytest.raises(BoneSAMError, match=r"case ct_1 is empty"):
        refuse_useless(case, annotation_of(case, [0, 0]), [])
    with pytest.raises(BoneSAMError, match=r"without a name: 7, 9 \(named are 1, 2\)"):
        refuse_useless(case, annotation_of(case, [0, 1, 7, 9]), objects)
    with pytest.raises(BoneSAMError, match="nothing of the size of a bone: L1, femur"):
        refuse_useless(case, annotation_of(case, [0, 1]), [])
    left_out = dataclasses.replace(case, ignored=frozenset({7, 9}))
    refuse_useless(left_out, annotation_of(case, [0, 1, 7, 9]), objects)


def test_a_null_name_is_no_bone(scans):
    rows = json.loads((scans / "index.json").read_text())
    rows[1]["labels"] = {"1": "L1", "2": None}
    (scans / "index.json").write_text(json.dumps(rows))
    case = load_cases(scans, "train")[0]
    volume, annotation = case.read()
    assert [bone.name for bone in case.objects(volume, annotation)] == ["L1"]
    assert case.unknown_labels(annotation) == []
