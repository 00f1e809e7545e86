"""Slice views as in 3D Slicer, with a mouse. The views are made once; a test's nodes are removed after it."""

import os

import pytest

# Without a screen; named, so that VTK does not first look for one and complain.
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


@pytest.fixture(scope="session")
def slice_views():
    pytest.importorskip("trame_slicer", reason="needs trame-slicer: run make test")
    from Testing.mouse.slice_views import SliceViews

    views = SliceViews()
    yield views
    views.close()


@pytest.fixture
def views(slice_views):
    """Fails when VTK or Slicer report an error."""
    from Testing.slicer.host import no_vtk_messages

    with slice_views.own_nodes(), no_vtk_messages():
        yield slice_views


@pytest.fixture
def open_desk(views):
    """Makes a `Desk` for a volume node; closed at the end."""
    from Testing.mouse.desk import Desk

    desks = []

    def open_one(*arguments, **named):
        desks.append(Desk(views, *arguments, **named))
        return desks[-1]

    yield open_one
    for desk in desks:
        desk.close()
