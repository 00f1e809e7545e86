"""Whether one scan was brought onto another well enough to trust its masks there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from BoneSAMLib.intensity import intensity_window, normalize
from BoneSAMLib.volume import LPS_TO_RAS, Volume
from training.ingest.boundary import placements
from training.masks import Mask, grown
from training.sequence_transfer.registration import Alignment, carried, mutual_information

__all__ = ["Quality", "assess", "body_mask", "dice"]

# What a pair must reach; set on made-up pairs of one person and of two, see the test.
LEAST_BODY_DICE = 0.85
LEAST_GAIN = 0.0
LEAST_PEAK = 0.02
MOST_EDGE_GAIN = 1.3
MOST_BEND_MM = 8.0
LEAST_KEPT = 0.75
MOST_VOLUME_CHANGE = 0.25
# Scans are compared around the bones: elsewhere all bodies are alike, and air is most of an image.
_NEAR_MM = 12.0
_FEWEST_VOXELS = 300
# How far scans are displaced to see whether they fit better where they are.
_DISPLACED_MM = 12.0
_MOST_POINTS = 400
_BODY_BLUR_MM = 2.0
_BODY_PART = 0.5  # of Otsu's threshold: fat and skin are darker than what it separates


@dataclass(frozen=True)
class Quality:
    """How well a source scan lies on a target scan.

    Attributes:
        before: normalized mutual information around the bones where the headers put them, 1 to 2.
        rigid: the same after moving and turning.
        after: the same after bending.
        peak: by how much it is less, on average, when the source is displaced by 12 mm along an axis.
        body_dice: overlap of the two bodies' outlines after moving and turning, where both scans see.
        edge_gain: how many times better the bones fit the target's edges flipped or shifted; below 1 if they
            fit best where they are.
        bend_mm: by how much the bones were bent beyond moving and turning (95 % of them by less).
        kept: share of the bones that the target sees.
        volume_change: of the bones, as a share.
    """

    before: float
    rigid: float
    after: float
    peak: float
    body_dice: float
    edge_gain: float
    bend_mm: float
    kept: float
    volume_change: float

    @property
    def reasons(self) -> list[str]:
        """Why the masks are not to be trusted: whole sentences; none if they are."""
        checks = [
            (
                self.after - self.before < LEAST_GAIN,
                f"The scans have less in common when aligned ({self.before:.3f} to {self.after:.3f}).",
            ),
            (
                self.peak < LEAST_PEAK,
                f"The scans fit {_DISPLACED_MM:.0f} mm away nearly as well ({self.peak:+.3f}).",
            ),
            (
                self.body_dice < LEAST_BODY_DICE,
                f"The outlines of the bodies overlap by {self.body_dice:.2f} only (Dice).",
            ),
            (
                self.edge_gain > MOST_EDGE_GAIN,
                f"The bones fit the edges of the target {self.edge_gain:.1f} times better elsewhere.",
            ),
            (
                self.bend_mm > MOST_BEND_MM,
                f"Bones had to be bent by {self.bend_mm:.0f} mm: this may be another person.",
            ),
            (self.kept < LEAST_KEPT, f"The target sees {self.kept:.0%} of the bones only."),
            (
                abs(self.volume_change) > MOST_VOLUME_CHANGE,
                f"The bones' volume changed by {self.volume_change:+.0%}.",
            ),
        ]
        return [sentence for failed, sentence in checks if failed]


def assess(target: Volume, source: Volume, bones: Mask, alignment: Alignment) -> Quality:
    """Compare two scans as they were aligned; ``bones`` [k, j, i] are all bones of the source."""
    fixed = normalize(target.array, intensity_window(target))
    moving = normalize(source.array, intensity_window(source))
    seen = np.ones(source.shape, np.float32)

    there = carried(bones.astype(np.uint8), source, target, alignment.bending, True) > 0
    near = grown(there, _NEAR_MM, target) if there.any() else there

    def information(transform: sitk.Transform) -> float:
        inside = near & (carried(seen, source, target, transform, nearest=False) > 0.99)
        if inside.sum() < _FEWEST_VOXELS:
            return 1.0
        return mutual_information(fixed[inside], carried(moving, source, target, transform, False)[inside])

    after = information(alignment.bending)
    displaced = [information(_displaced(alignment.bending, shift)) for shift in _shifts()]
    inside = carried(seen, source, target, alignment.rigid, nearest=False) > 0.99
    source_body = carried(body_mask(source).astype(np.uint8), source, target, alignment.rigid, True) > 0
    volume_there = float(there.sum() * np.prod(target.spacing))
    volume_here = float(bones.sum() * np.prod(source.spacing))
    kept = _share_seen(bones, source, target, alignment.rigid)
    return Quality(
        before=information(sitk.Transform()),
        rigid=information(alignment.rigid),
        after=after,
        peak=after - float(np.mean(displaced)),
        body_dice=dice(source_body & inside, body_mask(target) & inside),
        edge_gain=max(one.gain for one in placements(target, there)) if there.any() else float("inf"),
        bend_mm=_bend_mm(there, target, alignment),
        kept=kept,
        volume_change=volume_there / max(volume_here * kept, 1e-6) - 1,
    )


def body_mask(volume: Volume) -> Mask:
    """What is not air around the body, without holes in its slices; [k, j, i]."""
    values = normalize(volume.array, intensity_window(volume))
    smooth = ndimage.gaussian_filter(values, [_BODY_BLUR_MM / mm for mm in reversed(volume.spacing)])
    body = smooth > _BODY_PART * threshold_otsu(smooth)
    axis = 2 - volume.through_plane_axis
    slices = [ndimage.binary_fill_holes(one) for one in np.moveaxis(body, axis, 0)]
    return np.moveaxis(np.stack(slices), 0, axis)


def dice(first: Mask, second: Mask) -> float:
    """Overlap of two masks; 1 if both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def _shifts() -> Sequence[NDArray[np.float64]]:
    return [sign * _DISPLACED_MM * axis for axis in np.eye(3) for sign in (-1, 1)]


def _displaced(transform: sitk.Transform, shift_mm: NDArray[np.float64]) -> sitk.Transform:
    return sitk.CompositeTransform([sitk.TranslationTransform(3, shift_mm.tolist()), transform])


def _points(mask: Mask, volume: Volume) -> NDArray[np.float64]:
    """Some voxel centers of a mask, [n, 3] in LPS mm."""
    places = np.argwhere(mask)[:, ::-1]
    if len(places) > _MOST_POINTS:
        places = places[np.random.default_rng(0).choice(len(places), _MOST_POINTS, replace=False)]
    affine = LPS_TO_RAS @ volume.ijk_to_ras
    return np.asarray(places @ affine[:3, :3].T + affine[:3, 3])


def _bend_mm(bones: Mask, target: Volume, alignment: Alignment) -> float:
    points = [point.tolist() for point in _points(bones, target)]
    if not points:
        return float("inf")
    moves = [
        np.subtract(alignment.bending.TransformPoint(one), alignment.rigid.TransformPoint(one))
        for one in points
    ]
    return float(np.percentile(np.linalg.norm(moves, axis=1), 95))


def _share_seen(bones: Mask, source: Volume, target: Volume, rigid: sitk.Transform) -> float:
    """Share of the source's bones that lie within the target's grid."""
    back = rigid.GetInverse()
    points = np.array([back.TransformPoint(one.tolist()) for one in _points(bones, source)])
    voxels = (points * (-1, -1, 1)) @ target.ras_to_ijk[:3, :3].T + target.ras_to_ijk[:3, 3]
    inside = ((voxels > -0.5) & (voxels < np.array(target.size) - 0.5)).all(axis=1)
    return float(inside.mean())
