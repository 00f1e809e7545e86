"""What a scanner does to images: alike to slices and cube, within 0..1, and CT keeps its units."""

import numpy as np

from training.synthesis.scanner import cut_out, degrade


def gray(value=0.5):
    return np.full((6, 128, 128), value, np.float32), np.full((64, 64, 64), value, np.float32)


def test_images_stay_in_range_and_change_in_place():
    changed = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        slices = rng.random((6, 64, 64), dtype=np.float32)
        cube = rng.random((64, 64, 64), dtype=np.float32)
        before = slices.copy()
        degrade(slices, cube, bool(seed % 2), bool(seed % 3), rng)
        for image in (slices, cube):
            assert image.min() >= 0
            assert image.max() <= 1
        changed += not np.array_equal(slices, before)
    assert changed > 20


def test_slices_and_cube_are_changed_alike():
    spread = []
    for seed in range(40):
        slices, cube = gray()
        degrade(slices, cube, True, False, np.random.default_rng(seed))
        middle = cube[31:33].mean(axis=0)
        coarse = slices.mean(axis=0).reshape(8, 16, 8, 16).mean(axis=(1, 3))
        difference = coarse - middle.reshape(8, 8, 8, 8).mean(axis=(1, 3))
        assert np.abs(difference).max() < 0.12
        assert np.abs(difference).mean() < 0.03
        spread.append(coarse.mean())
    assert np.std(spread) > 0.05


def test_ct_mostly_keeps_its_brightness():
    kept = 0
    for seed in range(60):
        slices, _ = gray(0.15)
        degrade(slices, None, True, True, np.random.default_rng(seed))
        assert slices.mean() < 0.6, "inverted"
        kept += abs(float(slices.mean()) - 0.15) < 0.02
    assert 40 <= kept < 60


def test_some_mr_is_inverted():
    values = []
    for seed in range(80):
        slices, _ = gray(0.1)
        degrade(slices, None, True, False, np.random.default_rng(seed))
        values.append(slices.mean())
    assert 1 <= sum(value > 0.6 for value in values) < 25


def test_a_cut_out_is_blank_in_all_slices_and_leaves_the_middle():
    shares = []
    for seed in range(30):
        slices, _ = gray(0.4)
        cut_out(slices, np.random.default_rng(seed))
        assert np.isin(slices, [np.float32(0), np.float32(0.4)]).all()
        assert (slices == slices[0]).all()
        assert (slices[:, 52:76, 52:76] > 0).all()
        shares.append((slices == 0).mean())
    assert max(shares) > 0.15
    assert max(shares) < 0.6
