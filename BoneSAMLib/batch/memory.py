"""What memory a volume would take, by its header alone, and what memory there is."""

import math
import os
import zlib
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from PIL import Image

from BoneSAMLib.batch.scan_files import files_of, kind_of
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import quiet_itk
from BoneSAMLib.nifti_reading import declared_nifti

__all__ = ["available_memory", "check_memory", "needed_memory"]

# Measured as the peak of whole cases, and rounded up. Without a volume: the libraries, the networks, and the
# embeddings that a session keeps. For every voxel: what its value takes while the file is read and converted,
# and the masks.
_WITHOUT_VOLUME = 800_000_000
_FOR_MASKS = 6
_COPIES = 2

_SYSTEM = Path("/")  # where /proc and /sys lie
_UNLIMITED = 1 << 60  # control groups without a limit say a number of about this size


def check_memory(path: Path, most: int) -> None:
    """Refuse a volume that would take more than `most` bytes, before anything of it is read.

    A header that cannot be understood is left to the reader, which says what is wrong with it.

    Raises:
        BoneSAMError: it is too large.
    """
    try:
        declared = _declared(path)
    except (
        BoneSAMError,
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zlib.error,
        Image.DecompressionBombError,
    ):
        return
    if declared is None:
        return
    size, itemsize = declared
    needed = needed_memory(math.prod(size), itemsize)
    if needed > most:
        raise BoneSAMError(
            f"'{path}' is too large: its {' x '.join(map(str, size))} voxels would take "
            f"{_gigabytes(needed)} of memory, and a volume may take {_gigabytes(most)} here. Crop or "
            "resample it, or use fewer workers."
        )


def needed_memory(voxels: int, itemsize: int) -> int:
    """Bytes that a process takes at most for a volume whose voxels are stored in `itemsize` bytes."""
    return _WITHOUT_VOLUME + voxels * (_COPIES * itemsize + _FOR_MASKS)


def available_memory() -> int | None:
    """Bytes that are free, or that a container or a job of a cluster leaves; None where that is not known."""
    try:
        text = (_SYSTEM / "proc/meminfo").read_text()
        free = int(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return None
    return min([free, *_left_by_control_groups()])


def _left_by_control_groups() -> list[int]:
    """What the limits on this process, and on all that it is part of, leave in bytes."""
    groups = _SYSTEM / "sys/fs/cgroup"
    try:
        lines = (_SYSTEM / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        root, names = groups, ("memory.max", "memory.current", "file")
        if controllers == "memory":  # version 1
            root, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache")
        elif controllers:
            continue
        folder = root / own.lstrip("/")
        while folder.is_relative_to(root):
            left += _left_by(folder, *names)
            folder = folder.parent
    return left


def _left_by(group: Path, limit_name: str, used_name: str, cache_name: str) -> list[int]:
    try:
        limit, used = (int((group / name).read_text()) for name in (limit_name, used_name))
        stated = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # "max", or a group that cannot be seen from inside of a container
        return []
    cache = int(stated.get(cache_name, 0))  # files kept in memory go when it is needed
    return [max(limit - used + cache, 0)] if limit < _UNLIMITED else []


def _declared(path: Path) -> tuple[tuple[int, ...], int] | None:
    """Size (i, j, k) and bytes of a voxel as stored, where the header says it."""
    if path.is_dir():
        return _declared_series(files_of(path))
    kind = kind_of(path)
    if kind == "DICOM":
        return _declared_series(files_of(path))
    if kind == "NIfTI":
        return declared_nifti(path)
    if kind in ("NRRD", "MetaImage"):
        return _declared_by_itk(path, f"{'Nrrd' if kind == 'NRRD' else 'Meta'}ImageIO")
    with Image.open(path) as picture:
        return (*picture.size, 1), 4


def _declared_by_itk(path: Path, image_io: str) -> tuple[tuple[int, ...], int]:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    with quiet_itk():
        reader.ReadImageInformation()
        one = SimpleITK.Image([1] * max(reader.GetDimension(), 2), reader.GetPixelID())
    return tuple(reader.GetSize()), np.asarray(SimpleITK.GetArrayViewFromImage(one)).dtype.itemsize


def _declared_series(files: list[Path]) -> tuple[tuple[int, ...], int] | None:
    tags = ["Rows", "Columns", "NumberOfFrames", "BitsAllocated"]
    for path in files:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
        if "Rows" in dataset and "Columns" in dataset:
            frames = int(dataset.get("NumberOfFrames", 1) or 1)
            size = (int(dataset.Columns), int(dataset.Rows), max(len(files), frames))
            return size, max(1, int(dataset.get("BitsAllocated", 16) or 16) // 8)
    return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
