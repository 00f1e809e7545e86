"""The bone at work: the volume it is in, the history of its prompts, and the job that computes its mask.

A job that fails or is stopped leads back to where the history was before it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from BoneSAMLib.companion import check_same_space
from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.interfaces import JobRunner, VolumeSource
from BoneSAMLib.kept_settings import KeptSettings
from BoneSAMLib.mask_request import MaskRequest
from BoneSAMLib.open_volume import OpenVolume, key_of
from BoneSAMLib.panel import Tool, Work
from BoneSAMLib.panel_messages import PanelMessages
from BoneSAMLib.prompt_history import History, Outcome, Prompts, Step
from BoneSAMLib.segment_table import SegmentTable
from BoneSAMLib.session_cache import SessionCache
from BoneSAMLib.worker import Job

__all__ = ["BoneInProgress"]


class BoneInProgress:
    """What is not accepted yet. Call everything on the main thread.

    Args:
        cache: the network and its work.
        runner: does the slow work.
        settings: as they are in force.
        table: the accepted segments, which prompts may correct.
        messages: says what the user should know.
        prepare: called before the network is needed; may raise.
        find_volume: the volume with an identifier; None if there is none.
        reporting: within it, what goes wrong with an answer is told, and everything shown in the end.
        show: shows how things are.
    """

    def __init__(
        self,
        cache: SessionCache,
        runner: JobRunner,
        settings: KeptSettings,
        table: SegmentTable,
        messages: PanelMessages,
        prepare: Callable[[], None] | None,
        find_volume: Callable[[str], VolumeSource | None],
        reporting: Callable[[], AbstractContextManager[None]],
        show: Callable[[], None],
    ) -> None:
        self._cache = cache
        self._runner = runner
        self._settings = settings
        self._table = table
        self._messages = messages
        self._prepare = prepare
        self._find_volume = find_volume
        self._reporting = reporting
        self._show = show
        self.history = History()
        self.opened: OpenVolume | None = None
        self._second: OpenVolume | None = None
        self.tool: Tool | None = None
        self.work: Work | None = None
        self.progress: tuple[float, str] | None = None
        self.preview: CroppedMask | None = None  # what the job has found so far
        self._job: Job | None = None
        self._settled = 0  # where the history was when the present job, or the one it replaced, began

    @property
    def step(self) -> Step:
        """The present moment."""
        return self.history.current

    # The volume.

    def open(self, source: VolumeSource) -> None:
        """Work on a volume. After an error the one before stays."""
        if self.opened is not None and source.identifier == self.opened.key.identifier:
            if key_of(source) != self.opened.key:
                self.opened.source = source
                self.notice_modified()
            return
        opened = OpenVolume(source)
        self.forget_volume()
        self.opened = opened

    def forget_volume(self) -> None:
        """Work on none. The bone is dropped."""
        self.interrupt()
        self._cache.drop_session()
        self.history.clear(Step())
        self.opened = self._second = self.tool = None

    def notice_modified(self) -> bool:
        """React if the volume is not what it was when it was read. Returns whether that was so.

        The same for the second one.
        """
        before = self.opened
        if before is None or not before.is_outdated:
            return self._notice_second_modified()
        interrupted = self.interrupt()
        self._cache.drop_session()
        try:
            self.opened = OpenVolume(before.source)
        except Exception:
            self.forget_volume()
            raise
        if self.opened.has_grid_of(before):
            self.forget_answers()
            if interrupted:
                self._messages.tell("The volume was changed while it was being segmented: segment it again.")
            return True
        if self.step.is_unfinished:
            self._messages.tell(
                "The volume has moved or changed its size. Accepted segments are kept; "
                "the unfinished bone is dropped."
            )
        self.history.clear(Step(segment=self.step.segment))
        return True

    def _notice_second_modified(self) -> bool:
        if self._second is None or not self._second.is_outdated:
            return False
        self._second = None
        interrupted = self.interrupt()
        self._cache.drop_session()
        self.forget_answers()
        if interrupted:
            self._messages.tell("The other sequence was changed meanwhile: segment the bone again.")
        return True

    def open_second(self, identifier: str) -> None:
        """Look at another sequence of the study from the next job on; "" for none. After an error at none.

        Raises:
            BoneSAMError: it is the volume itself, cannot be segmented, or does not overlap.
        """
        before, self._second = self._second, None
        source = self._find_volume(identifier) if identifier else None
        if source is None or self.opened is None:
            return
        if identifier == self.opened.key.identifier:
            raise BoneSAMError("The other sequence is the volume itself: choose another one.")
        if before is not None and before.key == key_of(source):
            second = before
        else:
            second = OpenVolume(source)
        check_same_space(self.opened.volume, second.volume)
        self._second = second

    def forget_answers(self) -> None:
        """Volume or network are others: masks stay, but nothing is built upon them."""
        self.history.change_all(
            lambda step: step if step.outcome is None else replace(step, outcome=step.outcome.outdated())
        )

    # Prompts.

    def draw(self, prompts: Prompts) -> None:
        """The prompts are these now: one more step."""
        before = self.step
        segment, base, outcome = before.segment, before.base, before.outcome
        if not prompts:
            base, outcome = None, None
        elif not before.prompts:
            outcome = None  # of "all bones", which prompts do not continue
            if segment is not None and self.opened is not None:
                base = self._table.mask_of(segment, self.opened.source)
                if base is None and not self._table.is_empty(segment):
                    segment = None  # it lies elsewhere: what is drawn here is another bone
            if base is not None and prompts.box is not None:
                # An accepted segment is changed by points alone, so that no box meant for the next bone
                # replaces it.
                segment, base = None, None
        step = Step(prompts, outcome, segment, base)
        if not step.can_be_segmented:
            step = replace(step, outcome=None)
        settled = self._settled if self.work is not None else self.history.mark
        running = self.work is Work.SEGMENT
        self.drop_job()  # its question has changed
        self.history.push(step)
        if (self._settings.now.live or running) and step.is_due(self._settings.now.recipe):
            self._ask(Work.SEGMENT, settled)

    def undo(self) -> None:
        """One step back."""
        self.drop_job()
        self.history.undo()
        self._ask_if_never_answered()

    def redo(self) -> None:
        """One step forward."""
        self.history.redo()
        self._ask_if_never_answered()

    def _ask_if_never_answered(self) -> None:
        """Live, a step whose job was stopped gets its mask after all. Others show the mask they had."""
        if self._settings.now.live and self.step.can_be_segmented and not self.step.is_answered:
            self.ask(Work.SEGMENT)

    # Segments that prompts correct.

    def forget_segments(self, keep: frozenset[str]) -> None:
        """Nothing may be written to segments that are gone."""

        def without_missing(step: Step) -> Step:
            if step.segment is None or step.segment in keep:
                return step
            return replace(step, segment=None, base=None)

        if self.step.base is not None and self.step.segment not in keep:
            self.interrupt()
            self.history.clear(Step())
        else:
            self.history.change_all(without_missing)

    def segment_edited(self, identifier: str) -> None:
        """A segment's mask was changed by others."""
        step = self.step
        if all(past.segment != identifier for past in self.history):
            return
        if step.segment == identifier and step.base is not None:
            self.interrupt()
            self._messages.tell(
                "The segment was edited by hand: the correction that was not accepted is dropped."
            )
            step = Step(segment=identifier)
        elif step.segment == identifier and step.is_unfinished:
            step = replace(step, segment=None)  # it was empty and is no longer: the bone gets one of its own
        # Undo must not lead to a correction of what was there before the editing.
        self.history.clear(step)
        self._settled = self.history.mark

    # Jobs.

    def ask(self, work: Work, text: str = "") -> None:
        """Start a job on the present step. `text`: what `Work.TEXT` looks for."""
        self._ask(work, self.history.mark, text)

    def follow(self) -> None:
        """Live, the mask follows changed settings."""
        if self._settings.now.live and self.step.is_due(self._settings.now.recipe):
            settled = self._settled if self.work is not None else self.history.mark
            self.drop_job()
            self._ask(Work.SEGMENT, settled)

    def load(self, device: str, weights: str) -> None:
        """Load a network; once that is done it becomes the settings'."""

        def use(_: Any) -> None:
            self._cache.drop_session()
            self._settings.change(replace(self._settings.now, device=device, weights=weights))
            self.forget_answers()
            self.follow()

        self._start(Work.LOAD, self.history.mark, lambda job: self._cache.load(device, weights), use)

    def drop_job(self) -> None:
        """Forget the job; nothing of it arrives any more."""
        if self._job is not None:
            self._job.cancel()
        self._job = self.work = self.progress = self.preview = None

    def interrupt(self) -> bool:
        """Forget the job if its question no longer makes sense. Returns whether there was one."""
        if self.work in (None, Work.LOAD):
            return False
        self.drop_job()
        return True

    def stop_job(self, forget: bool = False) -> None:
        """Forget the job, and be as before it. `forget`: the steps made since cannot be redone."""
        if self.work is not None:
            self.drop_job()
            self.history.go_back_to(self._settled, forget)

    def _ask(self, work: Work, settled: int, text: str = "") -> None:
        """`settled`: where in the history a failure goes back to."""
        if self.opened is None:
            return
        try:
            # Every time: it may have come with a scene, or moved away.
            self.open_second(self._settings.now.second_volume)
        except BoneSAMError:
            self.history.go_back_to(settled, forget=True)
            raise
        others = () if self._second is None else ((self._second.key, self._second.volume),)
        opened, name = self.opened, self._table.name_of(self.step.segment)
        request = MaskRequest(opened.key, opened.volume, self._settings.now, self.step, others, name)
        do: Callable[[SessionCache, Job], Outcome]
        if work is Work.SEGMENT:
            do, receive = request.segment, self._receive_mask
        elif work is Work.ALL_BONES:
            do, receive = request.segment_all, self._receive_bones
        else:
            do, receive = partial(request.segment_text, text), self._receive_bones
        self._start(work, settled, partial(do, self._cache), receive)

    def _start(
        self, work: Work, settled: int, do: Callable[[Job], Any], receive: Callable[[Any], None]
    ) -> None:
        opened, step = self.opened, self.step
        try:
            if self._prepare is not None:
                self._prepare()
        except Exception:
            self.history.go_back_to(settled, forget=True)
            raise
        if self.opened is not opened or self.step is not step:
            raise Cancelled  # an installation lets the user go on meanwhile: nobody asks this any more
        try:
            job = self._runner.submit(
                do, partial(self._answered, receive), self._failed, self._progressed, self._previewed
            )
        except Exception:
            self.history.go_back_to(settled, forget=True)
            raise
        self._job, self.work, self._settled, self.progress = job, work, settled, (0.0, "")

    def _answered(self, receive: Callable[[Any], None], value: Any) -> None:
        with self._reporting():
            # A changed volume drops its job, and with it this answer.
            if self.work is Work.LOAD or not self.notice_modified():
                self.drop_job()
                receive(value)

    def _failed(self, error: Exception) -> None:
        with self._reporting():
            self.stop_job(forget=True)
            raise error

    def _progressed(self, fraction: float, text: str) -> None:
        self.progress = (fraction, text)
        self._show()

    def _previewed(self, mask: CroppedMask) -> None:
        self.preview = mask
        self._show()

    def _receive_mask(self, outcome: Outcome) -> None:
        self.history.answer(outcome)
        if outcome.mask.is_empty:
            self._messages.tell(
                "No bone was found there. Draw the box closer around the bone, or click on the bone."
            )

    def _receive_bones(self, outcome: Outcome) -> None:
        if not outcome.bones:
            self._messages.tell("No bone was found in this volume.")
            return
        self.history.push(Step(outcome.prompts, outcome))
        count, names = len(outcome.bones), ", ".join(outcome.missing)
        if names and count > 1:
            self._messages.tell(
                "{count} bones were found, but not the {names}. Accept makes one segment of each.",
                count=count,
                names=names,
            )
        elif names:
            self._messages.tell("This volume does not show the {names}, as far as can be seen.", names=names)
        elif count > 1:
            self._messages.tell("{count} bones were found. Accept makes one segment of each.", count=count)
