"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz) to `Volume`.

Read here rather than by ITK because ITK fills a truncated file with zeros without a word, and because it
refuses affines that are off orthogonal by rounding. Which of the two affines in the header counts follows
ITK, so that a scan lies where 3D Slicer shows it. Format: https://nifti.nimh.nih.gov/nifti-1 and /nifti-2.
"""

import gzip
import logging
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Affine, Modality, Volume

__all__ = ["declared_nifti", "read_nifti"]

_logger = logging.getLogger(__name__)

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_OTHER_TYPES = {1: "bits", 32: "complex numbers", 128: "RGB colors", 1536: "128-bit numbers"} | {
    1792: "complex numbers", 2048: "complex numbers", 2304: "RGBA colors",
}  # fmt: skip
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_SCANNER = 1  # sform code: coordinates of the scanner
# Largest entry of R^T R - 1 that ITK takes for rounding.
_ORTHONORMAL = 1e-4
# Without it, a header of this size is Analyze's, which knows no orientation.
_MAGICS = (b"n+1\0", b"n+2\0")
# An affine without a second choice is straightened when no voxel moves by more than this (in voxels).
_STRAIGHTEN_VOXELS = 0.5
# Two spacings in one header are the same when the far side is moved by no more than this (in voxels).
_SAME_VOXELS = 0.5


@dataclass(frozen=True)
class _Header:
    """The fields of either version that matter here."""

    byte_order: str
    dimensions: tuple[int, ...]  # of length dim[0]
    data_type: int
    pixdim: tuple[float, ...]  # 8 values, the first is qfac
    data_offset: int
    slope: float
    intercept: float
    mm_per_unit: float
    qform_code: int
    sform_code: int
    quaternion: tuple[float, float, float]
    q_offset: tuple[float, float, float]
    s_rows: NDArray[np.float64]  # 3x4


def read_nifti(path: Path, modality: Modality | None = None) -> Volume:
    """Read a scan; `path` ends in .nii or .nii.gz.

    Raises:
        BoneSAMError: damaged or truncated, several volumes, colors, or an affine that is clearly sheared.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not compressed:
                return _read(file, path, modality)
            with gzip.open(file) as stream:
                return _read(cast("BinaryIO", stream), path, modality)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise BoneSAMError(
            f"The file '{path}' is damaged or incomplete: copy or download it again."
        ) from error


def declared_nifti(path: Path) -> tuple[tuple[int, ...], int]:
    """Size (i, j, k, ...) and bytes of a voxel as the header says, rescaled values included.

    Raises:
        BoneSAMError: no NIfTI header.
        OSError, EOFError, zlib.error: it cannot be read.
    """
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if compressed else file
        header = _read_header(stream, path)
    stored = np.dtype(_TYPES.get(header.data_type, "u1")).itemsize
    return header.dimensions, max(stored, 4) if header.slope not in (0.0, 1.0) else stored


def _read(stream: BinaryIO, path: Path, modality: Modality | None) -> Volume:
    header = _read_header(stream, path)
    size = _three_dimensional(header.dimensions, path)
    if header.data_type not in _TYPES:
        kind = _OTHER_TYPES.get(header.data_type, f"type {header.data_type}")
        raise BoneSAMError(f"The voxels of '{path}' are {kind}: convert it to plain gray values first.")
    array = np.empty(size[::-1], dtype=header.byte_order + _TYPES[header.data_type])
    if _read_into(stream, array.reshape(-1).view(np.uint8).data) < array.nbytes:
        raise EOFError
    while stream.read(1 << 20):  # to the end: only there gzip compares its checksum
        pass
    values: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
    if header.slope not in (0.0, 1.0) or (header.slope == 1.0 and header.intercept != 0.0):
        with np.errstate(over="ignore", invalid="ignore"):  # `Volume` says which values are not finite
            values = values.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)
    return Volume(values, _affine(header, size, path), name=path.name, modality=modality)


def _read_into(stream: BinaryIO, target: memoryview) -> int:
    filled = 0
    while filled < len(target):
        count = cast("Any", stream).readinto(target[filled:])
        if not count:
            break
        filled += count
    return filled


def _read_header(stream: BinaryIO, path: Path) -> _Header:
    first = stream.read(4)
    if first in (struct.pack("<i", 348), struct.pack("<i", 540)):
        order = "<"
    elif first in (struct.pack(">i", 348), struct.pack(">i", 540)):
        order = ">"
    else:
        raise BoneSAMError(f"The file '{path}' is not a NIfTI image, or it is damaged.")
    (size,) = struct.unpack(order + "i", first)
    content = first + stream.read(size - 4)
    if len(content) < size:
        raise EOFError

    def field(code: str, offset: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + code, content, offset)

    if size == 348:
        rank, *dim = field("8h", 40)
        (units,), (data_offset,) = field("B", 123), field("f", 108)
        data_type, pixdim = field("h", 70)[0], field("8f", 76)
        (slope, intercept), (q_code, s_code) = field("2f", 112), field("2h", 252)
        quaternion, q_offset, s_rows = field("3f", 256), field("3f", 268), field("12f", 280)
    else:
        rank, *dim = field("8q", 16)
        (units,), (data_offset,) = field("i", 500), field("q", 168)
        data_type, pixdim = field("h", 12)[0], field("8d", 104)
        (slope, intercept), (q_code, s_code) = field("2d", 176), field("2i", 344)
        quaternion, q_offset, s_rows = field("3d", 352), field("3d", 376), field("12d", 400)
    magic = content[344:348] if size == 348 else content[4:8]
    offset = int(data_offset) if math.isfinite(data_offset) and magic in _MAGICS else 0
    if not 1 <= rank <= 7 or any(n < 0 for n in dim[:rank]) or offset < size:
        raise BoneSAMError(f"The header of '{path}' is damaged: export the image again.")
    _skip(stream, offset - size)
    return _Header(
        byte_order=order,
        dimensions=tuple(dim[:rank]),
        data_type=data_type,
        pixdim=pixdim,
        data_offset=offset,
        slope=slope if math.isfinite(slope) else 1.0,
        intercept=intercept if math.isfinite(intercept) else 0.0,
        mm_per_unit=_MM_PER_UNIT.get(units & 0x07, 1.0),
        qform_code=q_code,
        sform_code=s_code,
        quaternion=cast("tuple[float, float, float]", quaternion),
        q_offset=cast("tuple[float, float, float]", q_offset),
        s_rows=np.array(s_rows, dtype=np.float64).reshape(3, 4),
    )


def _skip(stream: BinaryIO, count: int) -> None:
    """In steps: a damaged header may ask for more bytes than fit into memory."""
    while count > 0:
        skipped = len(stream.read(min(count, 1 << 20)))
        if not skipped:
            raise EOFError
        count -= skipped


def _three_dimensional(dimensions: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    extra = math.prod(dimensions[3:])
    if extra > 1:
        raise BoneSAMError(
            f"The file '{path}' holds {extra} volumes (size {' x '.join(map(str, dimensions))}): "
            "save the one to segment as its own file."
        )
    i, j, k = (*dimensions, 1, 1)[:3]
    if 0 in dimensions:
        raise BoneSAMError(f"There are no voxels in '{path}' (size {' x '.join(map(str, dimensions))}).")
    return i, j, k


def _affine(header: _Header, size: tuple[int, int, int], path: Path) -> Affine:
    spacing = np.abs(np.array(header.pixdim[1:4], dtype=np.float64))
    spacing[[n == 1 and not s > 0 for n, s in zip(size, spacing, strict=True)]] = 1.0  # unused by 2D images
    affine = np.eye(4)
    if header.sform_code == _SCANNER and _shear(header.s_rows) < _ORTHONORMAL:
        affine = _with_spacing(header.s_rows, spacing, size, path)
    elif header.qform_code > 0:
        affine[:3, :3] = _rotation(header) * spacing
        affine[:3, 3] = header.q_offset
    elif header.sform_code > 0:
        if _shear(header.s_rows) < _ORTHONORMAL:
            affine = _with_spacing(header.s_rows, spacing, size, path)
        else:
            affine[:3] = header.s_rows
            affine = _straightened(affine, size, path)
    else:  # no orientation is known: as ITK, the axes run to the left, posterior and superior
        affine[:3, :3] = np.diag([-spacing[0], -spacing[1], spacing[2]])
    affine[:3] *= header.mm_per_unit
    return affine


def _with_spacing(
    rows: NDArray[np.float64], spacing: NDArray[np.float64], size: tuple[int, int, int], path: Path
) -> Affine:
    """The affine of an sform; where `spacing`, of the same header, is another by rounding, it counts in ITK.

    Where it is clearly another, programs show the image in different places, so there is no right mask.
    """
    affine = np.eye(4)
    affine[:3] = rows
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        return affine  # `Volume` says what is wrong with it
    moved = np.abs(spacing / lengths - 1) * (np.array(size) - 1)
    if not moved.max() <= _SAME_VOXELS:
        stated, meant = (" x ".join(f"{step:.4g}" for step in steps) for steps in (spacing, lengths))
        raise BoneSAMError(
            f"The header of '{path}' gives two different spacings, {stated} mm and {meant} mm (pixdim and "
            "sform): programs would show it in different places; export the image again."
        )
    affine[:3, :3] *= spacing / lengths
    return affine


def _shear(rows: NDArray[np.float64]) -> float:
    """How far the axes are from perpendicular: the largest cosine of two; inf if one is missing."""
    lengths = np.linalg.norm(rows[:, :3], axis=0)
    if not (np.isfinite(rows).all() and (lengths > 0).all()):
        return math.inf
    axes = rows[:, :3] / lengths
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _rotation(header: _Header) -> NDArray[np.float64]:
    """Axis directions from the header's quaternion; the third axis carries the handedness."""
    b, c, d = header.quaternion
    norm = b * b + c * c + d * d
    if norm > 1.0:  # rounding beyond a half turn
        b, c, d = (value / math.sqrt(norm) for value in (b, c, d))
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    if header.pixdim[0] < 0:
        rotation[:, 2] *= -1.0
    return rotation


def _straightened(affine: Affine, size: tuple[int, int, int], path: Path) -> Affine:
    """The nearest affine with perpendicular axes, turned about the volume's center, if it is near enough."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        return affine  # `Volume` says what is wrong with it
    left, _, right = np.linalg.svd(affine[:3, :3] / lengths)
    straight = affine.copy()
    straight[:3, :3] = (left @ right) * lengths
    half = (np.array(size) - 1) / 2
    straight[:3, 3] += (affine[:3, :3] - straight[:3, :3]) @ half
    change = np.abs(straight[:3, :3] - affine[:3, :3]) @ half
    moved = float(change.max() / lengths.min())
    if moved > _STRAIGHTEN_VOXELS:
        raise BoneSAMError(
            f"The axes of '{path}' are not perpendicular (sheared affine, off by up to {moved:.1f} voxels): "
            "resample the image to a regular grid first."
        )
    _logger.warning("The axes of '%s' were not quite perpendicular and were straightened.", path)
    return straight
