"""Spheres as closed surfaces and as mesh files, and a grid around them."""

import json

import numpy as np
from scipy.spatial import ConvexHull

from training.synthesis.anatomy.grid import Grid
from training.synthesis.anatomy.meshes import Structure

GRID = Grid(origin=(-30.0, -30.0, -30.0), spacing=(1.0, 1.0, 1.0), size=(61, 61, 61))


def sphere(center, radius, name="ball", tissue="bone"):
    """A closed sphere of 3,000 points, with its faces."""
    n = np.arange(3000) + 0.5
    height, angle = 1.0 - 2.0 * n / 3000, np.pi * (1.0 + 5.0**0.5) * n
    across = np.sqrt(1.0 - height**2)
    points = np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=1) * radius
    faces = ConvexHull(points).simplices.astype(np.int64)
    # The hull's triangles are not wound alike: turn them outward.
    a, b, c = (points[faces[:, column]] for column in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Structure(name, tissue, points + np.array(center), faces)


def write_meshes(folder, structures):
    """The structures in the format of the mesh files: LPS, 1/50 mm, faces local to their structure."""
    rows, points, faces = [], [], []
    point_count = face_count = 0
    for structure in structures:
        rows.append(
            {
                "name": structure.name,
                "tissue": structure.tissue,
                "point_range": [point_count, point_count + len(structure.points)],
                "face_range": [face_count, face_count + len(structure.faces)],
            }
        )
        points.append(np.rint(structure.points * (-50, -50, 50)).astype(np.int32))
        faces.append(structure.faces.astype(np.int32))
        point_count += len(structure.points)
        face_count += len(structure.faces)
    np.savez(folder / "body.npz", points_50th_mm=np.concatenate(points), faces=np.concatenate(faces))
    (folder / "body.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "body"
