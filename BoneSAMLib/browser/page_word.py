"""A word in the page while something takes its time."""

from typing import Any

__all__ = ["BREATH", "PageWord"]

# Seconds, long enough for what is known already to be drawn first.
BREATH = 0.05


class PageWord:
    """Said as long as its block runs.

    Args:
        state: of the page.
        name: which of its values it is.
        word: what is said.
    """

    def __init__(self, state: Any, name: str, word: str) -> None:
        self._state, self._name, self._word = state, name, word

    def __enter__(self) -> None:
        self._state[self._name] = self._word
        self._state.flush()

    def __exit__(self, *_: object) -> None:
        self._state[self._name] = ""
        self._state.flush()
