"""Which bones the words of one item mean: one name, counted ones, or several that share bones.

"Ribs 2 to 4" are counted; "proximal phalanx of the thumb" are the bones that both names have.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from BoneSAMLib.bone_phrase_questions import ask
from BoneSAMLib.bone_table import Ask, Bone, BoneGroup, Named, bone_table, name_families
from BoneSAMLib.bone_words import Token, key_of

__all__ = ["NamedBones", "bones_named", "numbers_in", "ray_of"]

_LONGEST_NAME = 8  # in words and numbers
_MOST_SPLITS = 12
_HIGHEST = 13  # one more than any bone is counted to
_DIGIT = re.compile(r"((?:hand|foot)_digit_)\d")  # IDs of the groups of fingers and toes


@dataclass
class NamedBones:
    """Bones of an item, and by which number they can be called in it ("ribs 3 and 5")."""

    bones: tuple[Bone, ...]
    is_group: bool
    numbered: dict[int, tuple[Bone, ...]]


def bones_named(read: Sequence[Token]) -> NamedBones | None:
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
            and not _names_both_ends(read, place)
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
            numbers = numbers_in(counted)
            if numbers is None:
                return None
            parts.append(numbers)
            counted = []
        if token.text:
            parts.append(token.text)
    return _read(tuple(parts))


def numbers_in(read: Sequence[Token]) -> frozenset[int] | None:
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


def _names_both_ends(read: Sequence[Token], place: int) -> bool:
    """Whether words stand before a range's first number and after its second one ("L2 to 4th vertebra")."""
    return any(token.kind == "word" for token in read[:place]) and any(
        token.kind == "word" for token in read[place + 2 :]
    )


def _between(first: Sequence[Token], last: Sequence[Token]) -> NamedBones | None:
    ends = [bones_named(first), bones_named(last)]
    if ends[0] is None or ends[1] is None or any(len(end.bones) != 1 for end in ends if end):
        return None
    bones = [ends[0].bones[0], ends[1].bones[0]]
    order = _sequence(bones)
    if order is None:
        return None
    start, stop = sorted(order.index(bone) for bone in bones)
    return NamedBones(tuple(order[start : stop + 1]), False, {})


def _sequence(bones: Sequence[Bone]) -> list[Bone] | None:
    """The row that two bones stand in: the spine, or others of one group with numbers."""
    spine = [bone for bone in bone_table().bones.values() if re.fullmatch(r"[ctls]\d+", bone.id)]
    stems = {bone.id.rstrip("0123456789") for bone in bones}
    rows = [spine]
    if len(stems) == 1:
        rows.append(_counted_row(stems.pop()))
    return next((row for row in rows if all(bone in row for bone in bones)), None)


def _counted_row(stem: str) -> list[Bone]:
    """Bones whose ID is the stem and a number: those of "rib_" are the ribs."""
    return [bone for bone in bone_table().bones.values() if re.fullmatch(rf"{re.escape(stem)}\d+", bone.id)]


@functools.lru_cache(maxsize=4096)
def _read(parts: tuple[str | frozenset[int], ...]) -> NamedBones | None:
    """The reading with the fewest names whose bones overlap."""
    best: tuple[int, tuple[Named | NamedBones, ...]] | None = None
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
        ask(" ".join(str(part) for part in parts if isinstance(part, str)), only[0])
    bones = _shared(names)
    found = names[0] if isinstance(names[0], NamedBones) else None
    numbered = found.numbered if found else _numbered(names)
    return NamedBones(bones, len(names) == 1 and isinstance(names[0], BoneGroup), numbered)


@functools.lru_cache(maxsize=4096)
def _splits(parts: tuple[str | frozenset[int], ...]) -> list[tuple[Named | NamedBones, ...]]:
    """All ways to read an item as names one after the other."""
    if not parts:
        return [()]
    found: list[tuple[Named | NamedBones, ...]] = []
    for size in range(min(len(parts), _LONGEST_NAME), 0, -1):
        name = _name(parts[:size])
        if name is not None:
            found += [(name, *rest) for rest in _splits(parts[size:])]
    return found[:_MOST_SPLITS]


def _name(parts: tuple[str | frozenset[int], ...]) -> Named | NamedBones | None:
    numbers = [part for part in parts if not isinstance(part, str)]
    if not numbers:
        things = bone_table().named.get(key_of(part for part in parts if isinstance(part, str)), ())
        return things[0] if len(things) == 1 else None
    family = name_families().get(key_of(part if isinstance(part, str) else "#" for part in parts))
    if family is None:
        return _counted_in_group(parts, numbers)
    if len(numbers) > 1 or not all(number in family for number in numbers[0]):
        return None
    if len(numbers[0]) == 1:
        return family[min(numbers[0])]
    bones = tuple(bone for number in sorted(numbers[0]) for bone in _bones_of(family[number]))
    return NamedBones(bones, False, {number: _bones_of(thing) for number, thing in family.items()})


def _counted_in_group(
    parts: tuple[str | frozenset[int], ...], numbers: Sequence[frozenset[int]]
) -> NamedBones | None:
    """ "lumbar vertebrae 2 to 4": of a group all of whose bones are counted."""
    things = bone_table().named.get(key_of(part for part in parts if isinstance(part, str)), ())
    if len(things) != 1 or not isinstance(things[0], BoneGroup) or len(numbers) != 1:
        return None
    numbered = _numbered(things)
    if len(numbered) != len(things[0].bones) or not all(number in numbered for number in numbers[0]):
        return None
    return NamedBones(
        tuple(bone for number in sorted(numbers[0]) for bone in numbered[number]), False, numbered
    )


def _bones_of(thing: Named | NamedBones) -> tuple[Bone, ...]:
    if isinstance(thing, Bone):
        return (thing,)
    if isinstance(thing, Ask):
        return tuple(bone for candidate in thing.candidates for bone in _bones_of(candidate))
    if isinstance(thing, BoneGroup) and thing.id == "skeleton":
        return tuple(bone for bone in thing.bones if bone.counted)
    return thing.bones


def _shared(names: Sequence[Named | NamedBones]) -> tuple[Bone, ...]:
    """Bones that all names have; a finger or toe counts with its metacarpal or metatarsal."""
    if len(names) == 1:
        return _bones_of(names[0])
    sets = []
    rays = any(all(re.match("meta[ct]", bone.id) for bone in _bones_of(name)) for name in names)
    for name in names:
        bones = set(_bones_of(name))
        if rays and isinstance(name, BoneGroup) and _DIGIT.fullmatch(name.id):
            bones |= {ray for bone in bones if (ray := ray_of(bone)) is not None}
        if isinstance(name, BoneGroup) and name.id == "skeleton":
            bones |= set(bone_table().bones.values())
        sets.append(bones)
    first = min(sets, key=len)
    shared = [bone for bone in bone_table().bones.values() if bone in first]
    return tuple(bone for bone in shared if all(bone in bones for bones in sets))


def ray_of(bone: Bone) -> Bone | None:
    """The metacarpal or metatarsal before a bone of a finger or toe; None for other bones."""
    place = re.fullmatch(r"(hand|foot)_phalanx_(\d)_\w+", bone.id)
    if place is None:
        return None
    name = "metacarpal" if place[1] == "hand" else "metatarsal"
    return bone_table().bones[f"{name}_{place[2]}"]


def _numbered(names: Sequence[Named | NamedBones]) -> dict[int, tuple[Bone, ...]]:
    """How the bones of a group, or the neighbors of one of its bones, are counted; fingers and toes, too."""
    digit = _DIGIT.fullmatch(names[0].id) if len(names) == 1 and isinstance(names[0], BoneGroup) else None
    if digit is not None:
        return {number: bone_table().groups[f"{digit[1]}{number}"].bones for number in range(1, 6)}
    bones = _shared(names)
    if not bones:
        return {}
    if len(bones) == 1:
        row = _counted_row(bones[0].id.rstrip("0123456789"))
    else:
        row = [bone for bone in bones if re.search(r"\d+$", bone.id)]
        if len({bone.id.rstrip("0123456789") for bone in row}) > 1:
            return {}
    return {int(match[0]): (bone,) for bone in row if (match := re.search(r"\d+$", bone.id))}
