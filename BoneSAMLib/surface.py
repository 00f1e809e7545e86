"""Masks to closed, smooth surfaces: one binary STL file a bone, in LPS millimeters.

STL has no field for a coordinate system. 3D Slicer reads it as LPS, and its own files say "SPACE=LPS" in the
80 bytes of comment at the start; so do these.

The surface passes between voxel centers that are bone and those that are not, whatever the smoothing: thin
bones do not vanish, and neighboring ones do not grow into each other.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.components import bounding_box
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, described_segments, open_complete, smallest_unsigned

__all__ = ["bone_surface", "check_surfaces", "write_surfaces"]

_SMOOTHING = 1.0  # standard deviation, in voxels
# How far smoothing may bring a voxel's value to the surface's (0.5). The less, the thinner are thin bones.
_MARGIN = 0.1
_HIGHEST_LABEL = 65535
_HEADER = b"BoneSAM, millimeters, SPACE=LPS"
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]+')
_LONGEST_NAME = 120  # bytes; file systems take 255


def check_surfaces(volume: Volume | None = None) -> None:
    """Say before the long work why surfaces could not be made (of `volume`).

    Raises:
        BoneSAMError: scikit-image is not installed, or the volume is a projection or a single slice.
    """
    if find_spec("skimage") is None:
        raise BoneSAMError(
            "Surfaces need the Python package scikit-image: install it with pip install scikit-image, or "
            "leave out --stl."
        )
    if volume is not None and volume.is_projection:
        raise BoneSAMError("A radiograph or a single slice has no surface: leave out --stl.")


def write_surfaces(
    labels: NDArray[Any], volume: Volume, folder: Path, segments: Sequence[SegmentInfo] = ()
) -> list[Path]:
    """Write one STL file for every label that occurs, named after its segment; returns the files.

    Args:
        labels: whole numbers of shape [k, j, i] like `volume.array`; 0 is background.
        volume: gives the geometry.
        folder: made if missing; other files in it stay.
        segments: names; labels without one get a number.

    Raises:
        BoneSAMError: scikit-image is missing, no volume but a projection, another shape, or a file cannot be
            written; files written before it stay.
    """
    check_surfaces(volume)
    volume.check_same_shape(labels)
    labels = smallest_unsigned(labels)
    described = described_segments(labels, segments)
    if labels.max(initial=0) > _HIGHEST_LABEL:
        raise BoneSAMError(f"Surfaces are made of labels up to {_HIGHEST_LABEL}, not {labels.max()}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoneSAMError(f"Cannot make the folder '{folder}': {error.strerror or error}.") from error
    boxes = ndimage.find_objects(labels)
    written: list[Path] = []
    for segment in described:
        box = boxes[segment.value - 1] if segment.value <= len(boxes) else None
        if box is None:
            continue
        triangles = _surface(labels[box] == segment.value, [part.start for part in box], volume)
        path = folder / f"{_file_name(segment.name, {one.stem.casefold() for one in written})}.stl"
        with open_complete(path) as file:
            file.write(_HEADER.ljust(80))
            file.write(np.uint32(len(triangles)).astype("<u4").tobytes())
            file.write(_stl(triangles).data)
        written.append(path)
    return written


def bone_surface(mask: NDArray[np.bool_], volume: Volume) -> NDArray[np.float32]:
    """The surface around a mask [k, j, i]: triangles [n, 3 corners, 3] in LPS mm.

    They are counterclockwise as seen from outside. The surface is closed also where the mask touches the
    border of the volume. Empty masks have no triangles.

    Raises:
        BoneSAMError: scikit-image is missing, or no volume but a projection.
    """
    check_surfaces(volume)
    box = bounding_box(mask)
    if box is None:
        return np.empty((0, 3, 3), np.float32)
    return _surface(mask[box], [part.start for part in box], volume)


def _surface(mask: NDArray[np.bool_], start: Sequence[int], volume: Volume) -> NDArray[np.float32]:
    from skimage.measure import marching_cubes

    border = 2
    padded = np.pad(mask, border)
    level = ndimage.gaussian_filter(padded.astype(np.float32), _SMOOTHING, truncate=3.0)
    level = np.where(padded, np.maximum(level, 0.5 + _MARGIN), np.minimum(level, 0.5 - _MARGIN))
    corners_kji, faces, _, _ = marching_cubes(level, 0.5)
    ijk = (corners_kji + (np.array(start) - border))[:, ::-1]
    ras = ijk @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
    triangles: NDArray[np.float32] = (ras * [-1.0, -1.0, 1.0])[faces].astype(np.float32)
    # Which way round they are follows from the handedness of the axes.
    return triangles if _enclosed(triangles) > 0 else np.ascontiguousarray(triangles[:, ::-1])


def _enclosed(triangles: NDArray[np.float32]) -> float:
    """Volume in mm³, negative where the triangles are seen clockwise from outside."""
    first, second, third = np.moveaxis(triangles.astype(np.float64) - triangles[0, 0], 1, 0)
    return float(np.einsum("ni,ni->", first, np.cross(second, third)) / 6)


def _stl(triangles: NDArray[np.float32]) -> NDArray[Any]:
    records = np.zeros(len(triangles), _TRIANGLE)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    records["normal"] = normals / np.where(lengths > 0, lengths, 1)
    records["corners"] = triangles
    return records


def _file_name(name: str, taken: set[str]) -> str:
    """A name that every system takes, and that no other bone has."""
    plain = _FORBIDDEN.sub(" ", name).strip(" .").encode()[:_LONGEST_NAME].decode(errors="ignore").strip(" .")
    plain = plain or "Bone"
    candidate, number = plain, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{plain} {number}"
    return candidate
