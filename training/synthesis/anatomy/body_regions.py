"""Regions of the BodyParts3D meshes as subjects: crops of the body around certain bones."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from BoneSAMLib.errors import BoneSAMError
from training.synthesis.anatomy.body_outline import body_on, body_outline
from training.synthesis.anatomy.grid import Grid
from training.synthesis.anatomy.meshes import Structure, read_structures
from training.synthesis.anatomy.subject import Subject, make
from training.synthesis.anatomy.voxelizing import paint
from training.synthesis.tissues import FAT, FIRST_STRUCTURE

BODYPARTS_LICENSE = "BodyParts3D, (c) The Database Center for Life Science, CC BY 4.0"


@dataclass(frozen=True)
class Region:
    """A crop of the body: the box of the bones that ``bones`` matches, with margins in mm on each side.

    ``{side}`` in ``bones`` stands for left or right. ``lateral`` and ``medial`` are the margins in R-L
    (medial is the side of the midline); a region without a side has the same margin on both.
    """

    name: str
    bones: str
    spacing: float
    lateral: float
    medial: float
    anterior: float
    posterior: float
    superior: float
    inferior: float

    @property
    def has_side(self) -> bool:
        """Whether the region is of a left or a right limb."""
        return "{side}" in self.bones


HAND_BONES = (
    r"{side} (scaphoid|lunate|triquetral|pisiform|trapezium|trapezoid|capitate|hamate)"
    r"|{side} .* metacarpal bone|phalanx of {side} .*(thumb|finger)"
)
FOOT_BONES = (
    r"{side} (calcaneus|talus|cuboid bone)|{side} .* cuneiform bone|navicular bone of {side} foot"
    r"|{side} .* metatarsal bone|phalanx of {side} .*toe"
)
HEAD_NECK_BONES = (
    r"cervical vertebra|^atlas$|^axis$|mandible|hyoid|maxilla"
    r"|(frontal|occipital|sphenoid|parietal|temporal|zygomatic|nasal) bone"
)
REGIONS = (
    Region("pelvis", r"hip bone|sacrum", 1.0, 45, 45, 45, 45, 30, 90),
    Region("hand", HAND_BONES, 0.45, 10, 10, 10, 10, 35, 8),
    Region("foot", FOOT_BONES, 0.5, 10, 10, 10, 12, 40, 10),
    Region("knee", r"{side} patella", 0.6, 45, 50, 20, 95, 80, 95),
    Region("shoulder", r"{side} (scapula|clavicle)", 0.8, 45, 15, 20, 25, 20, 20),
    Region("chest", r"\brib$|sternum|manubrium|thoracic vertebra", 1.2, 40, 40, 30, 45, 25, 20),
    Region("head_neck", HEAD_NECK_BONES, 0.9, 15, 15, 20, 20, 15, 10),
    Region("spine", r"(thoracic|lumbar) vertebra", 0.9, 40, 40, 50, 50, 10, 15),
    Region("forearm", r"{side} (radius|ulna)", 0.6, 28, 25, 25, 30, 70, 25),
    Region("whole_body", r".*", 2.0, 12, 12, 12, 12, 12, 12),
)


def region_grid(region: Region, side: str, structures: Iterable[Structure]) -> Grid:
    """Grid of a region in the body that the structures make. Raises BoneSAMError if no bone matches."""
    pattern = re.compile(region.bones.replace("{side}", side))
    bones = [s for s in structures if s.tissue == "bone" and pattern.search(s.name)]
    if not bones:
        raise BoneSAMError(f"No bone of the meshes belongs to the region {region.name}.")
    low = np.min([s.low for s in bones], axis=0)
    high = np.max([s.high for s in bones], axis=0)
    to_right, to_left = region.lateral, region.medial
    if region.has_side and side == "left":
        to_right, to_left = region.medial, region.lateral
    below = np.array([to_left, region.posterior, region.inferior])
    above = np.array([to_right, region.anterior, region.superior])
    return Grid.around(low - below, high + above, region.spacing)


def region_subject(
    subject_id: str, source: str, grid: Grid, structures: Sequence[Structure], outline: sitk.Image
) -> Subject:
    """All structures in a grid as a subject, cut at its border."""
    labels = paint(structures, grid)
    labels[body_on(outline, grid) & (labels == 0)] = FAT
    table = {FIRST_STRUCTURE + n: (s.name, s.tissue) for n, s in enumerate(structures)}
    return Subject(subject_id, source, BODYPARTS_LICENSE, grid, labels, table)


def make_regions(version: str, side: str, meshes: Path, store: Path) -> None:
    """Make every region of one version of BodyParts3D, with the limbs of one side."""
    names = {
        region: f"bp3d_{version}_{region.name}" + (f"_{side}" if region.has_side else "")
        for region in REGIONS
    }
    if all((store / f"{name}.json").exists() for name in names.values()):
        print(f"bp3d_{version}: all regions kept", flush=True)
        return
    structures = read_structures(meshes / f"bodyparts3d_{version}")
    outline = body_outline(structures)
    for region, name in names.items():
        grid = region_grid(region, side, structures)
        source = f"bodyparts3d-{version}"
        make(name, store, functools.partial(region_subject, name, source, grid, structures, outline))
