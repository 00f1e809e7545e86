"""Settings in a scene: saved and reloaded with it, and still there after it was closed."""

from dataclasses import replace

import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer

from BoneSAMLib.node_settings_store import NodeSettingsStore
from BoneSAMLib.presenter import Presenter
from BoneSAMLib.settings import Settings
from Testing.presenter.fakes import FakeSegmenter, FakeStore, FakeView, ManualRunner
from Testing.slicer.scenes import add_volume

SETTINGS = Settings(
    device="cpu",
    weights="C:\\Bones & more\\50% {é}; \"a\"='b', <c>|d:e",
    depth_attention=False,
    smoothing_mm=0.75,
    keep_inside=True,
    remove_small_islands=True,
    live=False,
)


def forget(scene):
    """Closing a scene keeps its singletons; all but this one are the application's."""
    scene.Clear()
    scene.RemoveNode(scene.GetSingletonNode("BoneSAM", "vtkMRMLScriptedModuleNode"))


@pytest.fixture
def store(scene):
    yield NodeSettingsStore(scene)
    forget(scene)


def nodes(scene):
    return scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")


def settings_of(store):
    return Settings.from_strings(store.load())


def test_a_fresh_scene_has_defaults_and_gets_no_node(scene, store):
    assert store.load() == {}
    assert store.parameterNode is None
    assert nodes(scene) == 0


def test_what_is_saved_is_loaded(scene, store):
    second = add_volume(scene, "oblique")
    for settings in (SETTINGS, replace(SETTINGS, second_volume=second.GetID()), Settings()):
        store.save(settings.to_strings())
        assert settings_of(store) == settings
        assert settings_of(NodeSettingsStore(scene)) == settings
    assert nodes(scene) == 1


def test_it_is_the_node_that_the_module_finds(scene, store):
    """As a scripted module's own logic looks for its parameter node."""
    store.save(SETTINGS.to_strings())
    node = scene.GetSingletonNode("BoneSAM", "vtkMRMLScriptedModuleNode")
    assert node is store.parameterNode
    assert node.GetAttribute("ModuleName") == "BoneSAM"
    assert node.GetHideFromEditors()
    assert node.GetSaveWithScene()


def test_node_that_the_module_made_is_used(scene, store):
    node = slicer.vtkMRMLScriptedModuleNode()
    node.SetSingletonTag("BoneSAM")
    node.SetAttribute("ModuleName", "BoneSAM")
    node = scene.AddNode(node)
    node.SetParameter("panel.collapsed", "yes")
    assert store.load() == {}
    store.save(SETTINGS.to_strings())
    assert store.parameterNode is node
    assert nodes(scene) == 1
    assert node.GetParameter("panel.collapsed") == "yes"
    assert settings_of(NodeSettingsStore(scene)) == SETTINGS


@pytest.mark.parametrize("close", [lambda scene: scene.Clear(), forget])
def test_settings_survive_closing_the_scene(scene, store, close):
    second = add_volume(scene, "oblique")
    store.save(replace(SETTINGS, second_volume=second.GetID()).to_strings())
    for _ in range(2):
        close(scene)
        assert settings_of(store) == SETTINGS  # but for the volume, which is gone
        # And they are in the new scene, to be saved with it.
        assert settings_of(NodeSettingsStore(scene)) == SETTINGS
        assert store.parameterNode.GetAttribute("ModuleName") == "BoneSAM"
    assert nodes(scene) == 1


@pytest.mark.parametrize("extension", ["mrb", "mrml"])
def test_settings_are_saved_and_reloaded_with_the_scene(scene, store, tmp_path, extension):
    volumes = [add_volume(scene, "oblique") for _ in range(2)]
    volumes[1].SetName("Second")
    for node in volumes:
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(tmp_path / f"{node.GetName()}.nrrd"))
        assert node.GetStorageNode().WriteData(node) == 1
    store.save(replace(SETTINGS, second_volume=volumes[1].GetID()).to_strings())
    path = str(tmp_path / f"scene.{extension}")
    if extension == "mrb":
        assert scene.WriteToMRB(path)
    else:
        scene.SetRootDirectory(str(tmp_path))
        scene.SetURL(path)
        assert scene.Commit()
    forget(scene)
    del volumes, node
    fresh = NodeSettingsStore(scene)
    assert fresh.load() == {}
    if extension == "mrb":
        assert scene.ReadFromMRB(path)
    else:
        scene.SetURL(path)
        assert scene.Connect()
    second = scene.GetFirstNodeByName("Second")
    assert settings_of(fresh) == replace(SETTINGS, second_volume=second.GetID())
    # The scene's own settings win over those of before.
    assert settings_of(store) == settings_of(fresh)


def test_second_volume_follows_when_loading_gives_it_another_id(scene, store, tmp_path):
    second = add_volume(scene, "oblique")
    second.SetName("Second")
    before = second.GetID()
    store.save(replace(SETTINGS, second_volume=before).to_strings())
    second.AddDefaultStorageNode()
    path = str(tmp_path / "scene.mrb")
    assert scene.WriteToMRB(path)
    forget(scene)
    del second
    other = add_volume(scene, "flipped")
    assert other.GetID() == before
    assert scene.ReadFromMRB(path, False)
    second = scene.GetFirstNodeByName("Second")
    assert second.GetID() != before
    assert store.load()["second_volume"] == second.GetID()


def test_second_volume_that_was_removed_is_left_out(scene, store):
    second = add_volume(scene, "oblique")
    store.save(replace(SETTINGS, second_volume=second.GetID()).to_strings())
    scene.RemoveNode(second)
    assert settings_of(store) == SETTINGS
    store.save(replace(SETTINGS, second_volume="vtkMRMLScalarVolumeNode77").to_strings())
    assert settings_of(store) == SETTINGS


def test_settings_of_another_version_do_not_get_in_the_way(scene, store):
    store.save(Settings(live=False).to_strings())
    node = store.parameterNode
    node.SetParameter("device", "abacus")
    node.SetParameter("smoothing_mm", "much")
    node.UnsetParameter("weights")
    assert settings_of(store) == Settings(live=False)


def test_saving_is_one_change_of_the_node(scene, store):
    store.save(Settings().to_strings())
    changes = []
    tag = store.parameterNode.AddObserver("ModifiedEvent", lambda *_: changes.append(1))
    store.save(SETTINGS.to_strings())
    store.parameterNode.RemoveObserver(tag)
    assert len(changes) == 1


def test_the_presenter_keeps_its_settings_through_closing_and_loading(scene, store, tmp_path):
    view = FakeView()
    runner = ManualRunner(view)
    presenter = Presenter(view, FakeStore(), store, FakeSegmenter().load, runner)
    presenter.change_settings(SETTINGS)
    assert presenter.settings.device == "auto"  # another device is loaded first
    runner.work()
    view.pump()
    assert presenter.settings == SETTINGS
    path = str(tmp_path / "scene.mrb")
    assert scene.WriteToMRB(path)
    presenter.change_settings(replace(SETTINGS, smoothing_mm=2.0))
    scene.Clear()
    presenter.reload_settings()
    assert presenter.settings == replace(SETTINGS, smoothing_mm=2.0)
    assert scene.ReadFromMRB(path)
    presenter.reload_settings()
    assert presenter.settings == SETTINGS
    presenter.close()
