"""Bones of a CT that nobody annotated: `python -m training.seeded_bones SCAN SEEDS --out FOLDER`.

A threshold finds what is bone; points placed in every bone tell the bones apart. `training.ingest` takes the
folder. Masks made by such a rule are for training alone, never to judge anything by.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import open_complete, write_mask
from training.cases import INDEX
from training.masks import Mask

LEAST_HU = 150.0
BLUR_VOXELS = 0.5
# Where bones touch, their joint is thin and little dense: a way through it counts as this much longer.
DENSE_HU, JOINT_LENGTH = 450.0, 10.0
# In mm of dense bone. Calcified cartilage and vessels have no seeds: they are farther from all seeds.
MOST_LENGTH_MM = 180.0
MARROW_VOXELS = 2  # half the width of a gap in the cortex through which marrow is still inside
MARGIN = 2 * MARROW_VOXELS
END_VOXELS = 1  # the outermost slice of a resampled scan may be blank


@dataclass(frozen=True)
class Seeds:
    """Points in bones of a scan: RAS mm [n, 3] by the bone's name; `license` is the scan's."""

    id: str
    license: str
    body_region: str
    points: Mapping[str, NDArray[np.float64]]


def read_seeds(path: Path) -> Seeds:
    """Read seeds.

    Raises:
        BoneSAMError: it cannot be read or says something else.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        points = {name: np.array(rows, float) for name, rows in raw["bones"].items()}
        if not points or any(rows.ndim != 2 or rows.shape[1] != 3 for rows in points.values()):
            raise ValueError("every bone needs points of three coordinates")
        return Seeds(raw["id"], raw["license"], raw["body_region"], points)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BoneSAMError(
            f"The seeds '{path}' cannot be read ({error!r}): see those in training/seeds."
        ) from error


def seeded_bones(volume: Volume, seeds: Seeds) -> NDArray[np.uint8]:
    """Labels [k, j, i]: 1, 2, ... in the order of the seeds' names.

    Every voxel of bone goes to the seed with the shortest way through bone. Takes about 100 bytes a voxel.

    Raises:
        BoneSAMError: a seed lies outside of the scan or in no bone.
    """
    hounsfield = volume.array.astype(np.float32) + np.float32(volume.intensity_offset)
    density = ndimage.gaussian_filter(hounsfield, BLUR_VOXELS)
    bone = density > LEAST_HU
    to_ijk = np.linalg.inv(volume.ijk_to_ras)
    starts, owners = [], []
    for label, (name, points) in enumerate(seeds.points.items(), start=1):
        places = np.rint(points @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(int)[:, ::-1]
        for place, point in zip(places, points, strict=True):
            inside = (place >= 0).all() and (place < volume.shape).all()
            if not inside or not bone[tuple(place)]:
                raise BoneSAMError(f"The seed {point.tolist()} of '{name}' lies in no bone of '{seeds.id}'.")
        starts.append(places)
        owners.append(np.full(len(places), label))
    length = 1 + (JOINT_LENGTH - 1) * np.clip((DENSE_HU - density) / (DENSE_HU - LEAST_HU), 0, 1) ** 2
    graph = MCP_Geometric(np.where(bone, length, -1.0), sampling=tuple(volume.spacing[::-1]))
    return _with_marrow(_nearest(graph, volume.shape, np.concatenate(starts), np.concatenate(owners)))


def _nearest(
    graph: Any, shape: tuple[int, int, int], starts: NDArray[np.intp], owners: NDArray[np.intp]
) -> NDArray[np.uint8]:
    """The owner of the start that is nearest to each voxel; 0 where none is near."""
    distance, steps = graph.find_costs(starts)
    # Each voxel points to the one before it on its way; following that again and again ends at a start.
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    offsets = np.array([*(np.asarray(graph.offsets) @ strides), 0, 0])  # -1, -2: a start, not reached
    before = np.arange(steps.size) - offsets[steps.ravel()]
    while not np.array_equal(further := before[before], before):
        before = further
    owner = np.zeros(steps.size, np.uint8)
    owner[np.ravel_multi_index(tuple(starts.T), shape)] = owners
    labels = owner[before].reshape(shape)
    labels[~(distance <= MOST_LENGTH_MM)] = 0
    return labels


def _with_marrow(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With the holes of each bone filled, and gaps and notches that are no wider than those in a cortex."""
    filled = labels.copy()
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None:
            continue
        bone = _capped(labels[window] == label, window, labels.shape)
        solid = ndimage.binary_closing(bone, iterations=MARROW_VOXELS)
        # The vertebral canal is a hole of axial slices alone, marrow one of others too.
        holes = np.zeros(solid.shape, np.uint8)
        for axis in range(3):
            planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(solid, axis, 0)]
            holes += np.stack(planes, axis)
        inner = tuple(slice(MARGIN, -MARGIN) for _ in range(3))
        marrow = (holes >= 2)[inner] & (filled[window] == 0)
        filled[window][marrow] = label
    return filled


def _capped(bone: Mask, window: tuple[slice, ...], shape: tuple[int, ...]) -> Mask:
    """A bone with a margin; where the scan of `shape` ends, the bone ends there in a closed face."""
    framed = np.pad(bone, MARGIN)
    for axis, (part, count) in enumerate(zip(window, shape, strict=True)):
        faces = np.moveaxis(framed, axis, 0)
        if part.start <= END_VOXELS:
            faces[MARGIN - 1] = ndimage.binary_fill_holes(faces[MARGIN])
        if part.stop >= count - END_VOXELS:
            faces[-MARGIN] = ndimage.binary_fill_holes(faces[-MARGIN - 1])
    return framed


def write_case(scan: Path, seeds: Seeds, labels: NDArray[np.uint8], volume: Volume, out: Path) -> None:
    """Write the masks, and an index that `training.ingest` reads.

    Raises:
        BoneSAMError: they cannot be written, or there are others.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoneSAMError(f"The masks cannot be written to '{out}': {error.strerror}.") from error
    if (out / INDEX).exists():
        raise BoneSAMError(
            f"There are masks in '{out}' already: name another folder for those of '{seeds.id}'."
        )
    mask = f"{seeds.id}.seeded.nii.gz"
    write_mask(labels, volume, out / mask)
    row: dict[str, Any] = {
        "id": f"{seeds.id}_seeded",
        "source": seeds.id,
        "split": "train",
        "image": str(scan.resolve()),
        "mask": mask,
        "modality": "CT",
        "labels": {str(label): name for label, name in enumerate(seeds.points, start=1)},
        "partial_label": False,
        "label_quality": "made by rule",
        "body_region": seeds.body_region,
        "license": seeds.license,
        "subject": seeds.id,
    }
    with open_complete(out / INDEX) as file:
        file.write(json.dumps([row], indent=1).encode())


def main(
    scan: Annotated[Path, typer.Argument(help="CT in Hounsfield units, without contrast medium.")],
    seeds: Annotated[Path, typer.Argument(help="JSON with points in every bone, see training/seeds.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks and their index.json.")],
) -> None:
    """Make masks of the bones of a CT from points in them."""
    try:
        told = read_seeds(seeds)
        volume = read_volume(scan, "CT")
        labels = seeded_bones(volume, told)
        write_case(scan, told, labels, volume, out)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{len(told.points)} bones of '{told.id}' are in '{out}'.")


if __name__ == "__main__":
    typer.run(main)
