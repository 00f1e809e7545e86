"""Another volume of the same study, seen through the slices of the first one.

Both lie in one physical space: what a pixel of the first shows is looked up in the other through both
affines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.intensity import intensity_window
from BoneSAMLib.region import Array, Region, SliceFrame
from BoneSAMLib.volume import Affine, Volume

__all__ = ["FUSIONS", "Answer", "Companion", "Fusion", "check_fusion", "check_same_space", "fused"]

Fusion: TypeAlias = Literal["average", "maximum"]
FUSIONS: tuple[str, ...] = get_args(Fusion)
# Logits [n, c, h, w] and predicted IoU [n, c] of slices, and where [n, h, w] their volume has voxels, None
# for everywhere.
Answer: TypeAlias = tuple[Array, Array, NDArray[np.bool_] | None]

_PLANES = 8  # resampled at a time
_SAMPLES = 24  # along each axis, to see whether two volumes overlap
_SAME_MM = 1e-3  # grids whose voxels lie this close to each other are one grid


def check_fusion(fusion: str) -> None:
    """Raises BoneSAMError for a name that is no way to fuse."""
    if fusion not in FUSIONS:
        raise BoneSAMError(f"Unknown fusion '{fusion}': use one of {', '.join(FUSIONS)}.")


def check_same_space(volume: Volume, other: Volume) -> None:
    """Check that what two volumes show at one place in space is the same place of the patient.

    Raises:
        BoneSAMError: one of them is a radiograph, they are of different frames of reference, or they do not
            overlap.
    """
    for one in (volume, other):
        if one.is_projection and one.modality_guess == "X-ray":
            raise BoneSAMError(
                f"{_named(one)} is a radiograph, which shows no place in space: it cannot be combined with "
                "another volume."
            )
    frames = {volume.frame_of_reference, other.frame_of_reference} - {""}
    if len(frames) > 1:
        raise BoneSAMError(
            f"{_named(other)} and {_named(volume)} are of different DICOM frames of reference, as when the "
            "patient lay down again: register one to the other first."
        )
    if not (_reaches(volume, other) or _reaches(other, volume)):
        raise BoneSAMError(
            f"{_named(other)} and {_named(volume)} do not overlap: choose another sequence of the same part "
            f"of the body, or register them first. One lies at {other.bounds_text}, the other at "
            f"{volume.bounds_text}."
        )


def fused(answers: Sequence[Answer], fusion: str) -> tuple[Array, Array]:
    """One answer from those of several volumes, of which the first has voxels everywhere.

    The logits are averaged, or the largest one taken, over the volumes that have voxels there; predicted IoU
    is averaged in either case, by how much of a slice each volume has.
    """
    logits, iou, _ = answers[0]
    total: Any = np.float32(1)
    iou_total: Any = np.float32(1)
    for other_logits, other_iou, seen in answers[1:]:
        weight = np.float32(1) if seen is None else seen[:, None].astype(np.float32)
        if fusion == "maximum":
            logits = np.where(weight > 0, np.maximum(logits, other_logits), logits)
        else:
            logits, total = logits + other_logits * weight, total + weight
        share = np.float32(1) if seen is None else seen.mean((1, 2), dtype=np.float32)[:, None]
        iou, iou_total = iou + other_iou * share, iou_total + share
    return logits / total, iou / iou_total


@dataclass(frozen=True)
class _CompanionFrame(SliceFrame):
    """Slices of a volume that was resampled: its window is that of the volume it was."""

    original: Volume

    @cached_property
    def window(self) -> tuple[float, float]:
        return intensity_window(self.original)


class Companion:
    """A volume on the grid of another. Resampled when first needed: one more array of the grid's size.

    Values between voxels are interpolated linearly; where the volume ends there is black.

    Args:
        volume: whose grid it is.
        other: the volume.

    Raises:
        BoneSAMError: as `check_same_space`.
    """

    def __init__(self, volume: Volume, other: Volume) -> None:
        check_same_space(volume, other)
        self._volume = volume
        self._other = other
        self._to_other = other.ras_to_ijk @ volume.ijk_to_ras
        self._frames: dict[int, _CompanionFrame] = {}
        self._on_grid: Volume | None = None

    def on_grid(self, between: Callable[[], None] = lambda: None) -> Volume:
        """The volume on the grid. `between`: called between parts of the work; may raise to end it."""
        if self._on_grid is None:
            array = self._other.array if self._has_same_grid else self._resampled(between)
            self._on_grid = Volume(array, self._volume.ijk_to_ras, self._other.name)
        return self._on_grid

    def region(self, region: Region, between: Callable[[], None] = lambda: None) -> Region:
        """The same square of the same slices, of this volume."""
        axis = region.frame.axis
        if axis not in self._frames:
            self._frames[axis] = _CompanionFrame(self.on_grid(between), axis, self._other)
        return Region(self._frames[axis], region.center, region.width)

    def seen(self, region: Region, indices: NDArray[np.int64], pixels: int) -> NDArray[np.bool_]:
        """Where this volume has voxels: [n, pixels, pixels] of slices [n] of a region."""
        frame = region.frame
        origin = frame.from_ijk(np.zeros(3))
        to_uvw = np.eye(4)
        to_uvw[:3, :3], to_uvw[:3, 3] = (frame.from_ijk(np.eye(3)) - origin).T, origin
        cells = (np.arange(pixels) + 0.5) * (region.width / pixels)
        u, v = ((region.center[a] - region.width / 2 + cells) / frame.spacing[a] for a in (0, 1))
        return _inside(
            self._to_other @ np.linalg.inv(to_uvw),
            (u[None, None, :], v[None, :, None], indices[:, None, None]),
            self._other,
        )

    @property
    def _has_same_grid(self) -> bool:
        corner = np.array(self._volume.size, float)
        ends = np.array([[0, 0, 0, 1], [*corner, 1], [corner[0], 0, 0, 1], [0, corner[1], 0, 1]])
        apart = (self._volume.ijk_to_ras - self._other.ijk_to_ras) @ ends.T
        return self._volume.shape == self._other.shape and bool(np.abs(apart).max() < _SAME_MM)

    def _resampled(self, between: Callable[[], None]) -> NDArray[Any]:
        source, black = self._other.array, self._other.array.min()
        # SciPy resamples neither bits nor half precision.
        kinds: dict[str, np.dtype[Any]] = {"b": np.dtype(np.uint8), "f": np.dtype(np.float32)}
        source = source.astype(kinds.get(source.dtype.kind, source.dtype).newbyteorder("="), copy=False)
        k, j, i = self._volume.shape
        array = np.empty((k, j, i), source.dtype)
        # SciPy counts axes as the array does.
        to_other = self._to_other[2::-1, 2::-1]
        for first in range(0, k, _PLANES):
            between()
            part = array[first : first + _PLANES]
            offset = self._to_other[2::-1, 3] + to_other[:, 0] * first
            ndimage.affine_transform(source, to_other, offset, part.shape, part, order=1, mode="nearest")
            planes = np.arange(first, first + len(part))[:, None, None]
            grid = (np.arange(i)[None, None, :], np.arange(j)[None, :, None], planes)
            part[~_inside(self._to_other, grid, self._other)] = black
        return array


def _named(volume: Volume) -> str:
    return f"The volume '{volume.name}'" if volume.name else "A volume"


def _inside(to_other: Affine, places: Sequence[NDArray[Any]], other: Volume) -> NDArray[np.bool_]:
    """Whether places (three coordinates that broadcast) lie in the voxels of a volume."""
    inside = np.ones(np.broadcast_shapes(*(place.shape for place in places)), bool)
    for axis, count in enumerate(other.size):
        row = to_other[axis]
        at = row[0] * places[0] + row[1] * places[1] + row[2] * places[2] + row[3]
        inside &= (at > -0.5 - 1e-6) & (at < count - 0.5 + 1e-6)
    return inside


def _reaches(volume: Volume, other: Volume) -> bool:
    """Whether any of some places all over one volume lies in the other."""
    i, j, k = (np.linspace(0, n - 1, min(n, _SAMPLES)) for n in volume.size)
    grid = (i[None, None, :], j[None, :, None], k[:, None, None])
    return bool(_inside(other.ras_to_ijk @ volume.ijk_to_ras, grid, other).any())
