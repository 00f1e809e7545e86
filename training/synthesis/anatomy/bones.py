"""Bones and teeth of a label volume: their pieces, which of these can be targets, and the depth in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from training.store import DEPTH_UNIT_MM
from training.synthesis.anatomy.grid import Labels
from training.synthesis.tissues import HARD, StructureTable

# A smaller piece is a crumb of rasterization or annotation, not a bone to prompt on.
SMALLEST_VOXELS = 60
# A further piece of a label that holds this share of it is an object of its own ("Pelvis" is two hip bones).
PIECE_SHARE = 0.1
# A label whose largest piece holds less than this is too scattered to be a target.
MAIN_SHARE = 0.8


def hard_labels(labels: Labels, table: StructureTable) -> Labels:
    """Labels [k, j, i] of bones and teeth only; 0 elsewhere."""
    lookup = np.zeros(int(labels.max()) + 1, np.uint16)
    for value, (_, tissue) in table.items():
        if tissue in HARD and value < lookup.size:
            lookup[value] = value
    return lookup[labels]


def bone_depth(hard: Labels, sampling: Sequence[float]) -> NDArray[np.uint8]:
    """Depth below each bone's own surface in steps of DEPTH_UNIT_MM, from 1 to 255; 0 outside bones.

    ``hard`` [k, j, i] holds one value per bone, ``sampling`` the spacing in mm in the same order. The surface
    lies half a voxel before the first voxel outside; the border of the volume is no surface.
    """
    depth = edt.edt(np.ascontiguousarray(hard), anisotropy=tuple(sampling), black_border=False, parallel=1)
    depth -= min(sampling) / 2.0
    depth /= DEPTH_UNIT_MM
    np.rint(depth, out=depth)
    np.clip(depth, 1.0, 255.0, out=depth)
    depth[hard == 0] = 0.0
    return cast(NDArray[np.uint8], depth.astype(np.uint8))


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


def separate_objects(labels: Labels, table: StructureTable) -> list[dict[str, Any]]:
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
