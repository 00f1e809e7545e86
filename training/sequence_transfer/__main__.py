"""Masks drawn on one sequence to the others of a study: `python -m training.sequence_transfer`.

In each study's folder lie a scan with a mask and scans without one. Each of those gets the mask, if it can be
trusted there; the folder of the results then holds an `index.json` for `training.ingest`, a picture of every
pair, accepted or not, and a table of what was measured.
"""

import csv
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray
from PIL import Image

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.slice_pictures import thumbnail
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, distinct_color, open_complete, write_mask
from training.cases import INDEX, MODALITIES, BoneObject, case_from_row
from training.ingest.discovery import Found, Reading, find_scans, read_names
from training.sequence_transfer.quality import Quality, assess
from training.sequence_transfer.registration import align, carried

TABLE = "pairs.csv"
_PICTURE_PIXELS = 320
_COLUMNS = 4


@dataclass(frozen=True)
class Pair:
    """An annotated scan and another one of the same study, as rows of `training.ingest.discovery`."""

    source: dict[str, Any]
    target: dict[str, Any]

    @property
    def id(self) -> str:
        """Name of what comes of it."""
        return str(self.target["id"])


def pairs_in(found: Found) -> list[Pair]:
    """Every scan without a mask with the annotated scan of the same person and folder.

    Raises:
        BoneSAMError: a folder has several annotated scans, so that it is not clear which one to take.
    """
    pairs = []
    for target in found.unlabelled:
        folder = Path(target["file"]).parent
        near = [
            row
            for row in found.rows
            if row["subject"] == target["subject"] and Path(row["image"]).parent == folder
        ]
        if len(near) > 1:
            raise BoneSAMError(
                f"There are {len(near)} annotated scans in {folder}: keep the masks of the one to carry over."
            )
        if near:
            pairs.append(Pair(near[0], target))
    return pairs


def transfer(pair: Pair, out: Path) -> tuple[Quality, dict[str, Any] | None]:
    """Carry the masks of a pair's source to its target, and draw both.

    Returns:
        What was measured, and the row of the new case; None if the masks are not to be trusted.

    Raises:
        BoneSAMError: a scan cannot be read, or nothing could be aligned.
    """
    row = pair.source | {"modality": pair.source["modality"] or "MR"}
    source, _, objects = case_from_row(row, out).load()
    target = read_volume(Path(pair.target["file"]), MODALITIES[pair.target["modality"] or row["modality"]])
    if not objects:
        raise BoneSAMError(f"There is no bone in the mask of case {row['id']}.")
    labels = np.zeros(source.shape, np.uint16)
    for value, bone in enumerate(objects, start=1):
        labels[bone.mask] = value
    alignment = align(target, source)
    quality = assess(target, source, labels > 0, alignment)
    moved = _carried_labels(objects, source, target, alignment.bending)
    segments = [
        SegmentInfo(value, bone.name.replace("_", " "), distinct_color(value))
        for value, bone in enumerate(objects, start=1)
    ]
    _draw(source, labels, target, moved, segments, out / f"{pair.id}.png")
    if quality.reasons:
        return quality, None
    path = out / f"{pair.id}.seg.nrrd"
    write_mask(moved, target, path, segments)
    facts = {
        "id": pair.id,
        "source": row["source"],
        "split": row["split"],
        "subject": row["subject"],
        "image": str(Path(pair.target["file"]).resolve()),
        "mask": path.name,
        "modality": target.modality,
        "labels": {str(one.value): one.name for one in segments},
        "partial_label": row["partial_label"],
        "label_quality": f"carried over from {row['id']} by registration",
        "license": row["license"],
    }
    return quality, facts


def _carried_labels(
    objects: list[BoneObject], source: Volume, target: Volume, transform: sitk.Transform
) -> NDArray[np.uint16]:
    """Each bone's mask is carried as a gray image and cut at one half: smoother than its nearest voxels."""
    labels = np.zeros(target.shape, np.uint16)
    best = np.full(target.shape, 0.5, np.float32)
    for value, bone in enumerate(objects, start=1):
        share = carried(bone.mask.astype(np.float32), source, target, transform, nearest=False)
        there = share >= best
        labels[there] = value
        best[there] = share[there]
    return labels


def _draw(
    source: Volume,
    labels: NDArray[np.uint16],
    target: Volume,
    moved: NDArray[np.uint16],
    segments: list[SegmentInfo],
    path: Path,
) -> None:
    """Slices of the source with its masks above slices of the target with the masks carried there."""
    rows = []
    for volume, shown in ((source, labels), (target, moved)):
        axis = 2 - volume.through_plane_axis
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(shown.any(axis=others))
        if not len(occupied):
            occupied = np.array([volume.shape[axis] // 2])
        places = np.linspace(0.15, 0.85, _COLUMNS) * (len(occupied) - 1)
        slices = [int(occupied[round(place)]) for place in places]
        rows.append([thumbnail(volume, shown, segments, index, _PICTURE_PIXELS) for index in slices])
    width = max(sum(picture.width for picture in row) for row in rows)
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (width, sum(heights)))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width
        top += height
    with open_complete(path) as file:
        sheet.save(file, format="PNG")


def run(found: Found, out: Path) -> tuple[int, int]:
    """Carry over the masks of every pair; returns how many were accepted and how many were not.

    Raises:
        BoneSAMError: nothing to carry, or ``out`` cannot be written.
    """
    pairs = pairs_in(found)
    if not pairs:
        raise BoneSAMError("There is no study with a scan that has a mask and one that has none.")
    out.mkdir(parents=True, exist_ok=True)
    rows, table = [], []
    for pair in pairs:
        measured: dict[str, Any] = {}
        try:
            quality, row = transfer(pair, out)
            measured = {key: round(value, 4) for key, value in asdict(quality).items()}
            reasons = quality.reasons
        except BoneSAMError as error:
            row, reasons = None, [str(error)]
        if row is not None:
            rows.append(row)
        else:
            (out / f"{pair.id}.seg.nrrd").unlink(missing_ok=True)
        table.append({"id": pair.id, "from": pair.source["id"], "accepted": row is not None} | measured)
        table[-1]["why_not"] = " ".join(reasons)
        print(f"{pair.id}: {'accepted' if row else 'refused. ' + ' '.join(reasons)}", flush=True)
    with open_complete(out / INDEX) as file:
        file.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())
    _write_table(table, out / TABLE)
    return len(rows), len(pairs) - len(rows)


def _write_table(table: list[dict[str, Any]], path: Path) -> None:
    columns = max((list(row) for row in table), key=len)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(table)


def main(
    studies: Annotated[Path, typer.Argument(help="Folder with a folder for every study.")],
    out: Annotated[Path, typer.Option(help="Folder for masks, pictures, table and index.json.")],
    names: Annotated[
        Path | None, typer.Option(help="JSON of the bones' names, as for training.ingest.")
    ] = None,
    source: Annotated[str, typer.Option(help="What these scans are called together.")] = "",
    complete: Annotated[
        bool, typer.Option("--complete", help="Every bone that is seen is annotated, none left out.")
    ] = False,
) -> None:
    """Carry masks from one sequence to the other ones of each study."""
    try:
        reading = Reading(names=read_names(names) if names else {}, source=source, complete=complete)
        accepted, refused = run(find_scans(studies, reading), out)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{accepted} accepted, {refused} refused; look at the pictures in {out}.")


if __name__ == "__main__":
    typer.run(main)
