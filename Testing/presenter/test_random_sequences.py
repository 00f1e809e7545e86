"""Anything in any order: no exception, no lost segment, buttons that agree with the state."""

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.panel import Action, State, Tool, Work
from BoneSAMLib.prompt_history import LIMIT
from BoneSAMLib.prompts import Box, Point
from Testing.presenter.fakes import SHAPE, Desk, FakeResult, FakeSource

SEQUENCES = 200
# Rules are picked evenly: without these odds the volume would be gone most of the time.
RARELY = st.sampled_from([False] * 5 + [True])
MOSTLY = st.sampled_from([True] * 3 + [False])
BUTTONS = st.sampled_from(["accept", "accept", "next_bone"])
NUMBER = st.integers(0, 4)
CORNERS = [
    ((1, 1, 1), (4, 4, 4)),
    ((5, 2, 3), (9, 9, 8)),
    ((2, 5, 2), (6, 8, 6)),
    ((40, 40, 40), (50, 50, 50)),
]
BOXES = st.sampled_from([Box.from_ijk(low, high) for low, high in CORNERS])
PLACES = st.sampled_from([(2, 2, 2), (5, 5, 5), (8, 3, 6), (7, 7, 7), (3, 7, 4), (60, 0, 0)])
POINTS = st.builds(Point.from_ijk, PLACES, st.booleans())


class AnyOrder(RuleBasedStateMachine):
    """Whatever the user, the scene and the worker do.

    `kept` is what the segments must hold: it changes by Accept, by removing, and by others only.
    `reached` counts over all sequences what has happened.
    """

    reached: ClassVar = Counter()

    def __init__(self):
        super().__init__()
        self.desk = Desk().open()
        self.presenter, self.view, self.store = self.desk.presenter, self.desk.view, self.desk.store
        self.kept = {}
        self.told = 0

    def act(self, method, *arguments):
        """One thing happens; at most one error is shown for it."""
        errors = self.errors()
        getattr(self.presenter, method)(*arguments)
        assert self.errors() <= errors + 1

    def errors(self):
        return sum(message.kind == "error" for message in self.view.messages)

    # The user.

    @rule(prompts=st.lists(BOXES | POINTS, min_size=1, max_size=4), finish=MOSTLY)
    def draw(self, prompts, finish):
        for prompt in prompts:
            self.act("set_box" if isinstance(prompt, Box) else "add_point", prompt)
        if finish:
            self.desk.run()

    @rule(prompts=st.lists(POINTS, min_size=1, max_size=4), finish=MOSTLY)
    def click(self, prompts, finish):
        self.draw(prompts, finish)

    @rule(data=st.data(), points=st.lists(POINTS, min_size=1, max_size=2), button=BUTTONS, edited=RARELY)
    @precondition(lambda self: self.kept)
    def correct(self, data, points, button, edited):
        identifier = data.draw(st.sampled_from(sorted(self.kept)))
        self.act("cancel")
        self.act("select_segment", identifier)
        ready, asked = self.presenter.panel.state == State.READY, len(self.desk.segmenter.asked)
        self.draw(points, finish=True)
        if ready and self.presenter.panel.correcting and len(self.desk.segmenter.asked) == asked + 1:
            start = self.desk.segmenter.asked[-1][2]
            known = isinstance(start, FakeResult)
            before = self.kept[self.presenter.panel.active_segment].to_array()
            assert np.array_equal(start.mask if known else start, before)
            self.reached["corrected from the accepted answer" if known else "corrected from the mask"] += 1
        if edited:
            self.edit_by_hand(identifier)
            before = self.kept[identifier]
        self.accept(button, finish=True)
        assert not edited or self.store.masks[identifier] == before

    @rule(button=BUTTONS)
    def all_bones(self, button):
        self.act("segment_all")
        self.accept(button, finish=True)

    @rule(
        prompt=BOXES | POINTS, event=st.sampled_from(["cancel", "undo", "draw", "change", "none", "remove"])
    )
    def late(self, prompt, event):
        """The answer is on its way when something else happens."""
        self.draw([prompt], finish=False)
        self.desk.runner.work()
        waiting = len(self.view.calls) if self.presenter.panel.work is not None else 0
        if event == "draw":
            self.act("add_point", Point.from_ijk((4, 4, 4)))
        elif event == "change":
            self.desk.source.change()
        elif event == "remove":
            self.act("volume_removed", "volume")
            self.act("choose_volume", self.desk.source)
        elif event != "none":
            self.act(event)
        before, stopped = self.view.mask, self.presenter.panel.work is None
        self.view.pump()
        if waiting and stopped:
            assert self.view.mask is before
            self.reached["late answer"] += 1

    @rule(number=NUMBER, point=POINTS)
    def move_point(self, number, point):
        self.act("move_point", number, point)

    @rule(number=NUMBER)
    def remove_point(self, number):
        self.act("remove_point", number)

    @rule(tool=st.sampled_from([*Tool, None]), index=NUMBER)
    def look(self, tool, index):
        self.act("choose_tool", tool)
        self.act("jump_to_review", index)

    @rule(method=st.sampled_from(["clear_box", "segment", "segment_all", "choose_weights", "cancel"]))
    def press(self, method):
        self.act(method, *([""] if method == "choose_weights" else []))

    @rule(finish=MOSTLY)
    def segment(self, finish):
        self.act("segment")
        if finish:
            self.desk.run()

    @rule()
    def text(self):
        self.act("segment_text", "femur")

    @rule()
    def undo(self):
        before, running = self.desk.state, self.presenter.panel.work
        possible = Action.UNDO in self.presenter.enabled
        self.act("undo")
        # Exactly there and back; a step that was still waiting for its mask starts anew instead.
        if possible and running is None and self.presenter.panel.work is None:
            self.act("redo")
            if self.presenter.panel.work is None:
                assert self.desk.state == before
                self.reached["undo and redo"] += 1
                self.act("undo")

    @rule()
    def redo(self):
        self.act("redo")

    @rule(button=BUTTONS, finish=MOSTLY)
    def accept(self, button, finish):
        if finish:
            self.desk.run()
        correcting = self.presenter.panel.correcting
        shown, active = self.view.mask, self.presenter.panel.active_segment
        count, known = self.presenter.panel.bone_count, set(self.store.masks)
        action = Action.ACCEPT if button == "accept" else Action.NEXT_BONE
        possible = action in self.presenter.enabled and shown is not None
        errors = self.errors()
        self.act(button)
        new = set(self.store.masks) - known
        if not possible or self.errors() > errors:
            assert not new
        elif self.view.mask is None and self.store.masks != self.kept:
            # `store.masks` differs: it was written (and not refused because the volume had moved).
            if active is not None:
                assert self.store.masks[active] == shown
                assert not new
                self.kept[active] = shown
                self.reached["correction" if correcting else "into an added segment"] += 1
            else:
                assert len(new) == count
                self.reached["all bones" if count > 1 else "new bone"] += 1
                union = np.zeros(SHAPE, bool)
                for identifier in new:
                    union |= self.store.masks[identifier].to_array()
                    self.kept[identifier] = self.store.masks[identifier]
                assert np.array_equal(union, shown.to_array())

    @rule()
    def add_segment(self):
        known = set(self.store.masks)
        self.act("add_segment")
        for identifier in set(self.store.masks) - known:
            self.kept[identifier] = self.store.masks[identifier]

    @rule(data=st.data())
    @precondition(lambda self: self.kept)
    def table(self, data):
        identifier = data.draw(st.sampled_from(sorted(self.kept)))
        method = data.draw(
            st.sampled_from(["select_segment", "rename_segment", "remove_segment", "show_segment"])
        )
        if method == "rename_segment":
            self.act(method, identifier, "Femur")
        elif method == "show_segment":
            self.act(method, identifier, False)
        else:
            removable = Action.REMOVE_SEGMENT in self.presenter.enabled and not self.store.read_only
            self.act(method, identifier)
            if method == "remove_segment" and removable:
                del self.kept[identifier]

    @rule(
        change=st.sampled_from(
            [
                {"live": False},
                {"live": True},
                {"keep_inside": True},
                {"remove_small_islands": True},
                {"depth_attention": False},
                {"weights": "missing"},
                {"weights": "mine"},
                {"weights": ""},
            ]
        )
    )
    def option(self, change):
        self.act("change_settings", replace(self.presenter.settings, **change))

    # The scene.

    @rule(
        event=st.sampled_from(["change", "tell", "move", "remove", "none", "other", "broken"]), happens=RARELY
    )
    def volume(self, event, happens):
        if not happens:
            return
        self.reached[event] += self.presenter.panel.work is not None
        source = self.desk.source
        if event in ("change", "tell"):
            source.change()
        elif event == "move":
            source.change(offset=source.offset + 0.25)
        elif event == "broken":
            source.change(error="The volume is under a non-linear transform.")
            self.act("volume_modified")
            source.change()
        elif event == "remove":
            self.act("volume_removed", "volume")
        else:
            self.act("choose_volume", FakeSource("other") if event == "other" else None)
        if event == "tell":
            self.act("volume_modified")

    @rule()
    def choose_volume(self):
        self.act("choose_volume", self.desk.source)

    @rule(data=st.data(), edited=MOSTLY)
    @precondition(lambda self: self.kept and not self.store.read_only)
    def others_change_a_segment(self, data, edited):
        identifier = data.draw(st.sampled_from(sorted(self.kept)))
        if edited:
            self.edit_by_hand(identifier)
        else:
            self.store.remove(identifier)
            del self.kept[identifier]

    def edit_by_hand(self, identifier):
        array = self.kept[identifier].to_array()
        array[0, 0, :3] ^= True
        edited = CroppedMask.from_array(array)
        self.store.masks[identifier] = self.kept[identifier] = edited
        self.reached["edited by hand"] += self.presenter.panel.correcting
        self.act("segment_edited", identifier)

    @rule(read_only=RARELY)
    def lock(self, read_only):
        self.store.read_only = read_only

    # The worker. Working and delivering are two events, so that answers come late.

    @rule(fails=RARELY)
    def work(self, fails):
        self.desk.segmenter.error = BoneSAMError("bad luck") if fails else None
        self.desk.runner.work()
        self.desk.segmenter.error = None

    @rule()
    def deliver(self):
        self.view.pump()

    @rule()
    def finish(self):
        self.desk.run()
        assert self.presenter.panel.work is None or self.desk.runner.waiting

    # What always holds.

    @invariant()
    def no_segment_is_lost(self):
        assert self.store.masks == self.kept

    @invariant()
    def the_view_is_up_to_date(self):
        assert self.view.panel == self.presenter.panel
        outcome = self.presenter._bone.history.current.outcome
        mask = None if outcome is None or outcome.mask.is_empty else outcome.mask
        assert self.view.mask == mask

    @invariant()
    def nothing_unexpected_was_said(self):
        new, self.told = self.view.messages[self.told :], len(self.view.messages)
        assert all("unexpected" not in message.text for message in new), new

    @invariant()
    def history_is_bounded(self):
        assert 1 <= len(self.presenter._bone.history) <= LIMIT

    @invariant()
    def buttons_agree_with_the_state(self):
        panel = self.presenter.panel
        enabled = panel.enabled
        assert (panel.state == State.RUNNING) == (panel.work is not None) == (panel.progress is not None)
        assert (Action.CANCEL in enabled) == (panel.state in (State.RUNNING, State.DRAWING, State.PREVIEW)), (
            panel
        )
        if panel.state in (State.NO_VOLUME, State.READY):
            assert not enabled & {Action.ACCEPT, Action.SEGMENT, Action.REVIEW}
            assert self.view.mask is None
        if Action.ACCEPT in enabled:
            assert self.view.mask is not None
            assert Action.NEXT_BONE in enabled
        if panel.work is not None:
            assert not enabled & {
                Action.ACCEPT,
                Action.SEGMENT,
                Action.REDO,
                Action.MODEL,
                Action.REMOVE_SEGMENT,
            }
        if panel.work not in (None, Work.SEGMENT):
            assert not enabled & {Action.BOX, Action.POSITIVE_POINT, Action.UNDO}
        if panel.volume_name == "":
            assert not enabled & {Action.BOX, Action.POSITIVE_POINT, Action.ALL_BONES, Action.ADD_SEGMENT}
        assert panel.active_segment is None or panel.active_segment in self.store.entries
        assert not panel.correcting or panel.active_segment is not None
        assert panel.tool is None or panel.tool.value in {action.value for action in enabled}

    def teardown(self):
        self.store.read_only = False
        self.desk.run()
        self.presenter.close()
        assert self.desk.runner.closed
        assert self.store.masks == self.kept


def test_any_order():
    AnyOrder.reached.clear()
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    # Sequences that never got anywhere would prove nothing.
    for event in (
        "new bone",
        "correction",
        "corrected from the accepted answer",
        "corrected from the mask",
        "all bones",
        "undo and redo",
        "late answer",
    ):
        assert AnyOrder.reached[event] >= SEQUENCES / 20, AnyOrder.reached
