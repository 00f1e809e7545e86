"""The panel without a user interface: what the user does comes in, what is to be shown goes out to a `View`.

The panel in 3D Slicer and the viewer in the browser are two views of it. Everything here runs on the main
thread and returns at once; the network runs on one worker thread, whose answers come through `View.post`.
A step that fails leaves everything as it was before, and says so once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Concatenate, ParamSpec

from BoneSAMLib.bone_in_progress import BoneInProgress
from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.interfaces import JobRunner, SegmentStore, SettingsStore, View, VolumeSource
from BoneSAMLib.kept_settings import KeptSettings
from BoneSAMLib.oriented_box import AnyBox
from BoneSAMLib.panel import Action, Panel, State, Tool, Work
from BoneSAMLib.panel_messages import PanelMessages
from BoneSAMLib.panel_now import TOOL_ACTIONS, enabled_now, panel_now
from BoneSAMLib.prompt_history import Step
from BoneSAMLib.prompts import Point
from BoneSAMLib.segment_table import SegmentTable
from BoneSAMLib.session_cache import OpenSegmenter, SessionCache, open_segmenter
from BoneSAMLib.settings import Settings
from BoneSAMLib.volume import Volume
from BoneSAMLib.worker import Worker

__all__ = ["Presenter"]

P = ParamSpec("P")


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
        find_volume: the volume with an identifier, for `Settings.second_volume`; None if there is none.
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
        find_volume: Callable[[str], VolumeSource | None] = lambda identifier: None,
    ) -> None:
        self._view = view
        self._runner: JobRunner = runner or Worker(view.post)
        self._cache = SessionCache(open_segmenter)
        self._settings = KeptSettings(settings_store)
        self._messages = PanelMessages(view, translate)
        self._table = SegmentTable(store, translate)
        self._bone = BoneInProgress(
            self._cache,
            self._runner,
            self._settings,
            self._table,
            self._messages,
            prepare,
            find_volume,
            reporting=self._reporting,
            show=self._render,
        )
        self._shown: CroppedMask | None = None
        self._redrawing = False
        self._closed = False

    # What the view may ask.

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings.now

    @property
    def volume(self) -> Volume | None:
        """The chosen volume, as it is segmented."""
        return None if self._bone.opened is None else self._bone.opened.volume

    @property
    def source(self) -> VolumeSource | None:
        """Where the chosen volume lives."""
        return None if self._bone.opened is None else self._bone.opened.source

    @property
    def enabled(self) -> frozenset[Action]:
        """What may be done now."""
        if self._closed:
            return frozenset()
        return enabled_now(self._bone, self._table, self.settings)

    @property
    def panel(self) -> Panel:
        """The whole picture now."""
        panel = panel_now(self._bone, self._table, self.settings)
        return replace(panel, state=State.CLOSED, enabled=frozenset(), tool=None) if self._closed else panel

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
        self._bone.drop_job()
        self._runner.close()
        self._cache.drop_session()

    # The volume.

    @_intent(Action.CHOOSE_VOLUME)
    def choose_volume(self, source: VolumeSource | None) -> None:
        """Work on a volume, or on none. Nothing is computed yet. A bone that is not accepted is dropped."""
        if source is None:
            self._bone.forget_volume()
            return
        self._bone.open(source)
        if source.identifier == self.settings.second_volume:
            self._use_no_second_volume()
        try:
            self._bone.open_second(self.settings.second_volume)
        except BoneSAMError:
            self._use_no_second_volume()
            raise

    def _use_no_second_volume(self) -> None:
        self._settings.change(replace(self.settings, second_volume=""))
        self._bone.open_second("")

    @_intent()
    def volume_modified(self) -> None:
        """The chosen volume may have changed: voxels, geometry or transform."""
        self._bone.notice_modified()

    @_intent()
    def volume_removed(self, identifier: str) -> None:
        """A volume was removed from the scene."""
        bone = self._bone
        if bone.opened is not None and identifier == bone.opened.key.identifier:
            if bone.step.is_unfinished or bone.work is not None:
                self._messages.tell(
                    "The volume was removed. Accepted segments are kept; the unfinished bone is dropped."
                )
            bone.forget_volume()
        if identifier == self.settings.second_volume:
            self._use_no_second_volume()
            self._follow()

    # Prompts.

    @_intent()
    def choose_tool(self, tool: Tool | None) -> None:
        """What the next mouse press in a slice draws; None for nothing."""
        if tool is None or TOOL_ACTIONS[tool] in self.enabled:
            self._bone.tool = tool

    @_intent(Action.BOX)
    def set_box(self, box: AnyBox) -> None:
        """A box was drawn or changed. After Accept it begins the next bone.

        A box flat along one axis was drawn on that slice.
        """
        self._bone.notice_modified()
        volume = self.volume
        if volume is None or box == self._bone.step.prompts.box:
            return
        box.to_ijk(volume)  # says so if it lies outside
        self._bone.tool = None
        self._bone.draw(replace(self._bone.step.prompts, box=box))

    @_intent(Action.BOX)
    def clear_box(self) -> None:
        """The box was deleted."""
        prompts = self._bone.step.prompts
        if prompts.box is not None:
            self._bone.draw(replace(prompts, box=None))

    @_intent(Action.POSITIVE_POINT)
    def add_point(self, point: Point) -> None:
        """A point was placed. After Accept it corrects the accepted segment."""
        self._bone.notice_modified()
        prompts, volume = self._bone.step.prompts, self.volume
        if volume is None or point in prompts.points:
            return
        point.to_ijk(volume)
        self._bone.draw(replace(prompts, points=(*prompts.points, point)))

    @_intent(Action.POSITIVE_POINT)
    def move_point(self, number: int, point: Point) -> None:
        """Point `number` of `Panel.points` was dragged elsewhere."""
        self._bone.notice_modified()
        prompts, volume = self._bone.step.prompts, self.volume
        if volume is None or not 0 <= number < len(prompts.points) or point in prompts.points:
            return
        point.to_ijk(volume)
        points = (*prompts.points[:number], point, *prompts.points[number + 1 :])
        self._bone.draw(replace(prompts, points=points))

    @_intent(Action.POSITIVE_POINT)
    def remove_point(self, number: int) -> None:
        """Point `number` of `Panel.points` was deleted."""
        self._bone.notice_modified()
        prompts = self._bone.step.prompts
        if 0 <= number < len(prompts.points):
            self._bone.draw(replace(prompts, points=prompts.points[:number] + prompts.points[number + 1 :]))

    # Work.

    @_intent(Action.SEGMENT)
    def segment(self) -> None:
        """Segment the prompts now."""
        self._bone.notice_modified()
        if self._bone.step.is_due(self.settings.recipe):
            self._bone.ask(Work.SEGMENT)

    @_intent(Action.ALL_BONES)
    def segment_all(self) -> None:
        """Segment every bone. They are shown; Accept makes one segment of each."""
        self._bone.notice_modified()
        self._bone.ask(Work.ALL_BONES)

    @_intent(Action.TEXT)
    def segment_text(self, text: str) -> None:
        """Segment the bone that a text names."""
        self._bone.notice_modified()
        if not text.strip():
            raise BoneSAMError(self._messages.translate("Type the name of a bone first."))
        self._bone.ask(Work.TEXT, text.strip())

    @_intent(Action.CANCEL)
    def cancel(self) -> None:
        """Stop what runs, and be as before it. Else drop the unfinished bone; Undo brings it back."""
        self._bone.tool = None
        if self._bone.work is not None:
            self._bone.stop_job()
        else:
            self._bone.history.push(Step(segment=self._bone.step.segment))

    # Undo and redo.

    @_intent(Action.UNDO)
    def undo(self) -> None:
        """Take back the last prompt; the mask is exactly as it was before it."""
        self._bone.undo()

    @_intent(Action.REDO)
    def redo(self) -> None:
        """Take back the last undo."""
        self._bone.redo()

    # Segments.

    @_intent(Action.ACCEPT)
    def accept(self, name: str = "") -> None:
        """The shown mask becomes the segment's; points then correct it. `name`: for a new segment."""
        self._accept(name)

    @_intent(Action.NEXT_BONE)
    def next_bone(self, name: str = "") -> None:
        """Accept what is shown, and begin a new bone."""
        if self._bone.step.outcome is not None and not self._accept(name):
            return
        self._begin()

    def _accept(self, name: str) -> bool:
        """Returns whether there was something to accept: the volume may just have changed."""
        self._bone.notice_modified()
        step, source = self._bone.step, self.source
        if step.outcome is None or source is None:
            return False
        with self._own_changes():
            segment = self._table.write(step.outcome, step, source, name)
        self._cache.keep(step.outcome)
        self._begin(segment)
        return True

    def _begin(self, segment: str | None = None) -> None:
        """A bone that goes into a segment, or None for a new one."""
        self._bone.history.clear(Step(segment=segment))

    @_intent(Action.ADD_SEGMENT)
    def add_segment(self, name: str = "") -> None:
        """Add an empty segment for the next bone."""
        source = self.source
        if source is None:
            return
        with self._own_changes():
            identifier = self._table.add(name, source)
        self._begin(identifier)

    @_intent(Action.SELECT_SEGMENT)
    def select_segment(self, identifier: str | None) -> None:
        """Points now correct this segment; None for a new bone."""
        if identifier is None or identifier in self._table:
            self._begin(identifier)

    @_intent(Action.EDIT_SEGMENT)
    def rename_segment(self, identifier: str, name: str) -> None:
        """Give a segment another name."""
        if not name.strip():
            raise BoneSAMError(self._messages.translate("A segment needs a name."))
        if identifier in self._table:
            with self._own_changes():
                self._table.store.rename(identifier, name.strip())

    @_intent(Action.EDIT_SEGMENT)
    def recolor_segment(self, identifier: str, color: tuple[float, float, float]) -> None:
        """Give a segment another color: red, green, blue, each 0 to 1."""
        if identifier in self._table:
            with self._own_changes():
                self._table.store.recolor(identifier, color)

    @_intent(Action.EDIT_SEGMENT)
    def show_segment(self, identifier: str, visible: bool) -> None:
        """Show or hide a segment."""
        if identifier in self._table:
            with self._own_changes():
                self._table.store.show(identifier, visible)

    @_intent(Action.REMOVE_SEGMENT)
    def remove_segment(self, identifier: str) -> None:
        """Remove a segment."""
        if identifier in self._table:
            with self._own_changes():
                self._table.store.remove(identifier)

    @_intent()
    def choose_store(self, store: SegmentStore) -> None:
        """Segments live elsewhere from now on. An unfinished new bone stays, a correction does not."""
        self._table.use(store)
        self._bone.forget_segments(keep=frozenset())

    @_intent()
    def segments_changed(self) -> None:
        """Segments were added, removed or changed in look by others."""
        if not self._table.is_changing:
            self._read_segments()

    @_intent()
    def segment_edited(self, identifier: str) -> None:
        """A segment's mask was changed by others, for example by hand in an editor."""
        if not self._table.is_changing:
            self._bone.segment_edited(identifier)

    def _read_segments(self) -> None:
        self._table.read()
        self._bone.forget_segments(keep=self._table.identifiers)

    @contextmanager
    def _own_changes(self) -> Iterator[None]:
        """Changes to the store whose notifications are an echo."""
        try:
            with self._table.changing():
                yield
        finally:
            self._bone.forget_segments(keep=self._table.identifiers)

    # Results and settings.

    @_intent(Action.REVIEW)
    def jump_to_review(self, index: int) -> None:
        """Bring a slice of `Panel.review` into view."""
        outcome, volume = self._bone.step.outcome, self.volume
        if outcome is None or volume is None or all(place.index != index for place in outcome.review):
            return
        self._view.jump_to(outcome.review_axis, index, outcome.middle_of_slice(index, volume))

    @_intent(Action.OPTIONS)
    def change_settings(self, settings: Settings) -> None:
        """Use other settings; live, the mask follows. Other weights or another device are loaded first."""
        model = (settings.device, settings.weights)
        now = (self.settings.device, self.settings.weights)
        if settings.second_volume != self.settings.second_volume:
            self._bone.open_second(settings.second_volume)
        self._settings.change(replace(settings, device=now[0], weights=now[1]))
        if model != now:
            if Action.MODEL in self.enabled:
                self._bone.load(*model)
        else:
            self._follow()

    def _follow(self) -> None:
        if self._bone.work in (None, Work.SEGMENT):
            self._bone.follow()

    @_intent(Action.MODEL)
    def choose_weights(self, folder: str) -> None:
        """Load the weights in a folder, "" for the bundled ones; the same again if their files changed."""
        self._bone.load(self.settings.device, folder)

    @_intent()
    def reload_settings(self) -> None:
        """The settings' store holds others, for example after a scene was loaded."""
        if self._settings.are_kept:
            self._bone.stop_job()
            self._settings.reload()
            self._bone.forget_answers()

    # What goes out.

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Tell what goes wrong, once; then show how things are."""
        try:
            yield
        except Cancelled:
            pass
        except Exception as error:  # the border to the user interface: beyond it nobody would see it
            self._messages.tell_error(error)
        finally:
            self._render()

    def _render(self) -> None:
        if self._closed:
            return
        self._redrawing = True
        try:
            outcome = self._bone.step.outcome
            mask = self._bone.preview or (None if outcome is None else outcome.mask)
            if mask is not None and mask.is_empty:
                mask = None
            if mask is not self._shown:
                self._shown = mask
                self._view.show_mask(mask)
            self._view.render(self.panel)
        finally:
            self._redrawing = False
