"""Masks to DICOM segmentation objects (DICOM-SEG), on the slices of the series that they were made from.

Made by highdicom, which is the optional dependency `dicom`: nothing else here needs it. Frames are the
source's own slices, in its own geometry also where the volume was straightened (see `dicom_slices`), so
viewers show the mask on the images without resampling.
"""

import copy
import re
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage, generate_uid

from BoneSAMLib.dicom_images import DicomImage, is_dicom
from BoneSAMLib.dicom_reading import DicomSeries, read_series
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, described_segments, open_complete, smallest_unsigned

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.sr.coding import Code

__all__ = ["DICOM_ENDING", "check_segmentation_source", "is_segmentation", "write_dicom_segmentation"]

DICOM_ENDING = ".dcm"
# Patient and study attributes that must be there, if only empty; anonymized series often lack them.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_SEXES = ("M", "F", "O", "")
_LONGEST_TEXT = 64  # of a DICOM short text (LO)
_HIGHEST_LABEL = 65535
_SERIES_NUMBER = 800  # out of the way of what scanners number
# Two grids are the same when no corner is farther apart than this, in mm.
_SAME_PLACE = 1e-3


def check_dicom_output() -> None:
    """Raises BoneSAMError where highdicom is not installed."""
    if find_spec("highdicom") is None:
        raise BoneSAMError(
            "A DICOM segmentation needs the Python package highdicom: install it with "
            "pip install highdicom, or choose .seg.nrrd."
        )


def check_segmentation_source(source: Path) -> None:
    """Say before the long work why its mask could not be written as a DICOM segmentation.

    Raises:
        BoneSAMError: highdicom is not installed, or the source is not DICOM.
    """
    check_dicom_output()
    try:
        is_source = source.is_dir() or is_dicom(source)
    except OSError as error:
        raise BoneSAMError(f"Cannot read '{source}': {error.strerror or error}.") from error
    if not is_source:
        raise BoneSAMError(
            f"A DICOM segmentation refers to DICOM images, and '{source}' is none: choose .seg.nrrd."
        )


def write_dicom_segmentation(
    labels: NDArray[Any],
    volume: Volume,
    source: Path,
    path: Path,
    segments: Sequence[SegmentInfo] = (),
    *,
    prompted: bool,
    weights: str,
) -> None:
    """Write labels as a DICOM segmentation: one binary segment per label, numbered from 1.

    UIDs and dates are new each time. A mask without any label becomes one empty segment.

    Args:
        labels: whole numbers of shape [k, j, i] like `volume.array`; 0 is background.
        volume: as `read_volume` or `read_scan` read it from `source`.
        source: the DICOM file or folder.
        path: ends in .dcm.
        segments: names, colors and meanings; labels without one get a number.
        prompted: whether somebody gave a box or a click (semiautomatic), or nobody did (automatic).
        weights: name of the network's weights, for the algorithm's identification.

    Raises:
        BoneSAMError: highdicom is missing, the source is not DICOM, has changed or lacks what the standard
            wants, or the file cannot be written; nothing is left behind then.
    """
    check_segmentation_source(source)
    series = read_series(source)
    _check_same_grid(series, volume, labels, source)
    labels = smallest_unsigned(labels)
    described = described_segments(labels, segments) or [SegmentInfo(1, "Bone", (1.0, 0.8, 0.5))]
    frames = _numbered(labels, described)
    if series.stack is not None:
        frames = series.stack.on_slices(frames)
    # highdicom and pydicom raise many kinds of errors for headers that are not as the standard says.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = _segmentation(series, frames, described, prompted, weights)
            with open_complete(path) as file:
                made.save_as(file)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        reason = re.sub(r"\s+", " ", str(error)).strip(" .")
        raise BoneSAMError(
            f"The headers of '{source}' are not fit for a DICOM segmentation ({reason}): choose .seg.nrrd."
        ) from error


def is_segmentation(path: Path) -> bool:
    """Whether `path` is a whole DICOM segmentation."""
    try:
        dataset = pydicom.dcmread(path)
        bits = int(dataset.NumberOfFrames) * int(dataset.Rows) * int(dataset.Columns)
        return dataset.SOPClassUID == SegmentationStorage and len(dataset.PixelData) >= (bits + 7) // 8
    except Exception:  # pydicom raises many kinds for a damaged file
        return False


def _check_same_grid(series: DicomSeries, volume: Volume, labels: NDArray[Any], source: Path) -> None:
    volume.check_same_shape(labels)
    if series.stack is None:
        is_same = volume.shape == (1, *series.images[0].size)
    else:
        corners = np.array([[0, 0, 0, 1], [*volume.size, 1]], dtype=np.float64)
        apart = corners @ (series.stack.ijk_to_ras - volume.ijk_to_ras).T
        is_same = volume.shape == series.stack.shape and float(np.abs(apart).max()) < _SAME_PLACE
    if not is_same:
        raise BoneSAMError(f"The DICOM series in '{source}' has changed since it was read: read it again.")


def _numbered(labels: NDArray[Any], segments: Sequence[SegmentInfo]) -> NDArray[Any]:
    """Labels as the numbers from 1 that the standard wants, in the order of the segments."""
    highest = max(segment.value for segment in segments)
    if highest > _HIGHEST_LABEL:
        raise BoneSAMError(f"A DICOM segmentation takes labels up to {_HIGHEST_LABEL}, not {highest}.")
    numbers = np.zeros(highest + 1, np.uint8 if len(segments) <= 255 else np.uint16)
    for number, segment in enumerate(segments, 1):
        numbers[segment.value] = number
    numbered: NDArray[Any] = numbers[labels]
    return numbered


def _segmentation(
    series: DicomSeries,
    frames: NDArray[Any],
    segments: Sequence[SegmentInfo],
    prompted: bool,
    weights: str,
) -> Dataset:
    """The object; `frames` [n, rows, columns] are in the order of the series' images or frames."""
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation
    from pydicom.sr.codedict import codes

    identification = AlgorithmIdentificationSequence(
        name="BoneSAM",
        family=codes.DCM.ArtificialIntelligence,
        version=_plain_text(f"{_version()}, weights {weights}"),
    )
    descriptions = [
        _description(number, segment, prompted, identification) for number, segment in enumerate(segments, 1)
    ]
    return Segmentation(
        source_images=_complete_headers(series.images),
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="BoneSAM",
        manufacturer_model_name="BoneSAM",
        software_versions=_version(),
        device_serial_number="none",
        content_label="BONES",
        content_description="Bones, for research only",
        series_description="BoneSAM segmentation",
        specific_character_set="ISO_IR 192",
    )


def _description(
    number: int, segment: SegmentInfo, prompted: bool, identification: Any
) -> "SegmentDescription":
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    category, kind, modifier = _codes_of(segment)
    red, green, blue = (round(255 * part) for part in segment.color)
    description = SegmentDescription(
        segment_number=number,
        segment_label=_plain_text(segment.name),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="SEMIAUTOMATIC" if prompted else "AUTOMATIC",
        algorithm_identification=identification,
        display_color=CIELabColor.from_rgb(red, green, blue),
    )
    if modifier is not None:
        side = Dataset()
        side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = modifier[:3]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return description


def _codes_of(segment: SegmentInfo) -> tuple["Code", "Code", "Code | None"]:
    """Category, type, and side if there is one, of a terminology entry (see `terminology`)."""
    from pydicom.sr.coding import Code

    bone = (Code("85756007", "SCT", "Tissue"), Code("272673000", "SCT", "Bone"), None)
    parts = [part.split("^") for part in segment.terminology.split("~")[1:4]]
    if len(parts) < 3 or any(len(part) != 3 for part in parts) or not all(parts[0] + parts[1]):
        return bone
    category, kind, side = (Code(value, scheme, meaning) for scheme, value, meaning in parts)
    return category, kind, side if all(parts[2]) else None


def _complete_headers(images: Sequence[DicomImage]) -> list[Dataset]:
    """Headers with all attributes that are copied or referred to."""
    headers = []
    for image in images:
        header = copy.copy(image.dataset)
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header or not _is_readable(header, keyword):
                setattr(header, keyword, "")
        if header.PatientSex not in _SEXES:
            header.PatientSex = ""
        if not image.has_place and "FrameOfReferenceUID" in header:
            del header.FrameOfReferenceUID  # it refers to a place that the image does not state
        headers.append(header)
    return headers


def _is_readable(header: Dataset, keyword: str) -> bool:
    from pydicom.valuerep import DA, TM

    try:
        value = header[keyword].value
        if value and keyword.endswith(("Date", "Time")):
            (DA if keyword.endswith("Date") else TM)(value)
    except (KeyError, ValueError, TypeError, NotImplementedError):
        return False
    return value is not None and not isinstance(value, list)


def _plain_text(name: str) -> str:
    """A name that fits into a DICOM text of one line."""
    return re.sub(r"[\\\x00-\x1f\x7f]+", " ", name).strip()[:_LONGEST_TEXT].strip() or "Bone"


def _version() -> str:
    try:
        return version("bonesam")
    except PackageNotFoundError:
        return "unknown version"
