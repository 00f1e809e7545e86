"""The samples as 3D Slicer's Sample Data module gets them."""

import hashlib
import importlib.util
import inspect
import json
import sys
import types
from pathlib import Path
from urllib.request import urlretrieve

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
# Of SampleDataLogic.registerCustomSampleDataSource, in 3D Slicer 5.10 and 5.12.
ARGUMENTS = {
    "category",
    "checksums",
    "customDownloader",
    "fileNames",
    "loadFileProperties",
    "loadFileTypes",
    "loadFiles",
    "nodeNames",
    "sampleName",
    "thumbnailFileName",
    "uris",
}


def load_module(path, monkeypatch):
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = str
    monkeypatch.setitem(sys.modules, "slicer", types.ModuleType("slicer"))
    monkeypatch.setitem(sys.modules, "slicer.i18n", i18n)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["5.10", "5.12"])
def registered(request, monkeypatch):
    """What is registered in the one or the other Slicer."""
    found, categories = [], []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**arguments):
            assert set(arguments) <= ARGUMENTS
            found.append(arguments)

    if request.param == "5.12":
        SampleDataLogic.registerCustomSampleDataCategory = staticmethod(
            lambda category, title: categories.append(category)
        )
    sample_data = types.ModuleType("SampleData")
    sample_data.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    load_module(ROOT / "BoneSAM/BoneSAMPanel/sample_data.py", monkeypatch).registerSampleData()
    assert categories == (["BoneSAM"] if request.param == "5.12" else [])
    return found


def test_every_sample_is_offered_and_is_what_it_says(registered, tmp_path):
    samples = json.loads((ROOT / "Resources/samples/samples.json").read_text(encoding="utf-8"))
    assert len(registered) == len(samples)
    for source in registered:
        target = tmp_path / source["fileNames"]
        urlretrieve(source["uris"], target)  # as the module does, here without a network
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        assert source["checksums"] == f"SHA256:{digest}"
        assert source["category"] == "BoneSAM"
        assert source["sampleName"] == source["nodeNames"]
        assert source["fileNames"].startswith("BoneSAM_")
    files = sorted(source["fileNames"].removeprefix("BoneSAM_") for source in registered)
    assert files == sorted(sample["image"] for sample in samples.values())


def test_every_sample_has_a_thumbnail(registered):
    for source in registered:
        with Image.open(source["thumbnailFileName"]) as picture:
            assert picture.size == (260, 280)


def test_the_help_text_names_what_the_user_sees(monkeypatch):
    module = load_module(ROOT / "BoneSAM/BoneSAMPanel/help_text.py", monkeypatch)
    text = module.helpText()
    for part in ("not for diagnosis", "stays on this computer", "ONNX Runtime", "Sample Data", "All bones"):
        assert part in text
    assert "BodyParts3D" in module.acknowledgementText()
    for tag in ("p", "b", "ol", "li"):
        assert text.count(f"<{tag}>") == text.count(f"</{tag}>")
    # No text is put together before it is translated.
    assert "_(f" not in inspect.getsource(module)
