"""What the presenter asks of the network, and how its answer becomes an `Outcome`: on the worker thread.

A request holds everything it needs, so that nothing the user does meanwhile reaches it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast
from weakref import ref

import numpy as np
from scipy import ndimage

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.interfaces import ResultLike, SessionLike
from BoneSAMLib.oriented_box import OrientedBox
from BoneSAMLib.panel import ReviewSlice
from BoneSAMLib.postprocess import postprocess
from BoneSAMLib.prompt_history import Found, Outcome, Prompts, Step
from BoneSAMLib.prompts import Point
from BoneSAMLib.session_cache import SessionCache, VolumeKey
from BoneSAMLib.settings import Settings
from BoneSAMLib.volume import Volume
from BoneSAMLib.worker import Job

__all__ = ["MaskRequest"]

TEXT = "text"  # listed under "prompts" in the manifest of weights that understand it


@dataclass(frozen=True)
class MaskRequest:
    """A question about one volume.

    Attributes:
        key: the volume's state.
        volume: itself.
        settings: in force when asked.
        step: the prompts, the mask shown, and the mask to be corrected.
        others: further volumes of the study, with their states.
    """

    key: VolumeKey
    volume: Volume
    settings: Settings
    step: Step
    others: tuple[tuple[VolumeKey, Volume], ...] = ()

    def segment(self, cache: SessionCache, job: Job) -> Outcome:
        """The bone that the prompts mean.

        Raises:
            BoneSAMError: as `Session.segment`.
            Cancelled: the job was cancelled.
        """
        start = time.perf_counter()
        prompts, shown = self.step.prompts, self.step.outcome
        if shown is not None and self.step.is_answered and self._needs_no_network(shown):
            return self._finished(shown, start)
        session = self._session(cache)
        box = prompts.box.to_box(self.volume) if isinstance(prompts.box, OrientedBox) else prompts.box
        earlier = self._earlier(cache, session)
        # Those of a bone that was accepted are no longer drawn, and still hold.
        known = () if earlier is None or isinstance(earlier, np.ndarray) else earlier.points
        result = session.segment(
            box=box,
            points=(*(point for point in known if point not in prompts.points), *prompts.points),
            mask=earlier,
            depth_attention=self.settings.depth_attention,
            progress=job.report,
            cancel=job,
        )
        return self._outcome(result, prompts, session, start)

    def segment_all(self, cache: SessionCache, job: Job) -> Outcome:
        """Every bone; the outcome has one `Found` each, largest first."""
        start = time.perf_counter()
        found = self._session(cache).segment_all(
            depth_attention=self.settings.depth_attention, progress=job.report, cancel=job
        )
        bones = []
        for number, place in enumerate(ndimage.find_objects(found.labels), start=1):
            if place is None:
                continue
            k, j, i = (part.start for part in place)
            mask = CroppedMask.from_crop(self.volume.shape, (k, j, i), found.labels[place] == number)
            mask = postprocess(mask, self.volume, self.settings.smoothing_mm)
            bones.append(Found(mask, found.confidence[number]))
        union = np.zeros(self.volume.shape, np.bool_)
        for bone in bones:
            union[bone.mask.slices] |= bone.mask.crop
        mask = CroppedMask.from_array(union)
        confidence = float(np.mean([bone.confidence for bone in bones])) if bones else 0.0
        return Outcome(
            mask=mask,
            bones=tuple(bones),
            raw=mask,
            confidence=confidence,
            review=(),
            review_axis=self.volume.through_plane_axis,
            seconds=time.perf_counter() - start,
            prompts=Prompts(),
            recipe=self.settings.recipe,
        )

    def segment_text(self, text: str, cache: SessionCache, job: Job) -> Outcome:
        """The bone that a text names.

        Raises:
            BoneSAMError: the weights understand no text.
        """
        start = time.perf_counter()
        segmenter = cache.segmenter(self.settings.device, self.settings.weights)
        if TEXT not in segmenter.bundle.manifest.get("prompts", ()):
            raise BoneSAMError(
                "Text is not available in these weights: draw a box around the bone, or click on it."
            )
        session = cast(Any, self._session(cache))
        result = session.segment(
            bone=text, depth_attention=self.settings.depth_attention, progress=job.report, cancel=job
        )
        outcome = self._outcome(result, Prompts(), session, start)
        return replace(outcome, bones=tuple(replace(bone, name=text) for bone in outcome.bones))

    def _session(self, cache: SessionCache) -> SessionLike:
        settings = self.settings
        return cache.session(
            self.key, self.volume, settings.device, settings.weights, self.others, settings.fusion
        )

    def _needs_no_network(self, outcome: Outcome) -> bool:
        """Whether only the post-processing has changed since the outcome was made."""
        recipe = outcome.recipe
        return recipe is not None and recipe.of_network == self.settings.recipe.of_network

    def _earlier(self, cache: SessionCache, session: SessionLike) -> Any:
        """What the new prompts correct: a session's result, a mask, or None to begin from nothing."""
        shown, base = self.step.outcome, self.step.base
        continues = (
            shown is not None
            and self._needs_no_network(shown)
            and bool(shown.prompts)
            and self.step.prompts.include(shown.prompts)
        )
        if shown is not None and continues and shown.is_of(session):
            return replace(shown.result, mask=shown.raw.to_array())
        if base is not None:
            accepted = cache.accepted(base, session)
            if accepted is not None and self._may_go_on(accepted):
                return self._going_on(accepted)
            return base.to_array()
        if shown is not None and continues and not shown.raw.is_empty:
            return shown.raw.to_array()
        return None

    def _may_go_on(self, accepted: Outcome) -> bool:
        """Whether the network's answer is what was accepted, or becomes so by smoothing it again as before.

        Parts that post-processing took away would come back with it.
        """
        if not self._needs_no_network(accepted):
            return False
        now = self.settings
        only_smoothed = accepted.recipe == now.recipe and not (now.keep_inside or now.remove_small_islands)
        return accepted.mask == accepted.raw or only_smoothed

    def _going_on(self, accepted: Outcome) -> Any:
        """The accepted bone's result, whose points are not in the way of the new ones."""
        new = self.step.prompts.points
        places = {replace(point, positive=True) for point in new}
        points = tuple(
            point for point in accepted.result.points if replace(point, positive=True) not in places
        )
        return replace(accepted.result, mask=accepted.raw.to_array(), points=points)

    def _outcome(self, result: ResultLike, prompts: Prompts, session: SessionLike, start: float) -> Outcome:
        review = tuple(ReviewSlice(int(n), float(result.slice_confidence[n])) for n in result.review)
        raw = CroppedMask.from_array(result.mask)
        # `raw` holds the mask; here it would keep the whole grid in memory once more.
        kept = replace(cast(Any, result), mask=np.broadcast_to(np.False_, self.volume.shape))
        outcome = Outcome(
            mask=raw,
            bones=(),
            raw=raw,
            confidence=float(result.confidence),
            review=review,
            # A box drawn across an isotropic stack turns the stack; the result then says so.
            review_axis=result.axis,
            seconds=0.0,
            prompts=prompts,
            recipe=self.settings.recipe,
            result=kept,
            session=ref(session),
        )
        return self._finished(outcome, start)

    def _finished(self, outcome: Outcome, start: float) -> Outcome:
        """With the post-processing of today's settings."""
        settings, prompts = self.settings, self.step.prompts
        islands: Sequence[Point] | None = prompts.points if settings.remove_small_islands else None
        mask = postprocess(
            outcome.raw,
            self.volume,
            settings.smoothing_mm,
            prompts.box if settings.keep_inside else None,
            islands,
        )
        axis = 2 - outcome.review_axis
        covered = mask.slices[axis]
        return replace(
            outcome,
            mask=mask,
            bones=() if mask.is_empty else (Found(mask, outcome.confidence),),
            review=tuple(place for place in outcome.review if covered.start <= place.index < covered.stop),
            recipe=settings.recipe,
            seconds=time.perf_counter() - start,
        )
