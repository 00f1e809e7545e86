"""Masks made without learning, from the same box prompt: what a model must beat to be worth its size."""

import numpy as np
from skimage.filters import threshold_otsu

from BoneSAMLib.prompts import Box
from BoneSAMLib.volume import Volume
from training.masks import Mask

# The usual range for bone: 150 HU keeps thin and porous bone, 300 HU only cortex and dense trabeculae.
HU_THRESHOLDS = (150, 200, 250, 300)

FILLED_BOX = "filled box"


def reference_masks(volume: Volume, box: Box) -> dict[str, Mask]:
    """Masks [k, j, i] inside ``box``, by the name of their method.

    "filled box" always; on CT what is above each of ``HU_THRESHOLDS``; on MR and X-ray either side of Otsu's
    threshold of the values in the box, since bone may be the brighter or the darker.
    """
    (i0, j0, k0), (i1, j1, k1) = box.to_ijk(volume)
    region = (slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1))
    inside = volume.array[region]
    masks = {FILLED_BOX: _placed(np.ones(inside.shape, dtype=np.bool_), region, volume)}
    if volume.modality_guess == "CT":
        for hounsfield in HU_THRESHOLDS:
            bright = inside + volume.intensity_offset > hounsfield
            masks[f"above {hounsfield} HU"] = _placed(bright, region, volume)
    elif inside.min() < inside.max():
        bright = inside > threshold_otsu(inside)
        masks["Otsu, bright side"] = _placed(bright, region, volume)
        masks["Otsu, dark side"] = _placed(~bright, region, volume)
    return masks


def _placed(inside: Mask, region: tuple[slice, slice, slice], volume: Volume) -> Mask:
    mask = np.zeros(volume.shape, dtype=np.bool_)
    mask[region] = inside
    return mask
