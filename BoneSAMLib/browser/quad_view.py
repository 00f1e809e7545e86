"""The four views of the page: axial, coronal, sagittal and 3D."""

from collections.abc import Callable
from typing import Any

import numpy as np
from trame_slicer.core import SlicerApp
from trame_slicer.rca_view import register_rca_factories
from trame_slicer.views import ViewLayoutDefinition

from BoneSAMLib.oriented_box import AnyBox, OrientedBox
from BoneSAMLib.volume import Float3, Volume

__all__ = ["SLICES", "SOLID", "QuadView", "box_center"]

# Singleton tags, as in 3D Slicer, and what they show.
SLICES = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}
SOLID = "ThreeD"
# Of the axes R, A, S: which view looks along it.
_ALONG = ("Yellow", "Green", "Red")
_UNSEEN = 50  # pixels; a view that is not seen is smaller
_QUALITY = 70  # of a picture while things move, percent; it is sent again in a better one when they rest


class QuadView:
    """Slicer's own views, drawn here and sent as pictures.

    Args:
        app: with the scene.
        server: of the page.
        on_modified: called with a slice view's tag and the view when its place has changed.
    """

    def __init__(self, app: SlicerApp, server: Any, on_modified: Callable[[str, Any], None]) -> None:
        self._app = app
        self._on_modified = on_modified
        register_rca_factories(
            app.view_manager,
            server,
            slice_view_ui_f=_nothing_over_it,
            three_d_view_ui_f=_nothing_over_it,
            interactive_quality=_QUALITY,
        )
        definitions = {
            "Red": ViewLayoutDefinition.axial_view(),
            "Green": ViewLayoutDefinition.coronal_view(),
            "Yellow": ViewLayoutDefinition.sagittal_view(),
            SOLID: ViewLayoutDefinition.threed_view(name=SOLID, background_color=("#0b0c0e", "#20242a")),
        }
        self.views = {tag: app.view_manager.create_view(one) for tag, one in definitions.items()}
        self._tags = {id(self.views[tag]): tag for tag in SLICES}
        for tag in SLICES:
            view = self.views[tag]
            view.render_window().SetMultiSamples(0)  # pixels of a scan stay pixels
            view.set_orientation(SLICES[tag])
            view.modified.connect(self._modified)
            view.interactor().AddObserver("WindowResizeEvent", lambda *_, tag=tag: self._resized(tag))
        # Not fitted yet to the size that they have in the page.
        self._fresh: set[str] = set()
        self.show("quad")

    @property
    def solid(self) -> Any:
        """The 3D view."""
        return self.views[SOLID]

    def show_scan(self, volume_node: Any) -> None:
        """Show a volume in all slices, each in the volume's own plane; None for none."""
        for tag, orientation in SLICES.items():
            view = self.views[tag]
            view.set_background_volume_id(None if volume_node is None else volume_node.GetID())
            if volume_node is not None:
                view.set_orientation(orientation)
                view.get_view_node().RotateToVolumePlane(volume_node)
        self._fresh = set(SLICES)
        self.fit()

    def fit(self) -> None:
        """Bring the whole scan into view, in its middle."""
        for tag in SLICES:
            self.views[tag].reset_view()

    def show(self, which: str) -> None:
        """Draw all views ("quad") or only one (its tag)."""
        self._app.view_manager.set_current_view_ids(list(self.views) if which == "quad" else [which])

    def move(self, tag: str, offset: float) -> None:
        """Show another slice, in mm along the view's normal."""
        self.views[tag].set_slice_value(offset)

    def go_to(self, position: Float3) -> None:
        """Show the slices through a place, RAS mm."""
        for tag in SLICES:
            self.views[tag].get_view_node().JumpSliceByOffsetting(*position)

    @staticmethod
    def facing(volume: Volume) -> str:
        """The view that looks onto the slices of a volume."""
        normal = volume.ijk_to_ras[:3, volume.through_plane_axis]
        return _ALONG[int(np.abs(normal).argmax())]

    def _resized(self, tag: str) -> None:
        view = self.views[tag]
        if tag in self._fresh and min(view.render_window().GetSize()) > _UNSEEN:
            self._fresh.remove(tag)
            view.reset_view()
        self._on_modified(tag, view)

    def _modified(self, view: Any) -> None:
        self._on_modified(self._tags[id(view)], view)


def box_center(box: AnyBox, volume: Volume) -> Float3:
    """Middle of a box, RAS mm."""
    if isinstance(box, OrientedBox):
        middle = box.matrix @ [*(np.array(box.low) + box.high) / 2, 1.0]
    else:
        middle = np.array([*(np.array(box.first) + box.second) / 2, 1.0])
        middle = middle if box.space == "RAS" else volume.ijk_to_ras @ middle
    r, a, s = (float(value) for value in middle[:3])
    return r, a, s


def _nothing_over_it(*_: object) -> None:
    """The page itself draws what lies over a view."""
