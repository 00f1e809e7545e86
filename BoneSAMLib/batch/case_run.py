"""One case, from the file to the mask and its record; whatever happens, it leaves nothing half-made."""

import base64
import contextlib
import io
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.batch.attempt import Attempt, LostCaseError
from BoneSAMLib.batch.case import BatchPrompts, Case
from BoneSAMLib.batch.memory import check_memory
from BoneSAMLib.batch.record import (
    Record,
    check_replaceable,
    installed_versions,
    is_valid,
    other_mask,
    read_record,
    write_record,
)
from BoneSAMLib.batch.scan_files import read_scan, scan_digest
from BoneSAMLib.batch.staging import remove_staging, staged
from BoneSAMLib.bundle import file_digest
from BoneSAMLib.description import describe_volume
from BoneSAMLib.dicom_segmentation import (
    DICOM_ENDING,
    check_segmentation_source,
    write_dicom_segmentation,
)
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.many_bones import find_bones, group_prompts, segment_everything, segment_prompted
from BoneSAMLib.report import ReportedBone
from BoneSAMLib.slice_pictures import thumbnail
from BoneSAMLib.surface import write_surfaces
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import check_rectangular, write_mask

if TYPE_CHECKING:
    from BoneSAMLib.session import Segmenter

__all__ = ["CaseOutcome", "CaseSettings", "Ending", "failed_case", "run_case"]

Ending: TypeAlias = Literal["done", "kept", "failed"]
_MOST_LISTED = 10  # slices to review in a record


@dataclass(frozen=True)
class CaseSettings:
    """What is the same for all cases.

    Attributes:
        resume: leave a case alone whose mask is complete and comes from the same input, prompts and weights.
        memory: bytes that a case may take; larger ones are refused. None for no limit.
    """

    resume: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class CaseOutcome:
    """How a case ended.

    Attributes:
        case: which.
        ending: "done", "kept" (it was complete already) or "failed".
        record: what its JSON file holds, where there is one.
        error: one sentence, when it failed.
        seconds: wall time.
    """

    case: Case
    ending: Ending
    record: Record = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0

    @property
    def confidence(self) -> float:
        """What to sort by: failed cases are -1."""
        return -1.0 if self.ending == "failed" else float(self.record.get("confidence", 0.0))


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what] = round(time.perf_counter() - start, 3)


def run_case(case: Case, segmenter: "Segmenter", settings: CaseSettings) -> CaseOutcome:
    """Segment one volume. Never raises but for KeyboardInterrupt and SystemExit, which leave it not begun."""
    start = time.perf_counter()
    earlier = read_record(case)
    watch, attempt = _Stopwatch(), Attempt(case, earlier)
    try:
        if case.prompts is None:
            raise BoneSAMError(case.error or "It is not known what to segment.")
        if case.error:
            raise BoneSAMError(case.error)
        if case.output.resolve() == case.source.resolve():
            raise BoneSAMError(f"The mask cannot be written over its own volume '{case.source}'.")
        with watch("hash"):
            digests = {
                "input": scan_digest(case.source),
                "prompts": case.prompts.digest(),
                "weights": segmenter.bundle.digest,
            }
            if case.prompts.are_names:
                digests["naming"] = segmenter.naming.digest
        if settings.resume and earlier is not None and is_valid(case, earlier, digests):
            remove_staging(case)
            return CaseOutcome(case, "kept", earlier, seconds=time.perf_counter() - start)
        if case.output.name.lower().endswith(DICOM_ENDING):
            check_segmentation_source(case.source)
        if settings.memory is not None:
            check_memory(case.source, settings.memory)
        _make_folder(case)
        check_replaceable(case, earlier, digests)
        attempt.begin(digests)
        record = _segment(attempt, case.prompts, segmenter, digests, watch)
        return CaseOutcome(case, "done", record, seconds=time.perf_counter() - start)
    except (KeyboardInterrupt, SystemExit, Cancelled):
        attempt.clean_up()
        raise
    except LostCaseError as error:  # whoever has it now writes its record
        return CaseOutcome(case, "failed", error=str(error), seconds=time.perf_counter() - start)
    except Exception as error:  # one bad case must not stop the others, whatever is wrong with it
        message = _sentence(case, error)
    attempt.clean_up()
    return failed_case(case, message, time.perf_counter() - start)


def failed_case(case: Case, message: str, seconds: float) -> CaseOutcome:
    """The outcome of a case that failed, written into its record unless that is of a mask that is kept."""
    record: Record = {}
    earlier = read_record(case)
    is_free = earlier is None or earlier["status"] == "failed"
    if is_free and other_mask(case) is None:
        with contextlib.suppress(Exception):  # where nothing can be written, the summary says it
            _make_folder(case)
            record = write_record(case, "failed", {"error": message})
    return CaseOutcome(case, "failed", record, message, seconds)


def _make_folder(case: Case) -> None:
    try:
        case.output.parent.mkdir(parents=True, exist_ok=True)
        remove_staging(case)
    except OSError as error:
        raise BoneSAMError(
            f"Cannot make the folder '{case.output.parent}': {error.strerror or error}."
        ) from error


def _segment(
    attempt: Attempt,
    prompts: BatchPrompts,
    segmenter: "Segmenter",
    digests: dict[str, str],
    watch: _Stopwatch,
) -> Record:
    case = attempt.case
    with watch("read"):
        volume = read_scan(case.source)
    if not case.output.name.lower().endswith(DICOM_ENDING):
        check_rectangular(volume, case.output)
    with watch("segment"):
        labels, bones, missing = _bones(volume, prompts, segmenter, attempt.progress)
    counts = _voxel_counts(labels, bones)
    with watch("write"):
        digests = _write_mask(attempt, volume, labels, bones, segmenter.bundle.name, digests)
        if attempt.earlier is not None and "surfaces" in attempt.earlier and not case.surfaces:
            shutil.rmtree(case.surface_folder, ignore_errors=True)  # they are those of the mask before
        surfaces = _write_surfaces(attempt, volume, labels, bones) if case.surfaces else None
    with watch("picture"):
        picture = _picture(volume, labels, bones)
    watch.seconds["total"] = round(sum(watch.seconds.values()), 3)
    return write_record(
        case,
        "complete",
        {
            "digests": digests,
            "weights": segmenter.bundle.name,
            "device": segmenter.engine.device,
            "versions": installed_versions(),
            "volume": describe_volume(volume),
            "confidence": round(_confidence(bones, counts, prompts.everything), 4),
            "bones": [_described(volume, bone, count) for bone, count in zip(bones, counts, strict=True)],
            **({"not found": missing} if missing else {}),
            **({} if surfaces is None else {"surfaces": surfaces}),
            "seconds": watch.seconds,
            "picture": picture,
        },
    )


def _bones(
    volume: Volume, prompts: BatchPrompts, segmenter: "Segmenter", progress: Callable[[float, str], None]
) -> tuple[NDArray[Any], list[ReportedBone], list[str]]:
    """Labels, bones, and the names that were asked for and that the volume does not show."""
    bones = prompts.bones or group_prompts(volume, prompts.boxes, prompts.points)
    session = segmenter.open(volume)
    if prompts.everything:
        return (*segment_everything(session, progress), [])
    found, missing = find_bones(session, bones)
    return (*segment_prompted(session, volume, found, prompts.depth_attention, progress), missing)


def _write_mask(
    attempt: Attempt,
    volume: Volume,
    labels: NDArray[Any],
    bones: Sequence[ReportedBone],
    weights: str,
    digests: dict[str, str],
) -> dict[str, str]:
    """Make the mask beside its place, move it there, and give the digests with its own as "output"."""
    case = attempt.case
    with staged(case) as folder:
        made = folder / case.output.name
        if made.name.lower().endswith(DICOM_ENDING):
            prompted = case.prompts is not None and not case.prompts.everything
            write_dicom_segmentation(
                labels,
                volume,
                case.source,
                made,
                [bone.segment for bone in bones],
                prompted=prompted,
                weights=weights,
            )
        else:
            write_mask(labels, volume, made, [bone.segment for bone in bones])
        digests = {**digests, "output": file_digest(made)}
        attempt.made(digests)
        made.replace(case.output)
    return digests


def _write_surfaces(
    attempt: Attempt, volume: Volume, labels: NDArray[Any], bones: Sequence[ReportedBone]
) -> dict[str, str]:
    """Make the surfaces beside their folder, move it there, and give their SHA-256; none of a projection."""
    case = attempt.case
    if volume.is_projection:
        return {}
    with staged(case) as folder:
        made = folder / case.surface_folder.name
        files = write_surfaces(labels, volume, made, [bone.segment for bone in bones])
        digests = {path.name: file_digest(path) for path in files}
        attempt.confirm()
        shutil.rmtree(case.surface_folder, ignore_errors=True)
        made.replace(case.surface_folder)
    return digests


def _voxel_counts(labels: NDArray[Any], bones: Sequence[ReportedBone]) -> list[int]:
    counts = np.zeros(max((bone.value for bone in bones), default=0) + 1, np.int64)
    for plane in labels:  # plane by plane: a count over the whole would convert it to 64 bit first
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return [int(counts[bone.value]) for bone in bones]


def _confidence(bones: Sequence[ReportedBone], counts: Sequence[int], everything: bool) -> float:
    if not bones or not any(counts):
        return 0.0
    if everything:  # of a typical voxel: small uncertain parts are found in every scan
        return float(np.average([bone.confidence for bone in bones], weights=counts))
    return min(bone.confidence if count else 0.0 for bone, count in zip(bones, counts, strict=True))


def _described(volume: Volume, bone: ReportedBone, voxels: int) -> dict[str, Any]:
    described: dict[str, Any] = {
        "label": bone.value,
        "name": bone.name,
        "prompt": bone.prompt,
        "voxels": voxels,
        "confidence": round(bone.confidence, 4),
        "slices to review": [
            {"slice": index, "confidence": round(bone.slice_confidence[index], 4)}
            for index in list(bone.review)[:_MOST_LISTED]
        ],
    }
    if bone.axis is not None:
        described["slices along"] = "ijk"[bone.axis]
    if not volume.is_projection:  # a projection magnifies: no volume
        milliliters = abs(float(np.linalg.det(volume.ijk_to_ras[:3, :3]))) / 1000
        described["milliliters"] = round(voxels * milliliters, 3)
    return described


def _picture(volume: Volume, labels: NDArray[Any], bones: Sequence[ReportedBone]) -> str:
    """A small JPEG as a data address, of the slice with the most bone."""
    buffer = io.BytesIO()
    thumbnail(volume, labels, [bone.segment for bone in bones]).save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _sentence(case: Case, error: Exception) -> str:
    if isinstance(error, BoneSAMError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"'{case.source}' does not fit into memory: crop or resample it, or use fewer workers."
    if isinstance(error, OSError):
        where = error.filename or case.output
        return f"Cannot use '{where}': {error.strerror or error}."
    # Not foreseen: the kind of error helps whoever is asked about it.
    return f"'{case.source}' could not be segmented ({type(error).__name__}: {error})."
