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


@dataclass(frozen=True)
class MaskRequest:
    """A question about one volume.

    Attributes:
        key: the volume's state.
        volume: itself.
        settings: in force when asked.
        step: the prompts, the mask shown, and the mask to be corrected.
        others: further volumes of the study, with their states.
        bone: what the bone that the prompts mean is called, if that is known.
    """

    key: VolumeKey
    volume: Volume
    settings: Settings
    step: Step
    others: tuple[tuple[VolumeKey, Volume], ...] = ()
    bone: str = ""

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
            preview=lambda mask: job.show(self._kept_inside(mask)),
            bone=self.bone or self._name_so_far(),
        )
        return self._outcome(result, prompts, session, start, self._name_so_far())

    def segment_all(self, cache: SessionCache, job: Job) -> Outcome:
        """Every bone, with its name where that is known; the outcome has one `Found` each."""
        start = time.perf_counter()
        found = self._session(cache).segment_all(
            depth_attention=self.settings.depth_attention,
            progress=job.report,
            cancel=job,
            named=None,
        )
        bones = []
        for number, place in enumerate(ndimage.find_objects(found.labels), start=1):
            if place is None:
                continue
            k, j, i = (part.start for part in place)
            mask = CroppedMask.from_crop(self.volume.shape, (k, j, i), found.labels[place] == number)
            mask = postprocess(mask, self.volume, self.settings.smoothing_mm)
            bones.append(Found(mask, found.confidence[number], found.names.get(number, "")))
        return self._of_many(bones, start)

    def segment_text(self, text: str, cache: SessionCache, job: Job) -> Outcome:
        """The bones that a text names; one alone is as if its box had been drawn, so that clicks correct it.

        Raises:
            BoneSAMError: as `Session.find`.
            Cancelled: the job was cancelled.
        """
        start = time.perf_counter()
        session = self._session(cache)
        job.report(0.0, "looking for the bone")
        found, missing = session.find(text)
        outcomes = []
        for number, one in enumerate(found):

            def whole_progress(fraction: float, word: str, done: int = number) -> None:
                job.report((done + fraction) / len(found), word)

            result = session.segment(
                box=one.box,
                depth_attention=self.settings.depth_attention,
                progress=whole_progress,
                cancel=job,
                bone=one.name,
            )
            outcome = self._outcome(result, Prompts(one.box), session, start, one.name)
            outcomes.append(replace(outcome, missing=tuple(missing)))
        if len(outcomes) == 1:
            return outcomes[0]
        empty = [one.name for one, outcome in zip(found, outcomes, strict=True) if not outcome.bones]
        return replace(self._together(outcomes, start), missing=(*missing, *empty))

    def _together(self, outcomes: Sequence[Outcome], start: float) -> Outcome:
        """Several bones as one answer. The more confident one keeps a voxel that two claim."""
        taken = np.zeros(self.volume.shape, np.bool_)
        bones: list[Found | None] = [None] * len(outcomes)
        for n in sorted(range(len(outcomes)), key=lambda n: -outcomes[n].confidence):
            for bone in outcomes[n].bones:
                own = bone.mask.to_array() & ~taken
                taken |= own
                bones[n] = replace(bone, mask=CroppedMask.from_array(own)) if own.any() else None
        return self._of_many([bone for bone in bones if bone is not None], start)

    def _of_many(self, bones: Sequence[Found], start: float) -> Outcome:
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

    def _name_so_far(self) -> str:
        """What the bone is called that was found by its name; corrections do not change which one it is."""
        shown, box = self.step.outcome, self.step.prompts.box
        if shown is None or box is None or shown.prompts.box != box:
            return ""
        return shown.name

    def _outcome(
        self, result: ResultLike, prompts: Prompts, session: SessionLike, start: float, name: str
    ) -> Outcome:
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
            name=name,
        )
        return self._finished(outcome, start)

    def _kept_inside(self, mask: CroppedMask) -> CroppedMask:
        inside = self.step.prompts.box if self.settings.keep_inside else None
        return postprocess(mask, self.volume, inside=inside)

    def _finished(self, outcome: Outcome, start: float) -> Outcome:
        """With the post-processing of today's settings."""
        settings, prompts = self.settings, outcome.prompts
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
            bones=() if mask.is_empty else (Found(mask, outcome.confidence, outcome.name),),
            review=tuple(place for place in outcome.review if covered.start <= place.index < covered.stop),
            recipe=settings.recipe,
            seconds=time.perf_counter() - start,
        )
