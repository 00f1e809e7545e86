"""One scene for all tests, emptied between them; a test fails when VTK or Slicer report an error."""

import pytest


@pytest.fixture(scope="session")
def slicer_scene(tmp_path_factory):
    pytest.importorskip("slicer", reason="needs slicer-core: run make test")
    from Testing.slicer import host

    return host.start(tmp_path_factory.mktemp("scene files"))


@pytest.fixture
def scene(slicer_scene):
    from Testing.slicer import host

    with host.no_vtk_messages():
        yield slicer_scene
        slicer_scene.Clear()
