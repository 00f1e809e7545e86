"""What 3D Slicer's Extensions Index checks before it accepts an extension."""

import json
import re
from pathlib import Path
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).resolve().parents[2]
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
ENTRY = ROOT / "BoneSAM.json"
LARGEST_REPOSITORY = 100 * 2**20


def metadata(name):
    found = re.findall(rf'^set\(EXTENSION_{name} "([^"\n]*)"\)$', CMAKE, re.MULTILINE)
    assert len(found) == 1, f"EXTENSION_{name} must be one quoted text"
    return found[0]


def test_the_project_is_called_as_its_entry():
    assert re.findall(r"^project\((\w+)\)$", CMAKE, re.MULTILINE) == [ENTRY.stem]
    # The index refuses extensions, and wants repositories, whose name begins with Slicer.
    assert not ENTRY.stem.startswith("Slicer")


def test_the_entry_has_what_its_schema_asks_for():
    text = ENTRY.read_bytes()
    entry = json.loads(text)
    assert b"\r" not in text
    assert text.endswith(b"}\n")
    assert list(entry) == sorted(entry)
    assert re.fullmatch(
        r"https://.*/slicer-extension-catalog-entry-schema-v1\.0\.[12]\.json#", entry["$schema"]
    )
    assert entry["category"] == "Segmentation"
    assert entry["scm_url"] == metadata("HOMEPAGE")
    assert entry["scm_url"].rsplit("/", 1)[-1] == f"Slicer{ENTRY.stem}"
    assert entry["scm_revision"] == "main"
    assert entry["tier"] in (1, 3, 5)
    assert set(entry) <= {
        "$schema", "build_dependencies", "build_subdirectory", "category", "scm_revision", "scm_url", "tier"
    }  # fmt: skip
    depends = metadata("DEPENDS")
    assert entry["build_dependencies"] == ([] if depends == "NA" else depends.split())


@pytest.mark.parametrize("name", ["ICONURL", "SCREENSHOTURLS"])
def test_pictures_are_files_of_the_repository(name):
    for url in metadata(name).split():
        parts = urlparse(url)
        assert (parts.scheme, parts.netloc) == ("https", "raw.githubusercontent.com")
        owner, repository, branch, path = parts.path.lstrip("/").split("/", 3)
        assert f"https://github.com/{owner}/{repository}" == metadata("HOMEPAGE")
        assert branch == "main"
        assert path.endswith((".png", ".jpg"))
        assert (ROOT / path).is_file(), path


def test_people_are_told_what_it_is_for():
    description = metadata("DESCRIPTION")
    assert all(word in description for word in ("CT", "MR", "X-ray", "not for diagnosis"))
    assert metadata("CONTRIBUTORS")
    assert (ROOT / "LICENSE").is_file()


def test_the_extension_stays_small():
    folders = ("BoneSAM", "BoneSAMLib", "Resources")
    size = sum(
        path.stat().st_size for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()
    )
    assert size < LARGEST_REPOSITORY / 2  # the history is cloned, too


def test_slicer_is_asked_for_the_same_package_as_pip():
    lines = (ROOT / "BoneSAM" / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert len(wanted) == 1
    assert f'"{wanted[0]}",' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
