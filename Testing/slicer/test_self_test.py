"""The checks that run inside 3D Slicer, on its real nodes: what surrounds them here is made for the test.

They are run for two reasons: so that they can pass, and so that they fail when the extension is wrong.
"""

import sys
import types
import unittest
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util
import vtk

from BoneSAMLib import node_segmentation, read_volume
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_volume_source import NodeVolumeSource
from BoneSAMLib.presenter import Presenter
from Testing.presenter.fakes import FakeSettingsStore, FakeView

ROOT = Path(__file__).resolve().parents[2]


class SampleDataLogic:
    """As much of the Sample Data module as samples need."""

    @staticmethod
    def registerCustomSampleDataSource(category, sampleName, uris, **others):  # noqa: N802, N803
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if all(source.sampleName != sampleName for source in sources):
            sources.append(types.SimpleNamespace(sampleName=sampleName, uris=[uris], **others))


def download_sample(name):
    for sources in slicer.modules.sampleDataSources.values():
        for source in sources:
            if source.sampleName == name:
                path = url2pathname(urlparse(source.uris[0]).path)
                return load(path, source.nodeNames, "vtkMRMLScalarVolumeNode")
    raise KeyError(name)


def load(path, name, class_name):
    node = slicer.mrmlScene.AddNewNodeByClass(class_name, name)
    if str(path).endswith(".png"):  # which slicer-core, other than 3D Slicer, does not read
        slicer.util.updateVolumeFromArray(node, read_volume(path).array)
        return node
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(1)
    assert storage.ReadData(node)
    return node


class Panel:
    """A presenter on the scene, as the widget makes one."""

    def __init__(self):
        self.view = FakeView()
        self.store = NodeSegmentStore(slicer.mrmlScene)
        self.presenter = Presenter(self.view, self.store, FakeSettingsStore())
        self.presenter.refresh()
        self.observations = [
            slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._removed),
            slicer.mrmlScene.AddObserver(slicer.vtkMRMLScene.EndCloseEvent, self._closed),
        ]

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _removed(self, scene, event, node):
        self.presenter.volume_removed(node.GetID())

    def _closed(self, scene, event):
        self.presenter.choose_volume(None)

    def setCurrentNode(self, node):  # noqa: N802
        self.presenter.choose_volume(NodeVolumeSource(node))

    def close(self):
        for observation in self.observations:
            slicer.mrmlScene.RemoveObserver(observation)
        self.presenter.close()


@pytest.fixture
def self_test(scene, monkeypatch):
    """The checks, with stand-ins for Slicer's application, module and Sample Data."""
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = str
    sample_data = types.ModuleType("SampleData")
    sample_data.SampleDataLogic, sample_data.downloadSample = SampleDataLogic, download_sample
    module = types.ModuleType("BoneSAM")
    module.BoneSAMLogic = lambda: types.SimpleNamespace(segment=node_segmentation.segment)
    for name, stand_in in (("slicer.i18n", i18n), ("SampleData", sample_data), ("BoneSAM", module)):
        monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.syspath_prepend(ROOT / "BoneSAM")
    panels = [Panel()]

    def reload_module():
        panels.pop().close()
        panels.append(Panel())

    app = types.SimpleNamespace(processEvents=lambda: panels[0].view.pump())
    for name, stand_in in {
        "selectModule": lambda name: None,
        "getModuleWidget": lambda name: types.SimpleNamespace(
            view=panels[0], ui=types.SimpleNamespace(volumeSelector=panels[0]), onReload=reload_module
        ),
        "loadLabelVolume": lambda path: load(path, "truth", "vtkMRMLLabelMapVolumeNode"),
    }.items():
        monkeypatch.setattr(slicer.util, name, stand_in)
    monkeypatch.setattr(slicer, "app", app, raising=False)
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    for name in [name for name in sys.modules if name.startswith("BoneSAMPanel")]:
        monkeypatch.delitem(sys.modules, name)
    from BoneSAMPanel.self_test import SelfTest

    checks = SelfTest(unittest.TestCase())
    checks.module = module
    yield checks
    panels[0].close()
    for name in [name for name in sys.modules if name.startswith("BoneSAMPanel")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    [
        "test_samples_load_without_a_network",
        "test_script_segments_a_bone_and_leaves_others_alone",
        "test_script_follows_a_moved_volume",
        "test_script_refuses_what_it_cannot_use",
        "test_panel_from_a_box_to_the_next_bone",
        "test_panel_cancels_at_once",
        "test_panel_survives_its_volume_and_its_scene",
        "test_the_module_is_left_and_reloaded",
    ],
)
def test_what_slicer_checks(self_test, name):
    getattr(self_test, name)()


def test_a_mask_in_the_wrong_place_fails(self_test):
    def segment_elsewhere(volume, roiNode, **others):  # noqa: N803
        roiNode.SetCenter(*(value + 60 for value in roiNode.GetCenter()))
        return node_segmentation.segment(volume, roiNode=roiNode, **others)

    self_test.module.BoneSAMLogic = lambda: types.SimpleNamespace(segment=segment_elsewhere)
    with pytest.raises(AssertionError):
        self_test.test_script_segments_a_bone_and_leaves_others_alone()


def test_a_script_that_accepts_everything_fails(self_test):
    self_test.module.BoneSAMLogic = lambda: types.SimpleNamespace(segment=lambda **arguments: None)
    with pytest.raises(AssertionError):
        self_test.test_script_refuses_what_it_cannot_use()


def test_all_are_made_and_each_failure_counts(self_test, monkeypatch):
    from BoneSAMPanel import self_test as module

    done = []

    def check(name, fails):
        def method(self):
            done.append(name)
            assert not fails

        return method

    for name in dir(module.SelfTest):
        if name.startswith("test_"):
            monkeypatch.setattr(module.SelfTest, name, check(name, "panel" in name))
    failing = sum("panel" in name for name in dir(module.SelfTest) if name.startswith("test_"))

    class Test(unittest.TestCase):
        def runTest(self):  # noqa: N802
            module.runSelfTest(self)

    result = unittest.TestResult()
    Test().run(result)
    assert done == sorted(name for name in dir(module.SelfTest) if name.startswith("test_"))
    assert done[-1] == "test_the_module_is_left_and_reloaded"
    assert len(result.failures) == failing > 0
    assert not result.errors
