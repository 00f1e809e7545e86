"""What a folder holds: images, the masks that belong to them, and images without one.

A folder with an `index.json` says it itself. Elsewhere files are matched by their names: the mask of
`p1/ct.nii.gz` is `p1/ct_mask.nii.gz`, `p1/mask.nii.gz` (if p1 holds one image), `p1/ct.seg.nrrd`, or
`labels/p1/ct.nii.gz` beside `images/p1/ct.nii.gz`; DICOM segmentations and structure sets name the series
that they were drawn on.
"""

import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from BoneSAMLib.dicom_images import is_dicom
from BoneSAMLib.errors import BoneSAMError
from training.annotation import read_structures
from training.cases import INDEX, read_index

__all__ = ["Found", "Reading", "find_scans", "read_names"]

_ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_MASK_WORDS = {
    "mask", "masks", "label", "labels", "labelmap", "labelmaps", "seg", "segm", "segmentation",
    "segmentations", "annotation", "annotations", "truth", "gt", "bone", "bones", "labelstr", "labelsts",
    "labelsval",
}  # fmt: skip
_IMAGE_WORDS = {"image", "images", "img", "imgs", "scan", "scans", "imagestr", "imagests", "imagesval"}
# Usual names of folders, and those of nnU-Net.
_SPLIT_FOLDERS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test", "labelstr": "", "labelsts": "test",
    "imagests": "test", "labelsval": "validation", "imagesval": "validation",
}  # fmt: skip
_SOLE_CHANNEL = re.compile(r"_0000$")
_BIDS = re.compile(r"sub-[A-Za-z0-9]+")
_DICOM_MODALITIES = {"CT": "CT", "MR": "MR"} | dict.fromkeys(("CR", "DX", "DR", "RG", "RF", "XA"), "X-ray")
_NAME_FILES = ("names.json", "labels.json", "dataset.json")


@dataclass(frozen=True)
class Reading:
    """How a folder is to be understood, where it does not say it.

    Attributes:
        masks: another folder, whose files are the masks of images with the same path in the first.
        names: bone by label value or structure; None for what is no bone.
        source: what the scans are called together.
        modality: "CT", "MR" or "X-ray"; "" to take what DICOM says, or to guess from the values.
        license: of the scans.
        complete: whether all bones that are seen are annotated.
        subject: regular expression that finds the person in a file's path.
    """

    masks: Path | None = None
    names: dict[str, str | None] = field(default_factory=dict)
    source: str = ""
    modality: str = ""
    license: str = "not stated"
    complete: bool = False
    subject: str = ""


@dataclass
class Found:
    """What was found.

    Attributes:
        rows: annotated cases, as rows of an index with absolute paths; "modality" may be "".
        unlabelled: images without a mask: "id", "file", "modality", "license", "subject".
        problems: file or case, and a sentence on what is wrong with it.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    unlabelled: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    """A file of the tree: where, what its name says without the words for images and masks, and its split."""

    path: Path
    key: str
    split: str
    modality: str = ""
    subject: str = ""


def find_scans(folder: Path, reading: Reading) -> Found:
    """Everything in a folder that can be trained with.

    Raises:
        BoneSAMError: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise BoneSAMError(f"There is no folder '{folder}'.")
    folder = folder.resolve()
    found = _indexed(folder) if (folder / INDEX).exists() else _Tree(folder, reading).found()
    if not (found.rows or found.unlabelled or found.problems):
        raise BoneSAMError(
            f"There are no scans in '{folder}': NIfTI, NRRD, MHA, DICOM and PNG files, or an {INDEX}, are "
            "looked for."
        )
    return found


def read_names(path: Path) -> dict[str, str | None]:
    """Bones by label value or structure's name: {"1": "femur", "2": null}, or as in nnU-Net's dataset.json.

    Raises:
        BoneSAMError: it cannot be read or says something else.
    """
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        names = names.get("labels", names)
        if names and all(type(value) is int for value in names.values()):  # nnU-Net names first
            names = {str(value): name for name, value in names.items() if value}
        if not all(name is None or isinstance(name, str) for name in names.values()):
            raise ValueError
    except (OSError, ValueError, AttributeError) as error:
        raise BoneSAMError(
            f'The names in \'{path}\' cannot be read: give a JSON file such as {{"1": "femur", "2": null}}; '
            "null is no bone."
        ) from error
    return {str(value): name for value, name in names.items()}


def _indexed(folder: Path) -> Found:
    rows = []
    cases = read_index(folder)
    for raw, case in zip(json.loads((folder / INDEX).read_text(encoding="utf-8")), cases, strict=True):
        row = {
            **raw, "image": str(case.image), "mask": str(case.mask), "source": case.source,
            "split": case.split, "partial_label": case.partial_label, "license": case.license,
            "subject": case.subject,
        }  # fmt: skip
        rows.append(row)
    found = Found(rows)
    beside = folder / "unlabelled" / INDEX
    for row in json.loads(beside.read_text()) if beside.exists() else []:
        path = beside.parent / Path(row["file"]).name
        found.unlabelled.append(row | {"file": str(path), "subject": row.get("subject") or row["id"]})
    return found


class _Tree:
    """A folder whose files are matched by their names."""

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.folder, self.reading = folder, reading
        self.names = reading.names
        for name in _NAME_FILES if not reading.names else ():
            if (folder / name).exists():
                self.names = read_names(folder / name)
                break
        self._found = Found()

    def found(self) -> Found:
        """All cases and images without a mask, in the order of their paths."""
        images: list[_File] = []
        masks: list[_File] = []
        dicom: list[Path] = []
        other = None if self.reading.masks is None else self.reading.masks.resolve()
        for path in _files(self.folder):
            if other is not None and path.is_relative_to(other):
                continue
            if _is_scan(path):
                into = masks if self._is_mask(path) else images
                into.append(self._file(path, self.folder))
            elif not path.name.lower().endswith(".json") and _looks_dicom(path):
                dicom.append(path)
        if other is not None:
            images, masks = images + masks, []
            if not other.is_dir():
                raise BoneSAMError(f"There is no folder '{self.reading.masks}' of masks.")
            for path in _files(other):
                if _is_scan(path):
                    masks.append(self._file(path, other))
                elif _looks_dicom(path):
                    dicom.append(path)
        series, objects = self._dicom(dicom)
        self._match_names(
            images + [one for group in series.values() for one in group[:1]], masks, objects, series
        )
        return self._found

    def _match_names(
        self,
        images: list[_File],
        masks: list[_File],
        objects: list[tuple[Path, Dataset]],
        series: dict[str, list[_File]],
    ) -> None:
        taken: dict[Path, Path] = {}
        for mask in masks:
            self._take(mask.path, self._image_of(mask, images), taken)
        for path, header in objects:
            wanted = [uid for uid in _referenced_series(header) if uid in series]
            image = series[wanted[0]][0] if len(wanted) == 1 else None
            if image is None and not wanted and len(images) == 1:
                image = images[0]
            self._take(path, image, taken)
        by_image = {image: mask for mask, image in taken.items()}
        for image in images:
            if image.path in by_image:
                self._add(image, by_image[image.path])
            else:
                self._found.unlabelled.append(
                    {
                        "id": self._id(image),
                        "file": str(image.path),
                        "license": self.reading.license,
                        "modality": self.reading.modality or image.modality,
                        "subject": self._subject(image),
                        "split": image.split,
                    }
                )

    def _take(self, mask: Path, image: _File | None, taken: dict[Path, Path]) -> None:
        if image is None:
            self._problem(
                mask,
                f"It is not clear which image the mask '{mask}' belongs to: call it like its image with "
                "_mask at the end, or write an index.json.",
            )
        elif image.path in taken.values():
            other = next(one for one, chosen in taken.items() if chosen == image.path)
            self._problem(
                mask, f"Both '{mask}' and '{other}' are masks of '{image.path}': join them, or take one away."
            )
        else:
            taken[mask] = image.path

    def _image_of(self, mask: _File, images: Sequence[_File]) -> _File | None:
        same = [image for image in images if image.key == mask.key]
        # "p1/mask" or "p1/Segmentation" is of the one image in p1.
        within = [image for image in images if image.path.parent == mask.path.parent]
        around = [image for image in images if os.path.dirname(image.key) == mask.key]
        for group in (same, around, within if _only_mask_words(mask.path) else []):
            if len(group) == 1:
                return group[0]
        return None

    def _add(self, image: _File, mask: Path) -> None:
        try:
            labels = self._labels(mask)
        except BoneSAMError as error:
            self._problem(mask, str(error))
            return
        self._found.rows.append(
            {
                "id": self._id(image),
                "source": self.reading.source or self.folder.name,
                "split": image.split or self._file(mask, self.folder).split,
                "subject": self._subject(image),
                "image": str(image.path),
                "mask": str(mask),
                "modality": self.reading.modality or image.modality,
                "labels": labels,
                "partial_label": not self.reading.complete,
                "label_quality": "not stated",
                "license": self.reading.license,
            }
        )

    def _labels(self, mask: Path) -> dict[str, str | None]:
        """Names by value; nothing if neither the mask nor the user names anything."""
        structures = read_structures(mask)
        if not structures:
            return {value: name for value, name in self.names.items() if value.isdecimal()}
        labels: dict[str, str | None] = {}
        for one in structures:
            given = next((key for key in (one.name, str(one.value)) if key in self.names), None)
            name = self.names[given] if given is not None else one.name if one.is_bone else None
            labels[str(one.value)] = name
        if not any(labels.values()):
            raise BoneSAMError(
                f"No structure in '{mask}' is known as a bone "
                f"({', '.join(one.name for one in structures[:8])}): "
                'say with --names which ones are, as in {"' + structures[0].name + '": "femur"}.'
            )
        return labels

    def _dicom(self, paths: Sequence[Path]) -> tuple[dict[str, list[_File]], list[tuple[Path, Dataset]]]:
        """Image series by their UID, and segmentations and structure sets."""
        series: dict[str, list[_File]] = defaultdict(list)
        objects: list[tuple[Path, Dataset]] = []
        numbers: dict[str, str] = {}
        for path in paths:
            header = _dicom_header(path)
            if header is None:
                self._problem(path, f"The DICOM file '{path}' is damaged: copy or export it again.")
                continue
            kind = str(header.get("Modality", "")).upper()
            if kind in ("SEG", "RTSTRUCT"):
                objects.append((path, header))
            elif kind in _DICOM_MODALITIES and "Rows" in header:
                uid = str(header.get("SeriesInstanceUID", path))
                person = str(header.get("PatientID", "") or "")
                numbers[uid] = str(header.get("SeriesNumber", "") or len(numbers))
                file = self._file(path, self.folder if path.is_relative_to(self.folder) else path.parent)
                folder = os.path.dirname(file.key)
                key = f"{folder}/series-{numbers[uid]}" if folder else f"series-{numbers[uid]}"
                series[uid].append(_File(path, key, file.split, _DICOM_MODALITIES[kind], person))
        return series, objects

    def _is_mask(self, path: Path) -> bool:
        if path.name.lower().endswith(".seg.nrrd"):
            return True
        parts = path.relative_to(self.folder).parts
        folders = {part.lower() for part in parts[:-1]}
        if folders & _IMAGE_WORDS:
            return False
        return bool(folders & _MASK_WORDS) or _ends_like_mask(_stem(path.name))

    def _file(self, path: Path, root: Path) -> _File:
        relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        folders = [part for part in relative.parts[:-1] if part.lower() not in _MASK_WORDS | _IMAGE_WORDS]
        stem = _SOLE_CHANNEL.sub("", _without_kind(_stem(relative.name)))
        split = next(
            (_SPLIT_FOLDERS[part.lower()] for part in relative.parts[:-1] if part.lower() in _SPLIT_FOLDERS),
            "",
        )
        return _File(path, "/".join([*folders, *([stem] if stem else [])]), split)

    def _id(self, image: _File) -> str:
        source = self.reading.source or self.folder.name
        return re.sub(r"[^\w.-]+", "_", f"{source}-{image.key or image.path.stem}")

    def _subject(self, image: _File) -> str:
        source = self.reading.source or self.folder.name
        relative = image.path.relative_to(self.folder).as_posix()
        pattern = re.compile(self.reading.subject) if self.reading.subject else _BIDS
        match = pattern.search(relative)
        if match:
            return f"{source}/{match[1] if match.groups() else match[0]}"
        if image.subject:
            return f"{source}/{image.subject}"
        folders = [part for part in image.key.split("/")[:-1] if part.lower() not in _SPLIT_FOLDERS]
        return f"{source}/{folders[0] if folders else image.key}"

    def _problem(self, path: Path, sentence: str) -> None:
        self._found.problems.append((str(path), sentence))


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _is_scan(path: Path) -> bool:
    return path.name.lower().endswith((*_ENDINGS, *_PICTURES))


def _looks_dicom(path: Path) -> bool:
    try:
        return path.stat().st_size > 132 and is_dicom(path)
    except OSError:
        return False


def _dicom_header(path: Path) -> Dataset | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception:  # pydicom raises many kinds for a damaged file
        return None


def _referenced_series(header: Dataset) -> list[str]:
    """Series that a segmentation or structure set was drawn on."""
    uids = [str(one.SeriesInstanceUID) for one in header.get("ReferencedSeriesSequence", [])]
    for frame in header.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            uids += [str(one.SeriesInstanceUID) for one in study.get("RTReferencedSeriesSequence", [])]
    return list(dict.fromkeys(uids))


def _stem(name: str) -> str:
    ending = next((end for end in (*_ENDINGS, *_PICTURES) if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def _words(stem: str) -> list[str]:
    return [word for word in re.split(r"[\s_.-]+", stem.lower()) if word]


def _ends_like_mask(stem: str) -> bool:
    words = _words(stem)
    return bool(words) and (words[-1] in _MASK_WORDS or words[0] in _MASK_WORDS - {"bone", "bones"})


def _only_mask_words(path: Path) -> bool:
    words = _words(_stem(path.name))
    return all(word in _MASK_WORDS or word.isdecimal() for word in words)


def _without_kind(stem: str) -> str:
    """`p1_mask`, `mask-p1` and `p1_image` are all "p1"; `mask` and `image` are ""."""
    kinds = "|".join(sorted(_MASK_WORDS | _IMAGE_WORDS, key=len, reverse=True))
    stem = re.sub(rf"(?i)(^|[\s_.-]+)({kinds})$", "", stem)
    return re.sub(rf"(?i)^({kinds})[\s_.-]+", "", stem)
