"""The samples in the repository: small, read as what they are, with truth and prompts that fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from BoneSAMLib import Box, read_volume

FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "samples"

ENTRIES = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))

MEGABYTES = {"hip_ct": 1.5, "knee_mr": 1.0, "hand_xray": 0.3}


every_sample = pytest.mark.parametrize("name", ENTRIES)


def read(name):
    return read_volume(FOLDER / ENTRIES[name]["image"]), read_volume(FOLDER / ENTRIES[name]["truth"])


def test_there_are_three_small_samples():
    assert set(ENTRIES) == set(MEGABYTES)
    for name, limit in MEGABYTES.items():
        assert (FOLDER / ENTRIES[name]["image"]).stat().st_size < limit * 1e6
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3e6
    listed = {entry[part] for entry in ENTRIES.values() for part in ("image", "truth")}
    assert {path.name for path in FOLDER.iterdir()} == listed | {"samples.json", "README.md"}


@every_sample
def test_the_modality_is_guessed_right(name):
    assert read(name)[0].modality_guess == ENTRIES[name]["modality"]


@every_sample
def test_the_truth_has_the_grid_of_the_scan_and_names_for_its_values(name):
    volume, truth = read(name)
    assert truth.shape == volume.shape
    assert np.allclose(truth.ijk_to_ras, volume.ijk_to_ras, atol=1e-4)
    assert truth.array.dtype == np.uint8
    values = np.unique(truth.array[truth.array > 0]).tolist()
    assert values == sorted(int(value) for value in ENTRIES[name]["bones"])


@every_sample
def test_the_box_contains_its_bone_and_little_else(name):
    volume, truth = read(name)
    prompt = ENTRIES[name]["prompt"]
    assert ENTRIES[name]["bones"][str(prompt["value"])] == prompt["bone"]
    if "box_ras" in prompt:
        box = Box.from_ras(prompt["box_ras"][:3], prompt["box_ras"][3:])
    else:
        box = Box.from_ijk(prompt["box_ijk"][:3], prompt["box_ijk"][3:])
    low, high = box.to_ijk(volume)
    places = np.argwhere(truth.array == prompt["value"])[:, ::-1]
    assert len(places) > 500
    assert (places.min(axis=0) >= low).all()
    assert (places.max(axis=0) <= high).all()
    assert np.prod(np.ptp(places, axis=0) + 1) > 0.3 * np.prod(np.subtract(high, low) + 1)


def test_the_ct_has_hounsfield_units_and_a_cortex():
    volume, truth = read("hip_ct")
    assert volume.array.dtype == np.int16
    assert np.allclose(volume.spacing, (1.5, 1.5, 3.0))
    assert volume.through_plane_axis == 2
    bone = truth.array > 0
    assert (volume.array == -1000).mean() > 0.3
    assert 150 < np.median(volume.array[bone]) < 600
    assert np.percentile(volume.array[bone], 97) > 700
    soft = volume.array[~bone & (volume.array > -300)]
    assert -150 < np.percentile(soft, 10) < -60
    assert 20 < np.percentile(soft, 75) < 100


def test_the_mr_is_oblique_and_sagittal():
    volume, truth = read("knee_mr")
    directions = volume.ijk_to_ras[:3, :3] / volume.spacing
    assert np.allclose(volume.spacing, (0.6, 0.6, 4.0), atol=1e-4)
    assert volume.through_plane_axis == 2
    assert volume.orientation[2] in "LR"
    largest = np.abs(directions).max(axis=0)
    assert (largest < 0.999).all()
    assert (largest > 0.95).all()
    marrow = np.median(volume.array[truth.array > 0])
    assert marrow > 3 * np.median(volume.array[truth.array == 0])


def test_bones_of_the_radiograph_are_brighter_than_the_rest_of_the_hand():
    volume, truth = read("hand_xray")
    assert volume.array.dtype == np.uint8
    assert volume.is_projection
    hand = volume.array > 25
    assert np.median(volume.array[truth.array > 0]) > 1.4 * np.median(volume.array[hand & (truth.array == 0)])
