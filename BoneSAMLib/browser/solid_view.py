"""The 3D view: surfaces of the segments, and the scan itself."""

from typing import Any

from trame_slicer.core import SlicerApp

from BoneSAMLib.volume import Volume

__all__ = ["SolidView"]

_SURFACE = "Closed surface"
_PRESETS = {"CT": "CT-Bones", "MR": "MR-Default", "X-ray": "MR-Default"}


class SolidView:
    """What is seen in 3D.

    Args:
        app: with the 3D view.
        view: the 3D view.

    Attributes:
        surfaces: segments and the mask that is not accepted yet are shown as surfaces.
        volume_rendering: the scan is shown as a whole.
    """

    def __init__(self, app: SlicerApp, view: Any) -> None:
        self._app = app
        self._view = view
        self._volume_node: Any = None
        self._preset = ""
        self._has_looked = False
        self.surfaces = True
        self.volume_rendering = False

    def show_scan(self, volume_node: Any, volume: Volume | None) -> None:
        """Another scan; None for none."""
        if self._volume_node is not None:
            self._render_volume(False)
        self._volume_node = volume_node
        self._has_looked = False
        if volume is not None:
            self._preset = _PRESETS[volume.modality_guess]
        if volume_node is not None and self.volume_rendering:
            self._render_volume(True)

    def set_volume_rendering(self, on: bool) -> None:
        """Show or hide the scan itself."""
        self.volume_rendering = on
        if self._volume_node is not None:
            self._render_volume(on)
            if on:
                self.reset()

    def set_surfaces(self, on: bool, *segmentation_nodes: Any) -> None:
        """Show or hide the segments' surfaces."""
        self.surfaces = on
        for node in segmentation_nodes:
            if node is not None and not on:
                node.GetSegmentation().RemoveRepresentation(_SURFACE)
        self.update(*segmentation_nodes)

    def update(self, *segmentation_nodes: Any) -> None:
        """Make the surfaces that are missing."""
        if not self.surfaces:
            return
        for node in segmentation_nodes:
            if node is None or node.GetSegmentation().GetNumberOfSegments() == 0:
                continue
            if not node.GetSegmentation().ContainsRepresentation(_SURFACE):
                node.CreateClosedSurfaceRepresentation()
            if not self._has_looked:
                self._has_looked = True
                self.reset()

    def reset(self) -> None:
        """Bring everything into view."""
        self._view.reset_view()

    def _render_volume(self, on: bool) -> None:
        rendering = self._app.volume_rendering
        if not on:
            display = rendering.get_vr_display_node(self._volume_node)
            if display is not None:
                display.SetVisibility(False)
            return
        display = rendering.create_display_node(self._volume_node, self._preset)
        display.SetVisibility(True)
