"""3D Slicer's own slice and 3D views, drawn in memory, and a mouse and keys for them."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer
import slicer.util
from PIL import Image
from trame_slicer.core import SlicerApp
from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition, ViewProps, ViewType
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter

SIZE = (480, 400)
SCREENSHOTS = Path(__file__).parent / "screenshots"
ORIENTATIONS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


class SliceViews:
    """A scene in three slice views and one 3D view."""

    def __init__(self):
        self.app = SlicerApp()
        self.scene = self.app.scene
        slicer.mrmlScene = self.scene  # where slicer.util looks
        self.app.view_manager.register_factory(DirectViewFactory(do_render_offscreen=True))
        self.slices = {
            tag: self._create(tag, ViewType.SLICE_VIEW, ViewProps(orientation=orientation, label=tag[0]))
            for tag, orientation in ORIENTATIONS.items()
        }
        self.solid = self._create("1", ViewType.THREE_D_VIEW, ViewProps())

    def _create(self, tag, kind, properties):
        view = self.app.view_manager.create_view(
            ViewLayoutDefinition(singleton_tag=tag, view_type=kind, properties=properties)
        )
        view.interactor().UpdateSize(*SIZE)
        view.render_window().SetMultiSamples(0)
        # Drawn when a picture or a handle is needed, not at every change: that takes minutes without a GPU.
        view.set_render_blocked(True)
        return view

    @contextmanager
    def own_nodes(self):
        """What is added to the scene inside is removed at its end."""
        before = {node.GetID() for node in self.nodes()}
        try:
            yield
        finally:
            for view in self.slices.values():
                view.set_background_volume_id(None)
                view.set_foreground_volume_id(None)
            for node in reversed(self.nodes()):
                if node.GetID() not in before and node.GetScene() is self.scene:
                    self.scene.RemoveNode(node)

    def nodes(self, class_name="vtkMRMLNode"):
        return slicer.util.getNodesByClass(class_name, self.scene)

    def load(self, path):
        """A volume, shown in the slice views."""
        node = self.app.io_manager.load_volumes([str(path)])[0]
        self.show(node)
        return node

    def show(self, node):
        for view in self.slices.values():
            view.set_background_volume_id(node.GetID())
            view.reset_view()

    def go_to(self, ras):
        """All slices through a place."""
        for view in self.slices.values():
            view.get_view_node().JumpSliceByOffsetting(*ras)

    def pixel(self, tag, ras):
        """Where a place lies in a view; it must be visible there, and in the shown slice."""
        x, y, depth = self._in_view(tag, ras)
        assert abs(depth) < 0.5, f"{ras} is beside the {tag} slice"
        return x, y

    def pixel_before(self, tag, ras):
        """The same for a place that may lie before or behind the shown slice."""
        return self._in_view(tag, ras)[:2]

    def _in_view(self, tag, ras):
        """Pixel, and distance from the shown slice in slices."""
        to_ras = slicer.util.arrayFromVTKMatrix(self.slices[tag].get_view_node().GetXYToRAS())
        x, y, depth, _ = np.linalg.inv(to_ras) @ [*ras, 1.0]
        assert 0 <= x < SIZE[0], f"{ras} is not visible in the {tag} view"
        assert 0 <= y < SIZE[1], f"{ras} is not visible in the {tag} view"
        return round(x), round(y), depth

    def place(self, tag, pixel):
        """RAS mm of a pixel."""
        to_ras = slicer.util.arrayFromVTKMatrix(self.slices[tag].get_view_node().GetXYToRAS())
        return (to_ras @ [*pixel, 0.0, 1.0])[:3]

    # The mouse.

    def move(self, tag, pixel):
        self._event(tag, pixel, "MouseMoveEvent")

    def click(self, tag, pixel, button="Left"):
        self.move(tag, pixel)
        self._event(tag, pixel, f"{button}ButtonPressEvent")
        self._event(tag, pixel, f"{button}ButtonReleaseEvent")

    def press(self, tag, pixel):
        """Press on what is there; handles can be caught once they have been drawn."""
        self._draw(self.slices[tag])
        self.move(tag, pixel)
        self._event(tag, pixel, "LeftButtonPressEvent")

    def release(self, tag, pixel):
        self._event(tag, pixel, "LeftButtonReleaseEvent")

    def drag(self, tag, start, end):
        self.press(tag, start)
        for part in np.linspace(0, 1, 6)[1:]:
            self.move(tag, tuple(np.round(start + part * np.subtract(end, start)).astype(int)))
        self.release(tag, end)

    def key(self, tag, pixel, name):
        """Press a key while the mouse is there."""
        self.move(tag, pixel)
        interactor = self.slices[tag].interactor()
        interactor.SetEventInformation(*(int(n) for n in pixel), 0, 0, chr(0), 0, name)
        for event in ("KeyPressEvent", "CharEvent", "KeyReleaseEvent"):
            interactor.InvokeEvent(event)

    def _event(self, tag, pixel, name):
        interactor = self.slices[tag].interactor()
        interactor.SetEventInformation(*(int(n) for n in pixel), 0, 0, chr(0), 0, None)
        interactor.InvokeEvent(name)

    # Pictures.

    def _draw(self, view):
        view.set_render_blocked(False)  # which draws it
        view.set_render_blocked(True)

    def picture(self, view):
        """RGB [row, column, 3], the upper row first."""
        self._draw(view)
        grabber = vtkWindowToImageFilter()
        grabber.SetInput(view.render_window())
        grabber.ReadFrontBufferOff()
        grabber.Update()
        image = grabber.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3]

    def screenshot(self, name):
        """All four views in one picture in `screenshots`, to be looked at."""
        self.solid.reset_view()
        red, green, yellow = (self.picture(self.slices[tag]) for tag in ORIENTATIONS)
        SCREENSHOTS.mkdir(exist_ok=True)
        sheet = np.vstack([np.hstack([red, self.picture(self.solid)]), np.hstack([green, yellow])])
        Image.fromarray(np.ascontiguousarray(sheet)).save(SCREENSHOTS / f"{name}.png")

    def close(self):
        for view in (*self.slices.values(), self.solid):
            view.finalize()
