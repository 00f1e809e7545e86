"""What is said about a phrase that is not clear: which bones it could mean, and how to write it."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import NoReturn

from BoneSAMLib.bone_meaning import near_in_meaning
from BoneSAMLib.bone_spelling import nearest
from BoneSAMLib.bone_table import Ask, Bone, Named, bone_table, name_families
from BoneSAMLib.bone_words import Token, key_of
from BoneSAMLib.errors import BoneSAMError

__all__ = ["EXAMPLE", "UnclearPhrase", "ask", "listed", "refuse"]

_NEAR = 3
EXAMPLE = 'names such as "left femur", "L2-L4" or "all ribs except the first"'


class UnclearPhrase(BoneSAMError):
    """A phrase that names no bone, or not clearly.

    Attributes:
        candidates: names that could be meant, best first; may be empty.
        ambiguous: whether it can mean each of the candidates; False if they only look alike.
    """

    def __init__(self, message: str, candidates: Iterable[str] = (), ambiguous: bool = False) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)
        self.ambiguous = ambiguous


def ask(text: str, question: Ask) -> NoReturn:
    """Ask back which bones a name means, or for the whole of which it is a part.

    Raises:
        UnclearPhrase: always.
    """
    names = [candidate.name for candidate in question.candidates]
    if len(names) == 1:
        raise UnclearPhrase(f'"{text}" is a part of the {names[0]}: write that for the whole.', names, True)
    raise UnclearPhrase(f'"{text}" can mean several bones: {listed(names)}. Write which.', names, True)


def ask_which(read: Sequence[Token], bones: Sequence[Bone]) -> NoReturn:
    """Ask which of several bones a number of them means.

    Raises:
        UnclearPhrase: always.
    """
    text, names = " ".join(token.text for token in read), [bone.name for bone in bones]
    raise UnclearPhrase(f'Which ones are "{text}"? There are {names[0]} to {names[-1]}.', names, True)


def refuse(read: Sequence[Token]) -> NoReturn:
    """Say that the words of an item name no bone, and which names are near.

    Raises:
        UnclearPhrase: always.
    """
    text = " ".join(token.text for token in read)
    words_only = [token.text for token in read if token.kind == "word"]
    family = name_families().get(key_of([*words_only, "#"])) if len(words_only) < len(read) else None
    if family and any(token.number not in family for token in read if token.kind == "number"):
        names = [_name_of(family[number]) for number in (min(family), max(family))]
        raise UnclearPhrase(f'There is no "{text}": there are {names[0]} to {names[1]}.', names)
    alike = near_in_meaning(text, _NEAR)
    if alike:
        raise UnclearPhrase(f'No bone is called "{text}". By its meaning it may be: {listed(alike)}.', alike)
    known = _known_names()
    near = list(dict.fromkeys(known[name] for name in nearest(text, list(known), 2 * _NEAR)))[:_NEAR]
    hint = f"Near it are: {listed(near)}." if near else f"Write {EXAMPLE}."
    raise UnclearPhrase(f'No bone is called "{text}". {hint}', near)


def listed(names: Sequence[str]) -> str:
    """Names as alternatives: "femur, tibia or fibula"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


@functools.cache
def _known_names() -> dict[str, str]:
    """Every name in every language in small letters, and the English name of what it means."""
    return {
        name.lower(): thing.name
        for thing in bone_table().all
        for name in (thing.name, *itertools.chain.from_iterable(thing.names.values()))
    }


def _name_of(thing: Named) -> str:
    return thing.id if isinstance(thing, Ask) else thing.name
