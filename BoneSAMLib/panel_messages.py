"""Sentences for the user, in the user's language."""

import logging
from collections.abc import Callable

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.interfaces import View
from BoneSAMLib.panel import Message

__all__ = ["PanelMessages"]

_log = logging.getLogger(__name__)


class PanelMessages:
    """What is said once, through the view.

    Args:
        view: shows it.
        translate: turns an English text, which may hold {placeholders}, into the user's language.
    """

    def __init__(self, view: View, translate: Callable[[str], str]) -> None:
        self._view = view
        self.translate = translate

    def tell(self, text: str, **values: object) -> None:
        """Say an English sentence; `values` take the place of its {placeholders}."""
        self._view.show_message(Message("info", self.translate(text).format(**values)))

    def tell_error(self, error: Exception) -> None:
        """Say what went wrong. What nobody foresaw is logged as well."""
        self._view.show_message(Message("error", self._in_words(error)))

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, BoneSAMError):
            return str(error)
        _log.error("Unexpected error", exc_info=error)
        if isinstance(error, MemoryError):
            text = "There is not enough memory: close other programs, or crop the volume to the bone."
        elif isinstance(error, ModuleNotFoundError):
            text = "The Python package '{name}' is missing: install it and try again."
        else:
            text = "Something unexpected went wrong, nothing was changed. For the developers: {detail}"
        detail = f"{type(error).__name__}: {error}"
        return self.translate(text).format(name=getattr(error, "name", ""), detail=detail)
