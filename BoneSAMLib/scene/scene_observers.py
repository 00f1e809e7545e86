"""Observers on nodes of a scene that can all be removed at once."""

from collections.abc import Callable
from typing import Any

__all__ = ["SceneObservers"]


class SceneObservers:
    """Calls back on events of VTK objects until `close`."""

    def __init__(self) -> None:
        self._tags: list[tuple[Any, int]] = []

    def add(self, observed: Any, event: Any, call: Callable[..., object]) -> None:
        """Call `call(observed, event)`, or with the event's node too if `call` is decorated for that."""
        self._tags.append((observed, observed.AddObserver(event, call)))

    def forget(self, observed: Any) -> None:
        """Remove the observers of one object."""
        for one, tag in self._tags:
            if one is observed:
                one.RemoveObserver(tag)
        self._tags = [(one, tag) for one, tag in self._tags if one is not observed]

    def close(self) -> None:
        """Remove them all."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags.clear()
