"""DICOM files: what their headers say, and which of them are one series."""

import functools
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Modality

__all__ = [
    "DicomImage",
    "find_images",
    "functional_group",
    "is_dicom",
    "is_no_image",
    "of_one_stack",
    "series_at",
]

_XRAY_MODALITIES = {"CR", "DX", "DR", "RG", "RF", "XA", "MG", "PX", "IO"}
_NOT_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "SR", "PR", "KO", "REG", "DOC", "FID"}
_SUFFIXES = (".dcm", ".dicom", ".ima")
_REMEMBERED = 100_000  # files whose series is known, at some 300 bytes


@dataclass(frozen=True)
class DicomImage:
    """What the header of one file says."""

    path: Path
    dataset: Dataset

    @property
    def series(self) -> str:
        """Its SeriesInstanceUID."""
        return str(self.dataset.get("SeriesInstanceUID", ""))

    @property
    def frames(self) -> int:
        """How many images the file holds."""
        return int(self.dataset.get("NumberOfFrames", 1) or 1)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.dataset.Rows), int(self.dataset.Columns)

    @property
    def modality(self) -> Modality | None:
        """What it was taken with, if that is known here."""
        stated = str(self.dataset.get("Modality", "")).upper()
        known: dict[str, Modality] = {"CT": "CT", "MR": "MR"}
        return "X-ray" if stated in _XRAY_MODALITIES else known.get(stated)

    @property
    def has_place(self) -> bool:
        """Whether it says where in the patient it lies; radiographs do not."""
        frame = functional_group(self.dataset, 0, "PlanePositionSequence")
        return "ImagePositionPatient" in self.dataset or frame is not None


def functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """A property of one frame of a multi-frame file: its own, or the one that all frames share."""
    groups = [*(dataset.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1]]
    groups += dataset.get("SharedFunctionalGroupsSequence") or []
    for group in groups:
        if group.get(keyword):
            return cast("Dataset", group[keyword][0])
    return None


def is_dicom(path: Path) -> bool:
    """Whether `path` is a DICOM file, by its first bytes or else by its ending.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM" or path.suffix.lower() in _SUFFIXES


def series_at(path: Path) -> str | None:
    """SeriesInstanceUID of a DICOM image; None for anything else, and for a damaged one.

    It is remembered: a batch asks for each of a hundred series which of the files in their folder it is in.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    return _series_at(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(_REMEMBERED)
def _series_at(path: Path, size: int, modified: int) -> str | None:
    header = _read_header(path) if is_dicom(path) else None
    return header.series if isinstance(header, DicomImage) else None


def find_images(path: Path) -> tuple[list[DicomImage], tuple[str, ...]]:
    """The one series in a folder, or the series that a file belongs to; and sentences about damaged files.

    Args:
        path: a folder (its subfolders are searched when it holds no images itself), or a file. A file
            stands for all slices of its series in the same folder; a radiograph or a multi-frame file stands
            for itself.

    Raises:
        BoneSAMError: no images, or several series.
    """
    if path.is_dir():
        return _in_folder(path)
    chosen = _read_header(path)
    if not isinstance(chosen, DicomImage):
        raise BoneSAMError(f"The file '{path}' is damaged, or a DICOM file without an image.")
    if chosen.frames > 1 or not chosen.has_place:
        return [chosen], ()
    siblings, notes = _headers(sorted(path.parent.iterdir()), chosen.series)
    return siblings or [chosen], notes


def of_one_stack(images: Sequence[DicomImage], path: Path) -> tuple[list[DicomImage], tuple[str, ...]]:
    """The images that make up one volume, and sentences about those that were left out.

    These are one multi-frame file, one radiograph, or single slices that say where they lie. Exact copies of
    a file count once.

    Raises:
        BoneSAMError: there are several multi-frame files or radiographs.
    """
    if any(image.frames > 1 for image in images):
        if len(images) > 1:
            raise BoneSAMError(
                f"The series in '{path}' holds {len(images)} multi-frame files: pass one of them, "
                f"such as {images[0].path.name}."
            )
        return list(images), ()
    stack = [image for image in images if image.has_place]
    if not stack:
        if len(images) > 1:
            raise BoneSAMError(
                f"The folder '{path}' holds {len(images)} radiographs: pass the file of one of them, "
                f"such as {images[0].path.name}."
            )
        return list(images), ()
    if len(stack) < len(images):
        lost = next(image for image in images if not image.has_place)
        raise BoneSAMError(
            f"In '{path}', {len(images) - len(stack)} of {len(images)} images of the series say not where "
            f"they lie, such as {lost.path.name}: export the series again."
        )
    different = _without_copies(stack)
    if len(different) == len(stack):
        return stack, ()
    copies = len(stack) - len(different)
    what = (
        "1 file is an exact copy of another" if copies == 1 else f"{copies} files are exact copies of others"
    )
    return different, (f"In '{path}', {what}: each slice was used once.",)


def _without_copies(images: Iterable[DicomImage]) -> list[DicomImage]:
    """Those whose file is not, byte by byte, that of an earlier one."""
    kept: dict[str, list[DicomImage]] = defaultdict(list)
    for image in images:
        same_name = kept[str(image.dataset.get("SOPInstanceUID", image.path))]
        if not any(one.path.read_bytes() == image.path.read_bytes() for one in same_name):
            same_name.append(image)
    return [image for same_name in kept.values() for image in same_name]


def _in_folder(folder: Path) -> tuple[list[DicomImage], tuple[str, ...]]:
    images, notes = _headers(sorted(folder.iterdir()))
    if not images:
        images, notes = _headers(sorted(folder.rglob("*")))
    if not images:
        raise BoneSAMError(f"There are no DICOM images in the folder '{folder}'.")
    by_series: dict[str, list[DicomImage]] = defaultdict(list)
    for image in images:
        by_series[image.series].append(image)
    if len(by_series) > 1:
        raise BoneSAMError(
            f"The folder '{folder}' holds {len(by_series)} series, pass one file of the series to segment: "
            f"{_listed_series(by_series.values())}."
        )
    return images, notes


def _listed_series(groups: Iterable[Sequence[DicomImage]]) -> str:
    ordered = sorted(groups, key=_series_number)
    texts = [
        f"{_series_number(group)} '{group[0].dataset.get('SeriesDescription', '') or 'no description'}' "
        f"({group[0].dataset.get('Modality', '') or 'unknown modality'}, {len(group)} "
        f"{'image' if len(group) == 1 else 'images'}, {group[0].path.name})"
        for group in ordered[:12]
    ]
    if len(ordered) > len(texts):
        texts.append(f"and {len(ordered) - len(texts)} more")
    return "; ".join(texts)


def _series_number(group: Sequence[DicomImage]) -> int:
    return int(group[0].dataset.get("SeriesNumber", 0) or 0)


def _headers(paths: Iterable[Path], series: str | None = None) -> tuple[list[DicomImage], tuple[str, ...]]:
    """Images among files, of one series if it is named, and a sentence about damaged ones of any series.

    Headers of other series are not kept: a folder may hold thousands.
    """
    found: list[DicomImage] = []
    damaged: list[Path] = []
    for path in paths:
        if not path.is_file() or (series is not None and series_at(path) not in (None, series)):
            continue
        header = _read_header(path) if is_dicom(path) else None
        if isinstance(header, Path):
            damaged.append(header)
        elif header is not None:
            found.append(header)
    notes: tuple[str, ...] = ()
    if damaged:
        what = (
            f"'{damaged[0]}' is" if len(damaged) == 1 else f"'{damaged[0]}' and {len(damaged) - 1} more are"
        )
        notes = (f"The DICOM file {what} damaged and left out: the volume may lack slices.",)
    return found, notes


def _read_header(path: Path) -> DicomImage | Path | None:
    """Header of a DICOM image; its path if it is damaged; None for what is no image, such as a report."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that are not used here
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            if is_no_image(dataset):
                return None
            for keyword in ("Rows", "Columns"):
                int(dataset[keyword].value)
            for keyword in ("NumberOfFrames", "SeriesNumber"):
                int(dataset.get(keyword) or 0)
    except Exception:  # pydicom raises many kinds for a damaged file, and none of them helps the user
        return None if path.name.upper() == "DICOMDIR" else path
    return DicomImage(path, dataset)


def is_no_image(dataset: Dataset) -> bool:
    """Whether a header is that of something else, rather than of an image or of a damaged one."""
    if str(dataset.get("Modality", "")).upper() in _NOT_IMAGES:
        return True
    # First the one at the very start: of a file that was cut, it is mostly whole.
    stated = dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID")
    return "Rows" not in dataset and stated is not None and "Image Storage" not in UID(stated).name
