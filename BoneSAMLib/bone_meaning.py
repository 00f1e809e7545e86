"""Bones whose names mean nearly what a text says: "bone of the upper arm", "big bone in the thigh".

Needs WordLlama (`pip install --editable ".[meaning]"`), which brings its word vectors along: nothing is
downloaded. They are of English words first; of other languages they know what looks alike.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from BoneSAMLib.bone_table import bone_table

__all__ = ["near_in_meaning"]

# Cosine. Of the 96 descriptions in Testing/lib/bone_descriptions.txt, 89 are answered with what they mean
# among three; of 93 texts without a bone 4 are answered, too ("breast", "brain").
_ALIKE = 0.62


def near_in_meaning(text: str, count: int) -> list[str]:
    """English names of up to `count` bones and groups, best first; none without WordLlama."""
    known = _known()
    if known is None:
        return []
    model, names, vectors = known
    alike = vectors @ model.embed([text], norm=True)[0]
    near = [names[place] for place in np.argsort(-alike) if alike[place] >= _ALIKE]
    return list(dict.fromkeys(near))[:count]


@functools.cache
def _known() -> tuple[Any, list[str], Any] | None:
    """WordLlama's model, the English name of each known name, and that name's vector [n, 256] of length 1."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama
    except ImportError:
        return None
    finally:  # with its import, it lets every library's log be written to the screen
        root.handlers[:] = handlers
        root.setLevel(level)
    folder = Path(wordllama.__file__).parent
    # The folder as "cache": it looks for its tokenizer where none is packed, and would download it.
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    meant = {
        name.lower(): thing.name
        for thing in bone_table().all
        if thing.id != "skeleton"  # "every bone" is near to whatever has a bone in it
        for language, names in {"": (thing.name,), **thing.names}.items()
        if language != "abbreviations"
        for name in names
    }
    return model, list(meant.values()), model.embed(list(meant), norm=True)
