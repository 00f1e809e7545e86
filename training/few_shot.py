"""A few annotations of a new place in the body: some whole volumes, or some single slices."""

from dataclasses import replace
from typing import Any

import numpy as np

from BoneSAMLib.errors import BoneSAMError
from training.configuration import FewShot
from training.store import Subject, Target

FEWEST_VOXELS = 16  # of a bone in a slice


def choose_few(subjects: list[Subject], few: FewShot, seed: int) -> list[Subject]:
    """The first volumes, or slices of different volumes in turn, in an order that `seed` decides.

    A slice becomes a subject of its own, an image without neighbors. Unlabelled scans and anatomy without an
    image are left out: they are no annotations of the new place.

    Raises:
        BoneSAMError: there are not as many.
    """
    pool = [s for s in subjects if s.kind == "image" and (not few.sources or s.source in few.sources)]
    if not pool:
        named = ", ".join(few.sources) or "any source"
        raise BoneSAMError(f"There are no annotated training scans of {named} in the store.")
    rng = np.random.default_rng([seed, few.volumes, few.slices])
    order = rng.permutation(len(pool))
    pool = [pool[n] for n in order]
    if few.volumes:
        if few.volumes > len(pool):
            raise BoneSAMError(f"{few.volumes} volumes are wanted and the store has {len(pool)}.")
        return pool[: few.volumes]
    places = [rng.permutation(annotated_slices(subject)).tolist() for subject in pool]
    chosen: list[Subject] = []
    while len(chosen) < few.slices:
        before = len(chosen)
        for subject, left in zip(pool, places, strict=True):
            if left and len(chosen) < few.slices:
                chosen.append(single_slice(subject, left.pop()))
        if len(chosen) == before:
            raise BoneSAMError(f"{few.slices} slices are wanted and the store has {before} with a bone.")
    return chosen


def annotated_slices(subject: Subject) -> list[int]:
    """Slices along the stack that show enough of a bone to be prompted for."""
    labels = subject.labels
    assert labels is not None
    axis = 2 - subject.slicing.axis
    others = tuple(n for n in range(3) if n != axis)
    found: set[int] = set()
    for target in subject.targets:
        counts = (labels == target.label).sum(axis=others)
        found.update(np.flatnonzero(counts >= FEWEST_VOXELS).tolist())
    return sorted(found)


def single_slice(subject: Subject, index: int) -> Subject:
    """Slice `index` along the stack as an image of its own, with the bones that it shows."""
    axis = subject.slicing.axis
    window: list[Any] = [slice(None)] * 3
    window[2 - axis] = slice(index, index + 1)
    assert subject.image is not None
    assert subject.labels is not None
    labels = np.ascontiguousarray(subject.labels[tuple(window)])
    targets = []
    for target in subject.targets:
        found = np.argwhere(labels == target.label)[:, ::-1]
        if len(found) >= FEWEST_VOXELS:
            low, high = tuple(found.min(0).tolist()), tuple(found.max(0).tolist())
            targets.append(Target(target.label, target.name, low, high, False))
    return replace(
        subject,
        id=f"{subject.id} slice {index}",
        slicing=replace(subject.slicing, thick=True),
        targets=targets,
        image=np.ascontiguousarray(subject.image[tuple(window)]),
        labels=labels,
        depth=None,
        _averages={},
    )
