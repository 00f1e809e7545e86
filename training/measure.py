"""Run imitated annotators on one case and score what they get."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.prompts import Box
from BoneSAMLib.volume import Volume
from training.annotator import Annotator, OpenSession, OpensVolumes, Segmented, timed
from training.cases import BoneObject, Case
from training.contact_sheet import Drawn
from training.masks import Mask, bounding_slices, grown
from training.metrics import Agreement, compare
from training.protocols import first_click, generator, jittered_box, slice_box
from training.reference_methods import reference_masks
from training.summary import BAND_MM, BOX_2D, BOX_3D, BOX_AND_CLICKS, CLICKS, NO_PROMPT, Row

CORRECTIONS_AFTER_BOX = 3


@dataclass(frozen=True)
class Plan:
    """What is run on every case."""

    attention: tuple[bool, ...] = (True, False)
    boxes: bool = True
    clicks: bool = True
    slice_boxes: bool = True
    box_corrections: bool = True
    no_prompt: bool = True


FULL = Plan()
# For a first look and for choosing between checkpoints.
QUICK = Plan(attention=(True,), slice_boxes=False, box_corrections=False, no_prompt=False)

# Every bone of every case in minutes: a click alone takes ten times as long as a box.
BOX_ONLY = Plan(clicks=False, slice_boxes=False, box_corrections=False, no_prompt=False)


@dataclass(frozen=True)
class Scored:
    """The rows of one case, and the content of its picture."""

    volume: Volume
    rows: list[Row] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)


@dataclass(frozen=True)
class LoadedCase:
    """A case with its volume, its label values [k, j, i] as annotated, and the bones to be measured."""

    case: Case
    volume: Volume
    labels: NDArray[np.integer]
    bones: list[BoneObject]

    @classmethod
    def read(cls, case: Case, most_bones: int | None = None) -> "LoadedCase":
        """Read a case; only its first ``most_bones`` bones are to be measured.

        Raises:
            BoneSAMError: as for `Case.load`.
        """
        volume, labels, bones = case.load()
        return cls(case, volume, labels, bones[:most_bones])


def evaluate_case(loaded: LoadedCase, segmenter: OpensVolumes, plan: Plan = FULL) -> Scored:
    """Run all protocols of ``plan`` on the bones of one case.

    Raises:
        BoneSAMError: the segmenter refuses a prompt.
    """
    case, volume, labels, objects = loaded.case, loaded.volume, loaded.labels, loaded.bones
    session = segmenter.open(volume)
    scored = Scored(volume)
    for bone in objects:
        box = jittered_box(bone.mask, volume, generator(case.id, bone.name, "box"))
        for method, mask in reference_masks(volume, box).items():
            scored.rows.append(_row(case, bone, method, None, compare(mask, bone.mask, volume.spacing)))
        for attention in plan.attention:
            for protocol, result, seconds in _prompted(session, case, volume, bone, box, plan, attention):
                agreement = compare(result.mask, bone.mask, volume.spacing)
                row = _row(case, bone, protocol, attention, agreement, result.confidence, seconds)
                scored.rows.append(row)
                if protocol == BOX_3D and attention:
                    scored.drawn.append(Drawn(bone.name, bone.mask, result.mask, box, row.dice))
    if plan.no_prompt:
        for attention in plan.attention:
            scored.rows.extend(_unprompted(session, case, volume, labels, objects, attention))
    return scored


def _prompted(
    session: OpenSession,
    case: Case,
    volume: Volume,
    bone: BoneObject,
    box: Box,
    plan: Plan,
    attention: bool,
) -> Iterator[tuple[str, Segmented, float]]:
    """Protocol, result, and the seconds of all calls that led to it."""

    def annotator(purpose: str) -> Annotator:
        return Annotator(session, volume, bone.mask, generator(case.id, bone.name, purpose), attention)

    if plan.boxes or plan.box_corrections:
        with_box = annotator("clicks after box")
        with_box.box = box
        result = with_box.start()
        yield BOX_3D, result, with_box.seconds
        if plan.box_corrections:
            result = with_box.correct(result, CORRECTIONS_AFTER_BOX)
            yield BOX_AND_CLICKS, result, with_box.seconds

    if plan.slice_boxes and not volume.is_projection:
        with_thin_box = annotator("slice box")
        with_thin_box.box = slice_box(bone.mask, volume, with_thin_box.rng)
        yield BOX_2D, with_thin_box.start(), with_thin_box.seconds

    if not plan.clicks:
        return
    clicking = annotator("clicks")
    clicking.points = [first_click(bone.mask, volume, clicking.rng)]
    result = clicking.start()
    clicks_before = 1
    for clicks, protocol in CLICKS.items():
        result = clicking.correct(result, clicks - clicks_before)
        clicks_before = clicks
        yield protocol, result, clicking.seconds


def _unprompted(
    session: OpenSession,
    case: Case,
    volume: Volume,
    labels: NDArray[np.integer],
    objects: Sequence[BoneObject],
    attention: bool,
) -> Iterator[Row]:
    """One row an annotated bone for the segmentation without a prompt, judged only near that bone."""
    everything, seconds = timed(lambda: session.segment_all(depth_attention=attention))
    found = everything.labels > 0
    for bone in objects:
        agreement = near_bone(found, bone.mask, labels, volume)
        region = bounding_slices(bone.mask)
        numbers = everything.labels[region][bone.mask[region]]
        numbers = numbers[numbers > 0]
        confidence = everything.confidence[int(np.bincount(numbers).argmax())] if numbers.size else math.nan
        yield _row(case, bone, NO_PROMPT, attention, agreement, confidence, seconds)


def near_bone(found: Mask, mask: Mask, labels: NDArray[np.integer], volume: Volume) -> Agreement:
    """Agreement of what was found without a prompt with one bone's ``mask``, near it only.

    Voxels of other ``labels`` are bones that were rightly found, or annotations too loose to judge by.
    """
    within = grown(mask, BAND_MM, volume) & (mask | (labels == 0))
    return compare(found, mask, volume.spacing, within)


def _row(
    case: Case,
    bone: BoneObject,
    protocol: str,
    attention: bool | None,
    agreement: Agreement,
    confidence: float = math.nan,
    seconds: float = math.nan,
) -> Row:
    return Row(
        case=case.id,
        source=case.source,
        location=case.body_region,
        label=bone.label_name,
        object=bone.name,
        bone=bone.bone,
        protocol=protocol,
        attention={True: "on", False: "off", None: ""}[attention],
        confidence=float(confidence),
        seconds=seconds,
        **asdict(agreement),
    )
