"""DICOM folders and files to `Volume`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.dicom_images import DicomImage, find_images, is_dicom, of_one_stack
from BoneSAMLib.dicom_pixels import pixel_size, pixels_of
from BoneSAMLib.dicom_slices import SliceStack, stack_of
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import lps_to_ras
from BoneSAMLib.volume import Modality, Volume

__all__ = ["DicomSeries", "is_dicom", "read_dicom", "read_series"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomSeries:
    """The headers of one volume's files, and where its slices lie.

    Attributes:
        images: one multi-frame file, one radiograph, or single slices in no certain order.
        stack: the grid of the slices (or frames); None for a radiograph, which has no place.
        notes: sentences about what the volume is not as the files are.
    """

    images: tuple[DicomImage, ...]
    stack: SliceStack | None
    notes: tuple[str, ...] = ()


def read_series(path: Path) -> DicomSeries:
    """Read the headers of the one series in a folder, or of the series that a file belongs to.

    Raises:
        BoneSAMError: no images, several series, or slices that are no regular stack.
    """
    found, damaged = find_images(path)
    images, notes = of_one_stack(found, path)
    notes += damaged
    if not images[0].has_place and images[0].frames == 1:
        return DicomSeries(tuple(images), None, notes)
    stack = stack_of(images, path)
    if stack.tilt:
        notes += (
            f"The slices in '{path}' were taken with a tilted gantry ({stack.tilt:.1f} degrees): they were "
            "straightened, and files other than DICOM segmentations lie on the straightened slices.",
        )
    return DicomSeries(tuple(images), stack, notes)


def read_dicom(path: Path, modality: Modality | None = None) -> Volume:
    """Read the one series in a folder, or the series that a file belongs to.

    A series with a tilted gantry is straightened (see `dicom_slices`), and exact copies of files count once;
    both are said in the volume's `notes` and logged as warnings.

    Args:
        path: a folder (its subfolders are searched when it holds no images itself), or a file. A file
            stands for all slices of its series in the same folder; a radiograph stands for itself.
        modality: overrides what the files say.

    Raises:
        BoneSAMError: no images, several series, or slices that are no regular stack.
    """
    series = read_series(path)
    known = modality or series.images[0].modality
    if series.stack is None:
        return _radiograph(series.images[0], path.name, known)
    pixels = _frames(series.images, series.stack)
    for note in series.notes:
        _logger.warning("%s", note)
    array = series.stack.straightened(pixels)
    frame = str(series.images[0].dataset.get("FrameOfReferenceUID", ""))
    return Volume(array, series.stack.ijk_to_ras, path.name, known, series.notes, frame)


def _radiograph(image: DicomImage, name: str, modality: Modality | None) -> Volume:
    pixels = pixels_of(image)
    affine = lps_to_ras((0.0, 0.0, 0.0), (*pixel_size(image), 1.0), np.eye(3).ravel().tolist())
    return Volume(pixels[np.newaxis], affine, name=name, modality=modality)


def _frames(images: Sequence[DicomImage], stack: SliceStack) -> NDArray[Any]:
    """Slices [n, rows, columns] by rising place along their normal."""
    if images[0].frames > 1:
        frames = pixels_of(images[0])
        if len(frames) != len(stack.order):
            raise BoneSAMError(
                f"The multi-frame DICOM file '{images[0].path}' names {len(stack.order)} frames but holds "
                f"{len(frames)}: export it again."
            )
        return frames if stack.order == tuple(range(len(frames))) else frames[list(stack.order)]
    first = pixels_of(images[stack.order[0]])
    kinds = {np.dtype(first.dtype)}
    frames = np.empty((len(images), *first.shape), dtype=first.dtype)
    for index, source in enumerate(stack.order):
        pixels = first if index == 0 else pixels_of(images[source])
        if pixels.dtype not in kinds:  # slices may be rescaled differently, as in PET
            kinds.add(np.dtype(pixels.dtype))
            frames = frames.astype(np.result_type(frames.dtype, pixels.dtype), copy=False)
        frames[index] = pixels
    return frames
