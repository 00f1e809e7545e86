"""Several bones of one volume: which prompts mean which, and all of them in one label map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bone_finding import BoneNotFound, not_found
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.report import ReportedBone
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.volume import Float3, Int3, Volume
from BoneSAMLib.writing import distinct_color

if TYPE_CHECKING:
    from BoneSAMLib.session import Session

__all__ = [
    "BonePrompts",
    "find_bones",
    "group_prompts",
    "name_bones",
    "segment_everything",
    "segment_prompted",
]

MOST_REVIEWED = 10  # slices to review of one bone


@dataclass
class BonePrompts:
    """What the user drew and clicked to mean one bone, and what it is called ("" for a number).

    With a name alone, `find_bones` looks for it.
    """

    box: Box | None = None
    points: list[Point] = field(default_factory=list)
    name: str = ""

    @property
    def is_by_name(self) -> bool:
        """Whether nothing but its name is known."""
        return self.box is None and not self.points

    def __str__(self) -> str:
        parts = [] if self.box is None else [f"box {self.box}"]
        parts += [f"{'point' if point.positive else 'not'} {point}" for point in self.points]
        return ", ".join(parts)


def group_prompts(volume: Volume, boxes: Sequence[Box], points: Sequence[Point]) -> list[BonePrompts]:
    """Which boxes and points mean which bone, in the order of the label values.

    Every box is a bone. A positive point inside boxes belongs to the smallest of them, outside of all it
    starts a bone of its own. A negative point counts for every bone whose box contains it or that has none.

    Raises:
        BoneSAMError: a prompt lies outside of the volume, or a negative point belongs to no bone.
    """
    boxed = [BonePrompts(box) for box in boxes]
    regions = [box.to_ijk(volume) for box in boxes]
    clicked: list[BonePrompts] = []
    for point in sorted(points, key=lambda point: not point.positive):
        position = point.to_ijk(volume)
        around = [n for n, region in enumerate(regions) if _contains(region, position)]
        if not point.positive:
            meant = [boxed[n] for n in around] + clicked
            if not meant:
                raise BoneSAMError(
                    f"The negative point {point} belongs to no bone: put it inside a box, or add a --point."
                )
        elif around:
            meant = [boxed[min(around, key=lambda n: _voxels(regions[n]))]]
        else:
            meant = [BonePrompts()]
            clicked += meant
        for bone in meant:
            bone.points.append(point)
    return boxed + clicked


def name_bones(bones: Sequence[BonePrompts], names: Sequence[str]) -> None:
    """Call bones by names, in their order; no names leave them as they are.

    Raises:
        BoneSAMError: there are more or fewer names than bones.
    """
    if names and len(names) != len(bones):
        raise BoneSAMError(
            f"{len(names)} names were given for {len(bones)} bones: "
            "give each bone one, in the order of the prompts."
        )
    for bone, name in zip(bones, names, strict=False):
        bone.name = name


def find_bones(session: "Session", bones: Sequence[BonePrompts]) -> tuple[list[BonePrompts], list[str]]:
    """The bones, with a box for each that has a name alone, and the names of those that are not there.

    A name such as "both femurs" becomes several bones.

    Raises:
        BoneSAMError: as `Session.find`, but `BoneNotFound` only where no bone is left.
    """
    found: list[BonePrompts] = []
    missing: list[str] = []
    problems: list[BoneNotFound] = []
    for bone in bones:
        if not bone.is_by_name:
            found.append(bone)
            continue
        try:
            boxes, absent = session.find(bone.name)
        except BoneNotFound as problem:
            problems.append(problem)
            missing += problem.missing
            continue
        missing += absent
        found += [BonePrompts(one.box, name=one.name) for one in boxes]
    if missing and not found:
        raise problems[0] if len(problems) == 1 else not_found(missing)
    return found, missing


def segment_prompted(
    session: "Session",
    volume: Volume,
    bones: Sequence[BonePrompts],
    depth_attention: bool,
    progress: Callable[[float, str], None],
) -> tuple[NDArray[Any], list[ReportedBone]]:
    """Labels [k, j, i] with one value per bone, and the bones; the more confident keeps a disputed voxel.

    Raises:
        BoneSAMError: as `Session.segment`.
    """
    labels = np.zeros(volume.shape, np.min_scalar_type(len(bones)))
    found: list[ReportedBone] = []
    for value, bone in enumerate(bones, start=1):

        def whole_progress(fraction: float, text: str, done: int = value - 1) -> None:
            progress((done + fraction) / len(bones), f"Bone {done + 1}: {text}")

        result = session.segment(
            box=bone.box,
            points=bone.points,
            depth_attention=depth_attention,
            progress=whole_progress,
            bone=bone.name,
        )
        confidences = np.array([-1.0, *(earlier.confidence for earlier in found)])
        rivals = labels[result.mask]
        labels[result.mask] = np.where(confidences[rivals] >= result.confidence, rivals, value)
        color = bone_meaning(bone.name).color or distinct_color(value)
        found.append(
            ReportedBone(
                value,
                bone.name or f"Bone {value}",
                color,
                result.confidence,
                str(bone),
                result.slice_confidence,
                result.review,
                None if result.axis == volume.through_plane_axis else result.axis,
            )
        )
    return labels, found


def segment_everything(
    session: "Session", progress: Callable[[float, str], None], named: bool = False
) -> tuple[NDArray[Any], list[ReportedBone]]:
    """Labels [k, j, i] with one value per bone, and the bones; `named` as for `Session.segment_all`."""
    result = session.segment_all(progress=progress, named=named)
    by_slice: dict[int, dict[int, float]] = {value: {} for value in result.confidence}
    planes = np.moveaxis(result.labels, 2 - session.volume.through_plane_axis, 0)
    for index, confidence in result.slice_confidence.items():
        for value in np.flatnonzero(np.bincount(planes[index].ravel())):
            if value:
                by_slice[int(value)][index] = confidence
    found = [
        ReportedBone(
            value,
            result.names.get(value, f"Bone {value}"),
            bone_meaning(result.names.get(value, "")).color or distinct_color(value),
            confidence,
            "none",
            by_slice[value],
            sorted(by_slice[value], key=by_slice[value].__getitem__)[:MOST_REVIEWED],
        )
        for value, confidence in result.confidence.items()
    ]
    return result.labels, found


def _contains(region: tuple[Int3, Int3], position: Float3) -> bool:
    """Whether a voxel region holds the position; a region one voxel thin is followed along that axis."""
    return all(
        low == high or low - 0.5 <= x <= high + 0.5 for low, high, x in zip(*region, position, strict=True)
    )


def _voxels(region: tuple[Int3, Int3]) -> int:
    return int(np.prod([high - low + 1 for low, high in zip(*region, strict=True)]))
