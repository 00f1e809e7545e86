"""Corrupted scans: each is worse with its severity, the same in every run, and where its truth says."""

import numpy as np
import pytest

from BoneSAMLib.volume import Volume
from Testing.training.threshold_segmenter import ThresholdSegmenter
from training.cases import BoneObject, Case
from training.measure import LoadedCase
from training.robustness import CLEAN, CORRUPTIONS, Robustness, corrupt, summary
from training.trial import Trial


def made(modality="MR", slices=12, scale=1.0, offset=0.0):
    """A soft body with two bones, k slices 3 mm thick."""
    k, j, i = np.indices((slices, 48, 56)).astype(np.float32)
    middle = (slices - 1) / 2
    body = ((i - 28) / 24) ** 2 + ((j - 24) / 20) ** 2 < 1
    array = np.where(body, 40.0 + 10 * np.sin(i / 5), 0.0)
    masks = []
    for x in (18, 38):
        mask = (i - x) ** 2 + (j - 24) ** 2 + (2 * (k - middle)) ** 2 <= 36
        array[mask] = 100.0
        masks.append(mask)
    array = np.where(array > 0, array * scale + offset, 0).astype(np.int16)
    volume = Volume(array, np.diag([1.0, 1.0, 3.0, 1.0]), "made", modality)
    case = Case("made", "s", "test", modality, None, None, {}, None, True, "", "hip", "", subject="made")
    bones = [
        BoneObject(name, name, n, name, mask) for n, (name, mask) in enumerate(zip("ab", masks, strict=True))
    ]
    return LoadedCase(case, volume, np.zeros(volume.shape, np.uint8), bones)


def changed(loaded, corrupted):
    return float(np.abs(corrupted.volume.array - loaded.volume.array.astype(float)).mean())


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in ("rotation", "crop")])
def test_values_get_worse_with_severity_and_bones_stay(name):
    loaded = made()
    mild, strong, again = (corrupt(loaded, name, severity) for severity in (1, 5, 5))
    assert 0 < changed(loaded, mild) < changed(loaded, strong)
    assert np.array_equal(strong.volume.array, again.volume.array)
    assert np.array_equal(strong.truths["a"], loaded.bones[0].mask)
    assert strong.volume.modality_guess == "MR"
    assert np.array_equal(strong.volume.ijk_to_ras, loaded.volume.ijk_to_ras)


def test_thick_slices_change_along_the_stack_only():
    loaded = made()
    thick = corrupt(loaded, "slice thickness", 5).volume.array
    before = loaded.volume.array.astype(float)
    assert np.abs(np.diff(thick, axis=0)).mean() < 0.7 * np.abs(np.diff(before, axis=0)).mean()
    # A bone's slices above and below its end now show some of it.
    assert thick[0, 24, 18] > before[0, 24, 18] + 2


def test_rotation_turns_scan_and_bones_together():
    loaded = made()
    turned = corrupt(loaded, "rotation", 5)
    for bone in loaded.bones:
        truth = turned.truths[bone.name]
        assert truth.sum() == pytest.approx(bone.mask.sum(), rel=0.15)
        assert np.median(turned.volume.array[truth]) == pytest.approx(100, abs=2)
    before, after = (np.argwhere(mask).mean(0) for mask in (loaded.bones[0].mask, turned.truths["a"]))
    assert after[0] == pytest.approx(before[0], abs=0.3)
    assert np.hypot(*(after - before)[1:]) > 5


def test_crop_keeps_places_and_then_cuts_bone():
    loaded = made()
    near = corrupt(loaded, "crop", 3)
    assert near.volume.array.size < loaded.volume.array.size
    assert near.truths["a"].sum() == loaded.bones[0].mask.sum()
    centers = [
        volume.ijk_to_ras @ [*np.argwhere(mask).mean(0)[::-1], 1]
        for volume, mask in ((loaded.volume, loaded.bones[0].mask), (near.volume, near.truths["a"]))
    ]
    assert np.allclose(*centers)
    assert corrupt(loaded, "crop", 5).truths["a"].sum() < loaded.bones[0].mask.sum()


def test_ct_values_stay_hounsfield_units():
    # Stored as the scanner's numbers: Hounsfield units plus 1024.
    loaded = made("CT", scale=8.5, offset=700.0)
    assert loaded.volume.intensity_offset == -1024
    stored = loaded.volume.array.copy()
    noisy = corrupt(loaded, "noise", 1).volume
    assert noisy.modality_guess == "CT"
    assert noisy.intensity_offset == 0
    expected = stored.mean() + loaded.volume.intensity_offset
    assert noisy.array.mean() == pytest.approx(expected, abs=15)


def test_corruptions_fit_the_modality():
    names = {part.rpartition(" ")[0] for part in Robustness((3,)).parts(made("CT"))}
    assert names == {"", "noise", "blur", "gamma", "slice thickness", "rotation", "crop"}
    assert len(Robustness().parts(made())) == 1 + 9 * 5
    flat = made("X-ray", slices=1)
    names = {part.rpartition(" ")[0] for part in Robustness((1,)).parts(flat)}
    assert names == {"", "noise", "blur", "gamma", "bias field", "rotation", "crop"}
    for part in Robustness((5,)).parts(flat)[1:]:
        assert corrupt(flat, part.rpartition(" ")[0], 5).volume.is_projection


def test_trials_follow_the_turned_bone():
    trials = [
        one
        for part in (CLEAN, "rotation 2")
        for one in Robustness((2,)).run(made(scale=5.0), ThresholdSegmenter(), part)
    ]
    assert [(one.condition, one.level) for one in trials] == [(CLEAN, 0)] * 2 + [("rotation", 2)] * 2
    assert all(0 < one.dice <= 1 for one in trials)


def test_drop_is_relative_to_the_same_bones():
    def one(condition, level, dice, name="a", source="s"):
        return Trial("c", source, "hip", name, name, condition, level, dice, dice)

    trials = [
        one(CLEAN, 0, 0.8),
        one(CLEAN, 0, 0.6, "b", "t"),
        one(CLEAN, 0, 0.1, "never corrupted"),
        one("noise", 3, 0.72),
        one("noise", 3, 0.48, "b", "t"),
        one("blur", 3, 0.8),
        one("blur", 5, 0.4),
        one("crop", 1, 0.8),
    ]
    found = summary(trials)["corruptions"]
    noise = found["noise"]["severities"]["3"]
    assert noise["relative_drop"] == pytest.approx(1 - 1.2 / 1.4)
    assert noise["relative_drop_by_source"] == {"s": pytest.approx(0.1), "t": pytest.approx(0.2)}
    assert found["noise"]["aim_met"] is False
    assert found["blur"]["aim_met"] is True
    assert found["blur"]["severities"]["5"]["relative_drop"] == pytest.approx(0.5)
    assert found["crop"]["aim_met"] is None
