"""Paint, erase and scissors for a segment, with an undo of their own."""

from collections.abc import Callable
from typing import Any

from trame_slicer.core import SlicerApp
from trame_slicer.segmentation import (
    BrushDiameterMode,
    ScissorsEffectFillMode,
    SegmentationEffectErase,
    SegmentationEffectPaint,
    SegmentationEffectScissors,
    SegmentationOverwriteMode,
)
from undo_stack import UndoStack

__all__ = ["TOUCH_UP_TOOLS", "TouchUp"]

TOUCH_UP_TOOLS = ("paint", "erase", "scissors")
_EFFECTS = {
    "paint": SegmentationEffectPaint,
    "erase": SegmentationEffectErase,
    "scissors": SegmentationEffectScissors,
}
_STEPS = 10
DIAMETER_MM = 8.0


class TouchUp:
    """At most one tool is in hand. Bones that touch: what one gains is not taken from its neighbor.

    Args:
        app: whose segmentation editor it is.
        edited: called with the segment's identifier after a stroke, a cut, or an undo of one.

    Attributes:
        tool: of `TOUCH_UP_TOOLS`; "" for none.
        diameter_mm: of the brush, a sphere.
    """

    def __init__(self, app: SlicerApp, edited: Callable[[str], None]) -> None:
        self._editor = app.segmentation_editor
        self._edited = edited
        self._target: tuple[Any, Any, str] | None = None
        self._undo = UndoStack(undo_limit=_STEPS)
        self._undo.index_changed.connect(self._changed)
        self._editor.set_undo_stack(self._undo)
        self._starting = False
        self.tool = ""
        self.diameter_mm = DIAMETER_MM

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke to take back."""
        return bool(self.tool) and self._undo.can_undo()

    @property
    def can_redo(self) -> bool:
        """Whether there is a stroke that was taken back."""
        return bool(self.tool) and self._undo.can_redo()

    def take(self, tool: str, segmentation_node: Any, volume_node: Any, segment: str) -> None:
        """Use a tool on a segment. Strokes on the same segment stay in the history."""
        target = (segmentation_node, volume_node, segment)
        self._starting = True
        try:
            if target != self._target:
                self._editor.set_active_segmentation(segmentation_node, volume_node)
                self._editor.set_overwrite_mode(SegmentationOverwriteMode.ALLOW_OVERLAP)
                self._undo.clear()
                self._target = target
            self._editor.set_active_segment_id(segment)
            effect = self._editor.set_active_effect_type(_EFFECTS[tool])
        finally:
            self._starting = False
        self.tool = tool
        if tool == "scissors":
            effect.set_fill_mode(ScissorsEffectFillMode.ERASE_INSIDE)
        else:
            effect.set_use_sphere_brush(True)
            self.set_diameter(self.diameter_mm)

    def put_down(self) -> None:
        """No tool; the mouse is free again."""
        if self.tool:
            self.tool = ""
            self._editor.deactivate_effect()

    def forget(self) -> None:
        """The segments were changed by others: strokes cannot be taken back any more."""
        self.put_down()
        self._target = None
        self._starting = True
        try:
            self._undo.clear()
        finally:
            self._starting = False

    def set_diameter(self, millimeters: float) -> None:
        """Size of the brush."""
        self.diameter_mm = millimeters
        if self.tool in ("paint", "erase"):
            self._editor.active_effect.set_brush_diameter(millimeters, BrushDiameterMode.Absolute)

    def undo(self) -> None:
        """Take back the last stroke."""
        if self.can_undo:
            self._undo.undo()

    def redo(self) -> None:
        """Take back the last undo."""
        if self.can_redo:
            self._undo.redo()

    def _changed(self, *_: object) -> None:
        if not self._starting and self._target is not None:
            self._edited(self._target[2])
