"""Every button in every state."""

import pytest

from BoneSAMLib.panel import Action, State, Tool, Work
from Testing.presenter.fakes import BONE, OTHER_BONE, Desk, beside, inside

ALWAYS = {Action.CHOOSE_VOLUME, Action.OPTIONS}
MODEL = {Action.MODEL}
POINTS = {Action.POSITIVE_POINT, Action.NEGATIVE_POINT}
PROMPTS = {Action.BOX} | POINTS
WITHOUT_PROMPTS = {Action.TEXT, Action.ALL_BONES}
NEW_SEGMENT = {Action.ADD_SEGMENT}
SEGMENTS = {Action.EDIT_SEGMENT, Action.REMOVE_SEGMENT}
SELECT = {Action.SELECT_SEGMENT}
ACCEPT = {Action.ACCEPT, Action.NEXT_BONE}
IDLE = ALWAYS | MODEL | PROMPTS | WITHOUT_PROMPTS


def nothing(desk):
    pass


def ready(desk):
    desk.open()


def box_drawn(desk):
    desk.open().set(live=False)
    desk.presenter.set_box(BONE)


def only_negative_point(desk):
    desk.open().presenter.add_point(beside(4, 4, 4))


def segmenting(desk):
    box_drawn(desk)
    desk.presenter.segment()


def segmenting_live(desk):
    desk.open().presenter.set_box(BONE)


def preview(desk):
    segmenting_live(desk)
    desk.run()


def preview_with_new_point(desk):
    preview(desk)
    desk.set(live=False)
    desk.presenter.add_point(inside(9, 9, 9))


def empty_preview(desk):
    desk.open().presenter.add_point(inside(4, 4, 4))
    desk.presenter.add_point(beside(4.0, 4.0, 4.1))
    desk.run()


def undone(desk):
    preview(desk)
    desk.presenter.undo()


def cancelled_preview(desk):
    preview(desk)
    desk.presenter.cancel()


def cancelled_job(desk):
    segmenting_live(desk)
    desk.presenter.cancel()


def accepted(desk):
    preview(desk)
    desk.presenter.accept()


def next_bone(desk):
    preview(desk)
    desk.presenter.next_bone()


def correcting(desk):
    accepted(desk)
    desk.presenter.add_point(beside(2, 2, 2))


def corrected(desk):
    correcting(desk)
    desk.run()


def box_after_accept(desk):
    accepted(desk)
    desk.presenter.set_box(OTHER_BONE)
    desk.run()


def added_segment(desk):
    desk.open().presenter.add_segment("Femur")


def segmenting_all(desk):
    desk.open().presenter.segment_all()


def all_bones(desk):
    segmenting_all(desk)
    desk.run()


def all_accepted(desk):
    all_bones(desk)
    desk.presenter.accept()


def finding_text(desk):
    desk.open().presenter.segment_text("femur")


def loading(desk):
    desk.open().set(weights="mine")


def loading_without_volume(desk):
    desk.set(weights="mine")


def volume_removed(desk):
    accepted(desk)
    desk.presenter.volume_removed("volume")


def changed_option(desk):
    preview(desk)
    desk.set(live=False, smoothing_mm=1.0)


TABLE = [
    (nothing, State.NO_VOLUME, None, ALWAYS | MODEL),
    (ready, State.READY, None, IDLE | NEW_SEGMENT),
    (box_drawn, State.DRAWING, None, IDLE | {Action.SEGMENT, Action.UNDO, Action.CANCEL}),
    (only_negative_point, State.DRAWING, None, IDLE | {Action.UNDO, Action.CANCEL}),
    (segmenting, State.RUNNING, Work.SEGMENT, ALWAYS | PROMPTS | {Action.UNDO, Action.CANCEL}),
    (segmenting_live, State.RUNNING, Work.SEGMENT, ALWAYS | PROMPTS | {Action.UNDO, Action.CANCEL}),
    (preview, State.PREVIEW, None, IDLE | ACCEPT | {Action.UNDO, Action.CANCEL, Action.REVIEW}),
    (
        preview_with_new_point,
        State.PREVIEW,
        None,
        IDLE | ACCEPT | {Action.SEGMENT, Action.UNDO, Action.CANCEL, Action.REVIEW},
    ),
    (empty_preview, State.PREVIEW, None, IDLE | {Action.UNDO, Action.CANCEL}),
    (undone, State.READY, None, IDLE | NEW_SEGMENT | {Action.REDO}),
    (cancelled_preview, State.READY, None, IDLE | NEW_SEGMENT | {Action.UNDO}),
    (cancelled_job, State.READY, None, IDLE | NEW_SEGMENT | {Action.REDO}),
    (accepted, State.READY, None, IDLE | NEW_SEGMENT | SEGMENTS | SELECT | {Action.NEXT_BONE}),
    (next_bone, State.READY, None, IDLE | NEW_SEGMENT | SEGMENTS | SELECT),
    (
        correcting,
        State.RUNNING,
        Work.SEGMENT,
        ALWAYS | POINTS | {Action.UNDO, Action.CANCEL, Action.EDIT_SEGMENT},
    ),
    (
        corrected,
        State.PREVIEW,
        None,
        ALWAYS | MODEL | POINTS | ACCEPT | SEGMENTS | {Action.UNDO, Action.CANCEL, Action.REVIEW},
    ),
    (
        box_after_accept,
        State.PREVIEW,
        None,
        IDLE | ACCEPT | SEGMENTS | {Action.UNDO, Action.CANCEL, Action.REVIEW},
    ),
    (added_segment, State.READY, None, IDLE | NEW_SEGMENT | SEGMENTS | SELECT | {Action.NEXT_BONE}),
    (segmenting_all, State.RUNNING, Work.ALL_BONES, ALWAYS | {Action.CANCEL}),
    (all_bones, State.PREVIEW, None, IDLE | ACCEPT | {Action.UNDO, Action.CANCEL}),
    (all_accepted, State.READY, None, IDLE | NEW_SEGMENT | SEGMENTS | SELECT),
    (finding_text, State.RUNNING, Work.TEXT, ALWAYS | {Action.CANCEL}),
    (loading, State.RUNNING, Work.LOAD, ALWAYS | {Action.CANCEL}),
    (loading_without_volume, State.RUNNING, Work.LOAD, ALWAYS | {Action.CANCEL}),
    (volume_removed, State.NO_VOLUME, None, ALWAYS | MODEL | SEGMENTS),
    (
        changed_option,
        State.PREVIEW,
        None,
        IDLE | ACCEPT | {Action.SEGMENT, Action.UNDO, Action.CANCEL, Action.REVIEW},
    ),
]


@pytest.mark.parametrize(
    ("reach", "state", "work", "enabled"), TABLE, ids=[reach.__name__ for reach, *_ in TABLE]
)
def test_enabled_buttons(reach, state, work, enabled):
    desk = Desk()
    reach(desk)
    assert desk.panel.state == state
    assert desk.panel.work == work
    assert desk.panel.enabled == enabled
    assert desk.presenter.enabled == enabled
    assert (desk.panel.progress is not None) == (work is not None)


def test_every_action_is_enabled_in_some_state_and_disabled_in_another():
    for action in set(Action) - ALWAYS:
        assert {action in enabled for *_, enabled in TABLE} == {True, False}, action


def test_nothing_is_enabled_after_closing():
    desk = Desk().open()
    desk.presenter.close()
    assert desk.presenter.enabled == frozenset()
    assert desk.presenter.panel.state == State.CLOSED


PRESS = {
    Action.BOX: lambda p: p.set_box(OTHER_BONE),
    Action.POSITIVE_POINT: lambda p: p.add_point(inside(1, 1, 1)),
    Action.NEGATIVE_POINT: lambda p: p.add_point(beside(1, 1, 1)),
    Action.TEXT: lambda p: p.segment_text("femur"),
    Action.ALL_BONES: lambda p: p.segment_all(),
    Action.SEGMENT: lambda p: p.segment(),
    Action.UNDO: lambda p: p.undo(),
    Action.REDO: lambda p: p.redo(),
    Action.ACCEPT: lambda p: p.accept(),
    Action.NEXT_BONE: lambda p: p.next_bone(),
    Action.CANCEL: lambda p: p.cancel(),
    Action.REVIEW: lambda p: p.jump_to_review(3),
    Action.ADD_SEGMENT: lambda p: p.add_segment(),
    Action.SELECT_SEGMENT: lambda p: p.select_segment(None),
    Action.EDIT_SEGMENT: lambda p: p.rename_segment("segment1", "x"),
    Action.REMOVE_SEGMENT: lambda p: p.remove_segment("segment1"),
    Action.MODEL: lambda p: p.choose_weights(""),
}


@pytest.mark.parametrize(
    ("reach", "enabled"),
    [(reach, enabled) for reach, _, _, enabled in TABLE],
    ids=[reach.__name__ for reach, *_ in TABLE],
)
def test_a_press_of_a_disabled_button_changes_nothing_but_redraws(reach, enabled):
    desk = Desk()
    reach(desk)
    before = desk.panel, desk.view.mask, desk.contents(), len(desk.view.messages)
    for action in PRESS.keys() - enabled:
        renders = len(desk.view.panels)
        PRESS[action](desk.presenter)
        assert (desk.panel, desk.view.mask, desk.contents(), len(desk.view.messages)) == before, action
        # The view has drawn something that must go away again.
        assert len(desk.view.panels) > renders


@pytest.mark.parametrize("tool", Tool)
def test_tools_follow_their_buttons(tool):
    desk = Desk()
    desk.presenter.choose_tool(tool)
    assert desk.panel.tool is None
    desk.open().presenter.choose_tool(tool)
    assert desk.panel.tool == tool
    desk.presenter.segment_all()
    assert desk.panel.tool is None
    desk.presenter.cancel()
    desk.presenter.choose_tool(tool)
    desk.presenter.choose_tool(None)
    assert desk.panel.tool is None


def test_points_go_on_and_a_box_is_drawn_once():
    desk = Desk().open()
    desk.presenter.choose_tool(Tool.BOX)
    desk.presenter.set_box(BONE)
    assert desk.panel.tool is None
    desk.presenter.choose_tool(Tool.POSITIVE_POINT)
    desk.presenter.add_point(inside(4, 4, 4))
    assert desk.panel.tool == Tool.POSITIVE_POINT
