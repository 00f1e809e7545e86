"""Tissues that the meshes of a body lack: skin, cartilage, menisci, cruciate ligaments, a tendon."""

from collections.abc import Sequence

import numpy as np

from training.synthesis.distance import distance_to
from training.synthesis.sample.body import Anatomy, Mask
from training.synthesis.tissues import AIR, FAT

SKIN_MM = 1.6


def add_skin(anatomy: Anatomy) -> None:
    """The outermost fat is skin."""
    near = distance_to(anatomy.labels == AIR, anatomy.sampling) <= SKIN_MM
    anatomy.add(near & (anatomy.labels == FAT), "skin", "skin")


def between_bones(anatomy: Anatomy, values: Sequence[int], reach_mm: float) -> Mask:
    """Fat in gaps, less than twice `reach_mm` wide, between the bones with these values."""
    bone = np.isin(anatomy.labels, values)
    swollen = distance_to(bone, anatomy.sampling) <= reach_mm
    closed = distance_to(~swollen, anatomy.sampling) > reach_mm
    gap: Mask = closed & (anatomy.labels == FAT)
    return gap


def add_ligament(anatomy: Anatomy, name: str, ends: Sequence[Sequence[float]], radius_mm: float) -> None:
    """A round ligament between two points (i, j, k), where there is no bone."""
    first, last = (np.array(end) * anatomy.spacing for end in ends)
    low = np.floor((np.minimum(first, last) - radius_mm) / anatomy.spacing).astype(int)
    high = np.ceil((np.maximum(first, last) + radius_mm) / anatomy.spacing).astype(int) + 1
    window = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    grid = np.moveaxis(np.mgrid[window][::-1], 0, -1) * anatomy.spacing
    along = np.clip((grid - first) @ (last - first) / np.sum((last - first) ** 2), 0, 1)[..., None]
    near = np.linalg.norm(grid - first - along * (last - first), axis=-1) <= radius_mm
    where = np.zeros(anatomy.labels.shape, bool)
    where[window] = near & ~np.isin(anatomy.labels[window], anatomy.bones)
    anatomy.add(where, name, "ligament")


def complete_knee(anatomy: Anatomy) -> None:
    """Cartilage, menisci, cruciate ligaments and tendons; places are voxels of bp3d_v4_knee_right."""
    value_of = {name: value for value, name in anatomy.names.items()}
    add_ligament(anatomy, "anterior cruciate ligament", [(111, 146, 176), (121, 108, 204)], 4.0)
    add_ligament(anatomy, "posterior cruciate ligament", [(113, 92, 164), (105, 128, 190)], 4.5)
    anatomy.add(between_bones(anatomy, anatomy.bones, 4.0), "articular cartilage", "cartilage")
    menisci = between_bones(anatomy, [value_of["right femur"], value_of["right tibia"]], 8.0)
    menisci[:, :, 97:127] = False  # between the condyles
    menisci[:160] = False
    anatomy.add(menisci, "menisci", "ligament")
    # The mesh of this muscle goes on as the tendon of the quadriceps and the ligament of the patella.
    tendon = anatomy.labels == value_of["right rectus femoris"]
    tendon[248:] = False
    anatomy.add(tendon, "patellar ligament", "ligament")
