"""Structures of a body as closed surfaces: read from mesh files, completed where large organs are missing."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from BoneSAMLib.errors import BoneSAMError
from training.synthesis.tissues import mesh_tissue

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
# Hair lies outside the body; its meshes are caps of solid "skin".
LEFT_OUT_MESHES = re.compile(r"\bhairs?\b|eyebrow", re.IGNORECASE)
Points: TypeAlias = NDArray[np.float64]


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

    def painting_order(self) -> tuple[int, float]:
        """Sort key for painting, last wins: teeth over bones over soft structures, small over large."""
        return {"bone": 1, "tooth": 2}.get(self.tissue, 0), -self.volume


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
