"""Radiographs and single slices stored as ordinary pictures (PNG, JPEG, TIFF, BMP) to `Volume`."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import quiet_itk
from BoneSAMLib.volume import Modality, Volume

__all__ = ["gray_values", "read_picture"]

# Gray pictures saved as lossy color differ between their channels by a few of 255 levels at most.
_GRAY_TOLERANCE = 8
# Pillow reads these modes as one number a pixel, without change.
_PLAIN_MODES = {"L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


def read_picture(path: Path, modality: Modality | None = None) -> Volume:
    """Read a gray picture as a single slice ``[1, j, i]``.

    It lies in space as ITK, and so 3D Slicer, puts it: the first pixel at the origin, i to the left, j to the
    back; the pixel size is 1 mm unless a JPEG or TIFF says otherwise.

    Raises:
        BoneSAMError: damaged, several pages, or a real color picture.
    """
    try:
        with Image.open(path) as file:
            pages = int(getattr(file, "n_frames", 1))
            if pages > 1:
                raise BoneSAMError(
                    f"The picture '{path}' holds {pages} pages: save the one to segment, or convert a stack "
                    "of slices to NRRD or NIfTI with its true spacing."
                )
            image: Image.Image = file
            if image.mode not in _PLAIN_MODES:
                image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
            pixels: NDArray[Any] = np.array(image)
    except (BoneSAMError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise BoneSAMError(f"The picture '{path}' is damaged or not a picture: export it again.") from error
    if pixels.ndim == 3:
        pixels = gray_values(pixels, str(path))
    i_spacing, j_spacing = _pixel_size(path)
    affine = np.diag([-i_spacing, -j_spacing, 1.0, 1.0])
    values = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return Volume(values[np.newaxis], affine, name=path.name, modality=modality)


def gray_values(pixels: NDArray[Any], title: str) -> NDArray[Any]:
    """The gray picture in `pixels` [..., channels], whose color channels must agree; a fourth one is ignored.

    Raises:
        BoneSAMError: it has colors.
    """
    first = pixels[..., 0]
    span = max(1, int(np.iinfo(pixels.dtype).max)) if pixels.dtype.kind in "iu" else 255
    tolerance = _GRAY_TOLERANCE * span / 255
    for channel in range(1, min(3, pixels.shape[-1])):
        if np.abs(pixels[..., channel].astype(np.float64) - first).max(initial=0) > tolerance:
            raise BoneSAMError(f"The picture '{title}' has colors: convert it to gray values first.")
    return np.ascontiguousarray(first)


def _pixel_size(path: Path) -> tuple[float, float]:
    """Width and height of a pixel in mm, by ITK's rules: PNG has none, JPEG and TIFF by their resolution."""
    if path.suffix.lower() not in (".jpg", ".jpeg", ".tif", ".tiff"):
        return 1.0, 1.0
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError:
        return 1.0, 1.0  # a kind that Pillow can read and ITK cannot
    width, height = reader.GetSpacing()[:2]
    return (width, height) if width > 0 and height > 0 else (1.0, 1.0)
