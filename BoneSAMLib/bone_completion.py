"""Names of bones while they are typed."""

import functools
import re

from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.bone_words import plain

__all__ = ["complete_name"]


def complete_name(beginning: str, count: int = 8) -> list[str]:
    """English names of bones and groups that begin with a text (or have a word that does), shortest first."""
    start = plain(beginning).strip()
    if not start:
        return []
    names = [name for name in _display_names() if re.search(rf"\b{re.escape(start)}", name.lower())]
    return sorted(names, key=lambda name: (not name.lower().startswith(start), len(name), name))[:count]


@functools.cache
def _display_names() -> tuple[str, ...]:
    return tuple(thing.name for thing in bone_table().all)
