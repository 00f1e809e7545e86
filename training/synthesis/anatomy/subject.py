"""Subjects of anatomy in the training store: three files each, all or none of them (see the package)."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BoneSAMLib.writing import open_complete
from training.synthesis.anatomy.bones import bone_depth, hard_labels, separate_objects
from training.synthesis.anatomy.grid import Grid, Labels
from training.synthesis.tissues import AIR, FAT, StructureTable


@dataclass(frozen=True)
class Subject:
    """What is written of one subject: labels [k, j, i] and the name and tissue of each value."""

    id: str
    source: str
    license: str
    grid: Grid
    labels: Labels
    table: StructureTable


def write_subject(subject: Subject, store: Path) -> int:
    """Separate the objects, compute the depth and write the three files; returns the number of objects.

    The json is written last: a subject that has one is complete.
    """
    table = {AIR: ("air", "air"), FAT: ("fat", "fat"), **subject.table}
    objects = separate_objects(subject.labels, table)
    depth = bone_depth(hard_labels(subject.labels, table), subject.grid.sampling)
    present = np.flatnonzero(np.bincount(subject.labels.ravel(), minlength=max(table) + 1))
    header = {
        "id": subject.id,
        "source": subject.source,
        "license": subject.license,
        "kind": "labels",
        "spacing": list(subject.grid.spacing),
        "origin_ras": list(subject.grid.origin),
        "labels": {
            str(value): {"name": table[value][0], "tissue": table[value][1]}
            for value in present.tolist()
            if value != AIR
        },
        "objects": objects,
    }
    for part, array in (("labels", subject.labels), ("depth", depth)):
        with open_complete(store / f"{subject.id}.{part}.npy") as file:
            np.save(file, np.ascontiguousarray(array))
    with open_complete(store / f"{subject.id}.json") as file:
        file.write(json.dumps(header, indent=1).encode())
    return len(objects)


def make(subject_id: str, store: Path, build: Callable[[], Subject]) -> None:
    """Build and write a subject unless the store has it, and say so in one line."""
    if (store / f"{subject_id}.json").exists():
        print(f"{subject_id}: kept", flush=True)
        return
    start = time.monotonic()
    subject = build()
    count = write_subject(subject, store)
    shape, spacing = subject.labels.shape, subject.grid.spacing
    seconds = time.monotonic() - start
    print(f"{subject_id}: shape {shape}, spacing {spacing} mm, {count} objects, {seconds:.0f} s", flush=True)
