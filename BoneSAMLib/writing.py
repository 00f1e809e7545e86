"""Masks to files: NIfTI, NRRD, MetaImage, and 3D Slicer's segmentation format.

The four formats are small, and are written here because ITK's NIfTI writer reports no error on a full disk:
it leaves a truncated file that reads as a smaller mask. Every file is written under a temporary name in the
same folder and renamed when it is complete.
"""

import colorsys
import contextlib
import errno
import gzip
import os
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import LPS_TO_RAS, Affine, Float3, Volume

__all__ = [
    "BONE_TERMINOLOGY",
    "Color",
    "SegmentInfo",
    "check_rectangular",
    "described_segments",
    "distinct_color",
    "open_complete",
    "smallest_unsigned",
    "write_mask",
]

Color: TypeAlias = tuple[float, float, float]

# How 3D Slicer writes "a bone, no matter which" (SNOMED CT codes).
BONE_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~"
    "SCT^272673000^Bone~^^~Anatomic codes - DICOM master list~^^~^^"
)

_NIFTI_ENDINGS = (".nii.gz", ".nii")
_COMPRESSION = 4  # masks are long runs: higher levels take longer and save little
# Cosine between two axes up to which a grid counts as rectangular: half a voxel over 500.
_RECTANGULAR = 1e-3
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class SegmentInfo:
    """Name and look of one label value.

    Attributes:
        value: the label in the array, 1 or more.
        name: shown to the user.
        color: red, green, blue, each 0 to 1.
        terminology: 3D Slicer's terminology entry (category, type, modifier), written to .seg.nrrd only.
    """

    value: int
    name: str
    color: Color
    terminology: str = BONE_TERMINOLOGY

    def __post_init__(self) -> None:
        if self.value < 1:
            raise BoneSAMError(f"The segment '{self.name}' has label {self.value}: labels start at 1.")
        if len(self.color) != 3 or not all(0.0 <= part <= 1.0 for part in self.color):
            raise BoneSAMError(f"The color {self.color} of '{self.name}' must be three numbers from 0 to 1.")


def distinct_color(number: int) -> Color:
    """A color for the `number`-th object (1 or more): neighbors differ clearly, and none repeats soon."""
    hue = (0.09 + (number - 1) * 0.618034) % 1.0  # golden section: always into the largest gap
    red, green, blue = colorsys.hls_to_rgb(hue, (0.60, 0.52, 0.70)[(number - 1) % 3], 0.9)
    # Pure blue is nearly black on a gray scan: add white up to a common least brightness.
    brightness = 0.30 * red + 0.59 * green + 0.11 * blue
    white = max(0.0, (0.45 - brightness) / (1.0 - brightness))
    return red + white * (1 - red), green + white * (1 - green), blue + white * (1 - blue)


def described_segments(labels: NDArray[Any], segments: Sequence[SegmentInfo]) -> list[SegmentInfo]:
    """`segments`, and one with a number for a name for each further label that occurs.

    Raises:
        BoneSAMError: two have the same label.
    """
    values = {segment.value for segment in segments}
    if len(values) < len(segments):
        raise BoneSAMError("Two segments have the same label: each needs its own.")
    present = {int(value) for plane in labels for value in np.unique(plane[plane > 0])}
    numbered = [
        SegmentInfo(value, f"Bone {value}", distinct_color(value)) for value in sorted(present - values)
    ]
    return [*segments, *numbered]


def write_mask(
    labels: NDArray[Any],
    volume: Volume,
    path: str | os.PathLike[str],
    segments: Sequence[SegmentInfo] = (),
) -> None:
    """Write labels on the grid of `volume`.

    Args:
        labels: whole numbers (or bool) of shape [k, j, i] like `volume.array`; 0 is background. Stored as
            unsigned 8, 16 or 32 bit, the smallest that holds them.
        volume: gives the geometry.
        path: ends in .nii, .nii.gz, .nrrd, .mha, or .seg.nrrd (a 3D Slicer segmentation, with names and
            colors).
        segments: names and colors for .seg.nrrd; labels without one get a number and a color of their own.

    Raises:
        BoneSAMError: unknown format, another shape than the volume's, a sheared geometry, or the file
            cannot be written; nothing is left behind then, and an older file stays as it was.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith((*_NIFTI_ENDINGS, ".nrrd", ".mha")):
        raise BoneSAMError(
            f"The format of '{path}' is not known: end the name in .nii.gz, .nii, .nrrd, .seg.nrrd or .mha."
        )
    volume.check_same_shape(labels)
    labels = smallest_unsigned(labels)
    affine = volume.ijk_to_ras
    check_rectangular(volume, path)
    with open_complete(path) as file:
        if name.endswith(".nii.gz"):
            with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as stream:
                _write_nifti(stream, labels, affine)
        elif name.endswith(".nii"):
            _write_nifti(file, labels, affine)
        elif name.endswith(".mha"):
            _write_metaimage(file, labels, affine)
        else:
            fields = _segmentation_fields(labels, affine, segments) if name.endswith(".seg.nrrd") else {}
            _write_nrrd(file, labels, affine, fields)


@contextlib.contextmanager
def open_complete(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears under `path` only when the block ends without an error.

    Raises:
        BoneSAMError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    temporary = path.parent / f".bonesam-{uuid.uuid4().hex[:12]}.part"
    try:
        if path.is_dir():
            raise BoneSAMError(f"Cannot write '{path}': it is a folder; give the name of a file.")
        if not path.parent.is_dir():
            raise BoneSAMError(f"Cannot write '{path}': there is no folder '{path.parent}'; create it first.")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # some disks find out that they are full only here
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in _FULL_DISK:
            reason = "the disk is full; free some space or choose another folder"
        elif isinstance(error, PermissionError):
            reason = "not permitted; choose another folder, or close the program that uses the file"
        else:
            reason = f"{error.strerror or error}"
        raise BoneSAMError(f"Cannot write '{path}': {reason}.") from error


def smallest_unsigned(labels: NDArray[Any]) -> NDArray[Any]:
    """The same labels as the smallest little-endian kind of unsigned number that holds them all.

    Raises:
        BoneSAMError: not whole numbers from 0 to 4294967295.
    """
    if labels.dtype.kind not in "bui":
        raise BoneSAMError(f"The mask holds numbers of type {labels.dtype}: whole numbers are needed.")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise BoneSAMError(f"The labels of the mask reach from {low} to {high}: 0 to 4294967295 is possible.")
    kind = next(kind for kind in ("<u1", "<u2", "<u4") if high <= np.iinfo(kind).max)
    return np.ascontiguousarray(labels, dtype=kind)


def check_rectangular(volume: Volume, path: Path) -> None:
    """Raises BoneSAMError where the volume's axes are not perpendicular: no image file holds its mask."""
    affine = volume.ijk_to_ras
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > _RECTANGULAR:
        raise BoneSAMError(
            f"Cannot write '{path}': the axes of the volume are not perpendicular, which image files cannot "
            "hold; resample the volume to a regular grid first."
        )


def _write_all(stream: Any, labels: NDArray[Any]) -> None:
    for plane in labels:  # one at a time: a compressor would otherwise hold a second copy
        stream.write(plane.data)


def _write_nifti(stream: Any, labels: NDArray[Any], affine: Affine) -> None:
    """NIfTI-1 with both affines, each in scanner coordinates: https://nifti.nimh.nih.gov/nifti-1."""
    if max(labels.shape) > 32767:
        raise BoneSAMError("NIfTI cannot hold more than 32767 voxels along one axis: write .nrrd instead.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    handedness, quaternion = _quaternion(affine[:3, :3] / spacing)
    data_type = {1: 2, 2: 512, 4: 768}[labels.itemsize]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *labels.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, data_type, 8 * labels.itemsize)
    struct.pack_into("<8f", header, 76, handedness, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)  # where the data start, slope, intercept
    struct.pack_into("<B", header, 123, 2)  # millimeters
    struct.pack_into("<80s", header, 148, b"BoneSAM mask")
    struct.pack_into("<2h", header, 252, 1, 1)
    struct.pack_into("<6f", header, 256, *quaternion, *affine[:3, 3])
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    struct.pack_into("<4s", header, 344, b"n+1")
    stream.write(header)
    _write_all(stream, labels)


def _quaternion(axes: NDArray[np.float64]) -> tuple[float, Float3]:
    """NIfTI's handedness (1 or -1) and quaternion (b, c, d) of nearly perpendicular unit axes."""
    left, _, right = np.linalg.svd(axes)
    rotation = left @ right  # the nearest perpendicular axes
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    rotation[:, 2] *= handedness
    # The quaternion is the main eigenvector of this matrix (Bar-Itzhack 2000), stable for every angle.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    a, b, c, d = np.linalg.eigh(symmetric)[1][:, -1].tolist()
    sign = -1.0 if a < 0 else 1.0
    return handedness, (sign * b, sign * c, sign * d)


def _write_nrrd(file: BinaryIO, labels: NDArray[Any], affine: Affine, fields: dict[str, str]) -> None:
    """NRRD with gzipped data and `fields` as key/value pairs: https://teem.sourceforge.net/nrrd/format.html."""
    lps = LPS_TO_RAS @ affine
    lines = [
        "NRRD0005",
        f"type: {({1: 'uint8', 2: 'uint16', 4: 'uint32'})[labels.itemsize]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in labels.shape[::-1]),
        "space directions: " + " ".join(_vector(lps[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        *(["endian: little"] if labels.itemsize > 1 else []),
        "encoding: gzip",
        "space origin: " + _vector(lps[:3, 3]),
        *(f"{key}:={_escaped(value)}" for key, value in fields.items()),
    ]
    file.write(("\n".join(lines) + "\n\n").encode("utf-8", "replace"))
    with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as stream:
        _write_all(stream, labels)


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(_number(value) for value in values) + ")"


def _number(value: float) -> str:
    return repr(float(value) + 0.0)  # shortest text that reads back the same; + 0.0 turns -0.0 into 0.0


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\r", "").replace("\n", "\\n")


def _segmentation_fields(
    labels: NDArray[Any], affine: Affine, segments: Sequence[SegmentInfo]
) -> dict[str, str]:
    """What 3D Slicer reads beside the voxels (in vtkMRMLSegmentationStorageNode): one layer for all."""
    named = described_segments(labels, segments)
    # Slicer takes the extent of the first segment for the whole layer, so all get the same one.
    extent = "0 -1 0 -1 0 -1"
    if labels.any():
        ranges = []
        for axis in (2, 1, 0):
            others = tuple(other for other in range(3) if other != axis)
            occupied = np.flatnonzero(labels.any(axis=others))
            ranges += [occupied[0], occupied[-1]]
        extent = " ".join(str(n) for n in ranges)
    k, j, i = labels.shape
    matrix = "".join(f"{_number(value)};" for value in affine.ravel())
    fields = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": (
            f"Reference image geometry|{matrix}0;{i - 1};0;{j - 1};0;{k - 1};|"
            "Geometry of the image that was segmented.&"
        ),
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for index, segment in enumerate(named):
        fields |= {
            f"Segment{index}_ID": f"Segment_{segment.value}",
            f"Segment{index}_Name": segment.name,
            f"Segment{index}_NameAutoGenerated": "0",
            f"Segment{index}_Color": " ".join(f"{part:.6g}" for part in segment.color),
            f"Segment{index}_ColorAutoGenerated": "0",
            f"Segment{index}_LabelValue": str(segment.value),
            f"Segment{index}_Layer": "0",
            f"Segment{index}_Extent": extent,
            f"Segment{index}_Tags": f"TerminologyEntry:{segment.terminology}|"
            if segment.terminology
            else "|",
        }
    return fields


def _write_metaimage(file: BinaryIO, labels: NDArray[Any], affine: Affine) -> None:
    """MetaImage: https://itk.org/Wiki/ITK/MetaIO/Documentation."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    data = b"".join(_compressed(labels))
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {len(data)}",
        "TransformMatrix = " + _numbers((lps[:3, :3] / spacing).T.ravel()),
        "Offset = " + _numbers(lps[:3, 3]),
        "CenterOfRotation = 0 0 0",
        "ElementSpacing = " + _numbers(spacing),
        "DimSize = " + " ".join(str(n) for n in labels.shape[::-1]),
        f"ElementType = {({1: 'MET_UCHAR', 2: 'MET_USHORT', 4: 'MET_UINT'})[labels.itemsize]}",
        "ElementDataFile = LOCAL",
    ]
    file.write(("\n".join(lines) + "\n").encode("utf-8", "replace"))
    file.write(data)


def _compressed(labels: NDArray[Any]) -> Iterator[bytes]:
    compressor = zlib.compressobj(_COMPRESSION)
    for plane in labels:
        yield compressor.compress(plane.data)
    yield compressor.flush()


def _numbers(values: NDArray[np.float64]) -> str:
    return " ".join(_number(value) for value in values)
