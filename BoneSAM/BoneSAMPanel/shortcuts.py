"""Keys that press the panel's buttons, while the module is shown and no longer."""

from collections.abc import Sequence
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
    """

    def __init__(self, ui: Any) -> None:
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
                shortcut = qt.QShortcut(qt.QKeySequence(key), window)
                # A key that is held down must not undo everything.
                shortcut.setAutoRepeat(False)
                # A button that is disabled ignores it.
                shortcut.connect("activated()", lambda button=button: button.click())
                self._shortcuts.append(shortcut)

    def remove(self) -> None:
        """Give the keys back."""
        for shortcut in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
