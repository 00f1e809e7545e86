"""What is known of a scan: masks, boxes, which slices show bone, some of its bones, or nothing.

A scan with masks is turned into one that holds what the lower level knows and nothing else, so that no loss
can see more by mistake. "Masks" of such a scan say: the filled box, or the whole of a slice that shows bone.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.configuration import Supervision
from training.sampling import Mixture
from training.store import Subject, Target
from training.synthesis.tissues import HARD

_BOX_POINTS = 8  # along each side
_SUBVOLUMES = 6  # places to look at in a scan without annotation


def split_by_annotation(
    subjects: list[Subject], supervision: Supervision, seed: int
) -> tuple[list[Subject], list[Subject]]:
    """Subjects whose masks are used, and the rest as its level of annotation knows it.

    Of every source `labelled` of the annotated scans keep their masks, at least one; anatomy without an image
    always does. Scans that never had masks belong to the rest. With "partial" the rest is still learned from
    as usual and comes first.
    """
    kept: list[Subject] = [subject for subject in subjects if subject.kind == "labels"]
    lost: list[Subject] = []
    for source in sorted({s.source for s in subjects if s.kind == "image"}):
        pool = [s for s in subjects if s.kind == "image" and s.source == source]
        rng = np.random.default_rng([seed, len(pool)])
        order = rng.permutation(len(pool)).tolist()
        count = max(1, round(supervision.labelled * len(pool)))
        kept += [pool[n] for n in order[:count]]
        lost += [pool[n] for n in order[count:]]
    never = [subject for subject in subjects if subject.kind == "unlabelled"]
    if supervision.rest == "partial":
        return kept + [one_bone(s, seed) for s in lost], [without_annotation(s) for s in never]
    lower = {"unlabelled": without_annotation, "image": slices_with_bone, "box": boxes_only}[supervision.rest]
    rest = [lower(subject) for subject in lost]
    if supervision.rest == "unlabelled":
        rest += [without_annotation(subject) for subject in never]
    return kept, rest


def mixture_of_rest(supervision: Supervision | None) -> Mixture:
    """How samples of the rest are drawn: whole slices for image-level labels, boxed bones for boxes."""
    boxed = supervision is not None and supervision.rest == "box"
    whole = supervision is not None and supervision.rest == "image"
    return Mixture(
        synthetic=0.0,
        unlabelled=0.0,
        all_bones=0.0 if boxed else 1.0,
        whole_slices=1.0 if whole else 0.0,
        two_dimensional_box=1.0,
        anything=0.0,
        cut_out=0.0,
    )


def one_bone(subject: Subject, seed: int) -> Subject:
    """Only one of its bones is known; that the others are none is not."""
    chosen = subject.targets[
        int(np.random.default_rng([seed, len(subject.targets)]).integers(len(subject.targets)))
    ]
    labels = subject.labels
    assert labels is not None
    only = np.where(labels == chosen.label, np.uint8(1), np.uint8(0))
    tissues = {1: subject.tissues[chosen.label]}
    return replace(subject, partial=True, labels=only, tissues=tissues, targets=[replace(chosen, label=1)])


def boxes_only(subject: Subject) -> Subject:
    """The box of every bone in every slice of the stack is known, filled with the bone's label."""
    labels, axis = subject.labels, 2 - subject.slicing.axis
    assert labels is not None
    filled = np.zeros(labels.shape, labels.dtype)
    # Large bones first: where boxes overlap, the smaller bone's stays whole.
    for target in sorted(subject.targets, key=_volume, reverse=True):
        for index in range(target.low[subject.slicing.axis], target.high[subject.slicing.axis] + 1):
            seen = np.argwhere(np.take(labels, index, axis) == target.label)
            if len(seen):
                window = [slice(lo, hi + 1) for lo, hi in zip(seen.min(0), seen.max(0), strict=True)]
                window.insert(axis, slice(index, index + 1))
                filled[tuple(window)] = target.label
    slicing = replace(subject.slicing, thick=True)  # the boxes are those of its own slices
    targets = [replace(target, points=None) for target in subject.targets]
    return replace(subject, labels=filled, slicing=slicing, partial=True, targets=targets)


def slices_with_bone(subject: Subject) -> Subject:
    """It is known which slices of the stack show bone: these are filled with label 1."""
    labels, axis = subject.labels, 2 - subject.slicing.axis
    assert labels is not None
    bones = np.zeros(max(int(labels.max()), *subject.tissues) + 1, bool)
    bones[[value for value, tissue in subject.tissues.items() if tissue in HARD]] = True
    shows = np.array([bones[np.take(labels, n, axis)].any() for n in range(labels.shape[axis])])
    shape = [1, 1, 1]
    shape[axis] = len(shows)
    filled = np.ascontiguousarray(np.broadcast_to(shows.reshape(shape), labels.shape).astype(np.uint8))
    high = tuple(count - 1 for count in labels.shape[::-1])
    target = Target(1, "slices with bone", (0, 0, 0), high, True, _corners((0, 0, 0), high))
    slicing = replace(subject.slicing, thick=True)
    return replace(
        subject,
        labels=filled,
        slicing=slicing,
        partial=False,
        tissues={1: "bone"},
        targets=[target],
        depth=None,
    )


def without_annotation(subject: Subject) -> Subject:
    """Nothing is known; regions to look at are drawn blindly."""
    image = subject.image
    assert image is not None
    size = np.array(image.shape[::-1])
    rng = np.random.default_rng(size)
    targets = []
    for _ in range(_SUBVOLUMES):
        extent = np.maximum(1, (size * rng.uniform(0.15, 0.6)).astype(int))
        low = (rng.uniform(0, 1, 3) * (size - extent)).astype(int)
        high = low + extent - 1
        points = _corners(tuple(low.tolist()), tuple(high.tolist()))
        targets.append(Target(1, "somewhere", tuple(low.tolist()), tuple(high.tolist()), True, points))
    nothing = np.zeros(image.shape, np.uint8)
    return replace(
        subject, kind="image", labels=nothing, partial=False, tissues={1: "bone"}, targets=targets, depth=None
    )


def _corners(low: tuple[int, ...], high: tuple[int, ...]) -> NDArray[np.float32]:
    """A lattice of points over a box."""
    sides: list[Any] = [np.linspace(lo, hi, _BOX_POINTS) for lo, hi in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def _volume(target: Target) -> int:
    return int(np.prod(np.array(target.high) - np.array(target.low) + 1))
