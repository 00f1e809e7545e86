"""Which scans are among files: what can be opened, and what to call it when the user has to choose."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from BoneSAMLib.batch.scan_files import dicom_header, kind_of, read_scan
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume

__all__ = ["FoundScan", "find_scans", "read_found_scan", "without_paths"]

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class FoundScan:
    """A scan that can be opened.

    Attributes:
        path: its file, or one file of its DICOM series.
        title: what the user knows it by.
        details: modality and number of images, as far as known.
    """

    path: Path
    title: str
    details: str = ""


def find_scans(source: Path) -> list[FoundScan]:
    """The scans in a file or folder, subfolders included; a DICOM series is one.

    Raises:
        BoneSAMError: there is none, or a damaged DICOM file among them.
    """
    if not source.exists():
        raise BoneSAMError(f"There is no file or folder '{source}'.")
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    series: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    found = []
    for path in files:
        if path.stat().st_size == 0:
            if len(files) == 1:
                raise BoneSAMError(f"The file '{path}' is empty: copy or download it again.")
            continue
        kind = kind_of(path)
        if kind == "DICOM":
            header = dicom_header(path)
            if header is not None:
                # Pictures without a place in the patient are scans of their own, even of one series.
                own = header.series if not header.single else str(path)
                series[path.parent, own].append(path)
        elif kind is not None or path.name.lower().endswith(_PICTURES):
            found.append(FoundScan(path, path.name, kind or "Picture"))
    found += [_described(paths) for paths in series.values()]
    if not found:
        if len(files) == 1:
            raise BoneSAMError(
                f"'{files[0]}' is no scan that BoneSAM knows: use NIfTI, NRRD, MHA, DICOM, PNG, JPEG or TIFF."
            )
        raise BoneSAMError(
            f"There is no scan among these {len(files)} files: choose a DICOM folder or a file."
        )
    return found


def read_found_scan(scan: FoundScan) -> Volume:
    """Read it.

    Raises:
        BoneSAMError: as `read_volume`.
    """
    return read_scan(scan.path)


def without_paths(text: str, folders: Sequence[Path]) -> str:
    """A message as a visitor may see it: where files lie on this machine is not their business."""
    for folder in sorted(set(folders), key=lambda path: -len(str(path))):
        text = text.replace(f"{folder}/", "").replace(str(folder), folder.name)
    return text


def _described(paths: Sequence[Path]) -> FoundScan:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are not used here
        dataset = pydicom.dcmread(
            paths[0],
            stop_before_pixels=True,
            force=True,
            specific_tags=["SeriesNumber", "SeriesDescription", "Modality", "NumberOfFrames"],
        )
    number = dataset.get("SeriesNumber", None)
    description = str(dataset.get("SeriesDescription", "") or "").strip()
    title = description or (f"Series {number}" if number is not None else paths[0].name)
    count = int(dataset.get("NumberOfFrames", 1) or 1) if len(paths) == 1 else len(paths)
    images = "1 image" if count == 1 else f"{count} images"
    details = [str(dataset.get("Modality", "") or "DICOM"), images]
    if description and number is not None:
        details.insert(0, f"series {number}")
    return FoundScan(paths[0], title, ", ".join(details))
