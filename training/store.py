"""The training store: one folder of compact arrays, an image and its objects per subject.

`<id>.json` describes a subject; `<id>.image.npy` (uint8, [k, j, i]) is missing for anatomy without an image
and `<id>.labels.npy` (unsigned) and `<id>.depth.npy` (uint8) are missing for scans without annotation.
`python -m training.ingest` fills it with scans, `python -m training.synthesis.anatomy` with anatomy.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Modality, Volume
from BoneSAMLib.writing import open_complete
from training.cases import MODALITIES, BoneObject, Case
from training.label_places import LabelPlaces, places_of
from training.warp import Slicing

DEPTH_UNIT_MM = 0.25
_MOST_POINTS = 1200
_DIRECTIONS = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


@dataclass
class Target:
    """One structure that a prompt can mean. `points` are voxel centers (i, j, k), outermost ones included."""

    label: int
    name: str
    low: tuple[int, int, int]
    high: tuple[int, int, int]
    complete: bool
    points: NDArray[np.float32] | None = None


@dataclass
class Subject:
    """One image or anatomy of the store, memory-mapped."""

    id: str
    source: str
    split: str
    kind: str  # "image", "labels" (anatomy without image) or "unlabelled"
    modality: str
    spacing: NDArray[np.float64]  # (i, j, k) mm
    partial: bool
    slicing: Slicing
    tissues: dict[int, str]
    names: dict[int, str]
    targets: list[Target]
    image: NDArray[np.uint8] | None = None
    labels: NDArray[Any] | None = None
    depth: NDArray[np.uint8] | None = None
    _averages: dict[tuple[int, ...], NDArray[np.uint8]] = field(default_factory=dict)

    def averaged(self, factors: tuple[int, ...]) -> NDArray[np.uint8]:
        """The image [k, j, i] with blocks of (i, j, k) `factors` voxels averaged into one; cached."""
        assert self.image is not None
        if factors not in self._averages:
            blocks = []
            for count, factor in zip(self.image.shape, factors[::-1], strict=True):
                blocks += [count // factor, factor]
            whole = tuple(slice(0, n * f) for n, f in zip(blocks[::2], blocks[1::2], strict=True))
            means = self.image[whole].reshape(blocks).mean((1, 3, 5), dtype=np.float32)
            self._averages[factors] = np.rint(means).astype(np.uint8)
        return self._averages[factors]

    @cached_property
    def places(self) -> LabelPlaces:
        """Which bones the labels are."""
        return places_of(self.tissues, self.names, self.partial)

    @property
    def size(self) -> NDArray[np.int64]:
        """Voxels along (i, j, k)."""
        array = self.labels if self.labels is not None else self.image
        assert array is not None
        return np.array(array.shape[::-1])

    def points_of(self, target: Target) -> NDArray[np.float32]:
        """Voxel centers [n, 3] (i, j, k) that outline the target; cached."""
        if target.points is None:
            assert self.labels is not None
            window = tuple(
                slice(lo, hi + 1) for lo, hi in zip(target.low[::-1], target.high[::-1], strict=True)
            )
            inside = self.labels[window] == target.label
            shell = inside & ~ndimage.binary_erosion(inside)
            found = np.argwhere(shell)[:, ::-1].astype(np.float32) + np.array(target.low, np.float32)
            if len(found) > _MOST_POINTS:
                # The farthest point in each of many directions: a box around the rest alone would cut
                # off up to 4.6 mm of a hip bone.
                outermost = np.unique((found @ _DIRECTIONS.T).argmax(axis=0))
                # The same ones whatever was drawn before, so that an interrupted training can be repeated.
                rng = np.random.default_rng(target.label)
                others = rng.choice(len(found), _MOST_POINTS - len(outermost), replace=False)
                found = found[np.concatenate([outermost, others])]
            target.points = found
        return target.points


def load_subjects(store: Path, split: str) -> list[Subject]:
    """All subjects of `store` that may be used for `split`; anatomy without an image belongs to training."""
    subjects = []
    for path in sorted(store.glob("*.json")):
        row = json.loads(path.read_text())
        if row.get("split", "train") != split:
            continue
        targets = [
            Target(o["label"], o["name"], tuple(o["low"]), tuple(o["high"]), o.get("complete", True))
            for o in row.get("objects", [])
        ]
        arrays: dict[str, Any] = {}
        for part in ("image", "labels", "depth"):
            file = store / f"{row['id']}.{part}.npy"
            arrays[part] = np.load(file, mmap_mode="r") if file.exists() else None
        if arrays["image"] is None and arrays["labels"] is None:
            continue
        subjects.append(
            Subject(
                id=row["id"],
                source=row["source"],
                split=split,
                kind=row["kind"],
                modality=row.get("modality", "any"),
                spacing=np.array(row["spacing"], float),
                partial=row.get("partial", False),
                # Anatomy without an image lies along R, A and S; most scans of its like are axial.
                slicing=Slicing(row.get("axis", 2), row.get("thick", False), row.get("orientation", "RAS")),
                tissues={int(v): d["tissue"] for v, d in row.get("labels", {}).items()},
                names={int(v): d["name"] for v, d in row.get("labels", {}).items()},
                targets=targets,
                **arrays,
            )
        )
    return subjects


def store_case(case: Case, store: Path) -> None:
    """Write one annotated case, one label value per object.

    Raises:
        BoneSAMError: as `Case.load`, or it cannot be written; the case is not in the store then.
    """
    volume, _, objects = case.load()
    store_objects(case, volume, objects, store)


def store_objects(case: Case, volume: Volume, objects: Sequence[BoneObject], store: Path) -> None:
    """As `store_case`, for a case that has been loaded."""
    labels = np.zeros(volume.shape, np.uint8 if len(objects) < 256 else np.uint16)
    rows = []
    for value, bone in enumerate(objects, start=1):
        labels[bone.mask] = value
        found = np.argwhere(bone.mask)[:, ::-1]
        low, high = found.min(0).tolist(), found.max(0).tolist()
        rows.append({"label": value, "name": bone.name, "low": low, "high": high, "voxels": len(found)})
    _write(
        store,
        case.id,
        {
            "source": case.source,
            "split": case.split,
            "kind": "image",
            "modality": case.modality,
            "license": case.license,
            "partial": case.partial_label,
            "labels": {str(r["label"]): {"name": r["name"], "tissue": "bone"} for r in rows},
            "objects": rows,
        },
        volume,
        labels,
    )


def read_unlabelled(row: dict[str, Any], folder: Path) -> Volume:
    """Read a scan without annotation: "id", "file" in ``folder``, "modality" (or "": by its values).

    Raises:
        BoneSAMError: it cannot be read.
    """
    modality: Modality | None = MODALITIES[row["modality"]] if row["modality"] else None
    volume = read_volume(folder / row["file"], modality)
    if modality == "CT" and volume.array.max() < 256:
        modality = "MR"  # rescaled to 8 bit: its values are Hounsfield units no more
    return Volume(volume.array, volume.ijk_to_ras, row["id"], modality or volume.modality_guess)


def store_unlabelled(row: dict[str, Any], volume: Volume, store: Path) -> None:
    """Write one scan without annotation.

    Raises:
        BoneSAMError: it cannot be written; it is not in the store then.
    """
    facts = {"source": "unlabelled", "split": "train", "kind": "unlabelled", "modality": volume.modality}
    _write(store, row["id"], facts | {"license": row["license"]}, volume, None)


def remove(store: Path, name: str) -> None:
    """Take a subject out of the store, if it is there."""
    for part in ("json", "image.npy", "labels.npy", "depth.npy"):
        (store / f"{name}.{part}").unlink(missing_ok=True)


def _write(
    store: Path, name: str, facts: dict[str, Any], volume: Volume, labels: NDArray[Any] | None
) -> None:
    image = np.rint(normalize(volume.array, intensity_window(volume)) * 255).astype(np.uint8)
    axis = volume.through_plane_axis
    others = np.delete(volume.spacing, axis)
    # Only thick slices must be kept as they are; some scans are finer along the stack than across.
    thick = volume.is_projection or volume.spacing[axis] > 1.2 * others.min()
    # A subject without this is one whose writing was interrupted: it goes first and comes last.
    (store / f"{name}.json").unlink(missing_ok=True)
    _write_array(store / f"{name}.image.npy", image)
    if labels is not None:
        _write_array(store / f"{name}.labels.npy", labels)
    facts = {"id": name, **facts, "spacing": list(volume.spacing)}
    facts |= {"axis": axis, "thick": bool(thick), "orientation": volume.orientation}
    with open_complete(store / f"{name}.json") as file:
        file.write(json.dumps(facts).encode())


def _write_array(path: Path, array: NDArray[Any]) -> None:
    """As `numpy.save`, which does not say when the disk is full."""
    with open_complete(path) as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)
