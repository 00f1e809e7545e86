"""The annotated scans: which cases there are, and the bones of each as separate objects.

A data folder holds ``index.json``, a list with one row a case (``id``, ``source``, ``split``, ``image``,
``mask``, ``modality``, ``labels``, ``spacing_mm``, ...); paths in it are relative to that folder. Masks are
label images, or whatever else `training.annotation` reads. Nothing is converted or written.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Modality, Volume
from training.annotation import Annotation, read_annotation
from training.masks import Mask

INDEX = "index.json"
SPLITS = ("train", "validation", "test")

# Annotators left single voxels and slivers behind: they are no bones, and a prompt on one means nothing.
SMALLEST_VOXELS = 50
SMALLEST_FRACTION = 0.02

# One label stands for the bones of both sides.
BOTH_SIDES = {("pelvic-mr", "femur"), ("pelvic-mr", "ilium/pelvis")}
# One label stands for several bones, each a 3D component.
ONE_PER_COMPONENT = {("spine-mr-2d", "vertebral bodies")}
# A component with less than this on its smaller side of the midline belongs to one side; with more, the
# annotator joined the two sides (pelvmr_08).
JOINED_FRACTION = 0.2
# Annotated too loosely to judge anything by: this "spine" includes discs and, in places, the canal.
LEFT_OUT = {("pelvic-mr", "spine")}

MODALITIES: dict[str, Modality] = {"CT": "CT", "MRI": "MR", "MR": "MR", "X-ray": "X-ray"}


@dataclass(frozen=True)
class BoneObject:
    """One annotated bone of a case.

    ``name`` is unique in the case ("femur_left"), ``label_name`` is the annotation's ("femur"), ``bone`` the
    kind of bone that tables group by ("vertebra"). ``mask`` is bool [k, j, i], of the shape of the volume.
    """

    name: str
    label_name: str
    label_value: int
    bone: str
    mask: Mask


@dataclass(frozen=True)
class Case:
    """One row of the index.

    ``spacing_mm`` (i, j, k) is what the index says, and None where nobody knows the size of a pixel.
    ``partial_label`` says that the image shows bones that are not annotated. ``subject`` tells persons apart,
    and is the case's id where the index does not name it. ``ignored`` are values of what is no bone.
    """

    id: str
    source: str
    split: str
    modality: Modality
    image: Path
    mask: Path
    labels: dict[int, str]
    spacing_mm: tuple[float, ...] | None
    partial_label: bool
    label_quality: str
    body_region: str
    license: str
    subject: str = ""
    ignored: frozenset[int] = frozenset()

    def load(self) -> tuple[Volume, NDArray[np.integer], list[BoneObject]]:
        """Read the image and its annotation.

        Returns:
            The volume (its name is the case's id), the label values [k, j, i] as annotated, which include
            what is no object, and the objects.

        Raises:
            BoneSAMError: a file cannot be read, or image and annotation do not lie on the same grid.
        """
        volume, annotation = self.read()
        return volume, annotation.labels, self.objects(volume, annotation)

    def read(self) -> tuple[Volume, Annotation]:
        """As `load`, without telling the objects apart."""
        volume = dataclasses.replace(read_volume(self.image, self.modality), name=self.id)
        annotation = read_annotation(self.mask, volume)
        if volume.is_projection and self.spacing_mm is not None:
            volume = with_in_plane_spacing(volume, self.spacing_mm)
        return volume, annotation

    def names(self, annotation: Annotation) -> dict[int, str]:
        """The bones by their values: as the index names them, else as the annotation's file does.

        Where neither names anything, every value is a bone of its own.
        """
        if self.labels or self.ignored:
            return self.labels
        if annotation.structures:
            return {one.value: one.name for one in annotation.structures if one.is_bone}
        return {int(value): f"bone {value}" for value in np.unique(annotation.labels) if value}

    def unknown_labels(self, annotation: Annotation) -> list[int]:
        """Values in a label image that the index neither names nor leaves out."""
        if annotation.structures:
            return []
        known = set(self.names(annotation)) | self.ignored
        return [int(value) for value in np.unique(annotation.labels) if value and int(value) not in known]

    def objects(self, volume: Volume, annotation: Annotation) -> list[BoneObject]:
        """The bones of an annotation of this case."""
        return separate_objects(annotation.labels, volume, self.source, self.names(annotation))


def load_cases(data_dir: str | Path, split: str, sources: Iterable[str] | None = None) -> list[Case]:
    """The cases of one split, in the order of the index, of all sources or of those named.

    Raises:
        BoneSAMError: unknown split or source, or ``data_dir`` holds no readable ``index.json``.
    """
    if split not in SPLITS:
        raise BoneSAMError(f"Unknown split '{split}'. Choose one of {', '.join(SPLITS)}.")
    cases = read_index(Path(data_dir))
    if sources is not None:
        wanted = set(sources)
        unknown = wanted - {case.source for case in cases}
        if unknown:
            raise BoneSAMError(
                f"Unknown source {', '.join(sorted(unknown))}. "
                f"{Path(data_dir) / INDEX} has {', '.join(sorted({case.source for case in cases}))}."
            )
        cases = [case for case in cases if case.source in wanted]
    return [case for case in cases if case.split == split]


def read_index(data_dir: Path) -> list[Case]:
    """All cases of an index, in its order.

    A row needs ``id``, ``image``, ``mask``, ``modality`` and ``labels``. Without ``split`` the case belongs
    to none yet; without ``partial_label`` it may show bones that are not annotated. A label whose name is
    null is no bone.

    Raises:
        BoneSAMError: ``data_dir`` holds no readable ``index.json``.
    """
    path = data_dir / INDEX
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [case_from_row(row, data_dir) for row in rows]
    except OSError as error:
        raise BoneSAMError(
            f"Cannot read {path} ({error.strerror}): name the folder that holds {INDEX}."
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BoneSAMError(f"{path} is not an index of annotated cases ({error!r}).") from error


def case_from_row(row: dict[str, Any], data_dir: Path) -> Case:
    """One case, from its row of the index in ``data_dir``. KeyError, TypeError or ValueError: it is none."""
    spacing = row.get("spacing_mm")
    split = row.get("split") or ""
    if split not in ("", *SPLITS):
        raise ValueError(f"split '{split}' of case {row['id']}")
    names = {int(value): name for value, name in row["labels"].items()}
    return Case(
        id=row["id"],
        source=row.get("source") or data_dir.name,
        split=split,
        modality=MODALITIES[row["modality"]],
        image=data_dir / row["image"],
        mask=data_dir / row["mask"],
        labels={value: str(name) for value, name in names.items() if name is not None},
        spacing_mm=None if spacing is None else tuple(float(length) for length in spacing),
        partial_label=bool(row.get("partial_label", True)),
        label_quality=row.get("label_quality", ""),
        body_region=row.get("body_region", ""),
        license=row.get("license", ""),
        subject=str(row.get("subject") or row["id"]),
        ignored=frozenset(value for value, name in names.items() if name is None),
    )


def with_in_plane_spacing(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """A single-slice volume with its pixels resized to ``spacing_mm`` (i, j).

    A PNG says nothing of its pixel size, the index may: without it distances would not be in millimetres.
    """
    ijk_to_ras = volume.ijk_to_ras.copy()
    for axis in (0, 1):
        ijk_to_ras[:3, axis] *= spacing_mm[axis] / volume.spacing[axis]
    return dataclasses.replace(volume, ijk_to_ras=ijk_to_ras)


def separate_objects(
    labels: NDArray[np.integer], volume: Volume, source: str, names: dict[int, str]
) -> list[BoneObject]:
    """The bones in ``labels`` [k, j, i], in the order of their label values.

    Components below 50 voxels or 2 % of the label's largest are dropped. A label of both sides gives a right
    and a left object, one of many bones an object a component, numbered from superior to inferior.
    """
    objects = []
    for value, label_name in sorted(names.items()):
        if (source, label_name) in LEFT_OUT:
            continue
        components = _large_components(labels == value)
        if (source, label_name) in BOTH_SIDES:
            masks = _sides(components, volume)
        elif (source, label_name) in ONE_PER_COMPONENT:
            masks = _from_superior(components, volume)
        else:
            masks = {"": np.logical_or.reduce(components)} if components else {}
        for suffix, mask in masks.items():
            name = f"{_plain(label_name)}_{suffix}" if suffix else _plain(label_name)
            objects.append(BoneObject(name, label_name, value, bone_of(label_name), mask))
    return objects


def _large_components(mask: Mask) -> list[Mask]:
    """The 26-connected components of a mask that are large enough to be bones."""
    numbers = cc3d.connected_components(mask, connectivity=26)
    sizes = np.bincount(numbers.ravel())[1:]
    smallest = max(SMALLEST_VOXELS, SMALLEST_FRACTION * sizes.max(initial=0))
    return [numbers == number + 1 for number in np.flatnonzero(sizes >= smallest)]


def _sides(components: list[Mask], volume: Volume) -> dict[str, Mask]:
    """The components right and left of the middle of their extent; one that was joined across it is cut."""
    if not components:
        return {}
    k, j, i = np.ogrid[: volume.shape[0], : volume.shape[1], : volume.shape[2]]
    to_right = volume.ijk_to_ras[0]
    right_mm = to_right[0] * i + to_right[1] * j + to_right[2] * k + to_right[3]
    positions = [right_mm[component] for component in components]
    middle = (min(each.min() for each in positions) + max(each.max() for each in positions)) / 2
    is_right = right_mm > middle
    sides = {"right": np.zeros(volume.shape, dtype=np.bool_), "left": np.zeros(volume.shape, dtype=np.bool_)}
    for component, position in zip(components, positions, strict=True):
        right_fraction = float(np.mean(position > middle))
        if right_fraction > 1 - JOINED_FRACTION:
            sides["right"] |= component
        elif right_fraction < JOINED_FRACTION:
            sides["left"] |= component
        else:
            sides["right"] |= component & is_right
            sides["left"] |= component & ~is_right
    return {side: mask for side, mask in sides.items() if mask.any()}


def _from_superior(components: list[Mask], volume: Volume) -> dict[str, Mask]:
    def superior_mm(component: Mask) -> float:
        center_ijk = np.argwhere(component).mean(axis=0)[::-1]
        return float(volume.ijk_to_ras[2, :3] @ center_ijk)

    ordered = sorted(components, key=superior_mm, reverse=True)
    return {str(number): component for number, component in enumerate(ordered, start=1)}


def _plain(label_name: str) -> str:
    """A label's name without what does not belong in a file or column name: 'ilium/pelvis' is 'ilium'."""
    return re.sub(r"\W+", "_", re.split(r"[/(]", label_name)[0].strip())


def bone_of(label_name: str) -> str:
    """The kind of bone that a label names, without side or level."""
    name = _plain(label_name)
    if name.startswith("vertebral_bod"):
        return "vertebral body"
    if name.startswith("vertebra") or re.fullmatch(r"[CTLS]\d+", name):
        return "vertebra"
    return re.sub(r"_(left|right)$", "", name).replace("_", " ")
