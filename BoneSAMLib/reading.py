"""One way to read a scan or radiograph, whatever its format."""

import os
from pathlib import Path

from BoneSAMLib.dicom_reading import is_dicom, read_dicom
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import read_with_itk
from BoneSAMLib.nifti_reading import read_nifti
from BoneSAMLib.picture_reading import read_picture
from BoneSAMLib.volume import Modality, Volume

__all__ = ["read_volume"]

_READERS = {
    (".nii", ".nii.gz"): read_nifti,
    (".nrrd", ".nhdr", ".mha", ".mhd"): read_with_itk,
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"): read_picture,
}


def read_volume(path: str | os.PathLike[str], modality: Modality | None = None) -> Volume:
    """Read a scan or radiograph.

    Args:
        path: NIfTI (.nii, .nii.gz), NRRD, MetaImage (.mha, .mhd), PNG, JPEG, TIFF or BMP; or DICOM: a
            folder with one series, or any file of a series (its other slices are taken from the same
            folder).
        modality: "CT", "MR" or "X-ray" if known; otherwise DICOM says it and for other files it is guessed.

    Returns:
        The volume in RAS, with the values as stored (rescaled as the file says). Pictures and radiographs are
        a single slice [1, j, i].

    Raises:
        BoneSAMError: missing, unreadable, damaged, ambiguous (several volumes or series), in color, or with a
            geometry that is not a regular grid.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return read_dicom(path, modality)
        if not path.exists():
            raise BoneSAMError(f"There is no file or folder '{path}'.")
        if path.stat().st_size == 0:
            raise BoneSAMError(f"The file '{path}' is empty: copy or download it again.")
        for endings, reader in _READERS.items():
            if path.name.lower().endswith(endings):
                return reader(path, modality)
        if is_dicom(path):
            return read_dicom(path, modality)
    except MemoryError as error:
        raise BoneSAMError(f"'{path}' does not fit into memory: crop or resample it first.") from error
    except OSError as error:
        raise BoneSAMError(f"Cannot read '{path}': {error.strerror or error}.") from error
    raise BoneSAMError(
        f"The format of '{path}' is not known: use NIfTI, NRRD, MHA, DICOM, PNG, JPEG or TIFF."
    )
