"""How well bones are found by name: `python -m training.naming.evaluate DATA --split validation`.

Scans: every annotated bone that has a name is asked for by it, and the mask compared with that from a
jittered box; every annotated mask is named; and bones that lie elsewhere in the body are asked for. Bodies:
anatomy of the training store that was held out, rendered in drawn contrasts and cut to slabs; there every
bone has its name, so that numbers of vertebrae and ribs can be judged. Both are kept apart.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from BoneSAMLib.bone_finding import BoneFinder, BoneNotFound, Naming
from BoneSAMLib.bone_kinds import BonePlace, bones_at, name_of
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.intensity import CT_HIGH_HU, CT_LOW_HU
from BoneSAMLib.prompts import Box
from BoneSAMLib.session import Segmenter
from BoneSAMLib.volume import Volume
from training.cases import Case, load_cases
from training.evaluate import first_cases
from training.label_places import label_place
from training.measure import near_bone
from training.metrics import compare
from training.protocols import generator, jittered_box
from training.store import DEPTH_UNIT_MM, Subject, load_subjects
from training.summary import recall_weighted
from training.synthesis.contrast import random_contrast, render

# Bones that no scan of a source shows. Other sources are not asked for absent bones.
ELSEWHERE = {
    "spine-mr": (
        "skull", "mandible", "left patella", "right tibia", "left clavicle", "right calcaneus",
        "left humerus", "right clavicle",
    ),
    "pelvic-mr": (
        "skull", "mandible", "left patella", "left clavicle", "right scapula", "left calcaneus",
        "right clavicle", "left talus",
    ),
    "open-kbp": (
        "left femur", "right hip bone", "sacrum", "right patella", "L5 vertebra", "left tibia",
        "right calcaneus", "left radius",
    ),
    "totalsegmentator-example": (
        "skull", "mandible", "left patella", "right tibia", "left calcaneus", "right talus",
    ),
}  # fmt: skip
SHORTEST_SLAB, LONGEST_SLAB = 0.35, 1.0  # of a body's height
LEAST_VISIBLE = 0.5  # of a bone, for it to be judged
MATCHED_IOU = 0.5  # panoptic quality (Kirillov et al. 2019, sec. 4)


@dataclass(frozen=True)
class Asked:
    """A bone asked for by name in a scan. Dice 0 where it was not found.

    By name is the mask in the box that was found, by box that in a jittered one. `told`: the mask decoder was
    told the kind of bone, too, as it is in use.
    """

    source: str
    case: str
    bone: str
    found: bool
    dice_by_name: float
    dice_by_name_untold: float
    dice_by_box: float
    dice_by_box_told: float


@dataclass(frozen=True)
class Named:
    """A true mask and what it was called. `None`: it cannot be judged."""

    source: str
    case: str
    kind: str
    kind_right: bool
    side_right: bool | None
    number_right: bool | None
    sure: bool


@dataclass(frozen=True)
class Unprompted:
    """A bone in the mask of all bones: F2, which counts recall more, near it; without and with names."""

    source: str
    case: str
    bone: str
    f2: float
    f2_named: float


def unprompted(case: Case, segmenter: Segmenter) -> Iterator[Unprompted]:
    """Every annotated bone in the mask of all bones."""
    volume, labels, bones = case.load()
    session = segmenter.open(volume)
    plain, named = (session.segment_all(named=one).labels > 0 for one in (False, True))
    for bone in bones:
        without, with_names = (
            recall_weighted(near_bone(one, bone.mask, labels, volume)) for one in (plain, named)
        )
        yield Unprompted(case.source, case.id, bone.name, without, with_names)


def ask_case(case: Case, segmenter: Segmenter) -> Iterator[Asked]:
    """Every annotated bone that has a name of its own, by name and by box."""
    volume, _, bones = case.load()
    session = segmenter.open(volume)
    for bone in bones:
        place = label_place(bone.name)
        if place is None or not bones_at(place):
            continue
        box = jittered_box(bone.mask, volume, generator(case.id, bone.name, "box"))
        name = name_of(place)
        try:
            found, _ = session.find(name)
        except BoneNotFound:
            found = []

        def dice(box: Box, told: bool, mask: NDArray[np.bool_] = bone.mask, name: str = name) -> float:
            answer = session.segment(box=box, bone=name if told else "").mask
            return compare(answer, mask, volume.spacing).dice

        by_name, untold = (dice(found[0].box, told) if found else 0.0 for told in (True, False))
        yield Asked(
            case.source, case.id, name, bool(found), by_name, untold, dice(box, False), dice(box, True)
        )


def name_masks(
    source: str, case: str, finder: BoneFinder, bones: Iterable[tuple[BonePlace, NDArray[np.bool_]]]
) -> Iterator[Named]:
    """What each of the masks is called. A place without number or side leaves those open."""
    for place, mask in bones:
        found = finder.bone_of_mask(mask)
        same = found is not None and found.place.kind == place.kind
        side = same and found is not None and found.place.side == place.side
        number = same and found is not None and found.place.number == place.number
        yield Named(
            source,
            case,
            place.kind,
            same,
            side if place.side else None,
            number if place.number else None,
            found is not None and found.sure,
        )


def false_findings(case: Case, segmenter: Segmenter) -> list[tuple[str, str, bool]]:
    """Bones that lie elsewhere: case, name, and whether it was "found"."""
    session = segmenter.open(case.load()[0])
    rows = []
    for name in ELSEWHERE.get(case.source, ()):
        try:
            session.find(name)
        except BoneNotFound:
            rows.append((case.id, name, False))
        else:
            rows.append((case.id, name, True))
    return rows


def rendered_slab(subject: Subject, rng: np.random.Generator) -> tuple[Volume, dict[int, NDArray[np.bool_]]]:
    """A scan of a part of a body, and the masks [k, j, i] of the bones that it shows, by label."""
    assert subject.labels is not None
    assert subject.depth is not None
    height = subject.labels.shape[0]
    length = int(height * rng.uniform(SHORTEST_SLAB, LONGEST_SLAB))
    first = int(rng.integers(0, height - length + 1))
    labels = np.asarray(subject.labels[first : first + length])
    depth = np.asarray(subject.depth[first : first + length]).astype(np.float32) * np.float32(DEPTH_UNIT_MM)
    contrast = random_contrast(subject.tissues, rng)
    image = np.empty(labels.shape, np.float32)
    for start in range(0, length, 6):
        part = slice(start, start + 6)
        image[part] = render(labels[part], depth[part], float(subject.spacing[0]), contrast, rng)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(0.03)
    is_ct = contrast.regime == "CT"
    if is_ct:
        array = np.rint(image * (CT_HIGH_HU - CT_LOW_HU) + CT_LOW_HU).astype(np.int16)
        array[labels == 0] = -1000
    else:
        array = np.rint(np.clip(image, 0, None) * 1000).astype(np.int16)
    affine = np.diag([*subject.spacing, 1.0])
    masks = {}
    for target in subject.targets:
        mask = labels == target.label
        total = np.count_nonzero(subject.labels == target.label)
        if np.count_nonzero(mask) >= LEAST_VISIBLE * total:
            masks[target.label] = mask
    return Volume(array, affine, subject.id, "CT" if is_ct else "MR"), masks


def panoptic_quality(finder: BoneFinder, masks: Sequence[NDArray[np.bool_]]) -> float:
    """Panoptic quality of parting the true bone into single bones, all taken as one mask."""
    union = np.logical_or.reduce(list(masks))
    parts = finder.split(union.astype(np.uint8)).labels
    sizes = np.bincount(parts.ravel())
    total, matched = 0.0, 0
    for mask in masks:
        overlap = np.bincount(parts[mask], minlength=len(sizes))
        overlap[0] = 0
        best = int(overlap.argmax())
        iou = overlap[best] / (sizes[best] + np.count_nonzero(mask) - overlap[best])
        if iou > MATCHED_IOU:
            total, matched = total + float(iou), matched + 1
    others = (len(sizes) - 1 - matched) + (len(masks) - matched)
    return total / (matched + 0.5 * others)


def summary_of(
    asked: list[Asked],
    all_bones: list[Unprompted],
    false: list[tuple[str, str, bool]],
    named: list[Named],
) -> dict[str, Any]:
    """Means by source: found, Dice by name and by box, all bones, names of masks; and false findings."""
    found: dict[str, Any] = {}
    for source in sorted({row.source for row in asked}):
        rows = [row for row in asked if row.source == source]
        found[source] = {
            "bones": len(rows),
            "found": _share(row.found for row in rows),
            **{
                kind: round(float(np.mean([getattr(row, kind) for row in rows])), 3)
                for kind in ("dice_by_name", "dice_by_name_untold", "dice_by_box", "dice_by_box_told")
            },
        }
    summary: dict[str, Any] = {"by_name": found, "names": {}}
    for source in sorted({row.source for row in named}):
        rows_named = [row for row in named if row.source == source]
        summary["names"][source] = names_summary(rows_named)
    summary["no_prompt"] = {}
    for source in sorted({row.source for row in all_bones}):
        own = [row for row in all_bones if row.source == source]
        summary["no_prompt"][source] = {
            "bones": len(own),
            "f2": round(float(np.mean([row.f2 for row in own])), 3),
            "f2_named": round(float(np.mean([row.f2_named for row in own])), 3),
        }
    if false:
        summary["absent_bones_asked"] = len(false)
        summary["false_positive_rate"] = _share(hit for _, _, hit in false)
    return summary


def names_summary(rows: Sequence[Named]) -> dict[str, Any]:
    """Shares of masks with the right kind, and, among those that have them, side and number."""
    kinds = {
        kind: {"masks": sum(row.kind == kind for row in rows)}
        | {"right": _share(row.kind_right for row in rows if row.kind == kind)}
        for kind in sorted({row.kind for row in rows})
    }
    return {
        "masks": len(rows),
        "kind": _share(row.kind_right for row in rows),
        "side": _share(row.side_right for row in rows if row.side_right is not None),
        "number": _share(row.number_right for row in rows if row.number_right is not None),
        "number_where_sure": _share(
            row.number_right for row in rows if row.number_right is not None and row.sure
        ),
        "vertebra_number": _share(
            row.number_right for row in rows if row.number_right is not None and row.kind == "vertebra"
        ),
        "kinds": kinds,
    }


def _share(values: Iterable[bool]) -> float | None:
    values = list(values)
    return round(float(np.mean(values)), 3) if values else None


def main(
    data: Annotated[Path, typer.Argument(help="Folder with index.json.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    split: Annotated[str, typer.Option(help="validation, or once at the end test.")] = "validation",
    naming: Annotated[Path | None, typer.Option(help="Naming network instead of the bundled one.")] = None,
    most_cases: Annotated[int | None, typer.Option(help="Of each source.")] = None,
    store: Annotated[Path | None, typer.Option(help="Training store with the held-out bodies.")] = None,
    body: Annotated[list[str] | None, typer.Option(help="A held-out body in the store; repeatable.")] = None,
    slabs: Annotated[int, typer.Option(help="Rendered scans of each body.")] = 10,
) -> None:
    """Measure the naming network and what is segmented by name."""
    try:
        if not out.parent.is_dir():
            raise BoneSAMError(f"There is no folder '{out.parent}' for the results.")
        segmenter = Segmenter(device="cpu", naming=naming)
        network = segmenter.naming
        asked: list[Asked] = []
        false: list[tuple[str, str, bool]] = []
        named: list[Named] = []
        all_bones: list[Unprompted] = []
        cases = [case for case in load_cases(data, split) if case.modality != "X-ray"]
        for case in cases if most_cases is None else first_cases(cases, most_cases):
            print(case.id, file=sys.stderr, flush=True)
            asked += ask_case(case, segmenter)
            all_bones += unprompted(case, segmenter)
            false += false_findings(case, segmenter)
            volume, _, bones = case.load()
            known = [(place, b.mask) for b in bones if (place := label_place(b.name)) is not None]
            named += name_masks(case.source, case.id, BoneFinder(volume, network), known)
        report: dict[str, Any] = {"split": split, "scans": summary_of(asked, all_bones, false, named)}
        if store is not None and body:
            report["held_out_bodies"] = evaluate_bodies(store, body, slabs, network)
        report["asked"] = [asdict(row) for row in asked]
        report["all_bones"] = [asdict(row) for row in all_bones]
        report["false_findings"] = [row for row in false if row[2]]
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({key: report[key] for key in report if key not in ("asked", "all_bones")}, indent=1))
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


def evaluate_bodies(store: Path, bodies: Sequence[str], slabs: int, naming: Naming) -> dict[str, Any]:
    """Names and panoptic quality over rendered slabs of bodies that the network has not seen.

    Raises:
        BoneSAMError: a body is not in the store.
    """
    subjects = {subject.id: subject for subject in load_subjects(store, "train")}
    missing = set(bodies) - set(subjects)
    if missing:
        raise BoneSAMError(f"The store '{store}' has no body '{sorted(missing)[0]}'.")
    rows: list[Named] = []
    qualities = []
    for name in bodies:
        for number in range(slabs):
            rng = np.random.default_rng([number, 11])
            volume, masks = rendered_slab(subjects[name], rng)
            places = {label: label_place(subjects[name].names[label]) for label in masks}
            known = [(place, masks[label]) for label, place in places.items() if place is not None]
            finder = BoneFinder(volume, naming)
            rows += name_masks(volume.modality or "", name, finder, known)
            qualities.append(panoptic_quality(finder, [mask for _, mask in known]))
    by_modality = {one: names_summary([row for row in rows if row.source == one]) for one in ("CT", "MR")}
    quality = round(float(np.mean(qualities)), 3)
    return {"bodies": list(bodies), "slabs": slabs, "panoptic_quality": quality, "names": by_modality}


if __name__ == "__main__":
    typer.run(main)
