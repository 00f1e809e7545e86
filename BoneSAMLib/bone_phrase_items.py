"""A phrase as items between words such as "and" and "except", which lend each other names, numbers and sides.

"Left femur and tibia" means both on the left, "ribs 3 and 5" two ribs, "all ribs but the first" eleven pairs.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from BoneSAMLib.bone_phrase_names import NamedBones, bones_named, numbers_in, ray_of
from BoneSAMLib.bone_phrase_questions import EXAMPLE, UnclearPhrase, ask_which, refuse
from BoneSAMLib.bone_table import Bone, BoneTarget, Side, bone_table
from BoneSAMLib.bone_words import BONE, CARDINALS, TWO, Token, key_of, words

__all__ = ["targets_of"]

_THE = {"the", "die", "le", "les", "gli", "los", "las"}


@dataclass
class _Item:
    """What stands between two joining words: its words without sides, and the sides."""

    words: list[Token]
    sides: set[Side]
    side_first: bool = False
    every: bool = False
    counts: bool = False  # its first number says how many, as in "all 12 ribs" or "le 12 coste"
    pair: str = ""  # "two", "both"
    closed: bool = False  # a side said before does not reach it
    after_comma: bool = False
    bones: NamedBones | None = None


def targets_of(read: Sequence[Token]) -> tuple[BoneTarget, ...]:
    """The bones that a phrase means, each once, in the order of the table.

    Raises:
        UnclearPhrase: unknown names, names with several meanings, or nothing left after exceptions.
    """
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
    context: NamedBones | None = None
    for clause in wanted:
        if any(token.kind != "filler" for token in clause):
            if unwanted and all(token.kind in ("all", "filler") for token in clause):  # "all except"
                clause = [*clause, Token(BONE, "word")]
            found, context = _clause(clause, None, chosen)
            chosen |= dict.fromkeys(found)
    if not chosen:
        raise UnclearPhrase(f"The text only says what to leave out: write what to find too, with {EXAMPLE}.")
    for clause in unwanted:
        removed = set(_clause(clause, context, chosen)[0])
        if not removed & chosen.keys():
            removed = {  # "all metacarpals except the thumb"
                BoneTarget(ray, target.side) for target in removed if (ray := ray_of(target.bone)) is not None
            }
        _check_left_out(removed, chosen)
        chosen = {target: None for target in chosen if target not in removed}
    if not chosen:
        raise UnclearPhrase("Nothing is left: the text leaves out all the bones that it names.")
    places = {bone: place for place, bone in enumerate(bone_table().bones.values())}
    return tuple(sorted(chosen, key=lambda target: (places[target.bone], target.side or "")))


def _check_left_out(removed: set[BoneTarget], chosen: Iterable[BoneTarget]) -> None:
    """ "Skull without mandible and cervical spine" may want the spine or not.

    Raises:
        UnclearPhrase: something is left out that was not asked for.
    """
    named = {target.bone for target in chosen}
    strange = [target.bone.name for target in removed if target.bone not in named]
    if strange or not removed:
        what = f"the {sorted(strange)[0]}" if strange else "something"
        raise UnclearPhrase(
            f"The text leaves out {what}, which it does not ask for: write what to find first, then what to "
            "leave out of it."
        )


def _clause(
    read: Sequence[Token], context: NamedBones | None, among: Iterable[BoneTarget]
) -> tuple[list[BoneTarget], NamedBones | None]:
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
    before = Token("", "filler")
    for previous, token in itertools.pairwise([before, *read]):
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
            item.pair = token.text
        elif token.kind == "all":
            item.every = item.closed = True
        elif token.kind != "filler":
            many = previous.kind == "all" or previous.text in _THE or token.text in CARDINALS
            if token.kind == "number" and not token.ordinal and not item.words and many:
                item.counts = True
            item.words.append(token)
    for item in items:
        _drop_count(item)
        _take_side_letters(item)
    return [item for item in items if item.words or item.sides]


def _drop_count(item: _Item) -> None:
    """ "All 12 ribs" are the ribs, but "three ribs" may be any.

    Raises:
        UnclearPhrase: there are more of them, and it is not said which.
    """
    if not item.counts or len(item.words) < 2 or any(token.kind != "word" for token in item.words[1:]):
        return
    named = bones_named(item.words[1:])
    if named is None or len(named.bones) < 2:
        return
    count, all_of_them = item.words[0].number, len(named.bones)
    if count in (all_of_them, 2 * all_of_them):
        item.words = item.words[1:]
    elif named.is_group:
        ask_which(item.words, named.bones)


def _take_side_letters(item: _Item) -> None:
    letters = words().side_letters
    for place, token in enumerate(item.words):
        following = item.words[place + 1 :]
        side = letters.get(token.text)
        if side is None:
            continue
        rest = item.words[:place] + following
        counted = bool(following) and following[0].kind == "number"  # "L9" is no side, "L 3rd rib" has one
        if bones_named(item.words) is None and not (counted and bones_named(rest) is None):
            item.side_first |= place == 0 and not item.sides
            item.sides.add(side)
            item.words = rest
            return


def _join_incomplete(items: list[_Item], context: NamedBones | None) -> None:
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
            (_counted(item, before) if _numbers_only(item) else bones_named(item.words))
            or _with_rest_of_next(item, items[place + 1 :])
            or _counted(item, before)
        )
        if not item.every and all(token.text == BONE for token in item.words):
            raise UnclearPhrase(f'"{BONE}" may be any: write "all bones", or {EXAMPLE}.')
        if item.bones is None:
            refuse(item.words)
        if place and item.every and _says_all_of(item, items[place - 1]):
            items.pop(place)  # "left metatarsals, all five"
            continue
        _check_pair(item.pair, item.words, item.bones)
        _share_words(items[place - 1] if place else None, item, following)
        before = item.bones if item.bones.numbered else before
        place += 1


def _check_pair(pair: str, read: Sequence[Token], named: NamedBones) -> None:
    """ "Two ribs" may be any, and there are no "both vertebrae".

    Raises:
        UnclearPhrase: it is not said which are meant.
    """
    single = not any(bone.paired for bone in named.bones) and len(named.bones) > 2
    if named.is_group and ((pair in TWO and named.numbered) or (pair and single)):
        ask_which(read, named.bones)


def _says_all_of(item: _Item, before: _Item) -> bool:
    if before.bones is None or len(item.words) != 1 or item.words[0].kind != "number":
        return False
    return item.words[0].number == len(before.bones.bones)


def _share_words(before: _Item | None, item: _Item, following: _Item | None) -> None:
    """ "Distal phalanges of the thumb and index finger", "metacarpal and phalanges of the thumb".

    A finger or toe alone takes the words before the other finger; a part of all hands takes the finger.
    """
    # "Phalanges of the thumb" is a name of the thumb, too.
    ends = (item.words[start:] for start in range(1, len(item.words)))
    if before is not None and _is_digit(item.words) and not any(_is_digit(end) for end in ends):
        for end in range(len(before.words) - 1, 0, -1):
            part = before.words[:end]
            if _is_digit(part) or not _is_name(part):
                continue
            found = bones_named([*part, *item.words])
            if found is not None:
                item.words, item.bones = [*part, *item.words], found
                item.sides = item.sides or set(before.sides)
                return
    if following is not None and following.words and not (item.every or item.sides):
        for start in range(1, len(following.words)):
            digit = following.words[start:]
            if _is_digit(digit) and _is_name(following.words[:start]):
                found = bones_named([*item.words, *digit])
                if found is not None and not _is_digit(item.words):
                    item.words, item.bones = [*item.words, *digit], found
                return


def _is_name(read: Sequence[Token]) -> bool:
    """Whether words name bones, however many."""
    try:
        return bones_named(read) is not None
    except UnclearPhrase:  # "phalanges" of hand or foot
        return True


def _is_digit(read: Sequence[Token]) -> bool:
    """Whether words name a finger or toe."""
    name = key_of(str(token.number) if token.kind == "number" else token.text for token in read)
    things = bone_table().named.get(name, ())
    return (
        len(things) == 1 and re.fullmatch(r"(hand|foot)_digit_\d", getattr(things[0], "id", "")) is not None
    )


def _numbers_only(item: _Item) -> bool:
    """Whether it counts what came before: "L2 and 4", but not "second" in "second and third rib"."""
    return all(token.kind in ("number", "to") for token in item.words) and not item.words[0].ordinal


def _counted(item: _Item, before: NamedBones | None) -> NamedBones | None:
    if before is None or any(token.kind not in ("number", "to") for token in item.words):
        return None
    numbers = numbers_in(item.words)
    if numbers is None or not all(number in before.numbered for number in numbers):
        return None
    bones = tuple(bone for number in sorted(numbers) for bone in before.numbered[number])
    return replace(before, bones=bones, is_group=False)


def _with_rest_of_next(item: _Item, following: Sequence[_Item]) -> NamedBones | None:
    """ "proximal" of "proximal and distal phalanges of the hand", "second" of "second and third rib"."""
    for other in following:
        if all(token.kind in ("number", "to") for token in other.words):
            continue
        for start in range(1, len(other.words)):
            if item.words[-1].kind == "number" and other.words[start - 1].kind != "number":
                continue
            found = bones_named(item.words + other.words[start:])
            if found is not None:
                item.sides = item.sides or set(other.sides)
                return found
        if item.words[-1].kind == "number":
            return bones_named(item.words + other.words)
        return None
    return None


def _place_in_regions(items: list[_Item]) -> None:
    """ "fourth metacarpal, right hand": a region after a comma only says where the bone before it is."""
    for place in range(len(items) - 1, 0, -1):
        item, region = items[place - 1 : place + 1]
        if item.bones is None or region.bones is None or not region.after_comma:
            continue
        if item.bones.is_group and item.sides and not region.sides:  # "right hand, fourth metacarpal"
            if set(region.bones.bones) < set(item.bones.bones):
                region.sides = item.sides
                items.pop(place - 1)
            continue
        if not region.bones.is_group:
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
