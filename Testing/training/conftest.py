"""Scans for the tests of training and evaluation: tiny ones made here, and the real ones where they are."""

import os
from pathlib import Path

import pytest

from Testing.training.annotated_scans import write_annotated_scans


@pytest.fixture
def scans(tmp_path):
    """A folder of tiny annotated scans."""
    folder = tmp_path / "scans"
    folder.mkdir()
    return write_annotated_scans(folder)


@pytest.fixture(scope="session")
def real_scans():
    """The folder of real annotated scans, which is never part of the repository."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("BONESAM_DATA", beside))
    if not (folder / "index.json").exists():
        pytest.skip(f"no annotated scans in {folder}; name their folder with BONESAM_DATA")
    return folder
