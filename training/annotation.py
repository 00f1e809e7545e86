"""Annotations of a scan, whatever they are stored in, as one label image on the scan's grid.

Label images (NIfTI, NRRD, MetaImage, pictures), 3D Slicer's segmentations (.seg.nrrd), DICOM segmentation
objects and DICOM RT structure sets.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from skimage.draw import polygon2mask

from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.bone_words import tokens, words
from BoneSAMLib.dicom_images import is_dicom
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import lps_to_ras, quiet_itk
from BoneSAMLib.labelmap import Labelmap
from BoneSAMLib.reading import read_volume
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.volume import LPS_TO_RAS, Affine, Volume
from BoneSAMLib.writing import BONE_TERMINOLOGY

__all__ = ["Annotation", "Structure", "dicom_kind", "read_annotation", "read_structures", "says_bone"]

# SNOMED CT: "bone", no matter which; what the extension writes for a bone without a name.
_ANY_BONE = "272673000"
# A contour farther from a slice than this (in slices) does not belong to this scan.
_OFF_SLICE = 0.3
# Label values are whole numbers; scaling in a file's header leaves rounding.
_ROUNDING = 1e-3
_AFFINE_MM = 0.01

_Part: TypeAlias = tuple["Structure", NDArray[np.bool_]]


@dataclass(frozen=True)
class Structure:
    """One annotated structure: its value in `Annotation.labels`, its name, and whether that says "bone"."""

    value: int
    name: str
    is_bone: bool


@dataclass(frozen=True)
class Annotation:
    """What was drawn on a scan.

    Attributes:
        labels: uint16 [k, j, i] on the grid of the scan, 0 where nothing was drawn. Where structures overlap,
            the smaller one has the voxel.
        structures: what the file itself names; empty for a plain label image.
        notes: whole sentences on what was done to bring it there.
    """

    labels: NDArray[np.uint16]
    structures: tuple[Structure, ...] = ()
    notes: tuple[str, ...] = field(default=())


def read_annotation(path: Path, volume: Volume) -> Annotation:
    """Read the annotation of a scan.

    Structures of a segmentation are numbered: .seg.nrrd from 1 in the order of the file, DICOM segmentations
    and structure sets by their segment and ROI numbers.

    Raises:
        BoneSAMError: it cannot be read, holds no whole numbers, lies elsewhere than the scan, or is a label
            image on another grid.
    """
    kind = _kind(path)
    if kind == "labels":
        return Annotation(_label_image(path, volume))
    if kind == "RTSTRUCT":
        parts = list(_contoured(_dataset(path), path, volume))
        return _painted(parts, path, volume, _skipped_slices(parts))
    notes: list[str] = []
    masks = _slicer_masks(path) if kind == "segmentation" else _dicom_masks(path)
    parts = []
    for structure, mask, affine in masks:
        if mask.any() and not _same_lattice(affine, volume.ijk_to_ras):
            notes = ["It was drawn on another grid and is resampled to the nearest voxels."]
        whole = Labelmap(mask, (0, 0, 0), affine)
        parts.append((structure, whole.sampled((0, 0, 0), volume.shape, volume.ijk_to_ras)))
        if mask.any() and not parts[-1][1].any():
            raise BoneSAMError(
                f"'{structure.name}' of '{path}' lies outside of the image: check both headers."
            )
    return _painted(parts, path, volume, notes)


def read_structures(path: Path) -> tuple[Structure, ...]:
    """What an annotation names, without its voxels; nothing for a plain label image.

    Raises:
        BoneSAMError: it cannot be read.
    """
    kind = _kind(path)
    if kind == "labels":
        return ()
    if kind == "RTSTRUCT":
        return tuple(structure for structure, _ in _regions(_dataset(path)))
    if kind == "SEG":
        return tuple(_dicom_structures(_dataset(path)))
    return tuple(structure for structure, _, _ in _segments(_nrrd_fields(path)))


def says_bone(name: str) -> bool:
    """Whether a name means a bone: one of the anatomy table, or "bone" in so many words."""
    read = tokens(name)
    if bone_meaning(name).terminology != BONE_TERMINOLOGY:
        return True
    return any(token.text in words().bone for token in read) or bone_table().find(name) is not None


def dicom_kind(path: Path) -> str:
    """The modality that a DICOM file states, such as "CT", "SEG" or "RTSTRUCT"; "" for other files."""
    try:
        if not path.is_file() or not is_dicom(path):
            return ""
        return str(pydicom.dcmread(path, specific_tags=["Modality"], force=True).get("Modality", ""))
    except Exception:  # pydicom raises many kinds for a damaged file: it is none then
        return ""


def _kind(path: Path) -> str:
    """ "labels", "segmentation" (of 3D Slicer), "SEG" or "RTSTRUCT"."""
    if not path.exists():
        raise BoneSAMError(f"There is no file or folder '{path}'.")
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        return "segmentation" if "Segment0_ID" in _nrrd_fields(path) else "labels"
    kind = dicom_kind(path)
    return kind if kind in ("SEG", "RTSTRUCT") else "labels"


def _label_image(path: Path, volume: Volume) -> NDArray[np.uint16]:
    annotation = read_volume(path)
    if annotation.shape != volume.shape:
        raise BoneSAMError(
            f"The mask of case {volume.name} has {annotation.size} voxels along i, j, k and its image "
            f"{volume.size}: both must lie on the same grid."
        )
    if not np.allclose(annotation.ijk_to_ras, volume.ijk_to_ras, atol=_AFFINE_MM):
        raise BoneSAMError(
            f"The mask of case {volume.name} lies elsewhere than its image: check both headers."
        )
    values = annotation.array
    rounded = values if values.dtype.kind in "bui" else np.rint(values)
    if (rounded is not values and np.abs(values - rounded).max() > _ROUNDING) or rounded.min() < 0:
        raise BoneSAMError(
            f"The mask of case {volume.name} holds other values than whole numbers from 0 on: a label image "
            "is needed, not probabilities or a scan."
        )
    if float(rounded.max()) > np.iinfo(np.uint16).max:
        raise BoneSAMError(f"The mask of case {volume.name} has labels above 65535.")
    return rounded.astype(np.uint16)


def _painted(parts: list[_Part], path: Path, volume: Volume, notes: list[str]) -> Annotation:
    if not parts:
        raise BoneSAMError(f"There is no structure in '{path}'.")
    if max(structure.value for structure, _ in parts) > np.iinfo(np.uint16).max:
        raise BoneSAMError(f"A structure in '{path}' has a number above 65535: export it again.")
    labels = np.zeros(volume.shape, np.uint16)
    drawn = np.zeros(volume.shape, np.uint16)
    for structure, mask in sorted(parts, key=lambda part: -int(part[1].sum())):
        labels[mask] = structure.value
        drawn += mask
    shared = int((drawn > 1).sum())
    if shared:
        notes = [*notes, f"Structures overlap in {shared} voxels: the smaller one has them."]
    return Annotation(labels, tuple(structure for structure, _ in parts), tuple(notes))


def _same_lattice(first: Affine, second: Affine) -> bool:
    """Whether the voxels of two grids that go on forever are the same, in whatever order."""
    step = (np.linalg.inv(first) @ second)[:3]
    return bool(
        np.allclose(np.abs(step[:, :3]).sum(axis=0), 1, atol=1e-3)
        and np.allclose(step[:, :3], np.rint(step[:, :3]), atol=1e-3)
        and np.allclose(step[:, 3], np.rint(step[:, 3]), atol=0.05)
    )


# ---------------------------------------------------------------------------- 3D Slicer's segmentations


def _nrrd_fields(path: Path) -> dict[str, str]:
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise BoneSAMError(f"Cannot read '{path}': it is damaged, or no NRRD file.") from error
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def _segments(fields: dict[str, str]) -> Iterator[tuple[Structure, int, int]]:
    """Each segment, its layer and its value there."""
    number = 0
    while f"Segment{number}_ID" in fields:
        prefix = f"Segment{number}_"
        name = fields.get(prefix + "Name") or fields[prefix + "ID"]
        entry = fields.get(prefix + "Tags", "")
        coded = f"SCT^{_ANY_BONE}^" in entry
        value, layer = int(fields.get(prefix + "LabelValue", 1)), int(fields.get(prefix + "Layer", 0))
        yield Structure(number + 1, name, coded or says_bone(name)), layer, value
        number += 1


def _slicer_masks(path: Path) -> Iterator[tuple[Structure, NDArray[np.bool_], Affine]]:
    try:
        with quiet_itk():
            image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise BoneSAMError(f"Cannot read '{path}': it is damaged or incomplete.") from error
    voxels = SimpleITK.GetArrayFromImage(image)
    layers = voxels if voxels.ndim == 4 else voxels[..., np.newaxis]
    affine = lps_to_ras(image.GetOrigin(), image.GetSpacing(), image.GetDirection())
    for structure, layer, value in _segments(_nrrd_fields(path)):
        if layer >= layers.shape[-1]:
            raise BoneSAMError(f"The segmentation '{path}' lacks the voxels of '{structure.name}'.")
        yield structure, layers[..., layer] == value, affine


# ------------------------------------------------------------------------------------- DICOM objects


def _dataset(path: Path) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that are not used here
            return pydicom.dcmread(path, force=True, stop_before_pixels=True)
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise BoneSAMError(f"The DICOM file '{path}' is damaged: copy or export it again.") from error


def _dicom_structures(dataset: Dataset) -> Iterator[Structure]:
    for segment in dataset.get("SegmentSequence", []):
        kinds = segment.get("SegmentedPropertyTypeCodeSequence", [])
        codes = {str(kind.get("CodeValue", "")) for kind in kinds}
        meaning = " ".join(str(kind.get("CodeMeaning", "")) for kind in kinds)
        name = str(segment.get("SegmentLabel", "") or meaning)
        yield Structure(int(segment.SegmentNumber), name, _ANY_BONE in codes or says_bone(name))


def _dicom_masks(path: Path) -> Iterator[tuple[Structure, NDArray[np.bool_], Affine]]:
    try:
        import highdicom  # slow to import, and DICOM segmentations are rare
    except ImportError as error:
        raise BoneSAMError(
            f"'{path}' is a DICOM segmentation, which takes a package that is not installed: "
            "pip install 'highdicom>=0.25'."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            segmentation = highdicom.seg.segread(path)
            structures = list(_dicom_structures(segmentation))
            stacks = [
                segmentation.get_volume(segment_numbers=[each.value], combine_segments=False)
                for each in structures
            ]
    except Exception as error:  # highdicom's and pydicom's many kinds
        raise BoneSAMError(
            f"The DICOM segmentation '{path}' cannot be read ({_first_line(error)}): export it again."
        ) from error
    for structure, stack in zip(structures, stacks, strict=True):
        # highdicom's axes are slices, rows, columns; its affine leads to LPS and counts in the same order.
        lps = np.asarray(stack.affine)[:, [2, 1, 0, 3]]
        affine: Affine = LPS_TO_RAS @ lps
        voxels = np.asarray(stack.array)
        yield structure, (voxels[..., 0] if voxels.ndim == 4 else voxels) >= 0.5, affine


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _regions(dataset: Dataset) -> Iterator[tuple[Structure, list[NDArray[np.float64]]]]:
    """Each structure with contours and those contours, [n, 3] in LPS mm."""
    kinds = {
        int(row.ReferencedROINumber): str(row.get("RTROIInterpretedType", ""))
        for row in dataset.get("RTROIObservationsSequence", [])
        if "ReferencedROINumber" in row
    }
    contours: dict[int, list[NDArray[np.float64]]] = {}
    for row in dataset.get("ROIContourSequence", []):
        closed = [
            np.array(one.ContourData, float).reshape(-1, 3)
            for one in row.get("ContourSequence", [])
            if str(one.get("ContourGeometricType", "")) in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
        ]
        contours[int(row.ReferencedROINumber)] = closed
    for row in dataset.get("StructureSetROISequence", []):
        number, name = int(row.ROINumber), str(row.get("ROIName", ""))
        if contours.get(number) and kinds.get(number) != "EXTERNAL":
            yield Structure(number, name, says_bone(name)), contours[number]


def _contoured(dataset: Dataset, path: Path, volume: Volume) -> Iterator[_Part]:
    for structure, contours in _regions(dataset):
        mask = np.zeros(volume.shape, np.bool_)
        for contour in contours:
            _fill(mask, contour * (-1.0, -1.0, 1.0), volume, f"'{structure.name}' of '{path}'")
        yield structure, mask


def _fill(mask: NDArray[np.bool_], contour: NDArray[np.float64], volume: Volume, title: str) -> None:
    """Toggle what a closed contour [n, 3] (RAS mm) encloses on its slice: one inside another is a hole.

    A voxel is inside when its center is.
    """
    places = contour @ volume.ras_to_ijk[:3, :3].T + volume.ras_to_ijk[:3, 3]
    axis = int(np.ptp(places, axis=0).argmin())
    height = float(places[:, axis].mean())
    index = round(height)
    if np.abs(places[:, axis] - index).max() > _OFF_SLICE:
        raise BoneSAMError(
            f"A contour of {title} lies on no slice of the image: it was drawn on another scan, which is the "
            "one to name."
        )
    if not 0 <= index < volume.size[axis]:
        raise BoneSAMError(
            f"A contour of {title} lies outside of the image: check that they belong together."
        )
    plane = np.moveaxis(mask, 2 - axis, 0)[index]
    down, across = (other for other in (2, 1, 0) if other != axis)
    plane ^= polygon2mask(plane.shape, places[:, [down, across]])


def _skipped_slices(parts: list[_Part]) -> list[str]:
    """A note where contours leave out slices inside a structure: nothing was filled in between."""
    notes = []
    for structure, mask in parts:
        # Contours lie on one family of slices: the one along which whole slices are empty in between.
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            occupied = np.flatnonzero(mask.any(axis=others))
            skipped = int(np.ptp(occupied)) + 1 - len(occupied) if len(occupied) else 0
            if skipped:
                notes.append(f"The contours of '{structure.name}' leave out {skipped} slices between others.")
    return notes
