"""Label volumes of anatomy for the training store, from surface meshes and label maps.

Each subject ``<id>`` of the store is three files:

``<id>.labels.npy``
    uint16 [k, j, i]; i grows to the patient's right, j to anterior, k to superior. 0 is air outside the body,
    1 is fat (inside the body, in no structure), every other value is a structure.
``<id>.depth.npy``
    uint8, same shape: how deep a voxel of a bone or tooth lies below that bone's own surface, in steps of
    0.25 mm, at most 255; 0 elsewhere. Bones that touch each have a surface.
``<id>.json``
    Where the volume came from, its geometry, the name and tissue of each value, and the bones and teeth that
    can be targets.

Run ``python -m training.synthesis.anatomy --meshes DIR --labelmaps DIR --store DIR``. Subjects that the
store has are kept, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import cc3d
import edt
import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

from BoneSAMLib.errors import BoneSAMError

AIR, FAT, FIRST_STRUCTURE = 0, 1, 2
HARD = ("bone", "tooth")

DEPTH_STEP_MM = 0.25
# A smaller piece is a crumb of rasterisation or annotation, not a bone to prompt on.
SMALLEST_VOXELS = 60
# A further piece of a label that holds this share of it is an object of its own ("Pelvis" is two hip bones).
PIECE_SHARE = 0.1
# A label whose largest piece holds less than this is too scattered to be a target.
MAIN_SHARE = 0.8
LARGEST_VOLUME_VOXELS = 45_000_000

# The body's outline is smooth: it is made on a coarse grid of the whole body and interpolated.
OUTLINE_SPACING_MM = 2.5
# Half of the gap between structures that still counts as inside. The flanks have no muscles in BodyParts3D,
# fingers and toes must not grow together.
TRUNK_CLOSING_MM, WAIST_CLOSING_MM = 25.0, 80.0
LEG_CLOSING_MM, ARM_CLOSING_MM, DIGITS_CLOSING_MM = 16.0, 12.0, 6.0
# How much skin and fat covers the outermost structures.
TRUNK_SKIN_MM, LIMB_SKIN_MM = 8.0, 4.0
# The parts are joined, and the steps of the coarse grid smoothed away (a standard deviation in voxels).
JOINING_MM, OUTLINE_SMOOTHING = 5.0, 1.0
# Where the limbs of BodyParts3D begin. A structure of the arm keeps its distance from the midline, less if it
# reaches as far out as the forearm (veins that begin at the shoulder); one of the leg lies and begins low.
ARM_FROM_MIDLINE_MM, FOREARM_FROM_MIDLINE_MM, FOREARM_REACHES_MM = 130.0, 60.0, 200.0
LEG_BELOW_MM, LEG_REACHES_MM = 960.0, 720.0

# Organs that a mesh file may lack: name, tissue, the structures inside them, and what shows that it has them.
HULLS = (
    ("right lung", "lung_airway", r"bronchial tree", r"lobe of .*lung"),
    ("left lung", "lung_airway", r"bronchial tree", r"lobe of .*lung"),
    (
        "liver",
        "organ",
        r"hepatic biliary tree|hepatic vein|segmental hepatic artery|segmental branch.*portal",
        r"^liver$",
    ),
    (
        "cranial cavity",
        "neural",
        r"gyrus|occipital lobe|superior parietal lobule|cerebellum|^pons",
        r"cranial cavity",
    ),
)

BODYPARTS_LICENSE = "BodyParts3D, (c) The Database Center for Life Science, CC BY 4.0"

# Hair lies outside the body; its meshes are caps of solid "skin".
LEFT_OUT_MESHES = re.compile(r"\bhairs?\b|eyebrow", re.IGNORECASE)

# Corrections to the tissue that the mesh file guesses from names. Bones and teeth were checked by name and
# are right; the first rule that matches the name decides the rest, and without a match the guess stands.
MESH_TISSUE_RULES: tuple[tuple[str, str], ...] = (
    ("disc", r"intervertebral dis[ck]"),
    ("vessel", r"arter(y|ies)|\bveins?\b|venous|cavity of (left|right) (atrium|ventricle)"),
    ("cartilage", r"cartilage|epiglottis"),
    (
        "ligament",
        r"ligament|\btend(on|inous)|retinaculum|interosseous membrane|thyrohyoid membrane|iliotibial tract"
        r"|linea alba|raphe|tarsal plate|conus elasticus|trochlea of",
    ),
    (
        "neural",
        r"\bnerve\b|ganglion|amygdala|globus pallidus|putamen|geniculate body|commissure|colliculus"
        r"|stria terminalis|lamina terminalis|mammillary body|interpeduncular"
        r"|interventricular foramen|optic (chiasm|tract)|septum of telencephalon|tentorium",
    ),
    (
        "muscle",
        r"trapezius|levatores costarum|interossei|interosseous of|lumbrical|intertransversari|interspinal"
        r"|\bwall of (left|right)? ?(atrium|ventricle)",
    ),
    ("organ", r"\bear\b|gingiva|deferent duct|epididymis|seminal vesicle|\blip\b|tongue"),
)

# Tissues of the label maps, by name; the first match decides. What has no name here is treated as fat.
LABEL_TISSUE_RULES: tuple[tuple[str, str], ...] = (
    ("disc", r"intervertebral"),
    ("fat", r"fat_body|^\d+$"),
    ("cartilage", r"cartilage|meniscus"),
    ("ligament", r"ligament|tendon|iliotibial_tract"),
    ("neural", r"nerve|spinal_cord"),
    ("muscle", r"muscle|gluteus|iliopsoas|autochthon"),
    ("vessel", r"artery|vein|vena|aorta|trunk|carotid|atrial_appendage"),
    ("lung_airway", r"lung|trachea"),
    (
        "organ",
        r"gland|liver|spleen|pancreas|colon|bowel|gallbladder|stomach|duodenum|kidney|ureter|renal_pelvis|esophagus"
        r"|heart|prostate|bladder",
    ),
    (
        "bone",
        r"femur|tibia|fibula|patella|hyoid|skull|atlas|axis|cervical|thoracic|lumbar|mandible|clavic|sternum|\brib|rib_"
        r"|pelvis|sacrum|hip_|humerus|scapula|vertebrae",
    ),
)
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

Labels = NDArray[np.uint16]
Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Voxel grid along the axes of RAS: mm of voxel (0, 0, 0), spacing in mm and size, in i, j, k order."""

    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    size: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape [k, j, i] of an array on this grid."""
        i, j, k = self.size
        return k, j, i

    @property
    def sampling(self) -> tuple[float, float, float]:
        """Spacing in mm in the order of the array's axes: k, j, i."""
        i, j, k = self.spacing
        return k, j, i

    @staticmethod
    def around(low: Sequence[float], high: Sequence[float], spacing: float) -> Grid:
        """Isotropic grid that covers the box from low to high (RAS mm), coarser than asked if too large."""
        extent = np.subtract(high, low)
        size = np.ceil(extent / spacing).astype(int) + 1
        while int(np.prod(size)) > LARGEST_VOLUME_VOXELS:
            spacing = round(spacing * 1.05, 3)
            size = np.ceil(extent / spacing).astype(int) + 1
        i, j, k = (int(n) for n in size)
        return Grid((float(low[0]), float(low[1]), float(low[2])), (spacing, spacing, spacing), (i, j, k))


@dataclass(frozen=True)
class Structure:
    """One closed surface: points [n, 3] in RAS mm, faces [m, 3] as indices into them."""

    name: str
    tissue: str
    points: Points
    faces: NDArray[np.int64]

    @property
    def low(self) -> Points:
        """Lowest R, A, S in mm."""
        return cast(Points, self.points.min(axis=0))

    @property
    def high(self) -> Points:
        """Highest R, A, S in mm."""
        return cast(Points, self.points.max(axis=0))

    @property
    def volume(self) -> float:
        """Enclosed volume in cubic mm."""
        a, b, c = (self.points[self.faces[:, n]] for n in range(3))
        return abs(float(np.einsum("ij,ij->", a, np.cross(b, c)))) / 6.0

    def values_order(self) -> tuple[int, float]:
        """Sort key for painting, last wins: teeth over bones over soft structures, small over large."""
        return {"bone": 1, "tooth": 2}.get(self.tissue, 0), -self.volume


# Meshes -------------------------------------------------------------------------------------------


def mesh_tissue(name: str, guess: str) -> str:
    """Tissue of a mesh from its name and the mesh file's guess."""
    if guess in HARD:
        return guess
    for tissue, pattern in MESH_TISSUE_RULES:
        if re.search(pattern, name, re.IGNORECASE):
            return tissue
    return guess


def read_structures(path: Path) -> list[Structure]:
    """Structures of a mesh file pair ``<path>.json`` and ``<path>.npz`` (LPS, 1/50 mm), turned to RAS mm.

    Raises BoneSAMError if a file is missing.
    """
    table_path, arrays_path = path.with_suffix(".json"), path.with_suffix(".npz")
    for needed in (table_path, arrays_path):
        if not needed.is_file():
            raise BoneSAMError(
                f"The mesh file {needed} is missing. Give the folder that holds it with --meshes."
            )
    rows = json.loads(table_path.read_text(encoding="utf-8"))
    with np.load(arrays_path) as arrays:
        points = arrays["points_50th_mm"] / 50.0 * np.array([-1.0, -1.0, 1.0])
        faces = arrays["faces"].astype(np.int64)
    structures = []
    for row in rows:
        if LEFT_OUT_MESHES.search(row["name"]):
            continue
        own_points = points[slice(*row["point_range"])]
        own_faces = faces[slice(*row["face_range"])]
        name = row["name"].lower()
        if name.startswith("#"):
            name = "unnamed"
        structures.append(Structure(name, mesh_tissue(name, row["tissue"]), own_points, own_faces))
    return structures + missing_organs(structures)


def missing_organs(structures: Sequence[Structure]) -> list[Structure]:
    """Hulls for large organs that the meshes lack, from the vessels and airways in them (see HULLS).

    A chest without air or a skull full of fat looks like no scan at all. The hulls hold other structures and
    are larger, so they are painted below them.
    """
    hulls = []
    for name, tissue, members, present in HULLS:
        if any(re.search(present, s.name) for s in structures):
            continue
        points = [s.points for s in structures if re.search(members, s.name) and on_side(s, name)]
        if points:
            hull = ConvexHull(np.concatenate(points))
            hulls.append(Structure(name, tissue, hull.points, hull.simplices.astype(np.int64)))
    return hulls


def on_side(structure: Structure, name: str) -> bool:
    """Whether a structure lies on the side that a name begins with; any, if it begins with none."""
    to_right = float(structure.points[:, 0].mean())
    return (to_right > 0.0 or not name.startswith("right")) and (
        to_right < 0.0 or not name.startswith("left")
    )


def surface(structure: Structure) -> vtkPolyData:
    """The structure as VTK's surface."""
    points = vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(structure.points), deep=True))
    cells = vtkCellArray()
    connectivity = np.ascontiguousarray(structure.faces, dtype=np.int64).ravel()
    offsets = np.arange(0, connectivity.size + 1, 3, dtype=np.int64)
    cells.SetData(
        numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(connectivity, deep=True)
    )
    poly_data = vtkPolyData()
    poly_data.SetPoints(points)
    poly_data.SetPolys(cells)
    return poly_data


def voxelize(structure: Structure, grid: Grid) -> tuple[tuple[slice, slice, slice], Mask] | None:
    """Voxels of the grid whose center lies in the structure.

    Returns slices [k, j, i] of the part of the grid that the structure's bounds cover, and the mask of that
    part; None if the structure lies outside the grid.
    """
    origin, spacing = np.array(grid.origin), np.array(grid.spacing)
    low = np.maximum(np.floor((structure.low - origin) / spacing).astype(int), 0)
    high = np.minimum(np.ceil((structure.high - origin) / spacing).astype(int), np.array(grid.size) - 1)
    if (low > high).any():
        return None
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(surface(structure))
    stencil.SetOutputOrigin(*grid.origin)
    stencil.SetOutputSpacing(*grid.spacing)
    stencil.SetOutputWholeExtent(*(int(n) for pair in zip(low, high, strict=True) for n in pair))
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    i, j, k = (int(n) for n in high - low + 1)
    mask = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(k, j, i).astype(bool)
    place = tuple(slice(int(low[axis]), int(high[axis]) + 1) for axis in (2, 1, 0))
    return cast(tuple[slice, slice, slice], place), mask


def paint(structures: Sequence[Structure], grid: Grid) -> Labels:
    """Labels [k, j, i] of all structures: structure n has the value FIRST_STRUCTURE + n, 0 is none."""
    labels = np.zeros(grid.shape, np.uint16)
    for n in sorted(range(len(structures)), key=lambda n: structures[n].values_order()):
        found = voxelize(structures[n], grid)
        if found is not None:
            place, mask = found
            labels[place][mask] = FIRST_STRUCTURE + n
    return labels


# The outline of the body --------------------------------------------------------------------------


def close_and_cover(union: Mask, sampling: Sequence[float], closing_mm: float, skin_mm: float) -> Mask:
    """Body [k, j, i] around structures: gaps up to twice closing_mm closed, holes filled, skin_mm added.

    What the border of the array cuts is taken to go on beyond it.
    """
    margin = [int(np.ceil((closing_mm + skin_mm) / s)) + 1 for s in sampling]
    padded = np.pad(union, [(m, m) for m in margin], mode="edge")
    dilated = distance_to(padded, sampling) <= closing_mm
    closed = (distance_to(~dilated, sampling) > closing_mm) | padded
    for k in range(closed.shape[0]):
        closed[k] = ndimage.binary_fill_holes(closed[k])
    covered = distance_to(closed, sampling) <= skin_mm
    inner = tuple(slice(m, -m) for m in margin)
    return covered[inner]


def distance_to(mask: Mask, sampling: Sequence[float]) -> NDArray[np.float32]:
    """Distance in mm of each voxel to the nearest voxel of the mask, 0 in it."""
    distance = edt.edt(
        np.ascontiguousarray(~mask), anisotropy=tuple(sampling), black_border=False, parallel=1
    )
    return cast(NDArray[np.float32], distance)


def body_part(structure: Structure) -> str:
    """The part of the body that a structure belongs to; closing must not join limbs to other parts."""
    low, high = structure.low, structure.high
    side = "right" if low[0] + high[0] > 0.0 else "left"
    from_midline = max(float(low[0]), -float(high[0]))
    reach = max(float(high[0]), -float(low[0]))
    if from_midline >= (FOREARM_FROM_MIDLINE_MM if reach >= FOREARM_REACHES_MM else ARM_FROM_MIDLINE_MM):
        return f"{side} arm"
    if from_midline >= 0.0 and high[2] < LEG_BELOW_MM and low[2] < LEG_REACHES_MM:
        return f"{side} leg"
    return "trunk"


def closing_zones(part: str, heights: dict[str, float]) -> list[tuple[float, float, float]]:
    """Zones of a body part from below to above: lower and upper height and the closing there, all in mm.

    ``heights`` gives the upper end of bones by name; a boundary whose bone is missing is left out.
    """
    side = part.split()[0]
    boundaries: list[tuple[str, float]]
    if part.endswith("arm"):
        boundaries, lowest = [(f"{side} lunate", ARM_CLOSING_MM)], DIGITS_CLOSING_MM
    elif part.endswith("leg"):
        boundaries, lowest = [(f"{side} fifth metatarsal bone", LEG_CLOSING_MM)], DIGITS_CLOSING_MM
    else:
        boundaries = [("left femur", WAIST_CLOSING_MM), ("tenth thoracic vertebra", TRUNK_CLOSING_MM)]
        lowest = TRUNK_CLOSING_MM
    zones, low, closing = [], -np.inf, lowest
    for bone, closing_above in boundaries:
        if bone in heights:
            zones.append((low, heights[bone], closing))
            low, closing = heights[bone], closing_above
    return [*zones, (low, np.inf, closing)]


def cover_part(part: str, union: Mask, grid: Grid, heights: dict[str, float]) -> Mask:
    """One part of the body [k, j, i] from the union of its structures."""
    body = np.zeros(grid.shape, bool)
    skin = TRUNK_SKIN_MM if part == "trunk" else LIMB_SKIN_MM
    z = grid.origin[2] + grid.spacing[2] * np.arange(grid.size[2])
    for low, high, closing in closing_zones(part, heights):
        levels = np.flatnonzero((z >= low) & (z < high))
        if not levels.size or not union[levels].any():
            continue
        first, last = int(levels[0]), int(levels[-1]) + 1
        room = int(np.ceil((closing + skin) / min(grid.spacing))) + 1
        _, rows, columns = ndimage.find_objects(union[first:last].astype(np.uint8))[0]
        place = (
            slice(first, last),
            slice(max(rows.start - room, 0), rows.stop + room),
            slice(max(columns.start - room, 0), columns.stop + room),
        )
        body[place] |= close_and_cover(union[place], grid.sampling, closing, skin)
    return body


def body_outline(structures: Sequence[Structure]) -> sitk.Image:
    """Signed distance in mm to the skin (negative inside) on a coarse grid of the whole body.

    The image's physical space is RAS mm, without rotation.
    """
    low = np.min([s.low for s in structures], axis=0) - 40.0
    high = np.max([s.high for s in structures], axis=0) + 40.0
    grid = Grid.around(low, high, OUTLINE_SPACING_MM)
    unions: dict[str, Mask] = {}
    for structure in structures:
        found = voxelize(structure, grid)
        if found is not None:
            place, mask = found
            unions.setdefault(body_part(structure), np.zeros(grid.shape, bool))[place] |= mask
    heights = {s.name: float(s.high[2]) for s in structures if s.tissue == "bone"}
    body = np.zeros(grid.shape, bool)
    for part, union in unions.items():
        body |= cover_part(part, union, grid, heights)
    body = cast(Mask, ndimage.binary_fill_holes(close_and_cover(body, grid.sampling, JOINING_MM, 0.0)))
    signed = distance_to(body, grid.sampling) - distance_to(~body, grid.sampling)
    image = sitk.GetImageFromArray(ndimage.gaussian_filter(signed, OUTLINE_SMOOTHING))
    image.SetOrigin(grid.origin)
    image.SetSpacing(grid.spacing)
    return image


def body_on(outline: sitk.Image, grid: Grid) -> Mask:
    """The inside of the outline as a mask [k, j, i] on a grid."""
    sampled = sitk.Resample(
        outline, list(grid.size), sitk.Transform(), sitk.sitkLinear, grid.origin, grid.spacing,
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 100.0, sitk.sitkFloat32,
    )  # fmt: skip
    return np.asarray(sitk.GetArrayFromImage(sampled) <= 0.0)


# Depth and objects --------------------------------------------------------------------------------


def bone_depth(hard: Labels, sampling: Sequence[float]) -> NDArray[np.uint8]:
    """Depth below each bone's own surface in steps of DEPTH_STEP_MM, from 1 to 255; 0 outside bones.

    ``hard`` [k, j, i] holds one value per bone. The surface lies half a voxel before the first voxel outside;
    the border of the volume is no surface.
    """
    depth = edt.edt(np.ascontiguousarray(hard), anisotropy=tuple(sampling), black_border=False, parallel=1)
    depth -= min(sampling) / 2.0
    depth /= DEPTH_STEP_MM
    np.rint(depth, out=depth)
    np.clip(depth, 1.0, 255.0, out=depth)
    depth[hard == 0] = 0.0
    return cast(NDArray[np.uint8], depth.astype(np.uint8))


def hard_labels(labels: Labels, table: dict[int, tuple[str, str]]) -> Labels:
    """The labels of bones and teeth only."""
    lookup = np.zeros(int(labels.max()) + 1, np.uint16)
    for value, (_, tissue) in table.items():
        if tissue in HARD and value < lookup.size:
            lookup[value] = value
    return lookup[labels]


@dataclass(frozen=True)
class Piece:
    """A connected piece of one label: voxel indices in i, j, k order, high inclusive."""

    component: int
    label: int
    voxels: int
    low: tuple[int, int, int]
    high: tuple[int, int, int]


def pieces_of(hard: Labels) -> tuple[dict[int, list[Piece]], NDArray[Any]]:
    """Connected pieces of each label, largest first, and the array [k, j, i] of their component numbers."""
    components = cc3d.connected_components(hard, connectivity=26)
    statistics = cc3d.statistics(components)
    label_of = np.zeros(len(statistics["voxel_counts"]), np.uint16)
    inside = hard > 0
    label_of[components[inside]] = hard[inside]
    pieces: dict[int, list[Piece]] = {}
    for component in range(1, len(label_of)):
        box = statistics["bounding_boxes"][component]
        k, j, i = ((int(s.start), int(s.stop) - 1) for s in box)
        piece = Piece(
            component, int(label_of[component]), int(statistics["voxel_counts"][component]),
            (i[0], j[0], k[0]), (i[1], j[1], k[1]),
        )  # fmt: skip
        pieces.setdefault(piece.label, []).append(piece)
    for own in pieces.values():
        own.sort(key=lambda piece: -piece.voxels)
    return pieces, components


def separate_objects(labels: Labels, table: dict[int, tuple[str, str]]) -> list[dict[str, Any]]:
    """Give each large piece of a bone a value of its own, in place, and list the bones that can be targets.

    Changes ``labels`` [k, j, i] and adds the new values to ``table``. Returns the json's "objects".
    """
    hard = hard_labels(labels, table)
    pieces, components = pieces_of(hard)
    objects = []
    next_value = max(table) + 1
    for value, own in sorted(pieces.items()):
        total = sum(piece.voxels for piece in own)
        name, tissue = table[value]
        targets = [p for p in own if p.voxels >= SMALLEST_VOXELS and p.voxels >= PIECE_SHARE * total]
        rest = total - sum(piece.voxels for piece in targets[1:])
        for n, piece in enumerate(targets):
            piece_value, piece_name = value, name
            if n == 0 and piece.voxels < MAIN_SHARE * rest:
                continue
            if n > 0:
                piece_value, piece_name = next_value, f"{name}, piece {n + 1}"
                next_value += 1
                table[piece_value] = (piece_name, tissue)
                i, j, k = (slice(a, b + 1) for a, b in zip(piece.low, piece.high, strict=True))
                labels[k, j, i][components[k, j, i] == piece.component] = piece_value
            objects.append(object_row(piece, piece_value, piece_name, labels.shape))
    return objects


def object_row(piece: Piece, value: int, name: str, shape: Sequence[int]) -> dict[str, Any]:
    """One row of the json's "objects"; complete means that the volume's border does not cut the bone."""
    size = (shape[2], shape[1], shape[0])
    inside = all(a > 0 and b < n - 1 for a, b, n in zip(piece.low, piece.high, size, strict=True))
    return {
        "label": value, "name": name, "low": list(piece.low), "high": list(piece.high),
        "voxels": piece.voxels, "complete": inside,
    }  # fmt: skip


# The store ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """What is written of one subject: labels [k, j, i] and the name and tissue of each value."""

    id: str
    source: str
    license: str
    grid: Grid
    labels: Labels
    table: dict[int, tuple[str, str]]


def write_array(array: NDArray[Any], path: Path) -> None:
    """Write an array whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))
    os.replace(temporary, path)


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
    write_array(subject.labels, store / f"{subject.id}.labels.npy")
    write_array(depth, store / f"{subject.id}.depth.npy")
    path = store / f"{subject.id}.json"
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(header, indent=1), encoding="utf-8")
    os.replace(temporary, path)
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


# Label maps ---------------------------------------------------------------------------------------


def label_tissue(name: str) -> str:
    """Tissue of a label map's structure, from its name.

    Raises BoneSAMError for a name that no rule knows: a bone must not pass for fat.
    """
    for tissue, pattern in LABEL_TISSUE_RULES:
        if re.search(pattern, name, re.IGNORECASE):
            return tissue
    raise BoneSAMError(f"The label map's structure {name!r} has no tissue. Add a rule for it to anatomy.py.")


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


def relabel(array: NDArray[np.uint16], names: dict[int, str]) -> tuple[Labels, dict[int, tuple[str, str]]]:
    """Labels with values from FIRST_STRUCTURE on, and their table; what has no name, or is fatty, is FAT."""
    lookup = np.zeros(int(array.max()) + 1, np.uint16)
    value_of: dict[str, int] = {}
    table: dict[int, tuple[str, str]] = {}
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


def fill_marrow(labels: Labels, table: dict[int, tuple[str, str]]) -> None:
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


def fill_skull(labels: Labels, table: dict[int, tuple[str, str]], sampling: Sequence[float]) -> None:
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


# Regions of the meshes ----------------------------------------------------------------------------


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


def main(
    meshes: Annotated[
        Path, typer.Option(help="Folder of the BodyParts3D meshes.", file_okay=False, exists=True)
    ],
    labelmaps: Annotated[Path, typer.Option(help="Folder of the label maps.", file_okay=False, exists=True)],
    store: Annotated[Path, typer.Option(help="Folder to write to; what it has is kept.", file_okay=False)],
) -> None:
    """Make the label volumes of the training store from meshes and label maps."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    store.mkdir(parents=True, exist_ok=True)
    try:
        for subject_id in LABEL_MAPS:
            make(subject_id, store, functools.partial(label_map_subject, subject_id, labelmaps))
        make_regions("v4", "right", meshes, store)
        make_regions("v3", "left", meshes, store)
    except BoneSAMError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
