"""Published label maps of single scans as subjects, with the body around their structures filled."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cc3d
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.errors import BoneSAMError
from training.synthesis.anatomy.body_outline import TRUNK_SKIN_MM, close_and_cover
from training.synthesis.anatomy.grid import Grid, Labels, Mask
from training.synthesis.anatomy.subject import Subject
from training.synthesis.distance import distance_to
from training.synthesis.tissues import FAT, FIRST_STRUCTURE, HARD, StructureTable, label_tissue

# TotalSegmentator's first sacral vertebra is a part of the sacrum, with no surface between them in a scan.
SAME_BONE = {"vertebrae_S1": "sacrum"}


@dataclass(frozen=True)
class LabelMap:
    """How a label map is treated.

    ``closing_mm`` is half of the gap between structures that counts as inside the body. ``thresholded`` means
    that bones are only their dense parts: marrow is filled, and the brain, which has no label, too.
    """

    source: str
    license: str
    closing_mm: float
    thresholded: bool = False


TOTALSEGMENTATOR_LICENSE = "TotalSegmentator dataset, Wasserthal et al., CC BY 4.0"
LABEL_MAPS = {
    "totalseg_s0327": LabelMap("totalsegmentator-labels", TOTALSEGMENTATOR_LICENSE, 50.0),
    "totalseg_s0328": LabelMap("totalsegmentator-labels", TOTALSEGMENTATOR_LICENSE, 50.0),
    "spl_knee": LabelMap("spl-atlas", "3D Slicer License, SPL/NAC Open Anatomy, knee atlas", 25.0),
    "spl_head_neck": LabelMap(
        "spl-atlas", "3D Slicer License, SPL/NAC Open Anatomy, head and neck atlas", 25.0, thresholded=True
    ),
    "spl_abdominal": LabelMap("spl-atlas", "3D Slicer License, SPL/NAC Open Anatomy, abdominal atlas", 50.0),
}
# The vertebral canal is a hole in axial slices of these.
WITH_CANAL = re.compile(r"atlas|axis|cervical|thoracic|lumbar|vertebra|sacrum", re.IGNORECASE)
# Between the radius of the foramen magnum and that of the cranial cavity; and more than half the width of the
# openings between the cavity and the orbits.
FORAMEN_MM, CANALS_MM = 18.0, 7.0
# A voxel side below this is finer than any training sample: every second voxel is kept.
FINEST_LABEL_MAP_MM = 0.4


def read_label_map(path: Path) -> tuple[NDArray[np.uint16], Grid]:
    """A label map with its axes permuted and flipped to the nearest of R, A and S.

    Empty slices at the ends are cut off, so that the volume's border cuts the bones where annotation ends.
    Nothing is resampled: a scan that lay a few degrees askew keeps its own axes, because resampled labels
    would be rougher and training turns every volume anyway.
    """
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
    array = sitk.GetArrayFromImage(image).astype(np.uint16)
    i, j, k = (float(s) for s in image.GetSpacing())
    left, posterior, superior = (float(x) for x in image.GetOrigin())
    step_i, step_j = (2 if s < FINEST_LABEL_MAP_MM else 1 for s in (i, j))
    levels = np.flatnonzero(array.any(axis=(1, 2)))
    first, last = int(levels[0]), int(levels[-1]) + 1
    array = np.ascontiguousarray(array[first:last, ::step_j, ::step_i])
    size = (array.shape[2], array.shape[1], array.shape[0])
    return array, Grid((-left, -posterior, superior + k * first), (i * step_i, j * step_j, k), size)


def relabel(array: NDArray[np.uint16], names: dict[int, str]) -> tuple[Labels, StructureTable]:
    """Labels [k, j, i] with values from FIRST_STRUCTURE on, and their table.

    ``names`` gives the name of each value of ``array`` [k, j, i]. What has no name, or is fatty, becomes FAT.
    """
    lookup = np.zeros(int(array.max()) + 1, np.uint16)
    value_of: dict[str, int] = {}
    table: StructureTable = {}
    for value in np.unique(array[array > 0]).tolist():
        name = SAME_BONE.get(names.get(value, str(value)), names.get(value, str(value)))
        tissue = label_tissue(name)
        if tissue == "fat":
            lookup[value] = FAT
            continue
        if name not in value_of:
            value_of[name] = FIRST_STRUCTURE + len(value_of)
            table[value_of[name]] = (name, tissue)
        lookup[value] = value_of[name]
    return lookup[array], table


def fill_marrow(labels: Labels, table: StructureTable) -> None:
    """Fill, in place, what bones of which only the dense parts are labeled enclose in a slice of some axis.

    The skull is left alone: what it encloses is the brain and air.
    """
    boxes = ndimage.find_objects(labels)
    for value, (name, tissue) in table.items():
        if tissue not in HARD or name == "skull" or boxes[value - 1] is None:
            continue
        place = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in boxes[value - 1])
        part = labels[place]
        shell = np.pad(part == value, 2)
        shell = ndimage.binary_closing(shell, ndimage.generate_binary_structure(3, 1))
        filled = shell.copy()
        for axis in (1, 2) if WITH_CANAL.search(name) else (0, 1, 2):
            for n in range(shell.shape[axis]):
                index = (slice(None),) * axis + (n,)
                filled[index] |= ndimage.binary_fill_holes(shell[index])
        part[filled[2:-2, 2:-2, 2:-2] & (part <= FAT)] = value


def fill_skull(labels: Labels, table: StructureTable, sampling: Sequence[float]) -> None:
    """Give the cranial cavity a value of its own, in place, and add it to the table."""
    skull = np.isin(labels, [value for value, (name, _) in table.items() if name == "skull"])
    closed = close_and_cover(skull, sampling, FORAMEN_MM, 0.0)
    closed = cast(Mask, ndimage.binary_fill_holes(closed))
    far = closed & (distance_to(skull, sampling) > CANALS_MM)
    core = cc3d.largest_k(far, k=1, connectivity=6) > 0
    cavity = closed & (distance_to(core, sampling) <= CANALS_MM) & (labels == FAT)
    value = max(table) + 1
    labels[cavity] = value
    table[value] = ("cranial cavity", "neural")


def label_map_subject(subject_id: str, folder: Path) -> Subject:
    """A label map as a subject, with the body around its structures filled with fat."""
    treatment = LABEL_MAPS[subject_id]
    rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    row = next((row for row in rows if row["id"] == subject_id), None)
    if row is None:
        raise BoneSAMError(f"{folder / 'index.json'} does not list {subject_id}.")
    array, grid = read_label_map(folder / Path(row["file"]).name)
    labels, table = relabel(array, {int(value): name for value, name in row["labels"].items()})
    body = close_and_cover(labels > 0, grid.sampling, treatment.closing_mm, TRUNK_SKIN_MM)
    labels[body & (labels == 0)] = FAT
    if treatment.thresholded:
        fill_marrow(labels, table)
        fill_skull(labels, table, grid.sampling)
    return Subject(subject_id, treatment.source, treatment.license, grid, labels, table)
