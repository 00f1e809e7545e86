"""The module's panel in a window, on a real scene."""

import os
from types import SimpleNamespace

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(scope="session")
def slicer_scene(tmp_path_factory):
    pytest.importorskip("slicer", reason="needs slicer-core: run make test")
    pytest.importorskip("PySide6", reason="needs PySide6: run make test")
    from Testing.slicer import host

    return host.start(tmp_path_factory.mktemp("scene files"))


@pytest.fixture(scope="session")
def application(slicer_scene):
    """The main window and what the module finds in 3D Slicer."""
    import slicer
    from PySide6 import QtWidgets

    from Testing.panel import application

    app = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    window = QtWidgets.QMainWindow()
    logic = application.ApplicationLogic(slicer.modules.application)
    stop = application.start(slicer_scene, window, logic)
    yield SimpleNamespace(app=app, window=window, logic=logic)
    stop()


@pytest.fixture
def scene(slicer_scene):
    from Testing.slicer import host

    with host.no_vtk_messages():
        yield slicer_scene
        slicer_scene.Clear()


@pytest.fixture
def segmenter():
    from Testing.presenter.fakes import FakeSegmenter

    return FakeSegmenter()


@pytest.fixture
def desk(application, scene, segmenter):
    """The shown panel, with a real worker thread."""
    from Testing.panel.desk import PanelDesk

    made = PanelDesk(application, scene, segmenter)
    yield made
    made.close()
