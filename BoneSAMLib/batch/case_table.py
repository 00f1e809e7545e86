"""A table of volumes and prompts (.csv, .tsv) to cases.

The first row names the columns: `volume`, and any of `output`, `bone`, `box`, `box_ijk`, `points`,
`negative_points`. Every row is one bone; rows with the same volume and output are one case. A row without
prompts wants every bone. Coordinates are as on the command line; several points are separated by ";".
"""

import csv
import io
from collections import defaultdict
from pathlib import Path

from BoneSAMLib.batch.case import MASK_ENDINGS, BatchPrompts, Case
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.many_bones import BonePrompts
from BoneSAMLib.prompts import Box, Point, parse_box, parse_point

__all__ = ["read_case_table"]

_COLUMNS = ("volume", "output", "bone", "box", "box_ijk", "points", "negative_points")
_Row = dict[str, str]


def read_case_table(
    path: Path, output: Path, ending: str, default: BatchPrompts | None, depth_attention: bool
) -> list[Case]:
    """Cases of a table; `default` is for volumes without prompts, None for all bones.

    Paths of volumes count from the table's folder, outputs from the folder `output`. A row that is wrong
    makes its case fail, with the number of its line, and no other.

    Raises:
        BoneSAMError: not a table with these columns, or without rows.
    """
    groups: dict[tuple[str, str], list[tuple[int, _Row]]] = defaultdict(list)
    for line, row in _rows(path):
        groups[row["volume"], row["output"]].append((line, row))
    if not groups:
        raise BoneSAMError(f"There are no volumes in the table '{path}'.")
    return [
        _case(path, output, ending, (default, depth_attention), volume, wanted, rows)
        for (volume, wanted), rows in groups.items()
    ]


def _rows(path: Path) -> list[tuple[int, _Row]]:
    """Line number and fields of each row that is not empty."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
    except OSError as error:
        raise BoneSAMError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BoneSAMError(f"The table '{path}' is not UTF-8 text: save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise BoneSAMError(f"The table '{path}' is not CSV ({error}): save it again.") from error
    rows = [(line, fields) for line, fields in rows if any(fields)]
    columns = [name.lower() for name in rows[0][1]] if rows else []
    unknown = [name for name in columns if name not in _COLUMNS]
    if "volume" not in columns or unknown or len(set(columns)) < len(columns):
        wrong = f"it has '{unknown[0]}'" if unknown else "each once, and at least 'volume'"
        raise BoneSAMError(
            f"The first row of the table '{path}' must name its columns, out of {', '.join(_COLUMNS)}: "
            f"{wrong}."
        )
    named = []
    for line, fields in rows[1:]:
        padded = fields + [""] * (len(columns) - len(fields))
        row = dict.fromkeys(_COLUMNS, "") | dict(zip(columns, padded, strict=False))
        # What is left over is mostly a box without quotation marks.
        row["surplus"] = " ".join(field for field in fields[len(columns) :] if field)
        named.append((line, row))
    return named


def _case(
    table: Path,
    folder: Path,
    ending: str,
    default: tuple[BatchPrompts | None, bool],
    volume: str,
    wanted: str,
    rows: list[tuple[int, _Row]],
) -> Case:
    line = rows[0][0]
    source = table.parent / volume
    name = wanted or _relative_name(volume)
    if not name.lower().endswith(MASK_ENDINGS):
        name += ending
    output = folder / name
    prompts, problem = None, ""
    try:
        if not volume:
            raise BoneSAMError("the volume is missing.")
        prompts = _prompts(rows, *default)
    except BoneSAMError as error:
        problem = (
            f"Table '{table.name}', {error}" if volume else f"Table '{table.name}', line {line}: {error}"
        )
    return Case(wanted or volume or f"line {line}", source, output, prompts, problem)


def _relative_name(volume: str) -> str:
    """Where the mask goes when the table does not say: like the volume, but never outside of the folder."""
    parts = [part for part in Path(volume).parts if part not in ("..", Path(volume).anchor)]
    name = "/".join(parts) or "volume"
    return next(
        (name[: -len(end)] for end in (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr", ".dcm")
         if name.lower().endswith(end)),
        name,
    )  # fmt: skip


def _prompts(
    rows: list[tuple[int, _Row]], default: BatchPrompts | None, depth_attention: bool
) -> BatchPrompts:
    bones = []
    for line, row in rows:
        try:
            bones.append(_bone(row))
        except BoneSAMError as error:
            raise BoneSAMError(f"line {line}: {error}") from error
    if all(bone.box is None and not bone.points and not bone.name for bone in bones):
        if len(rows) > 1:
            raise BoneSAMError(f"line {rows[1][0]}: the volume stands here again without a prompt.")
        return default or BatchPrompts(everything=True)
    for (line, _), bone in zip(rows, bones, strict=True):
        by_name = bool(bone.name) and not bone.points
        if bone.box is None and not by_name and not any(point.positive for point in bone.points):
            raise BoneSAMError(
                f"line {line}: this bone has neither a box nor a point on it, nor a name alone."
            )
        if bone.box is None and by_name:
            try:
                understand(bone.name)
            except BoneSAMError as error:
                raise BoneSAMError(f"line {line}: {error}") from error
    return BatchPrompts(bones=tuple(bones), depth_attention=depth_attention)


def _bone(row: _Row) -> BonePrompts:
    if row["surplus"]:
        raise BoneSAMError(
            'there are more fields than columns; put quotation marks around boxes and points: "1,2,3".'
        )
    if row["box"] and row["box_ijk"]:
        raise BoneSAMError("a bone has one box: give box or box_ijk.")
    box: Box | None = parse_box(row["box"]) if row["box"] else None
    if row["box_ijk"]:
        box = parse_box(row["box_ijk"], "IJK")
    return BonePrompts(
        box, [*_points(row["points"], True), *_points(row["negative_points"], False)], row["bone"]
    )


def _points(text: str, positive: bool) -> list[Point]:
    return [parse_point(part, positive) for part in text.split(";") if part.strip()]
