"""Scans become a store and a report; a second run does nothing again, and nothing is ever half-written."""

import errno
import filecmp
import json
import os

import numpy as np
import pytest
import SimpleITK
import typer
from typer.testing import CliRunner

from BoneSAMLib import writing
from BoneSAMLib.errors import BoneSAMError
from training import store as training_store
from training.cases import load_cases
from training.ingest import ingestion
from training.ingest.__main__ import main
from training.ingest.discovery import Reading, find_scans
from training.ingest.ingestion import ingest
from training.store import load_subjects, store_case

ALL = {"train": 0.7, "validation": 0.15, "test": 0.15}


def run(*arguments):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_scan(folder, name, shift=0, mask=True, value=1):
    """A CT with a bright block, and its mask."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(shift)
    labels = np.zeros((16, 40, 48), np.uint8)
    labels[3:13, 10 + shift : 24 + shift, 6:18] = value
    image = np.where(labels > 0, 500, 40) + rng.normal(0, 15, labels.shape)
    image[:, :4] = -1000
    for array, ending in ((image.astype(np.int16), ""), (labels, "_mask")) if mask else ((image, ""),):
        written = SimpleITK.GetImageFromArray(array)
        written.SetSpacing((1.0, 1.0, 2.5))
        SimpleITK.WriteImage(written, folder / f"{name}{ending}.nii.gz")


@pytest.fixture
def patients(tmp_path):
    folder = tmp_path / "patients"
    for number in range(6):
        write_scan(folder / f"p{number}", "ct", number)
    (folder / "names.json").write_text('{"1": "left femur"}')
    return folder


def arrays(store):
    return sorted(path.name for path in store.glob("*.npy"))


def test_folders_become_a_store_and_a_report(patients, tmp_path):
    store = tmp_path / "store"
    write_scan(patients / "p7", "ct", 7, mask=False)
    result = run(patients, "--store", store, "--modality", "CT", "--shares", "0.5,0.25,0.25")
    assert result.exit_code == 0, result.output
    index = json.loads((store / "report" / "index.json").read_text())
    splits = {row["subject"]: row["split"] for row in index}
    assert len(index) == 6
    packed = load_subjects(store, "train") + load_subjects(store, "validation")
    assert {one.id: one.split for one in packed if one.kind == "image"} == {
        row["id"]: row["split"] for row in index if row["split"] != "test"
    }
    assert [one.id for one in packed if one.kind == "unlabelled"] == ["patients-p7_ct"]
    assert all(one.partial for one in packed if one.kind == "image")
    assert {target.name for one in packed for target in one.targets} == {"left_femur"}
    assert "patients/p0" in splits
    # The index is one for the evaluation, test cases included.
    for split in ("train", "validation", "test"):
        for case in load_cases(store / "report", split):
            assert [bone.name for bone in case.load()[2]] == ["left_femur"]
    page = (store / "report" / "index.html").read_text()
    for row in index:
        assert f"src='{row['id']}.png'" in page
        assert (store / "report" / f"{row['id']}.png").stat().st_size > 1000


def test_packing_is_what_it_was(scans, tmp_path):
    store, alone = tmp_path / "store", tmp_path / "alone"
    alone.mkdir()
    assert run(scans, "--store", store).exit_code == 0
    for case in load_cases(scans, "train"):
        store_case(case, alone)
    assert arrays(alone) == arrays(store) == ["ct_1.image.npy", "ct_1.labels.npy"]
    for path in alone.iterdir():
        assert filecmp.cmp(path, store / path.name, shallow=False)
    saved = tmp_path / "saved.npy"
    np.save(saved, np.load(store / "ct_1.image.npy"))
    assert filecmp.cmp(saved, store / "ct_1.image.npy", shallow=False)


def test_again_does_nothing_again(patients, tmp_path):
    store = tmp_path / "store"
    run(patients, "--store", store)
    before = {path: path.stat().st_mtime_ns for path in store.iterdir() if path.is_file()}
    records = {path: path.read_bytes() for path in (store / "report" / "cases").iterdir()}
    result = run(patients, "--store", store)
    assert result.output.count(": kept") == 6
    assert before == {path: path.stat().st_mtime_ns for path in store.iterdir() if path.is_file()}
    assert records == {path: path.read_bytes() for path in (store / "report" / "cases").iterdir()}


def test_what_changed_is_done_again_and_splits_stay(patients, tmp_path):
    store = tmp_path / "store"
    run(patients, "--store", store)
    splits = {row["id"]: row["split"] for row in json.loads((store / "report" / "index.json").read_text())}
    write_scan(patients / "p0", "ct", 12)
    for number in range(10, 16):
        write_scan(patients / f"p{number}", "ct", number)
    result = run(patients, "--store", store)
    assert result.output.count(": kept") == 5
    now = {row["id"]: row["split"] for row in json.loads((store / "report" / "index.json").read_text())}
    assert len(now) == 12
    assert splits.items() <= now.items()


def test_an_interruption_anywhere_leaves_whole_subjects_and_is_made_up_for(patients, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    found = find_scans(patients, Reading())
    ingest(found, whole, ALL)
    writes = {"left": 0}
    real = writing.open_complete

    def interrupted(path):
        writes["left"] -= 1
        if writes["left"] < 0:
            raise KeyboardInterrupt
        return real(path)

    for module in (training_store, ingestion):
        monkeypatch.setattr(module, "open_complete", interrupted)
    store = tmp_path / "store"
    for count in (1, 2, 3, 4, 5):
        writes["left"] = count
        with pytest.raises(KeyboardInterrupt):
            ingest(find_scans(patients, Reading()), store, ALL)
        for subject in load_subjects(store, "train"):
            assert subject.image.shape == subject.labels.shape
        assert not list(store.rglob("*.part"))
    writes["left"] = 10**9
    ingest(find_scans(patients, Reading()), store, ALL)
    same = filecmp.dircmp(whole, store)
    assert same.left_only == same.right_only == []
    for name in arrays(whole):
        assert filecmp.cmp(whole / name, store / name, shallow=False)


def test_a_full_disk_is_one_sentence(patients, tmp_path, monkeypatch):
    store = tmp_path / "store"
    real = os.fsync

    def full(number):
        if sum(path.stat().st_size for path in store.rglob("*") if path.is_file()) > 60_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(writing.os, "fsync", full)
    result = run(patients, "--store", store)
    assert result.exit_code == 2
    assert "the disk is full" in result.output
    monkeypatch.undo()
    assert not list(store.rglob("*.part"))
    assert run(patients, "--store", store).exit_code == 0


def test_bad_cases_are_left_out_with_a_sentence_and_others_taken(patients, tmp_path):
    write_scan(patients / "p1", "ct", 1, value=0)  # empty
    write_scan(patients / "p2", "ct", 2, value=5)  # no name for 5
    write_scan(patients / "p3", "other", 3)
    (patients / "p3" / "other.nii.gz").unlink()
    image = SimpleITK.ReadImage(patients / "p4" / "ct_mask.nii.gz")
    SimpleITK.WriteImage(image[:, :, :10], patients / "p4" / "ct_mask.nii.gz")
    image.SetOrigin((0, 0, 30))
    SimpleITK.WriteImage(image, patients / "p5" / "ct_mask.nii.gz")
    store = tmp_path / "store"
    result = run(patients, "--store", store)
    assert result.exit_code == 1
    for words in ("is empty", "without a name: 5", "not clear which image", "same grid", "lies elsewhere"):
        assert result.output.count(words) == 1
        assert words in (store / "report" / "index.html").read_text()
    assert "Traceback" not in result.output
    assert "5 were left out" in result.output
    # Mended, they are taken.
    for number in (1, 2, 4, 5):
        write_scan(patients / f"p{number}", "ct", number)
    (patients / "p3" / "other_mask.nii.gz").unlink()
    assert run(patients, "--store", store).exit_code == 0


def test_a_case_that_went_bad_leaves_the_store(patients, tmp_path):
    store = tmp_path / "store"
    run(patients, "--store", store)
    write_scan(patients / "p0", "ct", value=0)
    assert run(patients, "--store", store).exit_code == 1
    assert not list(store.glob("patients-p0_ct*"))


def test_suspicious_cases_are_marked_or_left_out(patients, tmp_path):
    mask = SimpleITK.ReadImage(patients / "p0" / "ct_mask.nii.gz")
    flipped = SimpleITK.GetImageFromArray(SimpleITK.GetArrayFromImage(mask)[:, :, ::-1])
    flipped.CopyInformation(mask)
    SimpleITK.WriteImage(flipped, patients / "p0" / "ct_mask.nii.gz")
    store = tmp_path / "store"
    result = run(patients, "--store", store)
    assert result.exit_code == 0
    assert result.output.count("better flipped along i") == 1
    assert "1 should be looked at" in result.output
    result = run(patients, "--store", store, "--strict")
    assert result.exit_code == 1
    assert not list(store.glob("patients-p0_ct*"))


def test_scans_without_a_mask_of_held_out_persons_are_not_trained_on(patients, tmp_path):
    for number in range(6):
        write_scan(patients / f"p{number}", "second", number + 3, mask=False)
    store = tmp_path / "store"
    run(patients, "--store", store)
    index = json.loads((store / "report" / "index.json").read_text())
    training = {row["subject"] for row in index if row["split"] == "train"}
    free = [one.id for one in load_subjects(store, "train") if one.kind == "unlabelled"]
    assert {f"patients/{name.removeprefix('patients-').removesuffix('_second')}" for name in free} == training
    assert 0 < len(training) < 6


def test_one_sentence_for_what_cannot_begin(patients, tmp_path):
    store = tmp_path / "store"
    for arguments, words in (
        ((tmp_path / "none",), "no folder"),
        ((patients, "--shares", "1,1,1"), "no division"),
        ((patients, "--modality", "PET"), "Unknown modality"),
        ((patients, "--names", tmp_path / "none.json"), "The names in"),
        ((patients / "p0",), "All scans are of one subject"),
        ((patients, patients), "Two cases are called"),
    ):
        result = run(*arguments, "--store", store)
        assert result.exit_code == 2, arguments
        assert words in result.output
        assert "Traceback" not in result.output
    assert not arrays(store) if store.exists() else True
    found = find_scans(patients, Reading())
    found.rows[0]["id"] = "a/b"
    with pytest.raises(BoneSAMError, match="cannot be the name"):
        ingest(found, store, ALL)
