"""Where the slices of a DICOM series lie, and the straight grid that they make.

Slices are sorted by their position in the patient, never by file name or instance number. A stack whose
slices are regularly shifted against each other (a CT with a tilted gantry) is laid straight: each slice is
moved within its own plane, so that nothing is mixed between slices and a mask goes back the same way.
Whatever is no regular stack otherwise (missing slices, uneven spacing, several time points) is refused with
the reason: guessing here would put the mask in the wrong place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from BoneSAMLib.dicom_images import DicomImage, functional_group
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import LPS_TO_RAS, Affine, Int3

__all__ = ["SliceStack", "stack_of"]

# A slice gap that differs from the usual one by more than this part of it is irregular; positions are
# rounded in many headers, to 0.1 mm at worst.
_GAP_TOLERANCE = 0.05
_GAP_ROUNDING_MM = 0.11
# Directions of the same series differ by rounding only.
_DIRECTION_TOLERANCE = 1e-3
# Beyond this the slices overlap so obliquely that the straight grid would be mostly empty.
_MOST_TILT_DEGREES = 60.0

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True)
class _Slice:
    """Where one slice lies (LPS mm) and what to call it in messages."""

    title: str
    position: NDArray[np.float64]
    row: NDArray[np.float64]  # direction in which i increases
    column: NDArray[np.float64]  # direction in which j increases
    spacing: tuple[float, float]  # along i and j


@dataclass(frozen=True)
class SliceStack:
    """Slices on a straight grid.

    Attributes:
        order: index of each slice as it was given, by rising place along the normal.
        slice_size: rows and columns of a slice.
        ijk_to_ras: 4x4 affine of the grid, RAS mm.
        shifts: [n, 2], where the first pixel of each slice lies in its plane of the grid: (i, j) in pixels,
            fractions too. All 0 for slices that lie straight above each other.
        tilt: by how many degrees they do not.
    """

    order: tuple[int, ...]
    slice_size: tuple[int, int]
    ijk_to_ras: Affine
    shifts: NDArray[np.float64]
    tilt: float = 0.0

    @property
    def shape(self) -> Int3:
        """Voxels of the grid, (k, j, i)."""
        i, j = (int(n) for n in np.ceil(self.shifts.max(axis=0)))
        return len(self.order), self.slice_size[0] + j, self.slice_size[1] + i

    def straightened(self, pixels: NDArray[_Number]) -> NDArray[_Number]:
        """Slices [n, rows, columns] in their order along the normal, laid into the grid [k, j, i].

        Between pixels values are interpolated linearly; around the slices the grid holds the lowest value.
        """
        if not self.tilt:
            return pixels
        lowest = pixels.min()
        straight = np.full(self.shape, lowest, dtype=pixels.dtype)
        rows, columns = self.slice_size
        for plane, pixel, (i, j) in zip(straight, pixels, self.shifts, strict=True):
            first_i, first_j = int(i), int(j)
            block = plane[first_j : first_j + rows + 1, first_i : first_i + columns + 1]
            framed = np.pad(pixel.astype(np.float64), 1, constant_values=lowest)
            along = framed[1:] + (j - first_j) * (framed[:-1] - framed[1:])
            moved = along[:, 1:] + (i - first_i) * (along[:, :-1] - along[:, 1:])
            moved = moved[: block.shape[0], : block.shape[1]]
            block[:] = np.rint(moved) if pixels.dtype.kind in "iu" else moved
        return straight

    def on_slices(self, labels: NDArray[_Number]) -> NDArray[_Number]:
        """A mask of the grid [k, j, i] on the slices as they were given, [n, rows, columns].

        Each pixel takes the nearest voxel of its plane, at most half a pixel away.
        """
        rows, columns = self.slice_size
        slices = np.empty((len(self.order), rows, columns), dtype=labels.dtype)
        for k, given in enumerate(self.order):
            i, j = (int(n) for n in np.floor(self.shifts[k] + 0.5))
            slices[given] = labels[k, j : j + rows, i : i + columns]
        return slices


def stack_of(images: Sequence[DicomImage], path: Path) -> SliceStack:
    """The grid of the frames of one multi-frame file, or of single slices.

    Raises:
        BoneSAMError: they say not where they lie, or make no regular stack.
    """
    first = images[0]
    thickness = first.dataset
    thickness = functional_group(first.dataset, 0, "PixelMeasuresSequence") or thickness
    if first.frames > 1:
        slices = _frame_slices(first)
        sizes = [first.size] * len(slices)
    else:
        slices = [_single_frame_slice(image) for image in images]
        sizes = [image.size for image in images]
    return _straight_stack(slices, sizes, path, _thickness(thickness))


def _thickness(dataset: Dataset) -> float:
    """Thickness to give a single slice, in mm."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        try:
            value = float(dataset.get(keyword) or 0)
        except (TypeError, ValueError):
            continue
        if 0 < value < np.inf:
            return value
    return 1.0


def _single_frame_slice(image: DicomImage) -> _Slice:
    if "ImagePositionPatient" not in image.dataset:
        return _frame_slice(image, 0, image.path.name)
    dataset = image.dataset
    return _make_slice(
        image.path.name,
        image.path,
        dataset.get("ImagePositionPatient"),
        dataset.get("ImageOrientationPatient"),
        dataset.get("PixelSpacing"),
    )


def _frame_slices(image: DicomImage) -> list[_Slice]:
    groups = image.dataset.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        raise BoneSAMError(
            f"The DICOM file '{image.path}' holds {image.frames} frames without positions, as in a film: "
            "save the one to segment as its own file."
        )
    return [_frame_slice(image, index, f"frame {index + 1}") for index in range(len(groups))]


def _frame_slice(image: DicomImage, index: int, title: str) -> _Slice:
    position = functional_group(image.dataset, index, "PlanePositionSequence")
    orientation = functional_group(image.dataset, index, "PlaneOrientationSequence")
    measures = functional_group(image.dataset, index, "PixelMeasuresSequence")
    return _make_slice(
        title,
        image.path,
        None if position is None else position.get("ImagePositionPatient"),
        None if orientation is None else orientation.get("ImageOrientationPatient"),
        None if measures is None else measures.get("PixelSpacing"),
    )


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
    is_finite = np.isfinite([*place, *directions.ravel(), i_spacing, j_spacing]).all()
    if (
        place.shape != (3,)
        or not is_finite
        or not ((lengths > 0.5) & (lengths < 2)).all()
        or not (i_spacing > 0 and j_spacing > 0)
    ):
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


def _straight_stack(
    slices: Sequence[_Slice], sizes: Sequence[tuple[int, int]], path: Path, thickness: float
) -> SliceStack:
    first = slices[0]
    for other, size in zip(slices, sizes, strict=True):
        same_size = size == sizes[0]
        same_pixels = np.allclose(other.spacing, first.spacing, rtol=1e-3)
        turned = max(np.abs(other.row - first.row).max(), np.abs(other.column - first.column).max())
        if not same_size or not same_pixels or turned > 10 * _DIRECTION_TOLERANCE:
            what = "size" if not same_size else "direction" if same_pixels else "the size of their pixels"
            raise BoneSAMError(
                f"The slices in '{path}' do not form one stack: {first.title} and {other.title} differ in "
                f"{what}. Put the slices of one stack into a folder of their own."
            )
    normal = np.cross(first.row, first.column)
    heights = np.array([one.position @ normal for one in slices])
    order = [int(index) for index in np.argsort(heights, kind="stable")]
    ordered = [slices[index] for index in order]
    step, shifts, tilt = normal * thickness, np.zeros((len(slices), 2)), 0.0
    if len(slices) > 1:
        _check_gaps(ordered, heights[order], path)
        step = normal * (heights[order[-1]] - heights[order[0]]) / (len(slices) - 1)
        shifts, tilt = _shifts(ordered, normal, path)
    corner = np.floor(shifts.min(axis=0))  # the grid begins where the slice farthest to that side does
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing[0]
    affine[:3, 1] = first.column * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0].position + affine[:3, :2] @ corner
    return SliceStack(tuple(order), sizes[0], LPS_TO_RAS @ affine, shifts - corner, tilt)


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
        if count > 0:
            raise BoneSAMError(
                f"In '{path}', {count} of {len(ordered) + count} slices are missing ({where} the gap is "
                f"{gaps[worst]:.2f} mm instead of {usual:.2f} mm): copy the complete series."
            )
    raise BoneSAMError(
        f"The slices in '{path}' are not evenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm, most "
        f"unusual {where}): resample the series to an even spacing, or put the even part into its own folder."
    )


def _shifts(
    ordered: Sequence[_Slice], normal: NDArray[np.float64], path: Path
) -> tuple[NDArray[np.float64], float]:
    """Of each slice against the first, within its plane: (i, j) in pixels; and the angle in degrees.

    Up to half a pixel counts as none.
    """
    moved = np.array([one.position - ordered[0].position for one in ordered])
    sideways = moved - np.outer(moved @ normal, normal)
    distances = np.linalg.norm(sideways, axis=1)
    none = np.zeros((len(ordered), 2))
    if distances.max() <= max(0.5 * min(ordered[0].spacing), _GAP_ROUNDING_MM):
        return none, 0.0
    last = moved[-1]
    angle = float(np.degrees(np.arctan2(distances[-1], last @ normal)))
    fractions = (moved @ normal)[:, np.newaxis] / (last @ normal)
    is_even = np.linalg.norm(sideways - fractions * sideways[-1], axis=1).max() <= 0.1 * distances.max()
    if is_even and angle <= _MOST_TILT_DEGREES:
        axes = np.stack([ordered[0].row, ordered[0].column], axis=1)
        return sideways @ axes / ordered[0].spacing, angle
    if is_even:
        raise BoneSAMError(
            f"The slices in '{path}' are tilted against each other by {angle:.1f} degrees: no gantry does "
            "that, so their positions must be wrong; export the series again."
        )
    worst = ordered[int(distances.argmax())].title
    raise BoneSAMError(
        f"The slices in '{path}' are shifted sideways against each other (up to {distances.max():.1f} mm, at "
        f"{worst}): resample the series to a regular grid first."
    )
