"""Errors that BoneSAM shows to its user.

Their message is one clear sentence: what is wrong, where, and what to do. Whoever catches them (command line,
Slicer panel, script) shows the message as it is and needs no traceback.
"""

__all__ = ["BoneSAMError", "Cancelled"]


class BoneSAMError(Exception):
    """An expected failure: bad input, a missing file, a full disk. The message is meant for the user."""


class Cancelled(BoneSAMError):
    """The user stopped the work. Nothing is wrong, and nothing was written."""

    def __init__(self, message: str = "Cancelled: nothing was changed.") -> None:
        super().__init__(message)
