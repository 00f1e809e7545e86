"""The body around its structures: gaps between them closed, covered with skin and fat."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from training.synthesis.anatomy.grid import Grid, Mask
from training.synthesis.anatomy.meshes import Structure
from training.synthesis.anatomy.voxelizing import voxelize
from training.synthesis.distance import distance_to

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
