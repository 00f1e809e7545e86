"""What is measured of bones by name: found, right names, parted bones, and bones that are not there."""

from types import SimpleNamespace

import numpy as np
import pytest

from BoneSAMLib.bone_finding import BoneFinder
from BoneSAMLib.bone_kinds import KINDS, BonePlace
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from Testing.lib.fake_engine import FakeEngine
from Testing.lib.hand_built_naming import Block, HandBuiltNaming
from training.naming.evaluate import (
    ask_case,
    false_findings,
    name_masks,
    panoptic_quality,
    summary_of,
    unprompted,
)

UPPER = Block("femur", (-20, -20, 2), (20, 20, 60), "left")
LOWER = Block("tibia", (-20, -20, -60), (20, 20, -2), "left")


def mask_of(volume, block):
    k, j, i = np.indices(volume.shape)
    ras = np.stack([i, j, k], -1) @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
    return ((ras >= block.low) & (ras <= block.high)).all(-1)


def scan(*blocks):
    matrix = np.diag([4.0, 4.0, 4.0, 1.0])
    matrix[:3, 3] = -60, -60, -80
    empty = Volume(np.full((41, 31, 31), -1000, np.int16), matrix, modality="CT")
    array = empty.array.copy()
    for block in blocks:
        array[mask_of(empty, block)] = 1250
    return Volume(array, matrix, modality="CT")


class Segmenter:
    def __init__(self, *blocks):
        self.naming, self.engine = HandBuiltNaming(*blocks), FakeEngine()

    def open(self, volume):
        return Session(volume, self.engine, naming=self.naming)


def case_of(volume, source="open-kbp", **bones):
    objects = [
        SimpleNamespace(name=name.replace("_", " "), mask=mask_of(volume, block))
        for name, block in bones.items()
    ]
    labels = sum(n * one.mask.astype(np.uint8) for n, one in enumerate(objects, start=1))
    return SimpleNamespace(id="a", source=source, load=lambda: (volume, labels, objects))


def test_a_bone_is_asked_for_by_name_and_by_box_told_and_not():
    case = case_of(scan(UPPER), left_femur=UPPER, left_tibia=LOWER)
    segmenter = Segmenter(UPPER)
    femur, tibia = ask_case(case, segmenter)
    assert femur.found
    assert not tibia.found
    assert min(femur.dice_by_name, femur.dice_by_name_untold, femur.dice_by_box) > 0.8
    assert tibia.dice_by_name == tibia.dice_by_name_untold == 0
    assert set(segmenter.engine.kinds) == {0, 1 + KINDS.index("femur"), 1 + KINDS.index("tibia")}
    summary = summary_of([femur, tibia], [], [("a", "sacrum", True), ("a", "skull", False)], [])
    assert summary["by_name"]["open-kbp"]["found"] == 0.5
    assert summary["by_name"]["open-kbp"]["dice_by_name"] == pytest.approx(femur.dice_by_name / 2, abs=1e-3)
    assert summary["false_positive_rate"] == 0.5


def test_bones_that_lie_elsewhere():
    volume = scan(UPPER)
    found = {name: hit for _, name, hit in false_findings(case_of(volume), Segmenter(UPPER))}
    assert found["left femur"]
    assert sum(found.values()) == 1
    assert len(found) > 5


def test_names_of_true_masks():
    volume = scan(UPPER, LOWER)
    finder = BoneFinder(volume, HandBuiltNaming(UPPER, LOWER))
    masks = [
        (BonePlace("femur", 0, "left"), mask_of(volume, UPPER)),
        (BonePlace("tibia", 0, "right"), mask_of(volume, LOWER)),
        (BonePlace("patella", 0, "left"), mask_of(volume, LOWER)),
    ]
    femur, other_side, other_kind = name_masks("made up", "a", finder, masks)
    assert (femur.kind_right, femur.side_right, femur.number_right) == (True, True, None)
    assert (other_side.kind_right, other_side.side_right) == (True, False)
    assert (other_kind.kind_right, other_kind.side_right) == (False, False)


def test_touching_bones_are_parted_by_name_or_not():
    volume = scan(UPPER, LOWER)
    masks = [mask_of(volume, block) for block in (UPPER, LOWER)]
    parted = panoptic_quality(BoneFinder(volume, HandBuiltNaming(UPPER, LOWER)), masks)
    whole = Block("femur", LOWER.low, UPPER.high, "left")
    assert parted > 0.8
    assert panoptic_quality(BoneFinder(volume, HandBuiltNaming(whole)), masks) < 0.5


def test_all_bones_are_judged_near_the_annotated_ones():
    case = case_of(scan(UPPER), left_femur=UPPER)
    (row,) = unprompted(case, Segmenter(UPPER))
    assert row.f2 > 0.8
    assert row.f2_named > 0.8
