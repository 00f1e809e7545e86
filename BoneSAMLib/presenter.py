"""The panel without a user interface: what the user does comes in, what is to be shown goes out to a `View`.

The panel in 3D Slicer and the viewer in the browser are two views of it. Everything here runs on the main
thread and returns at once; the network runs on one worker thread, whose answers come through `View.post`.
A step that fails leaves everything as it was before, and says so once.
"""

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.interfaces import JobRunner, SegmentStore, SettingsStore, View, VolumeSource
from BoneSAMLib.mask_request import MaskRequest
from BoneSAMLib.oriented_box import AnyBox
from BoneSAMLib.panel import (
    Action,
    Facts,
    Message,
    Panel,
    SegmentEntry,
    State,
    Tool,
    Work,
    enabled_actions,
)
from BoneSAMLib.prompt_history import History, Outcome, Prompts, Step
from BoneSAMLib.prompts import Point
from BoneSAMLib.session_cache import OpenSegmenter, SessionCache, VolumeKey, open_segmenter
from BoneSAMLib.settings import Settings
from BoneSAMLib.volume import Volume
from BoneSAMLib.worker import Job, Worker

__all__ = ["Presenter"]

P = ParamSpec("P")
_log = logging.getLogger(__name__)
_TOOLS = {
    Tool.BOX: Action.BOX,
    Tool.POSITIVE_POINT: Action.POSITIVE_POINT,
    Tool.NEGATIVE_POINT: Action.NEGATIVE_POINT,
}


def _intent(
    action: Action | None = None,
) -> Callable[[Callable[Concatenate["Presenter", P], None]], Callable[Concatenate["Presenter", P], None]]:
    """Something the user did, or that happened to the scene.

    Ignored, and the view redrawn, unless `action` is enabled: a click may have been on its way when its
    button was disabled. Ignored as well while the view redraws: that is the echo of its own widgets.
    """

    def decorate(
        method: Callable[Concatenate["Presenter", P], None],
    ) -> Callable[Concatenate["Presenter", P], None]:
        @wraps(method)
        def guarded(self: "Presenter", /, *args: P.args, **kwargs: P.kwargs) -> None:
            if self._closed or self._redrawing:
                return
            with self._reporting():
                if action is None or action in self.enabled:
                    method(self, *args, **kwargs)

        return guarded

    return decorate


class Presenter:
    """State and behavior of the panel. Call everything on the main thread.

    Args:
        view: what the user sees. It is first told something by `refresh`.
        store: where accepted segments live.
        settings_store: where settings are kept; None to forget them.
        open_segmenter: loads the network for (device, weights folder); called on the worker thread.
        runner: does the slow work; None for a worker thread of its own.
        prepare: called before the network is needed, for example to ask and install what it needs. Raises
            BoneSAMError if it cannot, Cancelled if the user declines.
        translate: turns an English text, which may hold {placeholders}, into the user's language.
    """

    def __init__(
        self,
        view: View,
        store: SegmentStore,
        settings_store: SettingsStore | None = None,
        open_segmenter: OpenSegmenter = open_segmenter,
        runner: JobRunner | None = None,
        prepare: Callable[[], None] | None = None,
        translate: Callable[[str], str] = str,
    ) -> None:
        self._view = view
        self._store = store
        self._settings_store = settings_store
        self._runner: JobRunner = runner or Worker(view.post)
        self._prepare = prepare
        self._translate = translate
        self._cache = SessionCache(open_segmenter)
        self._settings = Settings.from_strings(settings_store.load() if settings_store else {})
        self._history = History()
        self._segments: tuple[SegmentEntry, ...] = ()
        self._source: VolumeSource | None = None
        self._volume: Volume | None = None
        self._key: VolumeKey | None = None
        self._tool: Tool | None = None
        self._job: Job | None = None
        self._work: Work | None = None
        self._progress: tuple[float, str] | None = None
        self._settled = 0  # where the history was when the present job, or the one it replaced, began
        self._shown: CroppedMask | None = None
        self._storing = False
        self._redrawing = False
        self._closed = False

    # What the view may ask.

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def volume(self) -> Volume | None:
        """The chosen volume, as it is segmented."""
        return self._volume

    @property
    def source(self) -> VolumeSource | None:
        """Where the chosen volume lives."""
        return self._source

    @property
    def enabled(self) -> frozenset[Action]:
        """What may be done now."""
        if self._closed:
            return frozenset()
        step = self._history.current
        outcome = step.outcome
        return enabled_actions(
            Facts(
                has_volume=self._volume is not None,
                work=self._work,
                has_prompts=bool(step.prompts),
                has_outcome=outcome is not None,
                has_mask=outcome is not None and not outcome.mask.is_empty,
                has_review=outcome is not None and bool(outcome.review),
                due=step.is_due(self._settings.recipe),
                correcting=step.base is not None,
                has_active=step.segment is not None,
                has_segments=bool(self._segments),
                can_undo=self._history.can_undo,
                can_redo=self._history.can_redo,
            )
        )

    @property
    def panel(self) -> Panel:
        """The whole picture now."""
        step = self._history.current
        outcome = step.outcome
        enabled = self.enabled
        return Panel(
            state=self._state,
            work=self._work,
            progress=self._progress,
            enabled=enabled,
            tool=self._tool if self._tool is not None and _TOOLS[self._tool] in enabled else None,
            volume_name=self._volume.name if self._volume is not None else "",
            box=step.prompts.box,
            points=step.prompts.points,
            segments=self._segments,
            active_segment=step.segment,
            correcting=step.base is not None,
            bone_count=len(outcome.bones) if outcome is not None else 0,
            confidence=outcome.confidence if outcome is not None else None,
            seconds=outcome.seconds if outcome is not None else None,
            review_axis=outcome.review_axis if outcome is not None else 2,
            review=outcome.review if outcome is not None else (),
            settings=self._settings,
        )

    @property
    def _state(self) -> State:
        step = self._history.current
        if self._closed:
            return State.CLOSED
        if self._work is not None:
            return State.RUNNING
        if self._volume is None:
            return State.NO_VOLUME
        if step.outcome is not None:
            return State.PREVIEW
        return State.DRAWING if step.prompts else State.READY

    @_intent()
    def refresh(self) -> None:
        """Read the segments anew and show everything."""
        self._shown = None
        self._view.show_mask(None)
        self._read_segments()

    def close(self) -> None:
        """End the worker. The view is not called any more; accepted segments stay."""
        if self._closed:
            return
        self._closed = True
        self._drop_job()
        self._runner.close()
        self._cache.drop_session()

    # The volume.

    @_intent(Action.CHOOSE_VOLUME)
    def choose_volume(self, source: VolumeSource | None) -> None:
        """Work on a volume, or on none. Nothing is computed yet. A bone that is not accepted is dropped."""
        if source is None:
            self._forget_volume()
            return
        key = VolumeKey(source.identifier, source.modified_time)
        if key == self._key:
            return
        if self._key is not None and key.identifier == self._key.identifier:
            self._source = source
            self._notice_modified()
            return
        volume = source.read()
        self._forget_volume()
        self._source, self._volume, self._key = source, volume, key

    @_intent()
    def volume_modified(self) -> None:
        """The chosen volume may have changed: voxels, geometry or transform."""
        self._notice_modified()

    @_intent()
    def volume_removed(self, identifier: str) -> None:
        """A volume was removed from the scene."""
        if self._key is not None and identifier == self._key.identifier:
            if self._history.current.is_unfinished or self._work is not None:
                self._tell(
                    "The volume was removed. Accepted segments are kept; the unfinished bone is dropped."
                )
            self._forget_volume()
        if identifier == self._settings.second_volume:
            self._keep_settings(replace(self._settings, second_volume=""))

    def _forget_volume(self) -> None:
        self._interrupt()
        self._cache.drop_session()
        self._history.clear(Step())
        self._source = self._volume = self._key = None
        self._tool = None

    def _notice_modified(self) -> bool:
        """React if the volume is not what it was when it was read. Returns whether that was so."""
        if self._source is None or self._key is None:
            return False
        key = VolumeKey(self._source.identifier, self._source.modified_time)
        if key == self._key:
            return False
        interrupted = self._interrupt()
        self._cache.drop_session()
        before = self._volume
        try:
            volume = self._source.read()
        except Exception:
            self._forget_volume()
            raise
        self._volume, self._key = volume, key
        if before is not None and _same_grid(before, volume):
            self._history.change_all(_outdated)
            if interrupted:
                self._tell("The volume was changed while it was being segmented: segment it again.")
            return True
        if self._history.current.is_unfinished:
            self._tell(
                "The volume has moved or changed its size. Accepted segments are kept; "
                "the unfinished bone is dropped."
            )
        self._history.clear(Step(segment=self._history.current.segment))
        return True

    # Prompts.

    @_intent()
    def choose_tool(self, tool: Tool | None) -> None:
        """What the next mouse press in a slice draws; None for nothing."""
        if tool is None or _TOOLS[tool] in self.enabled:
            self._tool = tool

    @_intent(Action.BOX)
    def set_box(self, box: AnyBox) -> None:
        """A box was drawn or changed. After Accept it begins the next bone.

        A box flat along one axis was drawn on that slice.
        """
        self._notice_modified()
        if self._volume is None or box == self._history.current.prompts.box:
            return
        box.to_ijk(self._volume)  # says so if it lies outside
        self._tool = None
        self._draw(replace(self._history.current.prompts, box=box))

    @_intent(Action.BOX)
    def clear_box(self) -> None:
        """The box was deleted."""
        prompts = self._history.current.prompts
        if prompts.box is not None:
            self._draw(replace(prompts, box=None))

    @_intent(Action.POSITIVE_POINT)
    def add_point(self, point: Point) -> None:
        """A point was placed. After Accept it corrects the accepted segment."""
        self._notice_modified()
        prompts = self._history.current.prompts
        if self._volume is None or point in prompts.points:
            return
        point.to_ijk(self._volume)
        self._draw(replace(prompts, points=(*prompts.points, point)))

    @_intent(Action.POSITIVE_POINT)
    def move_point(self, number: int, point: Point) -> None:
        """Point `number` of `Panel.points` was dragged elsewhere."""
        self._notice_modified()
        prompts = self._history.current.prompts
        if self._volume is None or not 0 <= number < len(prompts.points) or point in prompts.points:
            return
        point.to_ijk(self._volume)
        points = (*prompts.points[:number], point, *prompts.points[number + 1 :])
        self._draw(replace(prompts, points=points))

    @_intent(Action.POSITIVE_POINT)
    def remove_point(self, number: int) -> None:
        """Point `number` of `Panel.points` was deleted."""
        self._notice_modified()
        prompts = self._history.current.prompts
        if 0 <= number < len(prompts.points):
            self._draw(replace(prompts, points=prompts.points[:number] + prompts.points[number + 1 :]))

    def _draw(self, prompts: Prompts) -> None:
        """The prompts are these now: one more step."""
        before = self._history.current
        segment, base, outcome = before.segment, before.base, before.outcome
        if not prompts:
            base, outcome = None, None
        elif not before.prompts:
            outcome = None  # of "all bones", which prompts do not continue
            base = self._mask_of(segment)
            if base is not None and prompts.box is not None:
                # An accepted segment is changed by points alone, so that no box meant for the next bone
                # replaces it.
                segment, base = None, None
        step = Step(prompts, outcome, segment, base)
        if not step.can_be_segmented:
            step = replace(step, outcome=None)
        settled = self._settled if self._work is not None else self._history.mark
        running = self._work is Work.SEGMENT
        self._drop_job()  # its question has changed
        self._history.push(step)
        if (self._settings.live or running) and step.is_due(self._settings.recipe):
            self._ask(Work.SEGMENT, settled)

    def _mask_of(self, segment: str | None) -> CroppedMask | None:
        """A segment's mask, if there is any."""
        if segment is None or self._source is None:
            return None
        mask = self._store.read(segment, self._source)
        return None if mask.is_empty else mask

    # Work.

    @_intent(Action.SEGMENT)
    def segment(self) -> None:
        """Segment the prompts now."""
        self._notice_modified()
        if self._history.current.is_due(self._settings.recipe):
            self._ask(Work.SEGMENT, self._history.mark)

    @_intent(Action.ALL_BONES)
    def segment_all(self) -> None:
        """Segment every bone. They are shown; Accept makes one segment of each."""
        self._notice_modified()
        self._ask(Work.ALL_BONES, self._history.mark)

    @_intent(Action.TEXT)
    def segment_text(self, text: str) -> None:
        """Segment the bone that a text names."""
        self._notice_modified()
        if not text.strip():
            raise BoneSAMError(self._translate("Type the name of a bone first."))
        self._ask(Work.TEXT, self._history.mark, text.strip())

    @_intent(Action.CANCEL)
    def cancel(self) -> None:
        """Stop what runs, and be as before it. Else drop the unfinished bone; Undo brings it back."""
        self._tool = None
        if self._work is not None:
            self._stop_job()
        else:
            self._history.push(Step(segment=self._history.current.segment))

    def _ask(self, work: Work, settled: int, text: str = "") -> None:
        """Start a job on the present step. `settled`: where in the history a failure goes back to."""
        if self._volume is None or self._key is None:
            return
        request = MaskRequest(self._key, self._volume, self._settings, self._history.current)
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
        try:
            if self._prepare is not None:
                self._prepare()
            job = self._runner.submit(do, partial(self._answered, receive), self._failed, self._progressed)
        except Exception:
            self._history.go_back_to(settled, forget=True)
            raise
        self._job, self._work, self._settled, self._progress = job, work, settled, (0.0, "")

    def _answered(self, receive: Callable[[Any], None], value: Any) -> None:
        with self._reporting():
            # A changed volume drops its job, and with it this answer.
            if self._work is Work.LOAD or not self._notice_modified():
                self._drop_job()
                receive(value)

    def _failed(self, error: Exception) -> None:
        with self._reporting():
            self._stop_job(forget=True)
            raise error

    def _progressed(self, fraction: float, text: str) -> None:
        self._progress = (fraction, text)
        self._render()

    def _receive_mask(self, outcome: Outcome) -> None:
        self._history.answer(outcome)
        if outcome.mask.is_empty:
            self._tell("No bone was found there. Draw the box closer around the bone, or click on the bone.")

    def _receive_bones(self, outcome: Outcome) -> None:
        if not outcome.bones:
            self._tell("No bone was found in this volume.")
            return
        self._history.push(Step(outcome=outcome))
        if len(outcome.bones) > 1:
            self._tell(
                "{count} bones were found. Accept makes one segment of each.", count=len(outcome.bones)
            )

    def _drop_job(self) -> None:
        """Forget the job; nothing of it arrives any more."""
        if self._job is not None:
            self._job.cancel()
        self._job = self._work = self._progress = None

    def _interrupt(self) -> bool:
        """Forget the job if its question no longer makes sense. Returns whether there was one."""
        if self._work in (None, Work.LOAD):
            return False
        self._drop_job()
        return True

    def _stop_job(self, forget: bool = False) -> None:
        """Forget the job, and be as before it."""
        if self._work is not None:
            self._drop_job()
            self._history.go_back_to(self._settled, forget)

    # Undo and redo.

    @_intent(Action.UNDO)
    def undo(self) -> None:
        """Take back the last prompt; the mask is exactly as it was before it."""
        self._drop_job()
        self._history.undo()
        self._ask_if_never_answered()

    @_intent(Action.REDO)
    def redo(self) -> None:
        """Take back the last undo."""
        self._history.redo()
        self._ask_if_never_answered()

    def _ask_if_never_answered(self) -> None:
        """Live, a step whose job was stopped gets its mask after all. Others show the mask they had."""
        step = self._history.current
        if self._settings.live and step.can_be_segmented and not step.is_answered:
            self._ask(Work.SEGMENT, self._history.mark)

    # Segments.

    @_intent(Action.ACCEPT)
    def accept(self, name: str = "") -> None:
        """The shown mask becomes the segment's; points then correct it. `name`: for a new segment."""
        self._accept(name)

    @_intent(Action.NEXT_BONE)
    def next_bone(self, name: str = "") -> None:
        """Accept what is shown, and begin a new bone."""
        if self._history.current.outcome is not None and not self._accept(name):
            return
        self._history.clear(Step())

    def _accept(self, name: str) -> bool:
        """Returns whether there was something to accept: the volume may just have changed."""
        self._notice_modified()
        step, source = self._history.current, self._source
        if step.outcome is None or source is None:
            return False
        segment = step.segment
        with self._own_changes():
            if segment is not None:
                self._store.write(step.outcome.mask, segment, source)
            else:
                added: list[str] = []
                try:
                    for bone in step.outcome.bones:
                        wanted = bone.name if len(step.outcome.bones) > 1 else name or bone.name
                        added.append(self._store.add(self._new_name(wanted), source))
                        self._store.write(bone.mask, added[-1], source)
                        self._segments = tuple(self._store.segments())
                except Exception:
                    for identifier in added:
                        self._store.remove(identifier)
                    raise
                segment = added[0] if len(added) == 1 else None
        self._history.clear(Step(segment=segment))
        return True

    @_intent(Action.ADD_SEGMENT)
    def add_segment(self, name: str = "") -> None:
        """Add an empty segment for the next bone."""
        if self._source is None:
            return
        with self._own_changes():
            identifier = self._store.add(self._new_name(name), self._source)
        self._history.clear(Step(segment=identifier))

    @_intent(Action.SELECT_SEGMENT)
    def select_segment(self, identifier: str | None) -> None:
        """Points now correct this segment; None for a new bone."""
        if identifier is None or identifier in self._identifiers():
            self._history.clear(Step(segment=identifier))

    @_intent(Action.EDIT_SEGMENT)
    def rename_segment(self, identifier: str, name: str) -> None:
        """Give a segment another name."""
        if not name.strip():
            raise BoneSAMError(self._translate("A segment needs a name."))
        if identifier in self._identifiers():
            with self._own_changes():
                self._store.rename(identifier, name.strip())

    @_intent(Action.EDIT_SEGMENT)
    def recolor_segment(self, identifier: str, color: tuple[float, float, float]) -> None:
        """Give a segment another color: red, green, blue, each 0 to 1."""
        if identifier in self._identifiers():
            with self._own_changes():
                self._store.recolor(identifier, color)

    @_intent(Action.EDIT_SEGMENT)
    def show_segment(self, identifier: str, visible: bool) -> None:
        """Show or hide a segment."""
        if identifier in self._identifiers():
            with self._own_changes():
                self._store.show(identifier, visible)

    @_intent(Action.REMOVE_SEGMENT)
    def remove_segment(self, identifier: str) -> None:
        """Remove a segment."""
        if identifier in self._identifiers():
            with self._own_changes():
                self._store.remove(identifier)

    @_intent()
    def choose_store(self, store: SegmentStore) -> None:
        """Segments live elsewhere from now on. An unfinished new bone stays, a correction does not."""
        segments = tuple(store.segments())
        self._forget_segments(keep=frozenset())
        self._store, self._segments = store, segments

    @_intent()
    def segments_changed(self) -> None:
        """Segments were added, removed or changed in look by others."""
        if not self._storing:
            self._read_segments()

    @_intent()
    def segment_edited(self, identifier: str) -> None:
        """A segment's mask was changed by others, for example by hand in an editor."""
        step = self._history.current
        if self._storing or all(past.segment != identifier for past in self._history):
            return
        if step.segment == identifier and step.base is not None:
            self._interrupt()
            self._tell("The segment was edited by hand: the correction that was not accepted is dropped.")
            step = Step(segment=identifier)
        elif step.segment == identifier and step.is_unfinished:
            step = replace(step, segment=None)  # it was empty and is no longer: the bone gets one of its own
        # Undo must not lead to a correction of what was there before the editing.
        self._history.clear(step)
        self._settled = self._history.mark

    def _identifiers(self) -> frozenset[str]:
        return frozenset(entry.identifier for entry in self._segments)

    def _read_segments(self) -> None:
        self._segments = tuple(self._store.segments())
        self._forget_segments(keep=self._identifiers())

    def _forget_segments(self, keep: frozenset[str]) -> None:
        """Nothing may be written to segments that are gone."""

        def without_missing(step: Step) -> Step:
            if step.segment is None or step.segment in keep:
                return step
            return replace(step, segment=None, base=None)

        step = self._history.current
        if step.base is not None and step.segment not in keep:
            self._interrupt()
            self._history.clear(Step())
        else:
            self._history.change_all(without_missing)

    def _new_name(self, wanted: str) -> str:
        """The wanted name, or the first free "Bone 1", "Bone 2"."""
        if wanted.strip():
            return wanted.strip()
        taken = {entry.name for entry in self._segments}
        names = (self._translate("Bone {number}").format(number=number) for number in itertools.count(1))
        return next(name for name in names if name not in taken)

    @contextmanager
    def _own_changes(self) -> Iterator[None]:
        """Changes to the store whose notifications are an echo."""
        self._storing = True
        try:
            yield
        finally:
            self._storing = False
            self._read_segments()

    # Results and settings.

    @_intent(Action.REVIEW)
    def jump_to_review(self, index: int) -> None:
        """Bring a slice of `Panel.review` into view."""
        outcome, volume = self._history.current.outcome, self._volume
        if outcome is None or volume is None or all(place.index != index for place in outcome.review):
            return
        axis = outcome.review_axis
        found = np.argwhere(outcome.mask.crop)[:, ::-1] + outcome.mask.start_ijk
        inside = found[found[:, axis] == index]
        # Slices of a mask with a gap have no voxels of their own.
        i, j, k = (inside if len(inside) else found).mean(0)
        place = [i, j, k]
        place[axis] = index
        r, a, s = (float(value) for value in volume.ijk_to_ras[:3] @ [*place, 1.0])
        self._view.jump_to(axis, index, (r, a, s))

    @_intent(Action.OPTIONS)
    def change_settings(self, settings: Settings) -> None:
        """Use other settings; live, the mask follows. Other weights or another device are loaded first."""
        model = (settings.device, settings.weights)
        now = (self._settings.device, self._settings.weights)
        self._keep_settings(replace(settings, device=now[0], weights=now[1]))
        if model != now:
            if Action.MODEL in self.enabled:
                self._load(*model)
        elif self._work in (None, Work.SEGMENT):
            self._follow()

    @_intent(Action.MODEL)
    def reload_weights(self) -> None:
        """Load the weights again: their files have changed."""
        self._load(self._settings.device, self._settings.weights)

    @_intent()
    def reload_settings(self) -> None:
        """The settings' store holds others, for example after a scene was loaded."""
        if self._settings_store is not None:
            self._stop_job()
            self._settings = Settings.from_strings(self._settings_store.load())
            self._history.change_all(_outdated)

    def _load(self, device: str, weights: str) -> None:
        def use(_: Any) -> None:
            self._cache.drop_session()
            self._keep_settings(replace(self._settings, device=device, weights=weights))
            self._history.change_all(_outdated)
            self._follow()

        self._start(Work.LOAD, self._history.mark, lambda job: self._cache.load(device, weights), use)

    def _follow(self) -> None:
        """Live, the mask follows changed settings."""
        if self._settings.live and self._history.current.is_due(self._settings.recipe):
            settled = self._settled if self._work is not None else self._history.mark
            self._drop_job()
            self._ask(Work.SEGMENT, settled)

    def _keep_settings(self, settings: Settings) -> None:
        if settings != self._settings:
            if self._settings_store is not None:
                self._settings_store.save(settings.to_strings())
            self._settings = settings

    # What goes out.

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Tell what goes wrong, once; then show how things are."""
        try:
            yield
        except Cancelled:
            pass
        except Exception as error:  # the border to the user interface: beyond it nobody would see it
            self._view.show_message(Message("error", self._in_words(error)))
        finally:
            self._render()

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, BoneSAMError):
            return str(error)
        _log.error("Unexpected error", exc_info=error)
        if isinstance(error, MemoryError):
            text = "There is not enough memory: close other programs, or crop the volume to the bone."
        elif isinstance(error, ModuleNotFoundError):
            text = "The Python package '{name}' is missing: install it and try again."
        else:
            text = "Something unexpected went wrong, nothing was changed. For the developers: {detail}"
        detail = f"{type(error).__name__}: {error}"
        return self._translate(text).format(name=getattr(error, "name", ""), detail=detail)

    def _tell(self, text: str, **values: object) -> None:
        self._view.show_message(Message("info", self._translate(text).format(**values)))

    def _render(self) -> None:
        if self._closed:
            return
        self._redrawing = True
        try:
            outcome = self._history.current.outcome
            mask = outcome.mask if outcome is not None and not outcome.mask.is_empty else None
            if mask is not self._shown:
                self._shown = mask
                self._view.show_mask(mask)
            self._view.render(self.panel)
        finally:
            self._redrawing = False


def _same_grid(one: Volume, other: Volume) -> bool:
    return one.shape == other.shape and np.allclose(one.ijk_to_ras, other.ijk_to_ras, rtol=0, atol=1e-6)


def _outdated(step: Step) -> Step:
    """The same step after volume or network changed: its mask stays, but nothing is built upon it."""
    return step if step.outcome is None else replace(step, outcome=step.outcome.outdated())
