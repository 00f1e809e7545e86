"""An array with an affine to RAS mm, as an image of ITK's."""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import LPS_TO_RAS, Affine

__all__ = ["itk_image"]

# Cosine between two axes up to which they count as perpendicular.
_RECTANGULAR = 1e-3


def itk_image(array: NDArray[np.generic], affine: Affine, name: str) -> sitk.Image:
    """An image with the geometry of an affine to RAS mm.

    Raises:
        BoneSAMError: its axes are not perpendicular.
    """
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = lps[:3, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > _RECTANGULAR:
        raise BoneSAMError(
            f"The axes of '{name}' are not perpendicular: resample it to a regular grid first."
        )
    left, _, right = np.linalg.svd(direction)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((left @ right).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
