"""Bones by name in one scan: where "left femur" is, what all the bones are called, what a mask shows."""

import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bone_kinds import ROWS, BonePlace, bones_at, kind_alone, name_of, place_of
from BoneSAMLib.bone_map import FoundBone, found_bones
from BoneSAMLib.bone_parting import Split, parted, row_of, without_slivers
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_scan import Array, ScanGrid, cells_to_voxels, grid_around, grid_of
from BoneSAMLib.bone_table import BoneTarget, bone_table
from BoneSAMLib.components import counted
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import Box
from BoneSAMLib.result import AllBones
from BoneSAMLib.volume import Volume

__all__ = ["BoneFinder", "BoneNotFound", "FoundBox", "asked_places", "not_found", "phrase_places"]

# A bone whose cells are less likely on average is a guess. On validation, of 83 bones that lie elsewhere one
# is found, with 0.5 six.
LEAST_PROBABILITY = 0.75
# Of a bone's cells; the coarse cells reach beyond its outline, so that a whole mask covers some two thirds.
LEAST_COVERED = 0.3
LEAST_SHARE = 0.5  # of a mask must lie in a bone for it to have the bone's name


class BoneNotFound(BoneSAMError):
    """The scan does not show the bones that were asked for; `missing` are their names."""

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


class Naming(Protocol):
    """What runs the naming network; see `naming_engine.NamingEngine`."""

    @property
    def digest(self) -> str:
        """Identifies the network."""

    def answer(self, volume: Volume, grid: ScanGrid) -> Array:
        """The network's outputs [28, w, v, u] for a volume on a grid."""


@dataclass(frozen=True)
class FoundBox:
    """Where a bone is.

    Attributes:
        name: such as "left femur"; its kind alone where its number or side is unsure.
        box: around it, in voxels.
        probability: 0 to 1, of its being that kind of bone.
        sure: False where it may be its neighbor in the row or on the other side.
    """

    name: str
    box: Box
    probability: float
    sure: bool


class BoneFinder:
    """Finds bones by name in one volume. The scan is looked at when a bone is first asked for.

    Raises:
        BoneSAMError: the volume is a radiograph.
    """

    def __init__(self, volume: Volume, naming: Naming) -> None:
        if volume.is_projection:
            raise BoneSAMError(
                "Bones cannot be found by name in a radiograph, only in CT and MR: draw a box around each."
            )
        self.volume, self._naming = volume, naming

    @cached_property
    def bones(self) -> list[FoundBone]:
        """Every bone that is seen in the scan."""
        return self._seen(grid_of(self.volume))

    def find(self, phrase: str) -> tuple[list[FoundBox], list[str]]:
        """The bones that a phrase means, each with a box, and the names of those that are not in the scan.

        Raises:
            BoneSAMError: the phrase is unclear, or means bones that cannot be found alone.
            BoneNotFound: none of them is in the scan.
        """
        places = phrase_places(phrase)
        seen = {bone.place: bone for bone in self.bones if bone.sure or _is_asked_anyway(bone, places)}
        found = [self._boxed(seen[place]) for place in places if place in seen]
        missing = [name_of(place) for place in places if place not in seen]
        if not found:
            raise self._not_found(places)
        return found, missing

    def _not_found(self, places: Sequence[BonePlace]) -> BoneNotFound:
        """What to say of bones of which none was found: they are not there, or cannot be told from others."""
        missing = [name_of(place) for place in places]
        unsure = [
            name_of(place)
            for place in places
            for bone in self.bones
            if bone.place.kind == place.kind
            and not bone.sure
            and (not bone.side_is_sure or bone.place.side == place.side)
        ]
        if unsure:
            return BoneNotFound(
                f"It cannot be told in this scan which one is the {unsure[0]}: draw a box around it.", missing
            )
        return not_found(missing)

    def name_of_mask(self, mask: NDArray[np.bool_]) -> str | None:
        """What most of a mask [k, j, i] is called; None where it is no bone with a name."""
        bone = self.bone_of_mask(mask)
        return None if bone is None else bone.name

    def bone_of_mask(self, mask: NDArray[np.bool_]) -> FoundBone | None:
        """The bone that most of a mask [k, j, i] belongs to, if there is one."""
        split = self.split(mask.astype(np.uint8))
        counts = counted(split.labels, int(split.labels.max(initial=0)) + 1)
        shares: dict[tuple[str, str | None], int] = {}
        for value, bone in split.bones.items():
            shares[row_of(bone)] = shares.get(row_of(bone), 0) + int(counts[value])
        best = max(shares, key=lambda row: shares[row], default=None)
        if best is None or shares[best] < LEAST_SHARE * np.count_nonzero(mask):
            return None
        # A vertebra may have been seen as parts of two: it is one, of which the number is unsure.
        own = [value for value, bone in split.bones.items() if row_of(bone) == best]
        largest = max(own, key=lambda value: int(counts[value]))
        whole = counts[largest] >= LEAST_SHARE * shares[best]
        return replace(split.bones[largest], sure=split.bones[largest].sure and bool(whole))

    def split(self, labels: NDArray[Any]) -> Split:
        """Labels [k, j, i] parted by the bones of this scan; see `parted`."""
        return parted(labels, self.volume, self.bones, grid_of(self.volume))

    def missed(self, found: AllBones) -> list[FoundBox]:
        """The bones that are recognized, but of which masks found without a prompt hold next to nothing."""
        boxes = []
        for bone in self.bones:
            matrix = cells_to_voxels(self.volume, bone.grid)
            voxels = np.rint(bone.core[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
            i, j, k = voxels[((voxels >= 0) & (voxels < self.volume.size)).all(1)].T
            if len(i):
                covered = float((found.labels[k, j, i] > 0).mean())
                if covered < LEAST_COVERED:
                    boxes.append(self._boxed(bone))
        return boxes

    def named(self, found: AllBones) -> AllBones:
        """Bones found without a prompt, parted by name."""
        start = time.perf_counter()
        split = without_slivers(self.split(found.labels), float(np.prod(self.volume.spacing)))
        count = int(split.labels.max(initial=0))
        planes = np.moveaxis(split.labels, 2 - self.volume.through_plane_axis, 0)
        areas = np.array(
            [np.bincount(planes[w].ravel(), minlength=count + 1)[1:] for w in found.slice_confidence]
        ).reshape(len(found.slice_confidence), count)
        means = np.array(list(found.slice_confidence.values())) @ areas / areas.sum(0)
        return AllBones(
            split.labels,
            count,
            dict(enumerate(means.tolist(), start=1)),
            found.seconds + time.perf_counter() - start,
            found.slice_confidence,
            {value: bone.name for value, bone in split.bones.items()},
        )

    def _seen(self, grid: ScanGrid) -> list[FoundBone]:
        bones = found_bones(self._naming.answer(self.volume, grid), grid)
        return [bone for bone in bones if bone.probability >= LEAST_PROBABILITY]

    def _boxed(self, bone: FoundBone) -> FoundBox:
        """The bone's box, from a second look at it on a finer grid."""
        corners = bone.grid.to_ras(bone.core[:, ::-1])
        finer = grid_around(corners.min(0), corners.max(0))
        box = self._box_of(bone)
        if finer.spacing < 0.75 * bone.grid.spacing:
            again = [other for other in self._seen(finer) if row_of(other) == row_of(bone)]
            near = max(again, key=lambda other: _overlap(other, bone), default=None)
            if near is not None and _overlap(near, bone) > LEAST_SHARE:
                box = self._box_of(near)
        return FoundBox(bone.name, box, bone.probability, bone.sure)

    def _box_of(self, bone: FoundBone) -> Box:
        matrix = cells_to_voxels(self.volume, bone.grid)
        voxels = bone.core[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
        # Half a cell, or the outermost voxels would be those of cell centers.
        half = 0.5 * bone.grid.spacing / np.array(self.volume.spacing)
        size = np.array(self.volume.size)
        low = np.clip(np.rint(voxels.min(0) - half), 0, size - 1).astype(int)
        high = np.clip(np.rint(voxels.max(0) + half), 0, size - 1).astype(int)
        thin = low == high  # in voxels as large as the bone
        low, high = np.maximum(low - thin, 0), np.minimum(high + thin, size - 1)
        return Box.from_ijk(low.tolist(), high.tolist())


def phrase_places(phrase: str) -> list[BonePlace]:
    """The places of the bones that a phrase means.

    Raises:
        BoneSAMError: as `understand` and `asked_places`.
    """
    alone = kind_alone(phrase)
    return [alone] if alone is not None else asked_places(understand(phrase).targets)


def not_found(missing: Sequence[str]) -> BoneNotFound:
    """What to raise when none of the bones with these names is in a scan."""
    return BoneNotFound(
        f"This scan does not show the {' or the '.join(missing)}, as far as can be seen: "
        "draw a box around it if you see it.",
        missing,
    )


def asked_places(targets: Iterable[BoneTarget]) -> list[BonePlace]:
    """The places of bones that were asked for, each once.

    Raises:
        BoneSAMError: a bone that cannot be found, or one that can only be found together with others.
    """
    targets = dict.fromkeys(targets)
    places: list[BonePlace] = []
    for target in targets:
        place = place_of(target)
        if place is None:
            if _is_asked_with_others(target, targets):
                continue
            raise BoneSAMError(f"The {target.name} cannot be found by name: draw a box around it.")
        together = bones_at(place)
        if target.bone.part_of or not all(other in targets for other in together):
            raise BoneSAMError(
                f"The {target.name} cannot be found alone, only the {name_of(place)} as a whole: "
                f'write "{name_of(place)}", or draw a box around it.'
            )
        if place not in places:
            places.append(place)
    return places


def _is_asked_with_others(target: BoneTarget, targets: Container[BoneTarget]) -> bool:
    """Whether a third of a group of it was asked for: who wants a hand does without its sesamoids."""
    for group in target.bone.groups:
        others = [
            BoneTarget(bone, side)
            for bone in bone_table().groups[group].bones
            for side in bone.sides
            if target.side is None or side in (target.side, None)
        ]
        seen = [other for other in others if place_of(other) is not None]
        if 3 * sum(other in targets for other in seen) > len(seen):
            return True
    return False


def _is_asked_anyway(bone: FoundBone, places: Sequence[BonePlace]) -> bool:
    """Whether all bones are asked for that it may be: its whole row, on both sides if its side is unsure."""
    kind, last = bone.place.kind, ROWS.get(bone.place.kind, 0)
    sides = (bone.place.side,) if bone.side_is_sure else ("left", "right")
    numbers = range(1, last + 1) if last else (0,)
    return all(BonePlace(kind, number, side) in places for number in numbers for side in sides)


def _overlap(finer: FoundBone, bone: FoundBone) -> float:
    """Share of the finer bone's cells that lie in the coarse bone's."""
    cells = np.rint(bone.grid.to_cells(finer.grid.to_ras(finer.cells[:, ::-1]))).astype(int)
    inside = {tuple(cell) for cell in bone.cells[:, ::-1].tolist()}
    return float(np.mean([tuple(cell) in inside for cell in cells.tolist()]))
