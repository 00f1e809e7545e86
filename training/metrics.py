"""How well a mask agrees with an annotation: a thin layer over MONAI's metrics.

MONAI computes on both masks cut to the box around their union. Nothing lies outside it, so no value changes,
and the distances of a phalanx in a whole-body scan take milliseconds.

Empty masks, stated once for every table: with both empty there is nothing to judge, all values are NaN and
means skip the row. With only one empty, Dice, IoU and NSD are 0, HD95 and ASSD are the diagonal of the
volume, and precision or recall is 0, or NaN where it divides by nothing. ``Agreement.empty`` says which, so
that tables count them apart.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from monai.metrics.confusion_matrix import compute_confusion_matrix_metric, get_confusion_matrix
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.utils import get_edge_surface_distance

from training.masks import Mask, bounding_slices

NSD_TOLERANCE_MM = 2.0
# Surfaces are found by comparing neighbors: empty voxels all around close the surface of a mask that is cut
# by the edge of its volume, in the prediction as in the truth.
_MARGIN = 2

METRICS = ("dice", "iou", "precision", "recall", "hd95_mm", "assd_mm", "nsd_2mm")


@dataclass(frozen=True)
class Agreement:
    """What one mask scores against one annotation. Distances in mm, the rest 0 to 1; NaN where undefined."""

    dice: float
    iou: float
    precision: float
    recall: float
    hd95_mm: float
    assd_mm: float
    nsd_2mm: float
    empty: Literal["", "prediction", "truth", "both"] = ""


def compare(
    prediction: Mask,
    truth: Mask,
    spacing: tuple[float, float, float],
    within: Mask | None = None,
) -> Agreement:
    """Score ``prediction`` against ``truth``.

    Args:
        prediction, truth: bool [k, j, i], the same shape. A single slice is scored in 2D.
        spacing: mm along i, j, k.
        within: bool [k, j, i]; when given, only these voxels count, and the distance metrics are NaN:
            the border of such a region is no surface of anything.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape or (within is not None and within.shape != truth.shape):
        raise ValueError(f"Masks of shapes {prediction.shape} and {truth.shape} cannot be compared.")
    if within is not None:
        prediction, truth = prediction & within, truth & within
    if not prediction.any() or not truth.any():
        diagonal = diagonal_mm(truth.shape, spacing)
        return _with_empty(bool(prediction.any()), bool(truth.any()), diagonal, within is None)

    region = bounding_slices(prediction | truth)
    kept = [axis for axis in range(3) if truth.shape[axis] > 1]
    spacing_kept = [spacing[2 - axis] for axis in kept]
    predicted, true = (_as_tensor(mask[region], kept) for mask in (prediction, truth))
    confusion = get_confusion_matrix(predicted, true, include_background=True)
    hd95 = assd = nsd = math.nan
    if within is None:
        # What MONAI's Hausdorff and average distances are made of, computed once for both.
        _, both_ways, _ = get_edge_surface_distance(
            predicted[0, 0], true[0, 0], spacing=spacing_kept, symmetric=True
        )
        hd95 = max(_number(torch.quantile(distances, 0.95)) for distances in both_ways)
        assd = _number(torch.cat(both_ways).mean())
        nsd = _number(
            compute_surface_dice(
                predicted,
                true,
                class_thresholds=[NSD_TOLERANCE_MM],
                include_background=True,
                spacing=spacing_kept,
                # Weighs each piece of surface by its area: without, anisotropic voxels distort the share.
                use_subvoxels=True,
            )
        )
    return Agreement(
        dice=_number(compute_dice(predicted, true, include_background=True)),
        iou=_number(compute_iou(predicted, true, include_background=True)),
        precision=_number(compute_confusion_matrix_metric("precision", confusion)),
        recall=_number(compute_confusion_matrix_metric("recall", confusion)),
        hd95_mm=hd95,
        assd_mm=assd,
        nsd_2mm=nsd,
    )


def overlap(prediction: Mask, truth: Mask) -> tuple[float, float]:
    """Dice and IoU of two masks [k, j, i] alone, as `compare` gives them, in a hundredth of its time.

    Both NaN when both masks are empty.
    """
    region = bounding_slices(truth) if truth.any() else (slice(0, 0),) * 3
    shared = int(np.count_nonzero(prediction[region] & truth[region]))
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(truth[region]))
    if total == 0:
        return math.nan, math.nan
    return 2 * shared / total, shared / (total - shared)


def diagonal_mm(shape: tuple[int, ...], spacing: tuple[float, float, float]) -> float:
    """Length of the diagonal of a volume of ``shape`` (k, j, i) and ``spacing`` (i, j, k) in mm."""
    return math.hypot(*(count * spacing[2 - axis] for axis, count in enumerate(shape) if count > 1))


def _with_empty(predicted: bool, exists: bool, diagonal: float, distances: bool) -> Agreement:
    if not predicted and not exists:
        return Agreement(**dict.fromkeys(METRICS, math.nan), empty="both")
    return Agreement(
        dice=0.0,
        iou=0.0,
        precision=0.0 if predicted else math.nan,
        recall=0.0 if exists else math.nan,
        hd95_mm=diagonal if distances else math.nan,
        assd_mm=diagonal if distances else math.nan,
        nsd_2mm=0.0 if distances else math.nan,
        empty="truth" if predicted else "prediction",
    )


def _as_tensor(mask: Mask, kept: list[int]) -> torch.Tensor:
    """Batch and channel of one, without the axis of a single slice, with a margin."""
    flat = mask.squeeze(axis=tuple(axis for axis in range(3) if axis not in kept))
    return torch.from_numpy(np.pad(flat, _MARGIN).astype(np.float32))[None, None]


def _number(value: Any) -> float:
    return float(torch.as_tensor(value).item())
