"""What a segmentation gives back."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.prompts import Point
from BoneSAMLib.region import Array, Region, Vector

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Stack:
    """What the network answered for neighboring slices, so that corrections can go on from it.

    Attributes:
        region: the square of the slices.
        indices: the slices [n], rising and without gaps.
        logits: [n, 128, 128], over the square.
        iou: predicted IoU [n].
        low, high: faces (u, v, w in voxels) of the box that was asked for.
        kind: what the bone was said to be, as in `engine.DecoderInputs`.
    """

    region: Region
    indices: NDArray[np.int64]
    logits: Array
    iou: Array
    low: Vector
    high: Vector
    kind: int

    @property
    def first(self) -> int:
        """The lowest slice."""
        return int(self.indices[0])


@dataclass(frozen=True)
class Result:
    """One segmented bone.

    Attributes:
        mask: bool [k, j, i], of the volume's shape.
        confidence: predicted IoU of the whole mask, 0..1; 0 for an empty mask.
        axis: IJK axis (0, 1 or 2) along which the slices count; the volume's through-plane axis, or the one
            across which a 2D box was drawn.
        slice_confidence: predicted IoU of each slice with mask, by its index along `axis`.
        review: slices that most need a look, worst first.
        points: the clicks it was made from.
        seconds: time it took.
    """

    mask: Mask
    confidence: float
    axis: int
    slice_confidence: dict[int, float]
    review: list[int]
    points: tuple[Point, ...]
    seconds: float
    _stack: "Stack" = field(repr=False)


@dataclass(frozen=True)
class AllBones:
    """Everything that was found without a prompt.

    Attributes:
        labels: uint8 or larger [k, j, i], one number per connected bone from 1 to `count`, largest first;
            0 is no bone.
        count: how many.
        confidence: predicted IoU of each number.
        seconds: time it took.
        slice_confidence: predicted IoU of each slice with bone, by its index along the through-plane axis.
        names: what numbers are called, where that was asked for and is known.
    """

    labels: NDArray[np.unsignedinteger[Any]]
    count: int
    confidence: dict[int, float]
    seconds: float
    slice_confidence: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def with_bone(self, bone: Result) -> "AllBones":
        """This and one more bone, which takes no voxel from another."""
        number = self.count + 1
        labels = self.labels.astype(np.promote_types(self.labels.dtype, np.min_scalar_type(number)))
        labels[bone.mask & (labels == 0)] = number
        return AllBones(
            labels,
            number,
            self.confidence | {number: bone.confidence},
            self.seconds + bone.seconds,
            bone.slice_confidence | self.slice_confidence,
            self.names,
        )
