"""The training store: one folder of compact arrays, an image and its objects per subject.

`<id>.json` describes a subject; `<id>.image.npy` (uint8, [k, j, i]) is missing for anatomy without an image
and `<id>.labels.npy` (unsigned) and `<id>.depth.npy` (uint8) are missing for scans without annotation.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Modality, Volume
from training.cases import MODALITIES, Case, load_cases
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
    targets: list[Target]
    image: NDArray[np.uint8] | None = None
    labels: NDArray[Any] | None = None
    depth: NDArray[np.uint8] | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
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
                others = self.rng.choice(len(found), _MOST_POINTS - len(outermost), replace=False)
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
                targets=targets,
                **arrays,
            )
        )
    return subjects


def store_case(case: Case, store: Path) -> None:
    """Write one annotated case, one label value per object."""
    volume, _, objects = case.load()
    labels = np.zeros(volume.shape, np.uint8)
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


def store_unlabelled(row: dict[str, Any], folder: Path, store: Path) -> None:
    """Write one scan without annotation."""
    modality: Modality = MODALITIES[row["modality"]]
    volume = read_volume(folder / row["file"])
    if modality == "CT" and volume.array.max() < 256:
        modality = "MR"  # rescaled to 8 bit: its values are Hounsfield units no more
    volume = Volume(volume.array, volume.ijk_to_ras, row["id"], modality)
    facts = {"source": "unlabelled", "split": "train", "kind": "unlabelled", "modality": modality}
    _write(store, row["id"], facts | {"license": row["license"]}, volume, None)


def _write(
    store: Path, name: str, facts: dict[str, Any], volume: Volume, labels: NDArray[Any] | None
) -> None:
    image = np.rint(normalize(volume.array, intensity_window(volume)) * 255).astype(np.uint8)
    axis = volume.through_plane_axis
    others = np.delete(volume.spacing, axis)
    # Only thick slices must be kept as they are; some scans are finer along the stack than across.
    thick = volume.is_projection or volume.spacing[axis] > 1.2 * others.min()
    np.save(store / f"{name}.image.npy", image)
    if labels is not None:
        np.save(store / f"{name}.labels.npy", labels)
    facts = {"id": name, **facts, "spacing": list(volume.spacing)}
    facts |= {"axis": axis, "thick": bool(thick), "orientation": volume.orientation}
    # Last, so that a subject without it is one whose writing was interrupted.
    (store / f"{name}.json").write_text(json.dumps(facts))


def main(
    data: Annotated[Path, typer.Option(help="Folder with index.json of annotated cases.")],
    store: Annotated[Path, typer.Option(help="Folder of the training store.")],
) -> None:
    """Pack the train and validation cases of a data folder, and its unlabelled scans, into a store."""
    store.mkdir(parents=True, exist_ok=True)
    cases = load_cases(data, "train") + load_cases(data, "validation")
    for case in cases:
        if not (store / f"{case.id}.json").exists():
            store_case(case, store)
            print(case.id, flush=True)
    index = data / "unlabelled" / "index.json"
    for row in json.loads(index.read_text()) if index.exists() else []:
        if not (store / f"{row['id']}.json").exists():
            row = row | {"file": Path(row["file"]).name}
            store_unlabelled(row, index.parent, store)
            print(row["id"], flush=True)


if __name__ == "__main__":
    typer.run(main)
