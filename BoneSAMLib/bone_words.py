"""Words of a phrase about bones: small letters without accents, and what each does, in five languages."""

import functools
import itertools
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

__all__ = [
    "BONE",
    "CARDINALS",
    "TWO",
    "Kind",
    "Token",
    "Words",
    "key_of",
    "name_key",
    "plain",
    "tokens",
    "words",
]

ANATOMY = Path(__file__).resolve().parents[1] / "Resources" / "anatomy"
BONE = "bone"

Kind: TypeAlias = Literal[
    "word", "number", "left", "right", "both", "join", "end", "except", "to", "all", "filler"
]
_LISTS: tuple[Kind, ...] = ("left", "right", "both", "join", "except", "to", "all", "filler")
_ORDINAL_ENDING = re.compile(
    r"(\d+)(?:st|nd|rd|th|ste|te|ten|ter|ere|era|er|ra|re|eme|ieme|nde|da|do|ro|ta|to|ma|mo|va|vo|ª|º|°|e|o|a)\b"
    r"|(\d+)\.(?!\d)"
)
CARDINALS = frozenset(
    ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
)
TWO = {"two", "zwei", "beiden", "due", "deux", "dos"}
_OF = {"of", "de", "del", "della", "der", "des", "di", "du", "am", "an"}
_ARTICLE = re.compile(r"\b(?:l|d|dell|all|nell|sull|un|qu|s)['’`´](?=[^\W\d])")
_PARTS = re.compile(r"\d+#?|[^\W\d_]+|[-,;/&+]")
# Letters that name a vertebra with the number after them.
_LEVEL_LETTERS = {"c", "t", "d", "l", "s"}
# After the last vertebra of a region, the next one begins again with 1.
_LAST_LEVELS = {
    ("c", 7): "t",
    ("t", 12): "l",
    ("th", 12): "l",
    ("d", 12): "l",
    ("bwk", 12): "l",
    ("l", 5): "s",
}
_LAST_LEVEL = re.compile(r"\b(c|th|t|d|l|bwk)\s?(7|12|5)\s?([/-])\s?1\b(?![\d#])")
_LEVEL = r"(c|th|t|d|l|s|hwk|bwk|lwk)\s?(\d{1,2})"
_TWO_LEVELS = re.compile(rf"\b{_LEVEL}\s*(?={_LEVEL}\b)")
_BETWEEN = re.compile(
    r"\b(?:between|entre|zwischen|tra|fra)\s+([a-z]*\s?\d+)\s+(?:and|et|y|und|e)\s+(?=[a-z]*\s?\d)"
)
# Sides that would be other words without their dot, or in small letters: "femur sin.", "tibia D".
_DOTTED_SIDES = (
    (re.compile(r"\bsin(?:\.|(?=\s*$))", re.IGNORECASE), " sinistra "),
    (re.compile(r"\bder(?:\.|(?=\s*$))(?!\s*\w)", re.IGNORECASE), " derecha "),
    (re.compile(r"(?<=[^\W\d_] )(?:D|d\.)(?=\s*(?:[,;/)]|$))"), " right "),
    (re.compile(r"(?<=[^\W\d_] )(?:[GS]|[gs]\.)(?=\s*(?:[,;/)]|$))"), " left "),
)


@dataclass(frozen=True)
class Token:
    """One word: its text, what it does, and for a number its value and whether it counts ("third")."""

    text: str
    kind: Kind
    number: int = 0
    ordinal: bool = False


@dataclass(frozen=True)
class Words:
    """The word lists: what a word does, the value of number words, and phrases read as one word."""

    kinds: dict[str, Kind]
    bone: frozenset[str]
    numbers: dict[str, int]
    ordinals: frozenset[str]
    roman: dict[str, int]
    side_letters: dict[str, Literal["left", "right"]]
    to_between_numbers: frozenset[str]
    phrases: tuple[tuple[re.Pattern[str], str], ...]
    no_bone: frozenset[str]

    def knows(self, text: str) -> bool:
        """Whether a word is in any of the lists."""
        return text in self.kinds or text in self.numbers or text in self.bone or text in self.no_bone


@functools.cache
def words() -> Words:
    """The word lists of Resources/anatomy/words.json."""
    lists: dict[str, Any] = json.loads((ANATOMY / "words.json").read_text(encoding="utf-8"))
    return Words(
        kinds={word: kind for kind in _LISTS for word in lists[kind].split()},
        bone=frozenset(lists["bone"].split()),
        numbers=lists["numbers"],
        ordinals=frozenset(lists["numbers"]) - CARDINALS,
        roman=lists["roman"],
        side_letters=lists["side_letters"],
        to_between_numbers=frozenset(lists["to_between_numbers"].split()),
        phrases=tuple(
            (re.compile(rf"\b{phrase}\b"), meaning)
            for phrase, meaning in sorted(lists["phrases"].items(), key=lambda item: -len(item[0]))
        ),
        no_bone=frozenset(lists["no_bone"].split()),
    )


def plain(text: str) -> str:
    """Small letters without accents; "ß" is "ss", and every dash, arrow and row of dots is "-"."""
    text = re.sub(r"[‐‑‒–—−~→➔…]|(?<=\w)\.\.+(?=\w)", "-", text).replace("_", " ")
    text = unicodedata.normalize("NFD", text.casefold())
    return "".join(sign for sign in text if not unicodedata.combining(sign))


def tokens(text: str) -> list[Token]:
    """The words of a phrase, in its order."""
    lists = words()
    for written, side in _DOTTED_SIDES:
        text = written.sub(side, text)
    text = _ARTICLE.sub(" ", plain(text))
    text = _LAST_LEVEL.sub(_next_region, text)
    text = _TWO_LEVELS.sub(_neighbors, text)
    text = _BETWEEN.sub(r"\1 to ", text)
    text = _ORDINAL_ENDING.sub(lambda found: f"{found[1] or found[2]}# ", text)
    text = re.sub(r"['’`´.()\"?!:]", " ", text)
    for phrase, meaning in lists.phrases:
        text = phrase.sub(meaning, text)
    parts = _PARTS.findall(text)
    found: list[Token] = []
    for place, part in enumerate(parts):
        following = parts[place + 1 :]
        token = _token(part, found, following, lists)
        if token is not None:
            found.append(token)
    for place, (first, second) in enumerate(itertools.pairwise(found)):
        if first.text in TWO and first.kind == "both" and second.ordinal and second.number == 1:
            found[place : place + 2] = [second, Token(first.text, "number", 2)]  # "les deux premières"
    return found


def _next_region(found: re.Match[str]) -> str:
    """ "L5/1" is L5/S1."""
    letter, number, sign = found[1], int(found[2]), found[3]
    following = _LAST_LEVELS.get((letter, number))
    return found[0] if following is None else f"{letter}{number} {sign} {following}1"


def _neighbors(found: re.Match[str]) -> str:
    """ "L4 L5" and "L1 L3" are two vertebrae each, "T11L2" is all from one to the other."""
    letter, number, other = found[1], int(found[2]), found[3]
    return f"{letter}{number}, " if letter == other else f"{letter}{number} to "


def _token(part: str, before: list[Token], following: list[str], lists: Words) -> Token | None:
    counted = bool(following) and _is_number(following[0], lists)
    after_number = bool(before) and before[-1].kind == "number"
    if part[0].isdecimal():
        return Token(part.rstrip("#"), "number", int(part.rstrip("#")), part.endswith("#"))
    if part == "one" and before and before[-1].kind in ("left", "right"):  # "not the left one"
        return Token(part, "filler")
    if part in lists.numbers:
        return Token(part, "number", lists.numbers[part], part in lists.ordinals)
    if part in TWO and after_number and before[-1].ordinal and before[-1].number == 1:
        return Token(part, "number", 2)  # "the first two ribs"
    if part in lists.roman and before and (part != "i" or _ends_name(following, lists)):
        return Token(part, "number", lists.roman[part])
    if part in lists.roman and part not in ("i", "x") and _begins_name(following, lists):
        return Token(part, "number", lists.roman[part], True)
    if part == "-" or part in lists.to_between_numbers:
        if after_number and _starts_with_number(following, lists):
            return Token(part, "to")
        return None
    if part in ",/&+;":
        return Token(part, "end" if part == ";" else "join")
    if part in _LEVEL_LETTERS and counted:
        return Token(part, "word")
    if part in lists.bone:
        return Token(BONE, "word")
    return Token(part, lists.kinds.get(part, "word"))


def _ends_name(following: list[str], lists: Words) -> bool:
    """Whether a name ends before these words: "metacarpal I left", but not "femur i want"."""
    return (
        not following
        or not following[0].isalnum()
        or following[0] in lists.side_letters
        or following[0] in _OF
        or lists.kinds.get(following[0]) in ("left", "right", "join", "except")
    )


def _begins_name(following: list[str], lists: Words) -> bool:
    """Whether a name may follow a roman number: "V metatarso", but not "v left"."""
    return bool(following) and len(following[0]) > 3 and following[0] not in lists.kinds


def _is_number(part: str, lists: Words) -> bool:
    return part[0].isdecimal() or part in lists.numbers


def _starts_with_number(parts: list[str], lists: Words) -> bool:
    """Whether a number comes next, perhaps after an article and the letter of a vertebra."""
    rest = [part for part in parts if lists.kinds.get(part) != "filler" or part in _LEVEL_LETTERS][:2]
    counts = [_is_number(part, lists) or part in lists.roman for part in rest]
    return any(counts[:1]) or (any(counts[1:]) and rest[0].isalpha())


def name_key(name: str) -> tuple[str, ...]:
    """What stays of a name when order, accents, articles and ways to write numbers do not matter."""
    return key_of(
        str(token.number) if token.kind == "number" else token.text
        for token in tokens(name)
        if token.kind not in ("filler", "all")
    )


def key_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Words in an order of their own."""
    return tuple(sorted(texts))
