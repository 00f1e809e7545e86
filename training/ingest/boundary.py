"""Whether a mask lies where the image has edges, or would fit better flipped or shifted.

How steep the image is across the mask's border, for the mask as it is and for the same mask put elsewhere: a
mask that was saved with another orientation, or for another scan, finds weak edges where it is and stronger
ones elsewhere.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import Volume
from training.masks import Mask

__all__ = ["Placement", "edge_strength", "placements"]

# A shift below these is an annotator's looseness.
LOOSE_MM, LOOSE_VOXELS = 4.0, 2.5
FARTHEST_MM = 24.0
_SHIFTS = 9  # tried along each axis
_MOST_POINTS = 3000
_SMOOTHING = 1.0  # voxels
# Borders and gradients are taken across axes with less than this many times the finest spacing.
_THICK = 2.0


@dataclass(frozen=True)
class Placement:
    """A mask put elsewhere.

    `gain` is its edge strength divided by that of the mask as it is; `text` says how it was moved.
    """

    text: str
    gain: float


@dataclass(frozen=True)
class _Border:
    """Voxels (k, j, i) on the border of a mask and the unit normals there, [n, 3] each."""

    places: NDArray[np.int64]
    normals: NDArray[np.float32]


def edge_strength(volume: Volume, mask: Mask) -> float:
    """Mean steepness across the border of ``mask`` [k, j, i], in parts of the image's gray range a voxel."""
    axes = _fine_axes(volume)
    return _strength(_gradient(volume, axes), _border(mask, axes))


def placements(volume: Volume, mask: Mask) -> tuple[Placement, Placement]:
    """The flip and the shift with which ``mask`` [k, j, i] fits the edges of the image best.

    Flips are about the middle of the volume, along any axes together; shifts go up to 24 mm along every axis.
    """
    axes = _fine_axes(volume)
    gradient, border = _gradient(volume, axes), _border(mask, axes)
    here = max(_strength(gradient, border), 1e-9)
    flips = [Placement("not at all", 0.0)]
    long_axes = [axis for axis in range(3) if mask.shape[axis] > 1]
    for count in range(1, len(long_axes) + 1):
        for flipped in itertools.combinations(long_axes, count):
            names = " and ".join("kji"[axis] for axis in reversed(flipped))
            strength = _strength(gradient, _flipped(border, flipped, mask.shape))
            flips.append(Placement(f"flipped along {names}", strength / here))
    shifts = [Placement("not at all", 0.0)]
    spacing = np.array(volume.spacing[::-1])
    for steps in itertools.product(*(_steps(n, mm) for n, mm in zip(mask.shape, spacing, strict=True))):
        shift_mm = steps * spacing
        if (np.abs(shift_mm) > np.maximum(LOOSE_MM, LOOSE_VOXELS * spacing)).any():
            moved = _Border(border.places + np.array(steps), border.normals)
            text = ", ".join(f"{mm:+.0f}" for mm in shift_mm[::-1])
            shifts.append(
                Placement(f"shifted by ({text}) mm along i, j, k", _strength(gradient, moved) / here)
            )
    return max(flips, key=lambda one: one.gain), max(shifts, key=lambda one: one.gain)


def _steps(count: int, spacing: float) -> Sequence[int]:
    """Whole voxels to shift by along an axis of so many voxels."""
    if count == 1:
        return [0]
    return sorted({round(mm / spacing) for mm in np.linspace(-FARTHEST_MM, FARTHEST_MM, _SHIFTS)})


def _fine_axes(volume: Volume) -> list[int]:
    """Array axes across which neighboring voxels show an edge."""
    finest = min(mm for mm, count in zip(volume.spacing, volume.size, strict=True) if count > 2)
    spacing = volume.spacing[::-1]
    return [axis for axis in range(3) if volume.shape[axis] > 2 and spacing[axis] <= _THICK * finest]


def _gradient(volume: Volume, axes: list[int]) -> NDArray[np.float32]:
    """Derivatives [k, j, i, 3] of the smoothed image along the array axes; 0 along the others."""
    image = normalize(volume.array, intensity_window(volume))
    gradient = np.zeros((*image.shape, 3), np.float32)
    sigma = [_SMOOTHING if axis in axes else 0.0 for axis in range(3)]
    for axis in axes:
        gradient[..., axis] = ndimage.gaussian_filter(
            image, sigma, [int(other == axis) for other in range(3)]
        )
    return gradient


def _border(mask: Mask, axes: list[int]) -> _Border:
    cross = np.zeros((3, 3, 3), np.bool_)
    cross[1, 1, 1] = True
    for axis in axes:
        np.moveaxis(cross, axis, 0)[[0, 2], 1, 1] = True
    places = np.argwhere(mask & ~ndimage.binary_erosion(mask, cross))
    if len(places) > _MOST_POINTS:
        places = places[np.random.default_rng(0).choice(len(places), _MOST_POINTS, replace=False)]
    sigma = [_SMOOTHING if axis in axes else 0.0 for axis in range(3)]
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigma)
    normals = np.zeros((len(places), 3), np.float32)
    for axis in axes:
        along = np.gradient(smooth, axis=axis)
        normals[:, axis] = along[tuple(places.T)]
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    return _Border(places, normals)


def _flipped(border: _Border, axes: Sequence[int], shape: Sequence[int]) -> _Border:
    places, normals = border.places.copy(), border.normals.copy()
    for axis in axes:
        places[:, axis] = shape[axis] - 1 - places[:, axis]
        normals[:, axis] *= -1
    return _Border(places, normals)


def _strength(gradient: NDArray[np.float32], border: _Border) -> float:
    """Points outside of the image count as ones without an edge."""
    inside = ((border.places >= 0) & (border.places < gradient.shape[:3])).all(axis=1)
    if not inside.size:
        return 0.0
    across = (gradient[tuple(border.places[inside].T)] * border.normals[inside]).sum(axis=1)
    return float(np.abs(across).sum() / inside.size)
