"""Words with typing errors: the known words that they are probably meant to be."""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any

from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.bone_words import words

__all__ = ["corrections", "is_known", "nearest"]

_ALIKE = 4  # letters at the beginning
_SHORTEST = 4  # with fewer letters every other word is one error away


def is_known(word: str) -> bool:
    """Whether a word is in a name or in the word lists."""
    return word in _name_words() or words().knows(word)


@functools.lru_cache(maxsize=4096)
def corrections(word: str) -> tuple[str, ...]:
    """Known words with the fewest errors (a letter wrong, missing, added, or two swapped); () for none near.

    A longer word may have more errors. Words of bones come before other words.
    """
    if len(word) < _SHORTEST - 1:
        return ()
    known = [other for other in _vocabulary() if len(other) >= _SHORTEST]
    if len(word) < _SHORTEST:  # "lef": only sides
        known = [other for other in known if words().kinds.get(other) in ("left", "right")]
    near = _within(word, known, 1 if len(word) < 8 else 2 if len(word) < 15 else 3)
    if len(word) < 8:  # in short words the first letter is seldom wrong
        near = [(other, count) for other, count in near if other[0] == word[0] or _swapped(word, other)]
    if len(word) <= _SHORTEST:  # another letter makes another word: "skin" is no "shin"
        near = [(other, count) for other, count in near if len(other) != len(word) or _swapped(word, other)]
    if not near:
        return ()
    least = min(count for _, count in near)
    best = [other for other, count in near if count == least]
    best = [other for other in best if other in _name_words()] or best
    same = [_same_beginning(word, other) for other in best]
    if min(same) >= _ALIKE:  # "metacarsal" begins as both of its neighbors do
        return tuple(best)
    return tuple(other for other, count in zip(best, same, strict=True) if count == max(same))


def _same_beginning(word: str, other: str) -> int:
    """How many letters two words begin with alike: errors come late in a word."""
    return next(
        (place for place, pair in enumerate(zip(word, other, strict=False)) if pair[0] != pair[1]),
        min(len(word), len(other)),
    )


def nearest(text: str, names: Sequence[str], count: int) -> list[str]:
    """The names most like a text, best first; only those that resemble it."""
    fuzz = _rapidfuzz()
    if fuzz is not None:
        found = fuzz[1].extract(text, names, scorer=fuzz[2].ratio, limit=count, score_cutoff=66)
        return [str(name) for name, _, _ in found]
    scored = sorted(((SequenceMatcher(None, text, name).ratio(), name) for name in names), reverse=True)
    return [name for score, name in scored[:count] if score >= 0.66]


def _swapped(word: str, other: str) -> bool:
    return sorted(word) == sorted(other)


@functools.cache
def _name_words() -> frozenset[str]:
    return frozenset(word for key in bone_table().named for word in key if not word.isdigit())


@functools.cache
def _vocabulary() -> tuple[str, ...]:
    lists = words()
    # Not the words without a meaning of their own: nobody needs "plates" to be read as "please".
    useful = {word for word, kind in lists.kinds.items() if kind in ("left", "right", "both", "except")}
    return tuple(sorted({*_name_words(), *useful, *lists.numbers, *lists.bone}))


@functools.cache
def _rapidfuzz() -> tuple[Any, Any, Any] | None:
    """What is used of rapidfuzz; None in 3D Slicer, whose Python does not have it."""
    try:
        from rapidfuzz import fuzz, process
        from rapidfuzz.distance import OSA
    except ImportError:
        return None
    return OSA, process, fuzz


def _within(word: str, known: Sequence[str], errors: int) -> list[tuple[str, int]]:
    fuzz = _rapidfuzz()
    if fuzz is not None:
        found = fuzz[1].extract(word, known, scorer=fuzz[0].distance, score_cutoff=errors, limit=None)
        return [(str(other), int(count)) for other, count, _ in found]
    letters = Counter(word)
    near = []
    for other in known:
        if abs(len(other) - len(word)) > errors or _unlike(letters, other) > 2 * errors:
            continue
        count = _errors_between(word, other)
        if count <= errors:
            near.append((other, count))
    return near


def _unlike(letters: Counter[str], other: Iterable[str]) -> int:
    """How many letters only one of two words has: a wrong letter makes two of them."""
    counted = Counter(other)
    return (letters - counted).total() + (counted - letters).total()


def _errors_between(word: str, other: str) -> int:
    """Letters to change, add, remove or swap with their neighbor (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        previous, row = row, [i]
        for j, sign in enumerate(other, 1):
            count = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != sign))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == sign:
                count = min(count, before[j - 2] + 1)
            row.append(count)
        before = previous
    return row[-1]
