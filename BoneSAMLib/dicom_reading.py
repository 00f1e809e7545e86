"""DICOM folders and files to `Volume`.

Slices are sorted by their position in the patient, never by file name or instance number. Whatever is no
regular stack (tilted gantry, missing slices, several time points) is refused with the reason: guessing here
would put the mask in the wrong place.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import lps_to_ras, quiet_itk
from BoneSAMLib.picture_reading import gray_values
from BoneSAMLib.volume import Affine, Modality, Volume

__all__ = ["is_dicom", "read_dicom"]

_XRAY_MODALITIES = {"CR", "DX", "DR", "RG", "RF", "XA", "MG", "PX", "IO"}
_NOT_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "SR", "PR", "KO", "REG", "DOC", "FID"}
_SUFFIXES = (".dcm", ".dicom", ".ima")
# A slice gap that differs from the usual one by more than this part of it is irregular; positions are
# rounded in many headers, to 0.1 mm at worst.
_GAP_TOLERANCE = 0.05
_GAP_ROUNDING_MM = 0.11
# Directions of the same series differ by rounding only.
_DIRECTION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Image:
    """What the header of one file says."""

    path: Path
    dataset: Dataset

    @property
    def series(self) -> str:
        return str(self.dataset.get("SeriesInstanceUID", ""))

    @property
    def frames(self) -> int:
        return int(self.dataset.get("NumberOfFrames", 1) or 1)

    @property
    def size(self) -> tuple[int, int]:
        return int(self.dataset.Rows), int(self.dataset.Columns)

    @property
    def modality(self) -> Modality | None:
        stated = str(self.dataset.get("Modality", "")).upper()
        known: dict[str, Modality] = {"CT": "CT", "MR": "MR"}
        return "X-ray" if stated in _XRAY_MODALITIES else known.get(stated)


@dataclass(frozen=True)
class _Slice:
    """Where one slice lies (LPS mm) and what to call it in messages."""

    title: str
    position: NDArray[np.float64]
    row: NDArray[np.float64]  # direction in which i increases
    column: NDArray[np.float64]  # direction in which j increases
    spacing: tuple[float, float]  # along i and j


def is_dicom(path: Path) -> bool:
    """Whether `path` is a DICOM file, by its first bytes or else by its ending."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM" or path.suffix.lower() in _SUFFIXES


def read_dicom(path: Path, modality: Modality | None = None) -> Volume:
    """Read the one series in a folder, or the series that a file belongs to.

    Args:
        path: a folder (its subfolders are searched when it holds no images itself), or a file. A file
            stands for all slices of its series in the same folder; a radiograph stands for itself.
        modality: overrides what the files say.

    Raises:
        BoneSAMError: no images, several series, or slices that are no regular stack.
    """
    if path.is_dir():
        images = _images_in_folder(path)
    else:
        chosen = _read_header(path)
        if chosen is None:
            raise BoneSAMError(f"The file '{path}' is damaged, or a DICOM file without an image.")
        images = [chosen]
        if chosen.frames == 1 and "ImagePositionPatient" in chosen.dataset:
            siblings = _headers(sorted(path.parent.iterdir()))
            images = [image for image in siblings if image.series == chosen.series] or images
    known = modality or images[0].modality
    if any(image.frames > 1 for image in images):
        if len(images) > 1:
            raise BoneSAMError(
                f"The series in '{path}' holds {len(images)} multi-frame files: pass one of them, "
                f"such as {images[0].path.name}."
            )
        return _read_multi_frame(images[0], path.name, known)
    stack = [image for image in images if "ImagePositionPatient" in image.dataset]
    if len(stack) > 1 or (stack and len(images) == 1):
        return _read_stack(stack, path, known)
    if len(images) > 1:
        raise BoneSAMError(
            f"The folder '{path}' holds {len(images)} radiographs: pass the file of one of them, "
            f"such as {images[0].path.name}."
        )
    return _read_radiograph(images[0], path.name, known)


def _images_in_folder(folder: Path) -> list[_Image]:
    images = _headers(sorted(folder.iterdir())) or _headers(sorted(folder.rglob("*")))
    if not images:
        raise BoneSAMError(f"There are no DICOM images in the folder '{folder}'.")
    by_series: dict[str, list[_Image]] = defaultdict(list)
    for image in images:
        by_series[image.series].append(image)
    if len(by_series) > 1:
        raise BoneSAMError(
            f"The folder '{folder}' holds {len(by_series)} series, pass one file of the series to segment: "
            f"{_listed_series(by_series.values())}."
        )
    return images


def _listed_series(groups: Iterable[Sequence[_Image]]) -> str:
    def number(group: Sequence[_Image]) -> int:
        return int(group[0].dataset.get("SeriesNumber", 0) or 0)

    ordered = sorted(groups, key=number)
    texts = [
        f"{number(group)} '{group[0].dataset.get('SeriesDescription', '') or 'no description'}' "
        f"({group[0].dataset.get('Modality', '') or 'unknown modality'}, {len(group)} "
        f"{'image' if len(group) == 1 else 'images'}, {group[0].path.name})"
        for group in ordered[:12]
    ]
    if len(ordered) > len(texts):
        texts.append(f"and {len(ordered) - len(texts)} more")
    return "; ".join(texts)


def _headers(paths: Iterable[Path]) -> list[_Image]:
    headers = (_read_header(path) for path in paths if path.is_file() and is_dicom(path))
    return [header for header in headers if header is not None]


def _read_header(path: Path) -> _Image | None:
    """Header of a DICOM image; None for anything else (reports, structure sets, directories, damage)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that are not used here
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            for keyword in ("Rows", "Columns"):
                int(dataset[keyword].value)
            is_image = str(dataset.get("Modality", "")).upper() not in _NOT_IMAGES
    except Exception:  # pydicom raises many kinds for a damaged file, and none of them helps the user
        return None
    return _Image(path, dataset) if is_image else None


def _pixels(image: _Image) -> NDArray[Any]:
    """Values of one file, rescaled as it says: [rows, columns], or [frames, rows, columns]."""
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(image.path))
    try:
        with quiet_itk():
            pixels: NDArray[Any] = SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise BoneSAMError(
            f"The pixels of the DICOM file '{image.path}' cannot be read: it is damaged or incomplete, or "
            "stored by a compression that is not supported."
        ) from error
    _check_length(image)
    if int(image.dataset.get("SamplesPerPixel", 1) or 1) > 1:
        pixels = gray_values(pixels, str(image.path))
    return pixels[0] if image.frames == 1 and pixels.ndim == 3 else pixels


def _check_length(image: _Image) -> None:
    """GDCM fills what is missing of uncompressed pixels without a word."""
    dataset = image.dataset
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (not syntax.is_transfer_syntax or syntax.is_compressed):
        return
    bits = image.frames * int(dataset.get("SamplesPerPixel", 1) or 1) * int(dataset.get("BitsAllocated", 16))
    stored = pydicom.dcmread(image.path, force=True, specific_tags=["PixelData"]).get("PixelData") or b""
    if len(stored) < image.size[0] * image.size[1] * bits // 8:
        raise BoneSAMError(f"The DICOM file '{image.path}' lacks pixels: copy or export it again.")


def _read_radiograph(image: _Image, name: str, modality: Modality | None) -> Volume:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(image.path))
    pixels = _pixels(image)
    with quiet_itk():
        reader.ReadImageInformation()  # ITK knows which of the four pixel-size tags counts
    i_spacing, j_spacing = reader.GetSpacing()[:2]
    affine = lps_to_ras((0.0, 0.0, 0.0), (i_spacing, j_spacing, 1.0), np.eye(3).ravel().tolist())
    return Volume(pixels[np.newaxis], affine, name=name, modality=modality)


def _read_stack(images: Sequence[_Image], path: Path, modality: Modality | None) -> Volume:
    slices = [_single_frame_slice(image) for image in images]
    sizes = [image.size for image in images]
    order, affine = _regular_grid(slices, sizes, path, _thickness(images[0].dataset))
    first = _pixels(images[order[0]])
    kinds = {np.dtype(first.dtype)}
    stack: NDArray[Any] = np.empty((len(images), *first.shape), dtype=first.dtype)
    for index, source in enumerate(order):
        pixels = first if index == 0 else _pixels(images[source])
        if pixels.dtype not in kinds:  # slices may be rescaled differently, as in PET
            kinds.add(np.dtype(pixels.dtype))
            stack = stack.astype(np.result_type(stack.dtype, pixels.dtype), copy=False)
        stack[index] = pixels
    return Volume(stack, affine, name=path.name, modality=modality)


def _read_multi_frame(image: _Image, name: str, modality: Modality | None) -> Volume:
    slices = _frame_slices(image)
    measures = _functional_group(image.dataset, 0, "PixelMeasuresSequence")
    thickness = _thickness(image.dataset if measures is None else measures)
    order, affine = _regular_grid(slices, [image.size] * len(slices), image.path, thickness)
    pixels = _pixels(image)
    if pixels.shape[0] != len(slices):
        raise BoneSAMError(
            f"The multi-frame DICOM file '{image.path}' names {len(slices)} frames but holds "
            f"{pixels.shape[0]}: export it again."
        )
    return Volume(pixels[order], affine, name=name, modality=modality)


def _thickness(dataset: Dataset) -> float:
    """Thickness to give a single slice, in mm."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = dataset.get(keyword)
        if value is not None and float(value) > 0:
            return float(value)
    return 1.0


def _single_frame_slice(image: _Image) -> _Slice:
    dataset = image.dataset
    return _make_slice(
        image.path.name,
        image.path,
        dataset.get("ImagePositionPatient"),
        dataset.get("ImageOrientationPatient"),
        dataset.get("PixelSpacing"),
    )


def _frame_slices(image: _Image) -> list[_Slice]:
    if "PerFrameFunctionalGroupsSequence" not in image.dataset:
        raise BoneSAMError(
            f"The DICOM file '{image.path}' holds {image.frames} frames without positions, as in a film: "
            "save the one to segment as its own file."
        )
    slices = []
    for index in range(len(image.dataset.PerFrameFunctionalGroupsSequence)):
        position = _functional_group(image.dataset, index, "PlanePositionSequence")
        orientation = _functional_group(image.dataset, index, "PlaneOrientationSequence")
        measures = _functional_group(image.dataset, index, "PixelMeasuresSequence")
        slices.append(
            _make_slice(
                f"frame {index + 1}",
                image.path,
                None if position is None else position.get("ImagePositionPatient"),
                None if orientation is None else orientation.get("ImageOrientationPatient"),
                None if measures is None else measures.get("PixelSpacing"),
            )
        )
    return slices


def _functional_group(dataset: Dataset, frame: int, keyword: str) -> Dataset | None:
    """A property of one frame: its own, or the one that all frames share."""
    groups = [*dataset.get("PerFrameFunctionalGroupsSequence", [])[frame : frame + 1]]
    groups += dataset.get("SharedFunctionalGroupsSequence", [])
    for group in groups:
        if group.get(keyword):
            return cast("Dataset", group[keyword][0])
    return None


def _make_slice(title: str, path: Path, position: Any, orientation: Any, spacing: Any) -> _Slice:
    try:
        place = np.array([float(value) for value in position])
        directions = np.array([float(value) for value in orientation]).reshape(2, 3)
        j_spacing, i_spacing = (float(value) for value in spacing)
    except (TypeError, ValueError) as error:
        raise BoneSAMError(
            f"The DICOM file '{path}' ({title}) says not where its image lies or how large its pixels are: "
            "export the series again."
        ) from error
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if place.shape != (3,) or not (lengths > 0.5).all() or not (i_spacing > 0 and j_spacing > 0):
        raise BoneSAMError(
            f"The geometry in the DICOM file '{path}' ({title}) is not valid: export it again."
        )
    row, column = directions / lengths
    if abs(row @ column) > _DIRECTION_TOLERANCE:
        raise BoneSAMError(
            f"The rows and columns in the DICOM file '{path}' ({title}) are not perpendicular: "
            "export it again."
        )
    column = column - row * (row @ column)  # directions are rounded in the header
    return _Slice(title, place, row, column / np.linalg.norm(column), (i_spacing, j_spacing))


def _regular_grid(
    slices: Sequence[_Slice], sizes: Sequence[tuple[int, int]], path: Path, thickness: float
) -> tuple[list[int], Affine]:
    """Order of the slices along their normal, and the affine of the stack so sorted (to RAS mm)."""
    first = slices[0]
    for other, size in zip(slices, sizes, strict=True):
        same = size == sizes[0] and np.allclose(other.spacing, first.spacing, rtol=1e-3)
        turned = max(np.abs(other.row - first.row).max(), np.abs(other.column - first.column).max())
        if not same or turned > 10 * _DIRECTION_TOLERANCE:
            raise BoneSAMError(
                f"The slices in '{path}' do not form one stack: {first.title} and {other.title} differ in "
                f"{'direction' if same else 'size'}. Put the slices of one stack into a folder of their own."
            )
    normal = np.cross(first.row, first.column)
    heights = np.array([one.position @ normal for one in slices])
    order = [int(index) for index in np.argsort(heights, kind="stable")]
    ordered = [slices[index] for index in order]
    step = normal * thickness
    if len(slices) > 1:
        _check_gaps(ordered, heights[order], path)
        step = normal * (heights[order[-1]] - heights[order[0]]) / (len(slices) - 1)
        _check_straight(ordered, normal, path)
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing[0]
    affine[:3, 1] = first.column * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].position
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_gaps(ordered: Sequence[_Slice], heights: NDArray[np.float64], path: Path) -> None:
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        repeated = int(np.unique(np.round(heights, 2)).size)
        raise BoneSAMError(
            f"In '{path}', {len(ordered)} slices lie at {repeated} positions (time points, echoes or "
            "copies): put the slices of one volume into a folder of their own."
        )
    tolerance = max(_GAP_TOLERANCE * usual, _GAP_ROUNDING_MM)
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) <= tolerance:
        return
    where = f"between {ordered[worst].title} and {ordered[worst + 1].title}"
    missing = gaps / usual
    if usual > 0 and np.all(np.abs(missing - np.round(missing)) * usual <= 2 * tolerance):
        count = int(np.sum(np.round(missing) - 1))
        raise BoneSAMError(
            f"In '{path}', {count} of {len(ordered) + count} slices are missing ({where} the gap is "
            f"{gaps[worst]:.2f} mm instead of {usual:.2f} mm): copy the complete series."
        )
    raise BoneSAMError(
        f"The slices in '{path}' are not evenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm, most "
        f"unusual {where}): resample the series to an even spacing, or put the even part into its own folder."
    )


def _check_straight(ordered: Sequence[_Slice], normal: NDArray[np.float64], path: Path) -> None:
    """Refuse a stack whose slices are shifted sideways by more than half a pixel."""
    shifts = np.array([one.position - ordered[0].position for one in ordered])
    sideways = shifts - np.outer(shifts @ normal, normal)
    distances = np.linalg.norm(sideways, axis=1)
    if distances.max() <= max(0.5 * min(ordered[0].spacing), _GAP_ROUNDING_MM):
        return
    last = shifts[-1]
    angle = float(np.degrees(np.arctan2(distances[-1], last @ normal)))
    fractions = (shifts @ normal)[:, np.newaxis] / (last @ normal)
    if np.linalg.norm(sideways - fractions * sideways[-1], axis=1).max() <= 0.1 * distances.max():
        raise BoneSAMError(
            f"The slices in '{path}' were taken with a tilted gantry ({angle:.1f} degrees): straighten the "
            "series first, for example by loading it in 3D Slicer with its acquisition geometry regularized."
        )
    worst = ordered[int(distances.argmax())].title
    raise BoneSAMError(
        f"The slices in '{path}' are shifted sideways against each other (up to {distances.max():.1f} mm, at "
        f"{worst}): resample the series to a regular grid first."
    )
