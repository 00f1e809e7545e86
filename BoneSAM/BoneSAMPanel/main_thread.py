"""Calls from the worker thread to the main thread, on the way that 3D Slicer made for its processing threads.

No timer asks whether something has come, and the worker thread touches no Qt object.
"""

import queue
from collections.abc import Callable
from typing import Any

import vtk

__all__ = ["MainThread"]

_RING = int(vtk.vtkCommand.UserEvent)


class MainThread:
    """Runs calls on the main thread, in the order they came. Make it there.

    Args:
        applicationLogic: `slicer.app.applicationLogic()`.
    """

    def __init__(self, applicationLogic: Any) -> None:
        self._applicationLogic = applicationLogic
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell = vtk.vtkObject()
        # The application keeps the bare address of the bell while a ring is on its way: one that comes after
        # `close` must still find it. So it is never freed; it is as small as a VTK object gets.
        self._bell.Register(None)
        self._observation = self._bell.AddObserver(_RING, self._onRing)

    def post(self, call: Callable[[], None]) -> None:
        """Run `call` on the main thread, soon; any thread."""
        self._calls.put(call)
        # Not RequestModified: the application looks only five times a second for those.
        self._applicationLogic.InvokeEventWithDelay(0, self._bell, _RING)

    def close(self) -> None:
        """Run nothing more."""
        self._bell.RemoveObserver(self._observation)

    def _onRing(self, caller: Any, event: str) -> None:
        # One call a ring: should it fail, the others still have theirs.
        self._calls.get_nowait()()
