"""Box and points as markups in a scene: placed, dragged and deleted with the mouse, they become prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.mrml import orientedBoxFromRoi
from BoneSAMLib.oriented_box import AnyBox
from BoneSAMLib.panel import Action, Panel, Tool
from BoneSAMLib.presenter import Presenter
from BoneSAMLib.prompts import Point
from BoneSAMLib.scene.roi_box import align_with_volume, set_depth, write_box
from BoneSAMLib.scene.scene_observers import SceneObservers
from BoneSAMLib.volume import Float3

__all__ = ["PromptMarkups"]

_CLASSES = {
    Tool.BOX: ("vtkMRMLMarkupsROINode", "BoneSAM box"),
    Tool.POSITIVE_POINT: ("vtkMRMLMarkupsFiducialNode", "BoneSAM points on the bone"),
    Tool.NEGATIVE_POINT: ("vtkMRMLMarkupsFiducialNode", "BoneSAM points beside the bone"),
}
_ACTIONS = {
    Tool.BOX: Action.BOX,
    Tool.POSITIVE_POINT: Action.POSITIVE_POINT,
    Tool.NEGATIVE_POINT: Action.NEGATIVE_POINT,
}
# Told apart without colors as well.
_GLYPHS = {Tool.POSITIVE_POINT: "ThickCross2D", Tool.NEGATIVE_POINT: "Dash2D"}
_GLYPH_SCALE = 5.0  # percent of the view's size
_COLORS = {
    Tool.BOX: (1.0, 0.8, 0.2),
    Tool.POSITIVE_POINT: (0.2, 0.9, 0.3),
    Tool.NEGATIVE_POINT: (1.0, 0.25, 0.3),
}
_SIGNS = {True: Tool.POSITIVE_POINT, False: Tool.NEGATIVE_POINT}


@dataclass(frozen=True)
class _Mark:
    """A control point that stands for a point of the panel. Its identifier is one within its markups."""

    tool: Tool
    identifier: str
    position: Float3

    @property
    def key(self) -> tuple[Tool, str]:
        return self.tool, self.identifier


class PromptMarkups:
    """Markups of its own for a presenter's box and points; no others are touched.

    They are not saved with the scene. What the mouse does is read once the view has dealt with it, through
    `post`: markups must not be changed while their own events are handled.

    Args:
        scene: with the interaction and selection nodes that views have.
        post: runs a call on the main thread, soon.

    Attributes:
        presenter: whose prompts they are; None until it is known.
        flat: a box is drawn on one slice, and carried through the bone; else it is as deep as wide.
    """

    def __init__(self, scene: "slicer.vtkMRMLScene", post: Callable[[Callable[[], None]], None]) -> None:
        self.presenter: Presenter | None = None
        self.flat = False
        self._scene = scene
        self._post = post
        self._nodes: dict[Tool, Any] = {}
        self._observers = SceneObservers()
        self._tool: Tool | None = None
        self._box: AnyBox | None = None  # that the region shows
        self._points: tuple[Point, ...] = ()  # that the control points show
        self._marks: list[_Mark] = []  # one to each of them
        self._first_corner: Float3 | None = None
        self._box_is_due = False
        self._writing = False
        for name, event in (
            ("Interaction", "InteractionModeChangedEvent"),
            ("Selection", "ActivePlaceNodeIDChangedEvent"),
        ):
            node = self._singleton(name)
            self._observers.add(node, getattr(node, event), self._mode_changed)
        self._observers.add(scene, scene.NodeRemovedEvent, self._node_removed)

    def render(self, panel: Panel) -> None:
        """Show the panel's box and points, and let the mouse draw what its tool draws."""
        self._writing = True
        try:
            if panel.tool != self._tool:
                self._take_up(panel.tool)
            if panel.box != self._box and self._tool is not Tool.BOX:
                self._write_box(panel.box)
            if panel.points != self._points:
                self._write_points(panel.points)
            for tool, node in self._nodes.items():
                node.SetLocked(_ACTIONS[tool] not in panel.enabled)
        finally:
            self._writing = False

    def close(self) -> None:
        """Remove the markups, and the observers with them."""
        self._writing = True
        if self._tool is not None:
            self._take_up(None)
        self._observers.close()
        self.presenter = None
        for node in self._nodes.values():
            if node.GetScene() is self._scene:
                self._scene.RemoveNode(node)
        self._nodes.clear()

    # From the panel.

    def _take_up(self, tool: Tool | None) -> None:
        interaction, selection = self._singleton("Interaction"), self._singleton("Selection")
        volume = self.presenter.volume if self.presenter is not None else None
        if tool is None or volume is None:
            if self._is_placing():  # else the mouse is used for something else already
                interaction.SwitchToViewTransformMode()
            self._tool = None
            return
        self._tool = tool
        node = self._node(tool)
        if tool is Tool.BOX:
            node.RemoveAllControlPoints()
            align_with_volume(node, volume)
            self._box = self._first_corner = None
        selection.SetReferenceActivePlaceNodeClassName(node.GetClassName())
        selection.SetActivePlaceNodeID(node.GetID())
        interaction.SetPlaceModePersistence(tool is not Tool.BOX)
        interaction.SetCurrentInteractionMode(interaction.Place)

    def _write_box(self, box: AnyBox | None) -> None:
        self._box = box
        if box is not None or Tool.BOX in self._nodes:
            write_box(self._node(Tool.BOX), box, self.presenter.volume if self.presenter else None)

    def _write_points(self, points: tuple[Point, ...]) -> None:
        volume = self.presenter.volume if self.presenter is not None else None
        for tool in _SIGNS.values():
            if tool in self._nodes:
                self._node(tool).RemoveAllControlPoints()
        self._points, self._marks = points, []
        for point in points:
            tool = _SIGNS[point.positive]
            position = point.position
            if point.space == "IJK" and volume is not None:
                r, a, s = (float(value) for value in (volume.ijk_to_ras @ [*position, 1.0])[:3])
                position = (r, a, s)
            node = self._node(tool)
            number = node.AddControlPointWorld(position)
            node.SetNthControlPointLabel(number, "")
            self._marks.append(_Mark(tool, node.GetNthControlPointID(number), position))

    # From the mouse.

    def _mode_changed(self, *_: object) -> None:
        if not self._writing and self._tool is not None and not self._is_placing():
            self._post(self._put_down)

    def _put_down(self) -> None:
        """The user has left the tool, for example with a right click."""
        if self.presenter is not None and self._tool is not None and not self._is_placing():
            self.presenter.choose_tool(None)

    def _is_placing(self) -> bool:
        interaction, selection = self._singleton("Interaction"), self._singleton("Selection")
        node = self._nodes.get(self._tool) if self._tool is not None else None
        return (
            node is not None
            and interaction.GetCurrentInteractionMode() == interaction.Place
            and selection.GetActivePlaceNodeID() == node.GetID()
        )

    def _region_placed(self, node: Any, _event: object) -> None:
        if self._writing:
            return
        if node.GetControlPointPlacementComplete():
            self._read_box_soon()
        elif self._tool is Tool.BOX:
            r, a, s = node.GetNthControlPointPositionWorld(0)
            self._first_corner = (r, a, s)

    def _region_changed(self, node: Any, _event: object) -> None:
        # With the second corner a region drops both. It says so always; that the corner was placed it may
        # leave out, for it then looks at a point that it has just freed (Slicer 5.13 and before).
        if not self._writing and (self._tool is not Tool.BOX or node.GetControlPointPlacementComplete()):
            self._read_box_soon()

    def _read_box_soon(self) -> None:
        """Once, however many events tell of the same change."""
        if not self._box_is_due:
            self._box_is_due = True
            self._post(self._read_box)

    def _read_box(self) -> None:
        """The box was drawn, dragged or deleted."""
        self._box_is_due = False
        node, presenter = self._nodes.get(Tool.BOX), self.presenter
        if node is None or presenter is None or presenter.volume is None:
            return
        if node.GetScene() is not self._scene or not node.GetControlPointPlacementComplete():
            self._box = None
            presenter.clear_box()
            return
        if self._first_corner is not None:
            self._writing = True
            try:
                set_depth(node, self._first_corner, presenter.volume, self.flat)
            finally:
                self._writing, self._first_corner = False, None
        try:
            box = orientedBoxFromRoi(node)
        except BoneSAMError:  # both clicks at one place: as if there were none
            self._box = None
            presenter.choose_tool(None)
            return
        # If the presenter does not take it, it asks for the former one to be shown.
        self._box = box
        presenter.set_box(box)

    def _points_changed(self, *_: object) -> None:
        if not self._writing:
            self._post(self._read_points)

    def _read_points(self) -> None:
        """A point was placed, dragged or deleted."""
        presenter = self.presenter
        if presenter is None:
            return None
        found = {mark.key: mark for tool in _SIGNS.values() for mark in self._placed(tool)}
        for number in reversed(range(len(self._marks))):
            if self._marks[number].key not in found:
                del self._marks[number]
                self._points = self._points[:number] + self._points[number + 1 :]
                presenter.remove_point(number)
                return self._read_points()
        for number, mark in enumerate(self._marks):
            now = found.pop(mark.key)
            if now.position != mark.position:
                point = Point.from_ras(now.position, self._points[number].positive)
                self._marks[number] = now
                self._points = (*self._points[:number], point, *self._points[number + 1 :])
                presenter.move_point(number, point)
                return self._read_points()
        for mark in found.values():
            point = Point.from_ras(mark.position, mark.tool is Tool.POSITIVE_POINT)
            self._marks.append(mark)
            self._points = (*self._points, point)
            presenter.add_point(point)
            return self._read_points()
        return None

    def _placed(self, tool: Tool) -> list[_Mark]:
        node = self._nodes.get(tool)
        if node is None or node.GetScene() is not self._scene:
            return []
        marks = []
        for n in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointPositionStatus(n) == node.PositionDefined:
                r, a, s = node.GetNthControlPointPositionWorld(n)
                marks.append(_Mark(tool, node.GetNthControlPointID(n), (r, a, s)))
        return marks

    # Nodes.

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, _scene: Any, _event: object, node: Any) -> None:
        """What was drawn is gone with its node."""
        if not self._writing and node in self._nodes.values():
            if node is self._nodes.get(Tool.BOX):
                self._read_box_soon()
            else:
                self._post(self._read_points)

    def _singleton(self, name: str) -> Any:
        return self._scene.GetNodeByID(f"vtkMRML{name}NodeSingleton")

    def _node(self, tool: Tool) -> Any:
        """The tool's markups; made when first needed, and again after they were removed from the scene."""
        node = self._nodes.get(tool)
        if node is not None and node.GetScene() is self._scene:
            return node
        if node is not None:
            self._observers.forget(node)
        class_name, name = _CLASSES[tool]
        node = getattr(slicer, class_name)()
        node.SetName(name)
        node.HideFromEditorsOn()  # before it is added: lists of nodes look then
        node.SaveWithSceneOff()
        self._scene.AddNode(node)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SaveWithSceneOff()
        display.SetSelectedColor(_COLORS[tool])
        display.SetColor(_COLORS[tool])
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(False)
        if tool is Tool.BOX:
            display.SetFillVisibility(False)
            display.SetHandlesInteractive(True)
        else:
            display.SetGlyphType(getattr(display, _GLYPHS[tool]))
            display.SetGlyphScale(_GLYPH_SCALE)
        changed = self._region_changed if tool is Tool.BOX else self._points_changed
        placed = self._region_placed if tool is Tool.BOX else self._points_changed
        self._observers.add(node, node.PointPositionDefinedEvent, placed)
        self._observers.add(node, node.PointEndInteractionEvent, changed)
        self._observers.add(node, node.PointRemovedEvent, changed)
        self._nodes[tool] = node
        return node
