"""Files that ITK reads well (NRRD, MetaImage) to `Volume`, and ITK's geometry in RAS."""

import contextlib
import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import LPS_TO_RAS, Affine, Modality, Volume

__all__ = ["lps_to_ras", "quiet_itk", "read_with_itk"]

# Deflate, which is what these formats use, shrinks no bytes by more.
_MOST_COMPRESSED = 1100
_quiet_lock = threading.Lock()


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK and the libraries under it from writing to the terminal: errors are reported in our own words.

    They write to the process's standard error directly, past Python, so that is what is silenced.
    """
    with _quiet_lock, contextlib.ExitStack() as restore:
        shown = SimpleITK.ProcessObject.GetGlobalWarningDisplay()
        SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
        restore.callback(SimpleITK.ProcessObject.SetGlobalWarningDisplay, shown)
        with contextlib.suppress(OSError):  # a windowed program may have no standard error
            saved = os.dup(2)
            restore.callback(os.close, saved)
            silent = os.open(os.devnull, os.O_WRONLY)
            restore.callback(os.close, silent)
            os.dup2(silent, 2)
            restore.callback(os.dup2, saved, 2)
        yield


def read_with_itk(path: Path, modality: Modality | None = None, image_io: str = "") -> Volume:
    """Read one NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file.

    `image_io` is ITK's name of the format, for a file whose own name does not say it.

    Raises:
        BoneSAMError: damaged or incomplete, several volumes, or several values per voxel.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
            size = list(reader.GetSize())
            _check_single_volume(path, size, reader.GetNumberOfComponents())
            _check_promise(path, size)
            if len(size) > 3:
                reader.SetExtractSize(size[:3] + [0] * (len(size) - 3))
            image = reader.Execute()
    except RuntimeError as error:
        detached = path.suffix.lower() in (".mhd", ".nhdr")
        hint = "its data file is missing, or one of the two is damaged" if detached else "it is damaged"
        raise BoneSAMError(
            f"Cannot read '{path}': {hint}, or it is not the kind of image its name says."
        ) from error
    array = SimpleITK.GetArrayFromImage(image)
    if array.ndim > image.GetDimension():
        array = array[..., 0]
    affine = lps_to_ras(image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    return Volume(array, affine, name=path.name, modality=modality)


def _check_single_volume(path: Path, size: Sequence[int], components: int) -> None:
    times = " x ".join(map(str, size))
    volumes = math.prod(size[3:])
    if volumes > 1:
        raise BoneSAMError(
            f"The file '{path}' holds {volumes} volumes (size {times}): "
            "save the one to segment as its own file."
        )
    if components > 1:
        raise BoneSAMError(
            f"The file '{path}' has {components} values per voxel (colors, vectors or time points): "
            "save one plain gray-value volume first."
        )


def _check_promise(path: Path, size: Sequence[int]) -> None:
    """Refuse a header that asks for far more memory than its file could fill, before it is taken."""
    if path.suffix.lower() in (".mhd", ".nhdr"):
        return  # the voxels are in other files
    if math.prod(size) > _MOST_COMPRESSED * path.stat().st_size:
        raise BoneSAMError(
            f"The file '{path}' is damaged or incomplete: its header promises "
            f"{' x '.join(map(str, size))} voxels, and the file cannot hold them."
        )


def lps_to_ras(origin: Sequence[float], spacing: Sequence[float], direction: Sequence[float]) -> Affine:
    """4x4 affine from voxel indices to RAS mm, of ITK's origin, spacing and row-major direction (LPS, mm).

    A 2D geometry is laid into the plane S = 0 with a thickness of 1 mm.
    """
    rank = len(origin)
    affine = np.eye(4)
    affine[:rank, :rank] = np.asarray(direction).reshape(rank, rank) * np.asarray(spacing)
    affine[:rank, 3] = origin
    return LPS_TO_RAS @ affine
