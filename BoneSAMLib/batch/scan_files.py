"""What a file is, by its first bytes; its volume, and the hash of all files that a volume is stored in."""

import gzip
import hashlib
import re
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pydicom

from BoneSAMLib.dicom_images import DicomImage, is_no_image, series_at
from BoneSAMLib.dicom_reading import read_dicom
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import read_with_itk
from BoneSAMLib.nifti_reading import read_nifti
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume

__all__ = ["DicomHeader", "ScanKind", "dicom_header", "files_of", "kind_of", "read_scan", "scan_digest"]

ScanKind: TypeAlias = Literal["NIfTI", "NRRD", "MetaImage", "DICOM"]

_ENDINGS: dict[ScanKind, tuple[str, ...]] = {
    "NIfTI": (".nii", ".nii.gz"),
    "NRRD": (".nrrd", ".nhdr"),
    "MetaImage": (".mha", ".mhd"),
    "DICOM": (".dcm", ".dicom", ".ima"),
}
_NIFTI_SIZES = {n.to_bytes(4, order) for n in (348, 540) for order in ("little", "big")}
_NIFTI_MAGIC = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
_HEADER = 352
_FUNCTIONAL_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


@dataclass(frozen=True)
class DicomHeader:
    """What the search needs to know of a DICOM file."""

    series: str
    number: int
    frames: int
    has_position: bool

    @property
    def single(self) -> bool:
        """A volume or picture of its own: multi-frame, or without a place in the patient."""
        return self.frames > 1 or not self.has_position


def kind_of(path: Path) -> ScanKind | None:
    """Format of a file by its header; of a damaged one, by its name; None when it is no scan.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER)
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as stream:
                start = stream.read(_HEADER)
        except (OSError, EOFError, zlib.error):
            start = b""
    if start[128:132] == b"DICM":
        return "DICOM"
    if start[:4] in _NIFTI_SIZES and (start[344:348] in _NIFTI_MAGIC or start[4:8] in _NIFTI_MAGIC):
        return "NIfTI"
    if start[:4] == b"NRRD":
        return "NRRD"
    if re.match(rb"\s*(ObjectType|NDims)\s*=", start):
        return "MetaImage"
    return next((kind for kind, ends in _ENDINGS.items() if path.name.lower().endswith(ends)), None)


def dicom_header(path: Path) -> DicomHeader | None:
    """Series of a DICOM image; None for what is whole but no image, such as reports and segmentations.

    Raises:
        BoneSAMError: damaged.
    """
    keywords = ["SeriesInstanceUID", "SeriesNumber", "Modality", "SOPClassUID", "Rows", "NumberOfFrames"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that are not used here
            dataset = pydicom.dcmread(
                path,
                stop_before_pixels=True,
                force=True,
                specific_tags=[*keywords, "ImagePositionPatient", *_FUNCTIONAL_GROUPS],
            )
            if is_no_image(dataset):
                return None
            if "Rows" not in dataset:
                raise ValueError
            return DicomHeader(
                str(dataset.get("SeriesInstanceUID", "")),
                int(dataset.get("SeriesNumber", 0) or 0),
                int(dataset.get("NumberOfFrames", 1) or 1),
                DicomImage(path, dataset).has_place,
            )
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise BoneSAMError(f"The DICOM file '{path}' is damaged: copy or export it again.") from error


def read_scan(path: Path) -> Volume:
    """Read a volume by what its header says, whatever its name is; otherwise as `read_volume`.

    Raises:
        BoneSAMError: as `read_volume`.
    """
    try:
        kind = kind_of(path) if path.is_file() and path.stat().st_size else None
        if kind is None or path.name.lower().endswith(_ENDINGS[kind]):
            return read_volume(path)
        if kind == "NIfTI":
            return read_nifti(path)
        if kind == "DICOM":
            return read_dicom(path)
        return read_with_itk(path, image_io={"NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}[kind])
    except MemoryError as error:
        raise BoneSAMError(f"'{path}' does not fit into memory: crop or resample it first.") from error
    except OSError as error:
        raise BoneSAMError(f"Cannot read '{path}': {error.strerror or error}.") from error


def files_of(path: Path) -> list[Path]:
    """All files that the volume at `path` is stored in, sorted: a series, or a header with its data."""
    if path.is_dir():
        return sorted(one for one in path.rglob("*") if one.is_file())
    kind = kind_of(path)
    if kind == "DICOM":
        return _series_of(path)
    if kind in ("NRRD", "MetaImage"):
        return sorted({path, *_detached(path)})
    return [path]


def scan_digest(path: Path) -> str:
    """SHA-256 of all files of the volume at `path`.

    Raises:
        BoneSAMError: one is missing or cannot be read.
    """
    if not path.exists():
        raise BoneSAMError(f"There is no file or folder '{path}'.")
    try:
        return _digest(files_of(path))
    except OSError as error:
        raise BoneSAMError(f"Cannot read '{path}': {error.strerror or error}.") from error


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _series_of(path: Path) -> list[Path]:
    try:
        chosen = dicom_header(path)
    except BoneSAMError:
        return [path]
    if chosen is None or chosen.single:
        return [path]
    siblings = _regular_files(path.parent.iterdir())
    return [one for one in siblings if one == path or series_at(one) == chosen.series]


def _regular_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file())


def _detached(path: Path) -> list[Path]:
    """Data files that a NRRD or MetaImage header names; several are given by a pattern or a list."""
    with path.open("rb") as file:
        header = file.read(65536).decode("latin-1")
    match = re.search(r"(?im)^(?:data ?file:\s*|ElementDataFile\s*=\s*)(.+?)\s*$", header)
    if match is None or match[1].upper() == "LOCAL":
        return []
    named = path.parent / match[1]
    return [named] if named.is_file() else _regular_files(path.parent.iterdir())
