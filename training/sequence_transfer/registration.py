"""Two scans of the same body brought onto each other: first rigid, then bending.

Mutual information needs no common contrast between them (Mattes et al. 2003); the bending is a sum of cubic
B-splines (Rueckert et al. 1999), with control points far enough apart that bones hardly change their shape.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.itk_reading import quiet_itk
from BoneSAMLib.volume import Volume
from training.itk_image import itk_image

__all__ = ["Alignment", "align", "carried", "mutual_information"]

CONTROL_POINTS_MM = 50.0
_FINEST_MM = 2.0
_MOST_VOXELS = 80  # along an axis, where scans are compared
_BINS = 32
_SAMPLED = 0.15
_FEWEST_SLICES = 4
_RIGID_STEPS, _BENDING_STEPS, _MOST_TRIES = 100, 12, 15


@dataclass(frozen=True)
class Alignment:
    """How a source scan lies on a target scan.

    Attributes:
        rigid: maps points of the target (LPS mm) to points of the source, without bending.
        bending: the same with bending.
    """

    rigid: sitk.Transform
    bending: sitk.Transform


def align(target: Volume, source: Volume) -> Alignment:
    """Bring a source scan onto a target scan of the same body, starting from where their headers put them.

    Raises:
        BoneSAMError: they do not overlap, are single slices, or nothing could be found.
    """
    fixed, moving = _coarse(target), _coarse(source)
    try:
        with quiet_itk():
            rigid = _rigid(fixed, moving)
            bending = _bending(fixed, moving, rigid)
    except RuntimeError as error:
        raise BoneSAMError(
            f"The scans '{source.name}' and '{target.name}' cannot be brought onto each other: they hardly "
            "overlap, or one of them is nearly blank."
        ) from error
    return Alignment(rigid, bending)


def carried(
    values: NDArray[np.generic], source: Volume, target: Volume, transform: sitk.Transform, nearest: bool
) -> NDArray[Any]:
    """An array [k, j, i] on the source's grid, on the grid of the target; 0 outside of the source."""
    image = itk_image(np.ascontiguousarray(values), source.ijk_to_ras, source.name)
    grid = itk_image(np.zeros(target.shape, np.uint8), target.ijk_to_ras, target.name)
    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, method, 0.0)))


def mutual_information(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Normalized mutual information of two lists of values, 1 (nothing in common) to 2 (Studholme 1999)."""
    counts, _, _ = np.histogram2d(first, second, bins=_BINS)
    joint = counts / max(counts.sum(), 1)
    alone = _entropy(joint.sum(0)) + _entropy(joint.sum(1))
    together = _entropy(joint.ravel())
    return alone / together if together > 0 else 1.0


def _entropy(shares: NDArray[np.float64]) -> float:
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())


def _coarse(volume: Volume) -> sitk.Image:
    """The scan in 0..1 on equally spaced voxels, which optimizers need: stacks are mostly thick."""
    if min(volume.size) < _FEWEST_SLICES:
        raise BoneSAMError(f"'{volume.name}' has fewer than {_FEWEST_SLICES} slices: a stack is needed.")
    image = itk_image(normalize(volume.array, intensity_window(volume)), volume.ijk_to_ras, volume.name)
    extent = np.array(volume.size) * volume.spacing
    spacing = max(_FINEST_MM, float(extent.max()) / _MOST_VOXELS, min(volume.spacing))
    blur = [max(0.0, spacing / mm - 1) * mm / 2 for mm in volume.spacing]
    image = sitk.SmoothingRecursiveGaussian(image, [max(sigma, 1e-3) for sigma in blur])
    size = [max(_FEWEST_SLICES, int(np.ceil(mm / spacing))) for mm in extent]
    # The new grid covers the same place: half a voxel more at either end.
    shift = [(spacing - mm) / 2 for mm in volume.spacing]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(image.GetOrigin()) + direction @ shift
    return sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        origin.tolist(),
        [spacing] * 3,
        image.GetDirection(),
        0.0,
    )


def _method() -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(_SAMPLED, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)  # sums in another order would not repeat
    return method


def _rigid(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    center = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    transform = sitk.Euler3DTransform()
    transform.SetCenter(center)
    method = _method()
    method.SetInitialTransform(transform, inPlace=True)
    method.SetOptimizerAsRegularStepGradientDescent(
        2.0, 0.005, _RIGID_STEPS, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-9
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.Execute(fixed, moving)
    return transform


def _bending(fixed: sitk.Image, moving: sitk.Image, rigid: sitk.Transform) -> sitk.Transform:
    extent = np.array(fixed.GetSize()) * fixed.GetSpacing()
    mesh = [int(np.clip(round(mm / CONTROL_POINTS_MM), 1, 10)) for mm in extent]
    splines = sitk.BSplineTransformInitializer(fixed, mesh)
    method = _method()
    method.SetMovingInitialTransform(rigid)
    method.SetInitialTransform(splines, inPlace=True)
    method.SetOptimizerAsLBFGSB(
        gradientConvergenceTolerance=1e-5,
        numberOfIterations=_BENDING_STEPS,
        maximumNumberOfFunctionEvaluations=_MOST_TRIES,
    )
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([1.0, 0.0])
    method.Execute(fixed, moving)
    # A composite applies the last one first: from the target through the bending to the source.
    return sitk.CompositeTransform([rigid, splines])
