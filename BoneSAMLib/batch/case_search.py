"""Which volumes a folder tree, a glob or a table means, and where their masks go."""

import glob
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from BoneSAMLib.batch.case import MASK_ENDINGS, BatchPrompts, Case
from BoneSAMLib.batch.case_table import read_case_table
from BoneSAMLib.batch.record import is_batch_mask
from BoneSAMLib.batch.scan_files import DicomHeader, dicom_header, kind_of
from BoneSAMLib.dicom_segmentation import DICOM_ENDING, check_dicom_output
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.surface import check_surfaces

__all__ = ["find_cases"]

_TABLES = (".csv", ".tsv")
_ENDINGS_TO_DROP = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".dicom", ".ima")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class _Found:
    """A volume, and what it is called: a path relative to the output folder, without ending."""

    source: Path
    stem: str
    error: str = ""


def find_cases(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    prompts: BatchPrompts | None = None,
    ending: str = ".seg.nrrd",
    depth_attention: bool = True,
    surfaces: bool = False,
) -> list[Case]:
    """The volumes that `source` means, each with the file of its mask in the folder `output`.

    Args:
        source: a folder, searched with all folders in it for NIfTI, NRRD and MetaImage files and DICOM
            series, known by their headers; a pattern such as "scans/*/ct*.nii.gz"; one file; or a table
            (.csv, .tsv), see `case_table`. `.seg.nrrd` files, masks that a batch has written, and what lies
            in `output` below a folder are no volumes.
            Pictures count only where a pattern or the name of a file means them.
        output: folder of the masks; those of a tree lie in the same subfolders.
        prompts: for all volumes; for a table, None, or what its rows without prompts want.
        ending: of the masks, one of `MASK_ENDINGS`.
        depth_attention: for the prompts of a table; `prompts` have their own.
        surfaces: whether an STL file of each bone is wanted beside its mask.

    Raises:
        BoneSAMError: nothing is found, the table is none, no prompts, an unknown ending, or a package that
            the output needs is missing.
    """
    if surfaces:
        check_surfaces()
    if ending == DICOM_ENDING:
        check_dicom_output()
    cases = _cases(source, output, prompts, ending, depth_attention)
    return [replace(case, surfaces=surfaces) for case in cases]


def _cases(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    prompts: BatchPrompts | None,
    ending: str,
    depth_attention: bool,
) -> list[Case]:
    if ending not in MASK_ENDINGS:
        raise BoneSAMError(f"Unknown mask format '{ending}': use one of {', '.join(MASK_ENDINGS)}.")
    source, output = Path(source), Path(output)
    if source.is_file() and source.name.lower().endswith(_TABLES):
        return _distinct(read_case_table(source, output, ending, prompts, depth_attention))
    if prompts is None:
        raise BoneSAMError("No prompt was given for the volumes: ask for all bones, or give prompts.")
    if source.is_dir():
        if source.resolve() == output.resolve():
            raise BoneSAMError(f"The masks cannot go into '{output}' itself: it is the input; name another.")
        found = [*_in_tree([source], source, output)]
    elif source.exists():
        found = [_Found(source, _stem(source.name))]
    else:
        found = _matching(source, output)
    if not found:
        raise BoneSAMError(f"There are no volumes in '{source}': NIfTI, NRRD, MHA or DICOM are looked for.")
    return [
        Case(one_stem, one.source, output / (one_stem + ending), prompts, one.error)
        for one, one_stem in zip(found, _unique([one.stem for one in found]), strict=True)
    ]


def _matching(pattern: Path, output: Path) -> list[_Found]:
    if not glob.has_magic(str(pattern)):
        raise BoneSAMError(f"There is no file or folder '{pattern}'.")
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)
    root = Path(*fixed)
    pictures = [
        _Found(one, one.relative_to(root).with_suffix("").as_posix())
        for one in matches
        if one.is_file() and one.name.lower().endswith(_PICTURES)
    ]
    return [*_in_tree(matches, root, output), *pictures]


def _in_tree(starts: Sequence[Path], root: Path, output: Path) -> Iterator[_Found]:
    """Volumes among files, and in folders and all folders in them; files of a folder are seen together."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    unreadable: list[OSError] = []
    for path in starts:
        if path.is_file():
            by_folder[path.parent].append(path)
    for path in starts:
        if path.is_dir():
            for folder, names in _walk(path, output.resolve(), unreadable):
                known = set(by_folder[folder])
                by_folder[folder] += [folder / name for name in names if folder / name not in known]
    for folder in sorted(by_folder):
        yield from _in_folder(folder, sorted(by_folder[folder]), root)
    for error in unreadable:
        folder = Path(str(error.filename))
        stem = _relative(folder, root)
        yield _Found(folder, stem, f"Cannot read the folder '{folder}': {error.strerror}.")


def _walk(start: Path, output: Path, unreadable: list[OSError]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder once, with its files, whatever links lead to it; not the folder of the masks."""
    seen: set[Path] = {output}
    for folder, folders, names in os.walk(start, followlinks=True, onerror=unreadable.append):
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), names


def _in_folder(folder: Path, paths: Iterable[Path], root: Path) -> Iterator[_Found]:
    series: dict[str, list[tuple[Path, DicomHeader]]] = defaultdict(list)
    for path in paths:
        name = path.name.lower()
        if name.startswith(".") or name.endswith((".seg.nrrd", *_PICTURES)) or not path.is_file():
            continue
        if is_batch_mask(path):  # a pattern may reach into the folder of the masks
            continue
        stem = _relative(path.parent / _stem(path.name), root)
        try:
            kind = kind_of(path)
            header = dicom_header(path) if kind == "DICOM" else None
        except OSError as error:
            yield _Found(path, stem, f"Cannot read '{path}': {error.strerror}.")
            continue
        except BoneSAMError as error:
            yield _Found(path, stem, str(error))
            continue
        if header is not None and header.frames == 1:
            series[header.series].append((path, header))
        elif header is not None or kind not in (None, "DICOM"):
            yield _Found(path, stem)
    stacks = [group for group in series.values() if any(header.has_position for _, header in group)]
    for group in series.values():
        if group not in stacks:  # radiographs: each is a volume of its own
            for path, _ in group:
                yield _Found(path, _relative(path.parent / _stem(path.name), root))
    for group in stacks:
        path, header = group[0]
        # A folder of the tree is mostly one series, and then the series is called like the folder.
        stem = _relative(folder, root) or folder.resolve().name
        lost = [path for path, header in group if not header.has_position]
        problem = ""
        if lost:
            problem = (
                f"In '{folder}', {len(lost)} of {len(group)} images of a series say not where they lie, such "
                f"as {lost[0].name}: export the series again."
            )
        yield _Found(path, f"{stem}/series-{header.number}" if len(stacks) > 1 else stem, problem)


def _relative(path: Path, root: Path) -> str:
    relative = path.relative_to(root).as_posix()
    return "" if relative == "." else relative


def _stem(name: str) -> str:
    return next((name[: -len(end)] for end in _ENDINGS_TO_DROP if name.lower().endswith(end)), name) or name


def _unique(stems: Sequence[str]) -> list[str]:
    """Names that also differ where capital and small letters do not: equal ones get a number."""
    taken: set[str] = set()
    unique = []
    for stem in stems:
        number, name = 1, stem
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        unique.append(name)
    return unique


def _distinct(cases: Sequence[Case]) -> list[Case]:
    """Refuse rows of a table that would write to the same file."""
    outputs: dict[str, str] = {}
    for case in cases:
        key = str(case.record.absolute()).casefold()
        if key in outputs:
            raise BoneSAMError(
                f"'{outputs[key]}' and '{case.name}' would both be written to '{case.output}': give each "
                "volume an output of its own in the table."
            )
        outputs[key] = case.name
    return list(cases)
