"""Run imitated annotators on one case and score what they get."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Volume
from training.cases import BoneObject, Case
from training.contact_sheet import Drawn
from training.masks import Mask, bounding_slices, grown
from training.metrics import Agreement, compare
from training.protocols import corrective_click, first_click, generator, jittered_box, slice_box
from training.reference_methods import reference_masks
from training.summary import BAND_MM, BOX_2D, BOX_3D, BOX_AND_CLICKS, CLICKS, NO_PROMPT, Row

CORRECTIONS_AFTER_BOX = 3

Answer = TypeVar("Answer")


class Segmented(Protocol):
    """What a session returns for one bone."""

    @property
    def mask(self) -> Mask:
        """Bool [k, j, i]."""

    @property
    def confidence(self) -> float:
        """Predicted IoU."""


class AllSegmented(Protocol):
    """What a session returns without a prompt."""

    @property
    def labels(self) -> NDArray[Any]:
        """Number of the bone [k, j, i], 0 where there is none."""

    @property
    def confidence(self) -> Mapping[int, float]:
        """Predicted IoU of each number."""


class OpenSession(Protocol):
    """The part of a session that is measured."""

    def segment(
        self,
        box: Box | None = None,
        points: Sequence[Point] = (),
        mask: Any = None,
        depth_attention: bool = True,
    ) -> Segmented:
        """One bone, from a box, from points, or from an earlier result (``mask``) with all points so far."""

    def segment_all(self, depth_attention: bool = True) -> AllSegmented:
        """All bones, without a prompt."""


class OpensVolumes(Protocol):
    """The part of a segmenter that is measured."""

    def open(self, volume: Volume) -> OpenSession:
        """Start working on a volume."""


@dataclass(frozen=True)
class Plan:
    """What is run on every case."""

    attention: tuple[bool, ...] = (True, False)
    clicks: bool = True
    slice_boxes: bool = True
    box_corrections: bool = True
    no_prompt: bool = True
    most_objects: int | None = None


FULL = Plan()
# For a first look and for choosing between checkpoints.
QUICK = Plan(attention=(True,), slice_boxes=False, box_corrections=False, no_prompt=False, most_objects=2)

# Every bone of every case in minutes: a click alone takes ten times as long as a box.
BOX_ONLY = Plan(clicks=False, slice_boxes=False, box_corrections=False, no_prompt=False)


@dataclass(frozen=True)
class Scored:
    """The rows of one case, and the content of its picture."""

    volume: Volume
    rows: list[Row] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)


def evaluate_case(case: Case, segmenter: OpensVolumes, plan: Plan = FULL) -> Scored:
    """Run all protocols of ``plan`` on the bones of one case.

    Raises:
        BoneSAMError: the case cannot be read, or the segmenter refuses a prompt.
    """
    volume, labels, objects = case.load()
    objects = objects[: plan.most_objects]
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


@dataclass
class _Annotator:
    """Somebody who prompts for one bone, looks at the result and corrects it.

    Every call gets the box, all clicks so far and the last result.
    """

    session: OpenSession
    volume: Volume
    truth: Mask
    rng: np.random.Generator
    attention: bool
    box: Box | None = None
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0

    def start(self) -> Segmented:
        """The result of the box, or of the first click."""
        return self._ask(None)

    def correct(self, result: Segmented, times: int) -> Segmented:
        """The result after so many corrective clicks; one without an error stays as it is."""
        for _ in range(times):
            click = corrective_click(result.mask, self.truth, self.volume, self.rng)
            if click is None:
                break
            self.points.append(click)
            result = self._ask(result)
        return result

    def _ask(self, last: Segmented | None) -> Segmented:
        result, seconds = _timed(
            lambda: self.session.segment(
                box=self.box, points=tuple(self.points), mask=last, depth_attention=self.attention
            )
        )
        self.seconds += seconds
        return result


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

    def annotator(purpose: str) -> _Annotator:
        return _Annotator(session, volume, bone.mask, generator(case.id, bone.name, purpose), attention)

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
    everything, seconds = _timed(lambda: session.segment_all(depth_attention=attention))
    found = everything.labels > 0
    for bone in objects:
        # Voxels of other labels are bones that were rightly found, or annotations too loose to judge by.
        within = grown(bone.mask, BAND_MM, volume) & (bone.mask | (labels == 0))
        agreement = compare(found, bone.mask, volume.spacing, within)
        region = bounding_slices(bone.mask)
        numbers = everything.labels[region][bone.mask[region]]
        numbers = numbers[numbers > 0]
        confidence = everything.confidence[int(np.bincount(numbers).argmax())] if numbers.size else math.nan
        yield _row(case, bone, NO_PROMPT, attention, agreement, confidence, seconds)


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
        label=bone.label_name,
        object=bone.name,
        bone=bone.bone,
        protocol=protocol,
        attention={True: "on", False: "off", None: ""}[attention],
        confidence=float(confidence),
        seconds=seconds,
        **asdict(agreement),
    )


def _timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    start = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - start
