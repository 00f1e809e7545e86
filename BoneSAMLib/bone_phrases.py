"""Which bones a phrase means: "both femurs and L2-L4", "alle Rippen außer der ersten", "osso sacro".

Only text is understood here; whether a scan shows these bones is another question. A phrase is read as items
between words such as "and" and "except". Every word of an item must be part of the name of a bone or group, a
number or a side, after correction of typing errors: what is left over makes the phrase unclear.
Several names in one item mean the bones that they share ("proximal phalanx of the left thumb").
"""

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from BoneSAMLib.bone_spelling import corrections, is_known, nearest
from BoneSAMLib.bone_table import Ask, Bone, BoneGroup, Named, Side, bone_table
from BoneSAMLib.bone_words import BONE, Token, key_of, plain, tokens, words
from BoneSAMLib.errors import BoneSAMError

__all__ = ["BoneTarget", "UnclearPhrase", "UnderstoodPhrase", "complete_name", "understand"]

_LONGEST_NAME = 8
_MOST_READINGS = 12
_LONGEST_PHRASE = 500
_HIGHEST = 13  # one more than any bone is counted to
_NEAR = 3
_EXAMPLE = 'names such as "left femur", "L2-L4" or "all ribs except the first"'


@dataclass(frozen=True)
class BoneTarget:
    """A bone and its side (None for a bone that the body has once)."""

    bone: Bone
    side: Side | None

    @property
    def name(self) -> str:
        """Such as "left femur" or "L3 vertebra"."""
        return f"{self.side} {self.bone.name}" if self.side else self.bone.name


@dataclass(frozen=True)
class UnderstoodPhrase:
    """The bones that a phrase means.

    Attributes:
        targets: at least one, each once, in the order of the table; a pair without a side is two.
        corrected: words with typing errors, and as what they were read.
    """

    targets: tuple[BoneTarget, ...]
    corrected: dict[str, str] = field(default_factory=dict)


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


def understand(phrase: str) -> UnderstoodPhrase:
    """The bones that a phrase means, in English, German, Italian, French, Spanish or Latin.

    Raises:
        UnclearPhrase: unknown words, several meanings, or nothing left after exceptions.
    """
    if len(phrase) > _LONGEST_PHRASE:
        raise UnclearPhrase(f"The text is too long: name the bones in up to {_LONGEST_PHRASE} characters.")
    read = tokens(phrase)
    if not any(token.kind in ("word", "number") for token in read):
        raise UnclearPhrase(f"The text names no bone: write {_EXAMPLE}.")
    results: dict[tuple[BoneTarget, ...], UnderstoodPhrase] = {}
    problems: list[UnclearPhrase] = []
    for reading, corrected in _readings(read):
        try:
            found = UnderstoodPhrase(_targets(reading), corrected)
        except UnclearPhrase as problem:
            problems.append(problem)
        else:
            results.setdefault(found.targets, found)
    if len(results) == 1:
        return next(iter(results.values()))
    if results:
        names = [_described(targets) for targets in results]
        raise UnclearPhrase(f'"{phrase.strip()}" can mean: {_listed(names)}. Write which.', names, True)
    raise next((problem for problem in problems if problem.ambiguous), problems[0])


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


@functools.cache
def _known_names() -> dict[str, str]:
    """Every name in every language in small letters, and the English name of what it means."""
    return {
        name.lower(): thing.name
        for thing in bone_table().all
        for name in (thing.name, *itertools.chain.from_iterable(thing.names.values()))
    }


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _described(targets: Sequence[BoneTarget]) -> str:
    names = [target.name for target in targets]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _readings(read: Sequence[Token]) -> list[tuple[list[Token], dict[str, str]]]:
    """The words with typing errors corrected, once for each way to do so."""
    choices: list[list[Token]] = []
    for token in read:
        if token.kind != "word" or is_known(token.text):
            choices.append([token])
            continue
        fixed = [tokens(other)[0] for other in corrections(token.text) if tokens(other)]
        choices.append(fixed or [token])
    readings = []
    for chosen in itertools.islice(itertools.product(*choices), _MOST_READINGS):
        corrected = {
            old.text: new.text for old, new in zip(read, chosen, strict=True) if old.text != new.text
        }
        readings.append((list(chosen), corrected))
    return readings


# --- A phrase as items ------------------------------------------------------------------------------------


@dataclass
class _Item:
    """What stands between two joining words: its words without sides, and the sides."""

    words: list[Token]
    sides: set[Side]
    side_first: bool = False
    every: bool = False
    closed: bool = False  # a side said before does not reach it
    after_comma: bool = False
    bones: "_Found | None" = None


@dataclass
class _Found:
    """Bones of an item, and by which number they can be called in it ("ribs 3 and 5")."""

    bones: tuple[Bone, ...]
    is_group: bool
    numbered: dict[int, tuple[Bone, ...]]


def _targets(read: Sequence[Token]) -> tuple[BoneTarget, ...]:
    wanted: list[list[Token]] = [[]]
    unwanted: list[list[Token]] = []
    part = wanted
    for token in read:
        if token.kind == "except":
            unwanted.append([])
            part = unwanted
        elif token.kind == "end" and part is unwanted:
            wanted.append([])
            part = wanted
        else:
            part[-1].append(token)
    chosen: dict[BoneTarget, None] = {}
    context: _Found | None = None
    for clause in wanted:
        if any(token.kind != "filler" for token in clause):
            if unwanted and all(token.kind in ("all", "filler") for token in clause):  # "all except"
                clause = [*clause, Token(BONE, "word")]
            found, context = _clause(clause, None, chosen)
            chosen |= dict.fromkeys(found)
    if not chosen:
        raise UnclearPhrase(f"The text only says what to leave out: write what to find too, with {_EXAMPLE}.")
    for clause in unwanted:
        removed = set(_clause(clause, context, chosen)[0])
        if not removed & chosen.keys():
            removed = _ray(removed)
        chosen = {target: None for target in chosen if target not in removed}
    if not chosen:
        raise UnclearPhrase("Nothing is left: the text leaves out all the bones that it names.")
    places = {bone: place for place, bone in enumerate(bone_table().bones.values())}
    return tuple(sorted(chosen, key=lambda target: (places[target.bone], target.side or "")))


def _ray(targets: Iterable[BoneTarget]) -> set[BoneTarget]:
    """The metacarpal or metatarsal before a finger or toe: "all metacarpals except the thumb"."""
    table = bone_table()
    found = set()
    for target in targets:
        place = re.fullmatch(r"(hand|foot)_phalanx_(\d)_\w+", target.bone.id)
        if place:
            name = "metacarpal" if place[1] == "hand" else "metatarsal"
            found.add(BoneTarget(table.bones[f"{name}_{place[2]}"], target.side))
    return found


def _clause(
    read: Sequence[Token], context: _Found | None, among: Iterable[BoneTarget]
) -> tuple[list[BoneTarget], _Found | None]:
    """Targets of a list of items; bare numbers count in `context`, bare sides choose from `among`."""
    items = _items(read)
    _join_incomplete(items, context)
    _place_in_regions(items)
    _share_sides(items)
    targets: list[BoneTarget] = []
    for item in items:
        if item.bones is None:  # only a side is left of it
            targets += [target for target in among if target.side in item.sides]
            continue
        targets += _sided(item.bones.bones, item.sides)
        if item.bones.numbered or context is None:
            context = item.bones
    return targets, context


def _sided(bones: Sequence[Bone], sides: set[Side]) -> list[BoneTarget]:
    """Each bone on the sides asked for; from a group such as the pelvis a side takes only what is paired."""
    if sides and any(bone.paired for bone in bones):
        return [BoneTarget(bone, side) for bone in bones if bone.paired for side in sorted(sides)]
    return [BoneTarget(bone, side) for bone in bones for side in bone.sides]


def _items(read: Sequence[Token]) -> list[_Item]:
    items: list[_Item] = []
    new = True
    closed = comma = False
    for token in read:
        if token.kind in ("join", "end"):
            comma = token.text == "," and not (new and items and not comma)
            new = True
            closed = token.kind == "end"
            continue
        if token.kind == "filler" and new:
            continue
        if new:
            items.append(_Item([], set(), closed=closed, after_comma=comma))
            new = closed = False
        item = items[-1]
        if token.kind in ("left", "right"):
            item.side_first |= not item.words
            item.sides.add("left" if token.kind == "left" else "right")
        elif token.kind == "both":
            item.sides |= {"left", "right"}
            item.closed = True
        elif token.kind == "all":
            item.every = item.closed = True
        elif token.kind != "filler":
            item.words.append(token)
    for item in items:
        _take_side_letters(item)
    return [item for item in items if item.words or item.sides]


def _take_side_letters(item: _Item) -> None:
    letters = words().side_letters
    for place, token in enumerate(item.words):
        following = item.words[place + 1 :]
        side = letters.get(token.text)
        if side is None:
            continue
        rest = item.words[:place] + following
        counted = bool(following) and following[0].kind == "number"  # "L9" is no side, "L 3rd rib" has one
        if _found(item.words) is None and not (counted and _found(rest) is None):
            item.side_first |= place == 0 and not item.sides
            item.sides.add(side)
            item.words = rest
            return


def _join_incomplete(items: list[_Item], context: _Found | None) -> None:
    """Find the bones of all items; an item of numbers or of half a name takes the rest from its neighbors."""
    before = context
    place = 0
    while place < len(items):
        item = items[place]
        following = items[place + 1] if place + 1 < len(items) else None
        if not item.words:
            if following is not None and following.words:
                following.sides |= item.sides
                following.side_first |= item.side_first
                items.pop(place)
                continue
            if place:  # "femur left and right"
                items[place - 1].sides |= item.sides
                items.pop(place)
                continue
            place += 1
            continue
        item.bones = (
            (_counted(item, before) if _numbers_only(item) else _found(item.words))
            or _with_rest_of_next(item, items[place + 1 :])
            or _counted(item, before)
        )
        if item.bones is None:
            _refuse(item.words)
        before = item.bones if item.bones.numbered else before
        place += 1


def _numbers_only(item: _Item) -> bool:
    """Whether it counts what came before: "L2 and 4", but not "second" in "second and third rib"."""
    return all(token.kind in ("number", "to") for token in item.words) and not item.words[0].ordinal


def _counted(item: _Item, before: _Found | None) -> _Found | None:
    if before is None or any(token.kind not in ("number", "to") for token in item.words):
        return None
    numbers = _numbers(item.words)
    if numbers is None or not all(number in before.numbered for number in numbers):
        return None
    bones = tuple(bone for number in sorted(numbers) for bone in before.numbered[number])
    return replace(before, bones=bones, is_group=False)


def _with_rest_of_next(item: _Item, following: Sequence[_Item]) -> _Found | None:
    """ "proximal" of "proximal and distal phalanges of the hand", "second" of "second and third rib"."""
    for other in following:
        if all(token.kind in ("number", "to") for token in other.words):
            continue
        for start in range(1, len(other.words)):
            if item.words[-1].kind == "number" and other.words[start - 1].kind != "number":
                continue
            found = _found(item.words + other.words[start:])
            if found is not None:
                item.sides = item.sides or set(other.sides)
                return found
        if item.words[-1].kind == "number":
            return _found(item.words + other.words)
        return None
    return None


def _place_in_regions(items: list[_Item]) -> None:
    """ "fourth metacarpal, right hand": a region after a comma only says where the bone before it is."""
    for place in range(len(items) - 1, 0, -1):
        item, region = items[place - 1 : place + 1]
        if item.bones is None or region.bones is None or not (region.after_comma and region.bones.is_group):
            continue
        if region.sides and not item.sides and set(item.bones.bones) < set(region.bones.bones):
            item.sides = region.sides
            items.pop(place)


def _share_sides(items: Sequence[_Item]) -> None:
    """ "left femur and tibia" means both on the left, and so does "tibia and fibula of the left leg"."""

    def takes(item: _Item) -> bool:
        return item.bones is not None and not item.sides and all(bone.paired for bone in item.bones.bones)

    for item, following in itertools.pairwise(items):
        if item.side_first and takes(following) and not following.closed:
            following.sides |= item.sides
            following.side_first = True
    for item, before in itertools.pairwise(reversed(items)):
        if item.sides and not item.side_first and not item.closed and takes(before) and not before.every:
            before.sides |= item.sides


# --- The bones of an item ---------------------------------------------------------------------------------


def _numbers(read: Sequence[Token]) -> frozenset[int] | None:
    """The numbers of "2", "2 3", "2 - 4"; None for anything else."""
    numbers: set[int] = set()
    for place, token in enumerate(read):
        if token.kind == "to":
            if not 0 < place < len(read) - 1 or "to" in (read[place - 1].kind, read[place + 1].kind):
                return None
            first, last = sorted((read[place - 1].number, read[place + 1].number))
            numbers |= {last, *range(first, min(last, _HIGHEST) + 1)}
        elif token.kind == "number":
            counted = place > 0 and read[place - 1].ordinal and read[place - 1].number == 1
            first = 1 if counted and not token.ordinal else token.number  # "the first three ribs"
            numbers |= set(range(first, min(token.number, _HIGHEST) + 1)) | {token.number}
        else:
            return None
    return frozenset(numbers)


def _found(read: Sequence[Token]) -> _Found | None:
    """Bones of an item without sides; None if they are not clear.

    Raises:
        UnclearPhrase: the item is one name that needs a question back.
    """
    ranges = [
        place
        for place, token in enumerate(read)
        if token.kind == "to"
        and not (
            0 < place < len(read) - 1
            and read[place - 1].kind == "number"
            and read[place + 1].kind == "number"
            and not any(token.kind == "word" for token in read[:place] if _starts_name(read, place))
        )
    ]
    if len(ranges) == 1:
        return _between(read[: ranges[0]], read[ranges[0] + 1 :])
    parts: list[str | frozenset[int]] = []
    counted: list[Token] = []
    for token in [*read, Token("", "filler")]:
        if token.kind in ("number", "to"):
            counted.append(token)
            continue
        if counted:
            numbers = _numbers(counted)
            if numbers is None:
                return None
            parts.append(numbers)
            counted = []
        if token.text:
            parts.append(token.text)
    return _read(tuple(parts))


def _starts_name(read: Sequence[Token], place: int) -> bool:
    """Whether after a range's second number its first part alone is no name ("third rib to seventh rib")."""
    return any(token.kind == "word" for token in read[place + 2 :]) and any(
        token.kind == "word" for token in read[:place]
    )


def _between(first: Sequence[Token], last: Sequence[Token]) -> _Found | None:
    ends = [_found(first), _found(last)]
    if ends[0] is None or ends[1] is None or any(len(end.bones) != 1 for end in ends if end):
        return None
    bones = [ends[0].bones[0], ends[1].bones[0]]
    order = _sequence(bones)
    if order is None:
        return None
    start, stop = sorted(order.index(bone) for bone in bones)
    return _Found(tuple(order[start : stop + 1]), False, {})


def _sequence(bones: Sequence[Bone]) -> list[Bone] | None:
    """The row that two bones stand in: the spine, or others of one group with numbers."""
    table = bone_table()
    spine = [bone for bone in table.bones.values() if re.fullmatch(r"[ctls]\d+", bone.id)]
    stems = {bone.id.rstrip("0123456789") for bone in bones}
    rows = [spine]
    if len(stems) == 1:
        stem = next(iter(stems))
        rows.append([bone for bone in table.bones.values() if re.fullmatch(rf"{stem}\d+", bone.id)])
    return next((row for row in rows if all(bone in row for bone in bones)), None)


@functools.lru_cache(maxsize=4096)
def _read(parts: tuple[str | frozenset[int], ...]) -> _Found | None:
    """The reading with the fewest names whose bones overlap."""
    best: tuple[int, tuple[Named | _Found, ...]] | None = None
    if not parts:
        return None
    for names in _splits(parts):
        if best is not None and len(names) >= best[0]:
            continue
        if len(names) == 1 or _shared(names):
            best = (len(names), names)
    if best is None:
        return None
    names = best[1]
    only = [name for name in names if not (isinstance(name, BoneGroup) and name.id == "skeleton")]
    if len(only) == 1 and isinstance(only[0], Ask):  # "bones of the knee" is as unclear as "knee"
        _ask(" ".join(str(part) for part in parts if isinstance(part, str)), only[0])
    bones = _shared(names)
    found = names[0] if isinstance(names[0], _Found) else None
    numbered = found.numbered if found else _numbered(names)
    return _Found(bones, len(names) == 1 and isinstance(names[0], BoneGroup), numbered)


def _splits(parts: tuple[str | frozenset[int], ...]) -> list[tuple[Named | _Found, ...]]:
    """All ways to read an item as names one after the other."""
    if not parts:
        return [()]
    found: list[tuple[Named | _Found, ...]] = []
    for size in range(min(len(parts), _LONGEST_NAME), 0, -1):
        name = _name(parts[:size])
        if name is not None:
            found += [(name, *rest) for rest in _splits(parts[size:])]
    return found[:_MOST_READINGS]


def _name(parts: tuple[str | frozenset[int], ...]) -> Named | _Found | None:
    numbers = [part for part in parts if not isinstance(part, str)]
    if not numbers:
        things = bone_table().named.get(key_of(part for part in parts if isinstance(part, str)), ())
        return things[0] if len(things) == 1 else None
    family = _families().get(key_of(part if isinstance(part, str) else "#" for part in parts))
    if family is None:
        return _counted_in_group(parts, numbers)
    if len(numbers) > 1 or not all(number in family for number in numbers[0]):
        return None
    if len(numbers[0]) == 1:
        return family[min(numbers[0])]
    bones = tuple(bone for number in sorted(numbers[0]) for bone in _bones_of(family[number]))
    return _Found(bones, False, {number: _bones_of(thing) for number, thing in family.items()})


def _counted_in_group(
    parts: tuple[str | frozenset[int], ...], numbers: Sequence[frozenset[int]]
) -> _Found | None:
    """ "lumbar vertebrae 2 to 4": of a group all of whose bones are counted."""
    things = bone_table().named.get(key_of(part for part in parts if isinstance(part, str)), ())
    if len(things) != 1 or not isinstance(things[0], BoneGroup) or len(numbers) != 1:
        return None
    numbered = _numbered(things)
    if len(numbered) != len(things[0].bones) or not all(number in numbered for number in numbers[0]):
        return None
    return _Found(tuple(bone for number in sorted(numbers[0]) for bone in numbered[number]), False, numbered)


@functools.cache
def _families() -> dict[tuple[str, ...], dict[int, Named]]:
    """Names with one number, without it: what each number makes of them."""
    families: dict[tuple[str, ...], dict[int, Named]] = {}
    for key, things in bone_table().named.items():
        numbers = [word for word in key if word.isdigit()]
        if len(numbers) == 1 and len(things) == 1:
            family = families.setdefault(key_of("#" if word.isdigit() else word for word in key), {})
            family[int(numbers[0])] = things[0]
    return families


def _bones_of(thing: Named | _Found) -> tuple[Bone, ...]:
    if isinstance(thing, Bone):
        return (thing,)
    if isinstance(thing, Ask):
        return tuple(bone for candidate in thing.candidates for bone in _bones_of(candidate))
    if thing.bones and isinstance(thing, BoneGroup) and thing.id == "skeleton":
        return tuple(bone for bone in thing.bones if bone.counted)
    return thing.bones


def _shared(names: Sequence[Named | _Found]) -> tuple[Bone, ...]:
    """Bones that all names have; a finger or toe counts with its metacarpal or metatarsal."""
    if len(names) == 1:
        return _bones_of(names[0])
    sets = []
    for name in names:
        bones = set(_bones_of(name))
        if isinstance(name, BoneGroup) and re.fullmatch(r"(hand|foot)_digit_\d", name.id):
            bones |= {target.bone for target in _ray(BoneTarget(bone, None) for bone in bones)}
        if isinstance(name, BoneGroup) and name.id == "skeleton":
            bones |= set(bone_table().bones.values())
        sets.append(bones)
    first = min(sets, key=len)
    shared = [bone for bone in bone_table().bones.values() if bone in first]
    return tuple(bone for bone in shared if all(bone in bones for bones in sets))


def _numbered(names: Sequence[Named | _Found]) -> dict[int, tuple[Bone, ...]]:
    """How the bones of a group, or the neighbors of one of its bones, are counted."""
    bones = _shared(names)
    if not bones:
        return {}
    if len(bones) == 1:
        stem = bones[0].id.rstrip("0123456789")
        row = [
            bone for bone in bone_table().bones.values() if re.fullmatch(rf"{re.escape(stem)}\d+", bone.id)
        ]
    else:
        row = [bone for bone in bones if re.search(r"\d+$", bone.id)]
        if len({bone.id.rstrip("0123456789") for bone in row}) > 1:
            return {}
    return {int(match[0]): (bone,) for bone in row if (match := re.search(r"\d+$", bone.id))}


def _ask(text: str, ask: Ask) -> NoReturn:
    names = [candidate.name for candidate in ask.candidates]
    if len(names) == 1:
        raise UnclearPhrase(f'"{text}" is a part of the {names[0]}: write that for the whole.', names, True)
    raise UnclearPhrase(f'"{text}" can mean several bones: {_listed(names)}. Write which.', names, True)


def _refuse(read: Sequence[Token]) -> NoReturn:
    text = " ".join(token.text for token in read)
    words_only = [token.text for token in read if token.kind == "word"]
    family = _families().get(key_of([*words_only, "#"])) if len(words_only) < len(read) else None
    if family:
        names = [_name_of(family[number]) for number in (min(family), max(family))]
        raise UnclearPhrase(f'There is no "{text}": there are {names[0]} to {names[1]}.', names)
    known = _known_names()
    near = list(dict.fromkeys(known[name] for name in nearest(text, list(known), 2 * _NEAR)))[:_NEAR]
    hint = f"Near it are: {_listed(near)}." if near else f"Write {_EXAMPLE}."
    raise UnclearPhrase(f'No bone is called "{text}". {hint}', near)


def _name_of(thing: Named) -> str:
    return thing.id if isinstance(thing, Ask) else thing.name
