"""The README's examples for scripts, run as they are printed: the module's own logic, network and samples.

Only what needs the application has a stand-in: loading a sample, saving a node, the base classes of modules.
"""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util

from BoneSAMLib import BoneSAMError, read_volume
from BoneSAMLib.segmentation_node import readMask
from BoneSAMLib.terminology import bone_meaning

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
HEADING = "Use in Python scripts"


def section():
    text = README.read_text(encoding="utf-8")
    assert f"# {HEADING}\n" in text, f"The README has no section '{HEADING}'."
    rest = text.partition(f"# {HEADING}\n")[2]
    return re.split(r"^##+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]  # one # is a comment in the code


def add_sample(name):
    """As Slicer's Sample Data module loads it."""
    from BoneSAMPanel.sample_data import SAMPLES, samplesFolder

    (sample,) = [sample for sample in SAMPLES if sample.name == name]
    volume = read_volume(samplesFolder() / sample.file)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, volume.array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volume.ijk_to_ras))
    return node


def save_node(node, path):
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(path))
    return node.GetStorageNode().WriteData(node) == 1


class _Base:
    def __init__(self, parent=None):
        self.parent = parent


@pytest.fixture
def console(scene, monkeypatch, tmp_path):
    """What the examples find in Slicer's Python console."""
    translation, module = types.ModuleType("slicer.i18n"), types.ModuleType("slicer.ScriptedLoadableModule")
    translation.tr, translation.translate = str, lambda context, text: text
    for name in ("", "Logic", "Test", "Widget"):
        setattr(module, f"ScriptedLoadableModule{name}", type(f"ScriptedLoadableModule{name}", (_Base,), {}))
    samples = types.ModuleType("SampleData")
    samples.downloadSample = add_sample
    for each in (translation, module, samples):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "BoneSAM")
    monkeypatch.setattr(slicer.util, "saveNode", save_node)
    monkeypatch.chdir(tmp_path)
    yield {}
    # The folder BoneSAM would else be taken for the module by other tests, or the other way round.
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("BoneSAM", "BoneSAMPanel"):
            del sys.modules[name]


def test_the_examples_do_what_the_readme_says(console, tmp_path):
    first, correction, many, everything = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)

    exec(first, console)
    patella, volume_node = console["patella"], console["volumeNode"]
    drawn = readMask(patella.segmentationNode, patella.segmentId, volume_node)
    segment = patella.segmentationNode.GetSegmentation().GetSegment(patella.segmentId)
    assert drawn.any()
    assert segment.GetName() == "right patella"
    assert segment.GetTerminology() == bone_meaning("right patella").terminology
    assert 0 < patella.confidence <= 1
    assert all(
        0 <= n < volume_node.GetImageData().GetDimensions()[patella.reviewAxis] for n in patella.review
    )

    exec(correction, console)
    assert console["patella"].segmentId == patella.segmentId
    corrected = readMask(patella.segmentationNode, patella.segmentId, volume_node)
    assert corrected.any()
    assert not np.array_equal(corrected, drawn)

    exec(many, console)
    results = console["logic"].segmentMany(console["jobs"][2:])
    assert [type(result) for result in results] == [BoneSAMError]
    names = [
        node.GetSegmentation().GetNthSegment(n).GetName()
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        for n in range(node.GetSegmentation().GetNumberOfSegments())
    ]
    assert names == ["right patella", "right patella", "right femur"]

    exec(everything, console)
    assert console["bones"]
    reloaded = slicer.modules.segmentations.logic().LoadSegmentationFromFile(
        str(tmp_path / "knee.seg.nrrd"), True
    )
    assert reloaded.GetSegmentation().GetNumberOfSegments() == len(console["bones"])


def test_the_table_lists_real_arguments():
    import inspect

    from BoneSAMLib.node_segmentation import segment

    rows = [row for row in section().splitlines() if row.startswith("| `")]
    listed = set(re.findall(r"`(\w+)(?:=\w+)?`", " ".join(row.split("|")[1] for row in rows)))
    assert listed == set(inspect.signature(segment).parameters) - {"volumeNode", "cache"}
