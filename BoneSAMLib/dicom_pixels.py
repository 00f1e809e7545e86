"""The pixels of DICOM files: decompressed, and rescaled as the header says."""

from typing import Any

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from BoneSAMLib.dicom_images import DicomImage, functional_group
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import quiet_itk
from BoneSAMLib.picture_reading import gray_values

__all__ = ["pixel_size", "pixels_of"]

# Compressions that GDCM, which ITK brings along, does not know; and what teaches them to pydicom.
_PACKAGES = {
    "1.2.840.10008.1.2.4.201": "pylibjpeg[openjpeg]",
    "1.2.840.10008.1.2.4.202": "pylibjpeg[openjpeg]",
    "1.2.840.10008.1.2.4.203": "pylibjpeg[openjpeg]",
}
# Flat images become this much smaller, and nothing does by more; a damaged header may ask for gigabytes.
_MOST_COMPRESSED = 100_000


def pixels_of(image: DicomImage) -> NDArray[Any]:
    """Values of one file, rescaled as it says: [rows, columns], or [frames, rows, columns].

    Raises:
        BoneSAMError: damaged, incomplete, in color, or of an unknown compression.
    """
    _check_length(image)
    slopes = _frame_rescaling(image)
    pixels = _by_pydicom(image, slopes) if len(set(slopes)) > 1 else _by_gdcm(image)
    if int(image.dataset.get("SamplesPerPixel", 1) or 1) > 1:
        pixels = gray_values(pixels, str(image.path))
    pixels = pixels[0] if image.frames == 1 and pixels.ndim == 3 else pixels
    if pixels.shape[-2:] != image.size or (image.frames > 1 and len(pixels) != image.frames):
        raise BoneSAMError(
            f"The DICOM file '{image.path}' holds other pixels than its header says: export it again."
        )
    return pixels


def pixel_size(image: DicomImage) -> tuple[float, float]:
    """Width and height of a radiograph's pixels in mm; ITK knows which of the four tags counts."""
    reader = _reader(image)
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError:
        return 1.0, 1.0  # a compression that only pydicom knows
    width, height = reader.GetSpacing()[:2]
    return (width, height) if width > 0 and height > 0 else (1.0, 1.0)


def _reader(image: DicomImage) -> SimpleITK.ImageFileReader:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(image.path))
    return reader


def _by_gdcm(image: DicomImage) -> NDArray[Any]:
    try:
        with quiet_itk():
            pixels: NDArray[Any] = SimpleITK.GetArrayFromImage(_reader(image).Execute())
        return pixels
    except RuntimeError:
        # Damage is damage for pydicom too; but it may know a compression that GDCM does not.
        return _by_pydicom(image, _frame_rescaling(image))


def _by_pydicom(image: DicomImage, rescaling: list[tuple[float, float]]) -> NDArray[Any]:
    """`rescaling`: slope and intercept of each frame, or one for all."""
    try:
        dataset = pydicom.dcmread(image.path, force=True)
        stored = dataset.pixel_array
    except Exception as error:  # pydicom and its decoders raise many kinds for a damaged file
        raise BoneSAMError(_why_unreadable(image)) from error
    if all(pair == (1.0, 0.0) for pair in rescaling):
        return np.asarray(stored)
    slopes, intercepts = np.array(rescaling, dtype=np.float64).T
    if image.frames > 1:
        slopes, intercepts = (values[:, np.newaxis, np.newaxis] for values in (slopes, intercepts))
    values: NDArray[Any] = stored * slopes + intercepts
    is_whole = np.array_equal(slopes, np.rint(slopes)) and np.array_equal(intercepts, np.rint(intercepts))
    return values.astype(np.int32 if is_whole else np.float32)


def _frame_rescaling(image: DicomImage) -> list[tuple[float, float]]:
    """Slope and intercept of each frame; of enhanced MR they often differ, and GDCM takes one for all."""
    pairs = []
    for frame in range(image.frames if "PerFrameFunctionalGroupsSequence" in image.dataset else 1):
        group = functional_group(image.dataset, frame, "PixelValueTransformationSequence")
        group = image.dataset if group is None else group
        try:
            slope, intercept = (group.get("RescaleSlope"), group.get("RescaleIntercept"))
            pairs.append((1.0 if slope is None else float(slope), float(intercept or 0)))
        except (TypeError, ValueError) as error:
            raise BoneSAMError(
                f"The rescaling in the DICOM file '{image.path}' is not a number: export it again."
            ) from error
    return pairs


def _why_unreadable(image: DicomImage) -> str:
    syntax = image.dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax in _PACKAGES:
        return (
            f"The DICOM file '{image.path}' is compressed by {syntax.name}: install the Python package "
            f"{_PACKAGES[syntax]}, or export the series without compression."
        )
    if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
        return (
            f"The pixels of the DICOM file '{image.path}' ({syntax.name}) cannot be read: it is damaged, or "
            "its compression is not supported; export the series without compression."
        )
    return (
        f"The pixels of the DICOM file '{image.path}' cannot be read: it is damaged or incomplete, or "
        "stored by a compression that is not supported."
    )


def _check_length(image: DicomImage) -> None:
    """GDCM fills what is missing of uncompressed pixels without a word, and cuts off what is too much."""
    dataset = image.dataset
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (not syntax.is_transfer_syntax or syntax.is_compressed):
        if image.frames * image.size[0] * image.size[1] > _MOST_COMPRESSED * image.path.stat().st_size:
            raise BoneSAMError(
                f"The DICOM file '{image.path}' is damaged: its header promises more pixels than the "
                "file can hold."
            )
        return
    bits = int(dataset.get("SamplesPerPixel", 1) or 1) * int(dataset.get("BitsAllocated", 16) or 16)
    stored = len(pydicom.dcmread(image.path, force=True, specific_tags=["PixelData"]).get("PixelData") or b"")
    rows, columns = image.size
    if stored < image.frames * rows * columns * bits // 8:
        raise BoneSAMError(f"The DICOM file '{image.path}' lacks pixels: copy or export it again.")
    # Some programs pad a little; a whole row too much means that rows are not where the header says.
    if stored >= (image.frames * rows + 1) * columns * bits // 8:
        raise BoneSAMError(
            f"The DICOM file '{image.path}' holds more pixels than its header says: export it again."
        )
