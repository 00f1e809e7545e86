"""The bones of the skeleton: names in five languages, sides, groups, codes and colors.

Read from Resources/anatomy/bones.json, which says where its codes come from.
"""

import functools
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

from BoneSAMLib.bone_words import ANATOMY, key_of, name_key

__all__ = [
    "Ask",
    "Bone",
    "BoneGroup",
    "BoneTable",
    "BoneTarget",
    "Named",
    "Side",
    "bone_table",
    "name_families",
]

Side: TypeAlias = Literal["left", "right"]
Rgb: TypeAlias = tuple[int, int, int]

_BONE_COLOR: Rgb = (241, 214, 145)


@dataclass(frozen=True)
class Bone:
    """One bone, or a part of one with a name of its own.

    Attributes:
        id: short name that does not change, such as "rib_3".
        name: in English.
        paired: whether the body has a left and a right one.
        groups: IDs of the groups that it is in, with those around them; none for a part.
        sct: its SNOMED CT code, "" where none could be confirmed.
        fma: its FMA number by side ("" for what has no side), without those that could not be confirmed.
        color: red, green, blue, each 0 to 255.
        totalsegmentator: that program's class, with {side} for left or right, or "".
        part_of: ID of the bone that this is a part of, or "".
        counted: whether it is one of the 206 bones that every adult has.
        names: other names by language ("en", "la", "de", "it", "fr", "es", "abbreviations").
    """

    id: str
    name: str
    paired: bool
    groups: tuple[str, ...]
    sct: str
    fma: dict[str, str]
    color: Rgb
    totalsegmentator: str
    part_of: str
    counted: bool
    names: dict[str, tuple[str, ...]]

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """Sides on which the body has one: left and right, or None for a single bone."""
        return ("left", "right") if self.paired else (None,)


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
class BoneGroup:
    """Bones that have a name together.

    Attributes:
        id, name, sct, totalsegmentator, names: as for `Bone`.
        one: what one of its bones is called.
        parent: ID of the group around it, "" for the skeleton.
        color: of its bones, red, green, blue, each 0 to 255.
        bones: its bones, in the order of the table.
    """

    id: str
    name: str
    one: str
    parent: str
    sct: str
    totalsegmentator: str
    color: Rgb
    names: dict[str, tuple[str, ...]]
    bones: tuple[Bone, ...]

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Ask:
    """A name that needs a question back: it can mean several bones, or is a part of one."""

    id: str
    candidates: tuple["Bone | BoneGroup", ...]

    def __hash__(self) -> int:
        return hash(self.id)


Named: TypeAlias = Bone | BoneGroup | Ask


@dataclass(frozen=True)
class BoneTable:
    """All bones and groups by ID, and everything that has a name, by `name_key`."""

    bones: dict[str, Bone]
    groups: dict[str, BoneGroup]
    asks: tuple[Ask, ...]
    named: dict[tuple[str, ...], tuple[Named, ...]]

    @property
    def all(self) -> "tuple[Bone | BoneGroup, ...]":
        """Groups, then bones."""
        return tuple(chain[Bone | BoneGroup](self.groups.values(), self.bones.values()))

    @property
    def target_names(self) -> list[str]:
        """English names to offer while one is typed: each bone with its side, in the order of the table."""
        return [BoneTarget(bone, side).name for bone in self.bones.values() for side in bone.sides]

    def find(self, name: str) -> Named | None:
        """What has exactly this name in any language (order, accents and articles do not matter)."""
        found = self.named.get(name_key(name), ())
        return found[0] if len(found) == 1 else None

    def code(self, bone: Bone | BoneGroup) -> tuple[str, str]:
        """SNOMED CT code and its meaning: of a bone or group, or else of the nearest group that has one."""
        if bone.sct:
            return bone.sct, (bone.one if isinstance(bone, BoneGroup) else bone.name)
        around = bone.parent if isinstance(bone, BoneGroup) else (bone.groups[0] if bone.groups else "")
        if not around:
            return self.code(self.bones[bone.part_of] if isinstance(bone, Bone) else self.groups["skeleton"])
        return self.code(self.groups[around])


@functools.cache
def bone_table() -> BoneTable:
    """The table, read once."""
    rows: dict[str, Any] = json.loads((ANATOMY / "bones.json").read_text(encoding="utf-8"))
    parents = {row["id"]: row["parent"] for row in rows["groups"]}
    bones = {row["id"]: _bone(row, parents) for row in rows["bones"]}
    groups = {row["id"]: _group(row, tuple(bones.values())) for row in rows["groups"]}
    places: dict[str, Bone | BoneGroup] = {**groups, **bones}
    asks = tuple(
        Ask(row["names"][next(iter(row["names"]))][0], tuple(places[name] for name in row["candidates"]))
        for row in rows["ask"]
    )
    named: dict[tuple[str, ...], dict[Named, None]] = {}
    for row, thing in zip(
        rows["groups"] + rows["bones"] + rows["ask"],
        chain[Named](groups.values(), bones.values(), asks),
        strict=True,
    ):
        names = [name for names in row["names"].values() for name in names]
        if "name" in row:
            names += [row["name"], *_totalsegmentator_names(row.get("totalsegmentator", ""))]
        for name in names:
            named.setdefault(name_key(name), {})[thing] = None
    return BoneTable(bones, groups, asks, {key: tuple(things) for key, things in named.items()})


@functools.cache
def name_families() -> dict[tuple[str, ...], dict[int, Named]]:
    """Names with one number, by `key_of` their words with "#" for it: what each number makes of them."""
    families: dict[tuple[str, ...], dict[int, Named]] = {}
    for key, things in bone_table().named.items():
        numbers = [word for word in key if word.isdigit()]
        if len(numbers) == 1 and len(things) == 1:
            family = families.setdefault(key_of("#" if word.isdigit() else word for word in key), {})
            family[int(numbers[0])] = things[0]
    return families


def _totalsegmentator_names(name: str) -> list[str]:
    return [name.replace("{side}", "")] if name else []


def _bone(row: dict[str, Any], parents: dict[str, str]) -> Bone:
    groups: dict[str, None] = {}
    for group in row["groups"]:
        while group:
            groups[group] = None
            group = parents[group]
    return Bone(
        id=row["id"],
        name=row["name"],
        paired=row["paired"],
        groups=tuple(groups),
        sct=row["sct"],
        fma=row["fma"] if isinstance(row["fma"], dict) else ({"": row["fma"]} if row["fma"] else {}),
        color=_color(row["color"]),
        totalsegmentator=row["totalsegmentator"],
        part_of=row.get("part_of", ""),
        counted=not row.get("part_of") and not row.get("beyond_206", False),
        names=_names(row),
    )


def _group(row: dict[str, Any], bones: tuple[Bone, ...]) -> BoneGroup:
    members = tuple(bone for bone in bones if row["id"] in bone.groups)
    colors = {bone.color for bone in members}
    return BoneGroup(
        id=row["id"],
        name=row["name"],
        one=row["one"],
        parent=row["parent"],
        sct=row["sct"],
        totalsegmentator=row.get("totalsegmentator", ""),
        color=_color(row["color"]) if "color" in row else colors.pop() if len(colors) == 1 else _BONE_COLOR,
        names=_names(row),
        bones=members,
    )


def _color(parts: list[int]) -> Rgb:
    red, green, blue = parts
    return red, green, blue


def _names(row: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {language: tuple(names) for language, names in row["names"].items()}
