"""The body that a sample shows: an anatomy of the training store, or a part of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.store import DEPTH_UNIT_MM
from training.synthesis.tissues import AIR, HARD

Array: TypeAlias = NDArray[np.float32]
Vector: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass
class Anatomy:
    """Labels [k, j, i] of one body, along the axes of RAS, and what they mean."""

    labels: NDArray[np.uint16]
    depth_mm: Array  # below the surface of the voxel's bone
    names: dict[int, str]
    tissues: dict[int, str]
    spacing: Vector  # (i, j, k) mm
    origin: Vector  # RAS mm of voxel (0, 0, 0)

    @property
    def bones(self) -> list[int]:
        """Label values of bones, in their order."""
        return sorted(value for value, tissue in self.tissues.items() if tissue in HARD)

    @property
    def sampling(self) -> tuple[float, ...]:
        """Spacing in mm in the order of the array's axes: k, j, i."""
        return tuple(float(s) for s in self.spacing[::-1])

    def add(self, where: Mask, name: str, tissue: str) -> None:
        """Give a part of the body a label of its own."""
        value = max(self.tissues) + 1
        self.names[value], self.tissues[value] = name, tissue
        self.labels[where] = value

    @property
    def numbered_bones(self) -> dict[int, str]:
        """Names of the bones by their number, from 1."""
        return {number: self.names[value] for number, value in enumerate(self.bones, start=1)}

    @property
    def center(self) -> Vector:
        """The middle in RAS mm."""
        middle: Vector = self.origin + (np.array(self.labels.shape[::-1]) - 1) / 2 * self.spacing
        return middle


def read_anatomy(store: Path, name: str, low: float = 0.0, high: float = 1.0) -> Anatomy:
    """One anatomy of the store, cut along k to the part between `low` and `high` (0 is the lowest slice)."""
    facts = json.loads((store / f"{name}.json").read_text(encoding="utf-8"))
    whole = np.load(store / f"{name}.labels.npy", mmap_mode="r")
    levels = slice(round(low * len(whole)), round(high * len(whole)))
    labels = np.array(whole[levels])
    depth = np.load(store / f"{name}.depth.npy", mmap_mode="r")[levels]
    seen = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    structures = {value: facts["labels"][str(value)] for value in seen if value != AIR}
    spacing = np.array(facts["spacing"], float)
    return Anatomy(
        labels,
        depth.astype(np.float32) * np.float32(DEPTH_UNIT_MM),
        {value: row["name"] for value, row in structures.items()},
        {value: row["tissue"] for value, row in structures.items()},
        spacing,
        np.array(facts["origin_ras"], float) + np.array([0.0, 0.0, levels.start * spacing[2]]),
    )
