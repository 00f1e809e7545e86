"""The image that everything else works on: a voxel array and where it lies in the patient.

Conventions, the same as in 3D Slicer: the array is indexed ``[k, j, i]``; points, spacings and affines are
in the order ``i, j, k``; physical coordinates are RAS (right, anterior, superior are positive) in
millimeters; a voxel's coordinate is its center.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError

__all__ = ["LPS_TO_RAS", "Affine", "Float3", "Int3", "Modality", "Volume"]

Modality: TypeAlias = Literal["CT", "MR", "X-ray"]
Affine: TypeAlias = NDArray[np.float64]
Float3: TypeAlias = tuple[float, float, float]
Int3: TypeAlias = tuple[int, int, int]

# DICOM and ITK count to the left and to the back. The same matrix leads the other way.
LPS_TO_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])

# Spacings differ when the largest exceeds the smallest by this factor. Nominally isotropic scans differ by
# a few percent between axes; real slice stacks mostly by a factor of two and more.
_THICK_RATIO = 1.2
# Two spacings within this factor are those of square pixels.
_SQUARE_RATIO = 1.05
# Voxel counts within this factor of each other do not tell which axis was the slice axis.
_SIMILAR_COUNT_RATIO = 1.5
# |det| of the unit axis directions: 1 is orthogonal, 0 is flat. Below this the axes are parallel but for
# rounding.
_SINGULAR_VOLUME = 1e-6
# Micro-CT has voxels of 0.001 mm; a body is 2 m long.
_FINEST_MM, _WIDEST_MM = 1e-5, 1e4
# Beyond this, places in single precision are off by more than a millimeter.
_FARTHEST_MM = 1e7
# Statistics of the values are taken on at most about this many voxels, evenly spread.
_SAMPLE_SIZE = 1_000_000


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or radiograph with its geometry.

    Attributes:
        array: real numbers, shape ``[k, j, i]``; never copied or changed. A 2D array ``[j, i]`` is taken as
            the single slice ``[1, j, i]``.
        ijk_to_ras: 4x4 affine from voxel indices ``(i, j, k, 1)`` to RAS millimeters. May be oblique,
            flipped, permuted or sheared. Copied, and read-only afterwards.
        name: what to call it in messages and reports, usually the file's name.
        modality: "CT", "MR" or "X-ray" when known; None to use `modality_guess`.
        notes: sentences for the user about how it differs from the files that it was read from.
        frame_of_reference: DICOM's name of the space that it lies in; positions in two spaces have nothing
            to do with each other. "" if that is not known.

    Raises:
        BoneSAMError: empty, not 3D, NaN or infinite values, or an affine that is singular or not finite.
    """

    array: NDArray[Any]
    ijk_to_ras: Affine
    name: str = ""
    modality: Modality | None = None
    notes: tuple[str, ...] = ()
    frame_of_reference: str = ""

    def __post_init__(self) -> None:
        if self.modality is not None and self.modality not in get_args(Modality):
            choices = ", ".join(get_args(Modality))
            raise BoneSAMError(f"Unknown modality {self.modality!r} for {self._title}: use one of {choices}.")
        object.__setattr__(self, "array", self._checked_array())
        object.__setattr__(self, "ijk_to_ras", self._checked_affine())

    @property
    def _title(self) -> str:
        return f"the volume '{self.name}'" if self.name else "the volume"

    def _checked_array(self) -> NDArray[Any]:
        array = np.asarray(self.array)
        if array.dtype.kind not in "biuf":
            raise BoneSAMError(
                f"The values of {self._title} are of type {array.dtype}: only real numbers can be segmented."
            )
        if array.ndim == 2:
            array = array[np.newaxis]
        if array.ndim != 3:
            raise BoneSAMError(
                f"The array of {self._title} has {array.ndim} dimensions (shape {_times(array.shape)}), "
                f"3 are needed: {_dimension_advice(array.shape)}"
            )
        if array.size == 0:
            raise BoneSAMError(f"There are no voxels in {self._title} (shape {_times(array.shape)}).")
        if sorted(array.shape)[1] == 1:
            raise BoneSAMError(
                f"In {self._title} there is only one row of voxels (shape {_times(array.shape)}): "
                "at least one whole slice is needed."
            )
        if array.dtype.kind == "f":
            # The extremes carry any NaN or infinity, so good volumes need no temporary array.
            with np.errstate(invalid="ignore"):
                finite = bool(np.isfinite(array.min()) and np.isfinite(array.max()))
            if not finite:
                self._refuse_non_finite(array)
        return array

    def _refuse_non_finite(self, array: NDArray[Any]) -> None:
        bad = ~np.isfinite(array)
        k, j, i = (int(index) for index in np.argwhere(bad)[0])
        raise BoneSAMError(
            f"In {self._title}, {int(bad.sum())} voxels are not finite numbers (NaN or infinity), the first "
            f"at i, j, k = {i}, {j}, {k}: replace them first, for example by the value of air."
        )

    def _checked_affine(self) -> Affine:
        affine = np.array(self.ijk_to_ras, dtype=np.float64)
        if affine.shape != (4, 4):
            raise BoneSAMError(
                f"The affine of {self._title} has shape {_times(affine.shape)}, 4 x 4 is needed."
            )
        if not np.isfinite(affine).all():
            raise BoneSAMError(
                f"The affine of {self._title} has values that are not finite numbers: {_REEXPORT}"
            )
        if not np.array_equal(affine[3], [0.0, 0.0, 0.0, 1.0]):
            raise BoneSAMError(
                f"The last row of the affine of {self._title} is not 0 0 0 1: it is no affine."
            )
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not (lengths > 0).all():
            flat = ", ".join(axis for axis, length in zip("ijk", lengths, strict=True) if not length > 0)
            raise BoneSAMError(
                f"The affine of {self._title} is singular, its spacing along {flat} is zero: {_REEXPORT}"
            )
        if abs(np.linalg.det(affine[:3, :3] / lengths)) < _SINGULAR_VOLUME:
            raise BoneSAMError(
                f"The affine of {self._title} is singular, two of its axes are parallel: {_REEXPORT}"
            )
        if not ((lengths >= _FINEST_MM) & (lengths <= _WIDEST_MM)).all():
            axis = int(np.abs(np.log(lengths)).argmax())
            raise BoneSAMError(
                f"The spacing of {self._title} along {'ijk'[axis]} is {lengths[axis]:g} mm, as no scan has: "
                f"{_REEXPORT}"
            )
        if np.abs(affine[:3, 3]).max() > _FARTHEST_MM:
            raise BoneSAMError(
                f"The first voxel of {self._title} lies {np.abs(affine[:3, 3]).max():g} mm away from the "
                f"origin, as in no scan: {_REEXPORT}"
            )
        affine.setflags(write=False)
        return affine

    @property
    def shape(self) -> Int3:
        """Number of voxels as in the array: (k, j, i)."""
        k, j, i = self.array.shape
        return k, j, i

    @property
    def size(self) -> Int3:
        """Number of voxels in the order of points and spacings: (i, j, k)."""
        k, j, i = self.array.shape
        return i, j, k

    @cached_property
    def spacing(self) -> Float3:
        """Distance of neighboring voxel centers along (i, j, k), in mm."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @cached_property
    def ras_to_ijk(self) -> Affine:
        """4x4 affine from RAS millimeters to (fractional) voxel indices (i, j, k)."""
        # The last row is set exactly: rounding there would turn points into almost-points.
        inverse: Affine = np.linalg.inv(self.ijk_to_ras).astype(np.float64)
        inverse[3] = (0.0, 0.0, 0.0, 1.0)
        inverse.setflags(write=False)
        return inverse

    @cached_property
    def through_plane_axis(self) -> int:
        """IJK axis (0, 1 or 2) along which the slices are stacked; the array's axis is 2 minus this.

        A single slice: the axis of size 1. Different spacings: the odd one, since pixels are square; that is
        nearly always the thickest one. Isotropic voxels: the axis with clearly fewest voxels, else the one
        closest to the body's superior-inferior axis.
        """
        size, spacing = self.size, self.spacing
        if self.is_projection:
            return size.index(1)
        fine, middle, thick = sorted(range(3), key=lambda axis: spacing[axis])
        if spacing[thick] > _THICK_RATIO * spacing[fine]:
            square = spacing[thick] <= _SQUARE_RATIO * spacing[middle]
            return fine if square else thick
        fewest = min(size)
        candidates = [axis for axis in range(3) if size[axis] <= _SIMILAR_COUNT_RATIO * fewest]
        return max(candidates, key=lambda axis: abs(self._directions[2, axis]))

    @property
    def is_projection(self) -> bool:
        """Whether this is one 2D image (a radiograph, or a single slice) rather than a stack."""
        return 1 in self.shape

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """Unit vectors of the i, j, k axes in RAS, as columns."""
        return self.ijk_to_ras[:3, :3] / np.array(self.spacing, dtype=np.float64)

    @cached_property
    def orientation(self) -> str:
        """Anatomical directions in which i, j and k increase, such as "LPS"; the nearest when oblique."""
        axes = max(
            itertools.permutations(range(3)),
            key=lambda order: sum(abs(self._directions[row, axis]) for axis, row in enumerate(order)),
        )
        letters = ("LR", "PA", "IS")
        return "".join(letters[row][int(self._directions[row, axis] > 0)] for axis, row in enumerate(axes))

    @property
    def center_ras(self) -> Float3:
        """Middle of the volume, in RAS mm."""
        center = self.ijk_to_ras @ [*((n - 1) / 2 for n in self.size), 1.0]
        return float(center[0]), float(center[1]), float(center[2])

    def check_same_shape(self, mask: NDArray[Any]) -> None:
        """Raise BoneSAMError unless `mask` has a value for each voxel, [k, j, i]."""
        if mask.shape != self.shape:
            raise BoneSAMError(
                f"The mask has shape {mask.shape} and the volume {self.shape} (k, j, i): "
                "they must be the same."
            )

    @cached_property
    def bounds_ras(self) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
        """Lowest and highest R, A and S (mm) of the volume, outer faces of the border voxels included."""
        faces = [(-0.5, n - 0.5) for n in self.size]
        corners = np.array([[*corner, 1.0] for corner in itertools.product(*faces)]) @ self.ijk_to_ras.T
        low, high = corners[:, :3].min(axis=0), corners[:, :3].max(axis=0)
        r, a, s = ((float(x), float(y)) for x, y in zip(low, high, strict=True))
        return r, a, s

    @property
    def bounds_text(self) -> str:
        """Where the volume lies, for messages: "R -120.0 to 120.0, A -90.0 to 150.0, S 0.0 to 300.0 mm"."""
        ranges = zip("RAS", self.bounds_ras, strict=True)
        return ", ".join(f"{axis} {low:.1f} to {high:.1f}" for axis, (low, high) in ranges) + " mm"

    @cached_property
    def modality_guess(self) -> Modality:
        """`modality` when known, else a guess from shape and values.

        CT when the values look like Hounsfield units, or like such units stored with an offset of 1024
        (see `intensity_offset`); else X-ray for a single slice and MR for a stack. Scans rescaled to 8 bit
        cannot be told from MR: state their modality.
        """
        if self.modality is not None:
            return self.modality
        if self._looks_like_hounsfield or self._looks_like_offset_hounsfield:
            return "CT"
        return "X-ray" if self.is_projection else "MR"

    @cached_property
    def intensity_offset(self) -> float:
        """What to add to the stored values of a CT to get Hounsfield units: 0, or -1024; 0 for MR and X-ray.

        Many exports keep the scanner's unsigned 12-bit numbers, which are Hounsfield units plus 1024. They
        are recognized by whole numbers from 0 to 4095, a large peak at exactly 0 (air and padding) and a
        narrow soft-tissue peak around 1000 to 1100.
        """
        return -1024.0 if self.modality_guess == "CT" and self._looks_like_offset_hounsfield else 0.0

    @cached_property
    def _sampled_values(self) -> NDArray[Any]:
        step = max(1, int(np.ceil((self.array.size / _SAMPLE_SIZE) ** (1 / 3))))
        # A short axis (few slices, or one) keeps all its voxels.
        steps = [step if n >= 8 * step else 1 for n in self.array.shape]
        return self.array[:: steps[0], :: steps[1], :: steps[2]].ravel()

    @cached_property
    def _looks_like_hounsfield(self) -> bool:
        if self.array.dtype.kind not in "if" or not -40_000 < float(self.array.min()) <= -500:
            return False
        # Not whole numbers only: a resampled CT has fractions. What sets it apart from other signed images
        # (MR phase, z-scores) is that whatever is not air is soft tissue and bone.
        body = self._sampled_values[self._sampled_values > -500]
        return body.size == 0 or float(np.mean((body > -300) & (body < 2000))) > 0.7

    @cached_property
    def _looks_like_offset_hounsfield(self) -> bool:
        if self.is_projection or self.array.dtype == np.bool_:
            return False  # 12-bit radiographs have the same range, and collimated ones the same zeros
        if float(self.array.min()) < 0 or not 1500 < float(self.array.max()) <= 4095:
            return False
        values = self._sampled_values
        if values.dtype.kind == "f" and not np.array_equal(values, np.round(values)):
            return False
        if np.mean(values == 0) < 0.05:
            return False
        tissue = values[values > 700]  # neither air nor lung
        soft = np.mean((tissue >= 880) & (tissue <= 1160)) if tissue.size else 0.0
        peak = np.bincount(tissue.astype(np.int64) // 20).argmax() * 20 if tissue.size else 0
        # Fat (-120 HU) to muscle (+80 HU) is most of any body; MR tissue spreads much wider.
        return bool(soft > 0.6 and 880 <= peak <= 1140)


_REEXPORT = "export the image again, or repair its header."


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape) if shape else "none"


def _dimension_advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[-1] in (3, 4):
        return "it looks like a color image; convert it to gray values first."
    if len(shape) == 4:
        return f"it looks like a series of {shape[0]} volumes; choose one of them."
    return "pass one gray-value volume."
