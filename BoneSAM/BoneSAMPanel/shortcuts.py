"""Keys that press the panel's buttons, while the module is shown and no longer."""

from collections.abc import Callable, Sequence
from typing import Any

import qt

__all__ = ["KEYS", "Shortcuts"]

KEYS: dict[str, Sequence[str]] = {
    "boxButton": ("B",),
    "sliceBoxButton": ("Shift+B",),
    "positivePointButton": ("P",),
    "negativePointButton": ("N",),
    "liveCheckBox": ("L",),
    "segmentButton": ("S",),
    "undoButton": ("Ctrl+Z",),
    "redoButton": ("Ctrl+Y", "Ctrl+Shift+Z"),
    "cancelButton": ("C",),
    "acceptButton": ("A",),
    "nextBoneButton": ("Shift+A",),
}


class Shortcuts:
    """The shortcuts of one panel. Their keys are added to the buttons' tooltips.

    Args:
        ui: the panel's widgets.
        onEscape: puts the tool down. Slicer itself ends placing points by a right click only.
    """

    def __init__(self, ui: Any, onEscape: Callable[[], None]) -> None:
        self._onEscape = onEscape
        self._buttons = {name: getattr(ui, name) for name in KEYS}
        self._shortcuts: list[Any] = []
        for name, button in self._buttons.items():
            keys = [qt.QKeySequence(key).toString(qt.QKeySequence.NativeText) for key in KEYS[name]]
            button.setToolTip("{} ({})".format(button.toolTip, ", ".join(keys)))

    def install(self, window: Any) -> None:
        """Let the keys work anywhere in a window, for the mouse is in the slice views."""
        self.remove()
        for name, button in self._buttons.items():
            for key in KEYS[name]:
                # A button that is disabled ignores it.
                self._add(window, key, lambda button=button: button.click())
        self._add(window, "Esc", self._onEscape)

    def _add(self, window: Any, key: str, act: Callable[[], None]) -> None:
        shortcut = qt.QShortcut(qt.QKeySequence(key), window)
        # A key that is held down must not undo everything.
        shortcut.setAutoRepeat(False)
        shortcut.connect("activated()", act)
        self._shortcuts.append(shortcut)

    def remove(self) -> None:
        """Give the keys back."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
