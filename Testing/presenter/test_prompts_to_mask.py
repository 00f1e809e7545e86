"""From prompts to a mask: live and on demand, undo and redo, cancel, messages."""

from dataclasses import replace

import numpy as np
import pytest

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import Cancelled
from BoneSAMLib.oriented_box import OrientedBox
from BoneSAMLib.panel import Action, State
from BoneSAMLib.prompt_history import LIMIT
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.settings import Settings
from Testing.presenter.fakes import BONE, OTHER_BONE, OUTSIDE, SHAPE, Desk, FakeSource, beside, inside


def voxels(box):
    array = np.zeros(SHAPE, bool)
    (i, j, k), (i2, j2, k2) = (map(int, box.first), map(int, box.second))
    array[k : k2 + 1, j : j2 + 1, i : i2 + 1] = True
    return array


def shown(desk):
    return desk.view.mask.to_array()


# ---------------------------------------------------------------------------------------- live and on demand


def test_live_every_finished_prompt_updates_the_mask(desk):
    desk.presenter.set_box(BONE)
    assert desk.view.mask is None
    desk.run()
    assert np.array_equal(shown(desk), voxels(BONE))
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    assert shown(desk).sum() == 125 - 27
    assert desk.panel.confidence == 0.9
    assert desk.panel.bone_count == 1
    assert desk.view.messages == []


def test_on_demand_nothing_happens_until_segment(on_demand):
    on_demand.presenter.set_box(BONE)
    on_demand.presenter.add_point(beside(3, 3, 3))
    assert not on_demand.runner.waiting
    assert on_demand.segmenter.loads == []  # lazy
    on_demand.presenter.segment()
    on_demand.run()
    assert shown(on_demand).sum() == 125 - 27
    on_demand.presenter.segment()  # answered already
    assert not on_demand.runner.waiting


def test_corrections_go_on_from_the_last_result_with_its_mask(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    box, points, mask, _ = desk.segmenter.asked[1]
    assert box == BONE
    assert points == (beside(3, 3, 3),)
    assert mask.points == ()
    assert np.array_equal(mask.mask, voxels(BONE))


def test_another_box_begins_from_nothing_with_all_points(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.add_point(beside(9, 8, 4))
    desk.run()
    desk.presenter.set_box(OTHER_BONE)
    desk.run()
    assert desk.segmenter.asked[-1] == (OTHER_BONE, (beside(9, 8, 4),), None, True)


def test_moved_and_removed_points_begin_from_nothing(desk):
    for prompt in (inside(3, 3, 3), inside(7, 7, 7)):
        desk.presenter.add_point(prompt)
        desk.run()
    desk.presenter.move_point(1, inside(9, 9, 9))
    desk.run()
    assert desk.segmenter.asked[-1] == (None, (inside(3, 3, 3), inside(9, 9, 9)), None, True)
    desk.presenter.remove_point(0)
    desk.run()
    assert desk.segmenter.asked[-1] == (None, (inside(9, 9, 9),), None, True)
    desk.presenter.remove_point(0)
    assert desk.view.mask is None
    assert desk.panel.state == State.READY
    for number in (-1, 0, 5):
        desk.presenter.remove_point(number)
        desk.presenter.move_point(number, inside(1, 1, 1))
    assert desk.view.messages == []


def test_a_prompt_while_running_is_taken_into_the_answer(desk):
    desk.presenter.set_box(BONE)
    desk.runner.work()  # answered, but not delivered
    desk.presenter.add_point(inside(10, 9, 7))
    desk.run()
    assert shown(desk).sum() == 125 + 27
    assert len(desk.view.masks) == 2  # none at first; and never the outdated one


def test_a_prompt_while_segmenting_on_demand_restarts_it(on_demand):
    on_demand.presenter.set_box(BONE)
    on_demand.presenter.segment()
    on_demand.presenter.add_point(inside(10, 9, 7))
    on_demand.run()
    assert shown(on_demand).sum() == 125 + 27


def test_switching_live_on_segments_what_is_drawn(on_demand):
    on_demand.presenter.set_box(BONE)
    on_demand.set(live=True)
    on_demand.run()
    assert np.array_equal(shown(on_demand), voxels(BONE))


def test_equal_prompts_are_no_new_step(desk):
    desk.presenter.set_box(BONE)
    desk.presenter.set_box(Box.from_ijk((2, 2, 2), (6, 6, 6)))
    desk.presenter.add_point(inside(4, 4, 4))
    desk.presenter.add_point(inside(4, 4, 4))
    desk.run()
    assert len(desk.segmenter.asked) == 1
    desk.presenter.undo()
    desk.presenter.undo()
    assert desk.panel.state == State.READY


def test_a_turned_box_is_passed_on_as_its_voxels_and_drawn_as_it_is(desk):
    turn = np.eye(4)
    turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
    turn[:3, 3] = 6, 6, 4
    box = OrientedBox.from_matrix((-2, -2, -2), (2, 2, 2), turn)
    desk.presenter.set_box(box)
    desk.run()
    assert desk.panel.box == box
    assert desk.segmenter.asked[0][0].to_ijk(desk.presenter.volume) == ((4, 4, 2), (8, 8, 6))
    desk.set(keep_inside=True)
    desk.run()
    assert 0 < shown(desk).sum() < 125


# ------------------------------------------------------------------------------------------- undo and redo


def steps_through_history(desk):
    """State after every one of five prompts, the first before any."""
    states = [desk.state]
    for act in (
        lambda: desk.presenter.set_box(BONE),
        lambda: desk.presenter.add_point(inside(9, 9, 9)),
        lambda: desk.presenter.add_point(beside(3, 3, 3)),
        lambda: desk.presenter.move_point(0, inside(10, 3, 3)),
        lambda: desk.presenter.remove_point(1),
    ):
        act()
        desk.run()
        states.append(desk.state)
    return states


def test_undo_and_redo_go_through_exactly_the_same_states(desk):
    states = steps_through_history(desk)
    asked = len(desk.segmenter.asked)
    for state in states[-2::-1]:
        desk.presenter.undo()
        assert desk.state == state
    desk.presenter.undo()
    assert desk.state == states[0]
    for state in states[1:]:
        desk.presenter.redo()
        assert desk.state == state
    desk.presenter.redo()
    assert desk.state == states[-1]
    assert len(desk.segmenter.asked) == asked  # all from memory


def test_on_demand_undo_goes_back_to_the_mask_of_that_step(on_demand):
    on_demand.presenter.set_box(BONE)
    on_demand.presenter.segment()
    on_demand.run()
    first = on_demand.state
    on_demand.presenter.add_point(beside(3, 3, 3))
    second = on_demand.state
    assert second[-1] == first[-1]
    on_demand.presenter.segment()
    on_demand.run()
    third = on_demand.state
    on_demand.presenter.undo()
    assert on_demand.state == first
    on_demand.presenter.redo()
    assert on_demand.state == third


def test_after_undo_a_correction_is_the_same_as_before_it(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    mask = desk.view.mask
    desk.presenter.undo()
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    assert desk.view.mask == mask
    assert not desk.presenter.panel.enabled & {Action.REDO}


def test_undo_while_running_takes_the_prompt_back(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    before = desk.state
    desk.presenter.add_point(beside(3, 3, 3))
    desk.runner.work()
    desk.presenter.undo()
    desk.run()
    assert desk.state == before
    desk.presenter.redo()  # it has no mask yet
    desk.run()
    assert shown(desk).sum() == 125 - 27


def test_history_is_bounded_and_old_steps_still_correct(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    for n in range(LIMIT + 20):
        desk.presenter.add_point(inside(10 + n / 100, 9, 7))
        desk.run()
    history = desk.presenter._bone.history
    assert len(history) == LIMIT
    assert sum(step.outcome is not None and step.outcome.result is not None for step in history) <= 8
    steps = 0
    while Action.UNDO in desk.panel.enabled:
        desk.presenter.undo()
        steps += 1
    assert steps == LIMIT - 1
    mask = desk.view.mask
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    assert np.array_equal(shown(desk) | voxels(Box.from_ijk((2, 2, 2), (4, 4, 4))), mask.to_array())


def test_results_in_the_history_do_not_hold_whole_masks(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    kept = desk.presenter._bone.history.current.outcome.result.mask
    assert kept.shape == SHAPE
    assert kept.base.size == 1


# --------------------------------------------------------------------------------------------------- cancel


def test_cancel_goes_back_to_before_the_running_prompt_and_drops_the_late_answer(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    before = desk.state
    desk.presenter.add_point(beside(3, 3, 3))
    desk.runner.work()  # the answer is on its way
    desk.presenter.cancel()
    assert desk.state == before
    desk.run()
    assert desk.state == before
    assert desk.view.messages == []
    desk.presenter.redo()
    desk.run()
    assert shown(desk).sum() == 125 - 27


@pytest.mark.parametrize("keep_inside", [False, True])
def test_what_is_known_first_is_shown_until_the_rest_comes(desk, keep_inside):
    desk.set(keep_inside=keep_inside)
    slab = np.zeros(SHAPE, bool)
    slab[3] = True
    desk.segmenter.preview = CroppedMask.from_array(slab)
    desk.presenter.set_box(BONE)
    desk.runner.work()
    before = desk.state
    desk.view.calls.popleft()()
    assert np.array_equal(shown(desk), slab & voxels(BONE) if keep_inside else slab)
    assert desk.state[:4] == before[:4]  # nothing that could be accepted or undone
    desk.run()
    assert np.array_equal(shown(desk), voxels(BONE))


@pytest.mark.parametrize("end", ["cancel", "undo", "choose_volume"])
def test_what_was_known_first_goes_with_its_job(desk, end):
    desk.segmenter.preview = CroppedMask.from_array(np.ones(SHAPE, bool))
    desk.presenter.set_box(BONE)
    desk.runner.work()
    desk.view.calls.popleft()()
    assert desk.view.mask is not None
    getattr(desk.presenter, end)(*([None] if end == "choose_volume" else []))
    assert desk.view.mask is None
    desk.run()
    assert desk.view.mask is None


def test_what_is_known_first_never_comes_after_its_end(desk):
    desk.segmenter.preview = CroppedMask.from_array(np.ones(SHAPE, bool))
    desk.presenter.set_box(BONE)
    desk.runner.work()  # it is on its way
    desk.presenter.cancel()
    desk.run()
    assert desk.view.masks in ([], [None])


@pytest.mark.parametrize("points", [1, 12, LIMIT + 5])
def test_cancel_after_several_running_prompts_goes_back_before_the_first(desk, points):
    before = desk.state
    desk.presenter.set_box(BONE)
    for n in range(points):
        desk.presenter.add_point(inside(10 + n / 100, 9, 7))
    desk.presenter.cancel()
    if points < LIMIT:
        assert desk.state == before
    else:  # that moment is forgotten: the oldest that is left
        assert len(desk.panel.points) == points - LIMIT + 1


def test_cancel_on_demand_keeps_what_is_drawn(on_demand):
    on_demand.presenter.set_box(BONE)
    before = on_demand.panel
    on_demand.presenter.segment()
    on_demand.presenter.cancel()
    assert on_demand.panel == before


def test_cancel_of_an_unfinished_bone_can_be_undone(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    before = desk.state
    desk.presenter.cancel()
    assert desk.view.mask is None
    assert desk.panel.box is None
    desk.presenter.undo()
    assert desk.state == before


def test_cancel_of_all_bones(desk):
    before = desk.panel
    desk.presenter.segment_all()
    desk.runner.work()
    desk.presenter.cancel()
    desk.run()
    assert desk.panel == before


# ------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda p: p.set_box(OUTSIDE), "outside"),
        (lambda p: p.add_point(inside(99, 0, 0)), "outside"),
        (lambda p: p.move_point(0, inside(99, 0, 0)), "outside"),
        (lambda p: p.choose_volume(FakeSource("vector", error="This is a color image.")), "color"),
        (lambda p: p.set_box(OrientedBox.from_matrix((90, 90, 90), (99, 99, 99), np.eye(4))), "outside"),
        (lambda p: p.segment_text("  "), "name of a bone"),
    ],
)
def test_bad_input_gives_one_message_and_leaves_the_state(desk, act, word):
    desk.presenter.add_point(inside(4, 4, 4))
    desk.run()
    before = desk.panel, desk.state
    act(desk.presenter)
    desk.run()
    assert (desk.panel, desk.state) == before
    assert len(desk.view.messages) == 1
    assert desk.view.messages[0].kind == "error"
    assert word in desk.view.texts[0]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "memory"),
        (ModuleNotFoundError("x", name="onnxruntime"), "'onnxruntime' is missing"),
        (ZeroDivisionError("bad luck {0}"), "ZeroDivisionError: bad luck {0}"),
    ],
)
def test_a_failing_job_gives_one_message_and_leaves_the_state(desk, error, word):
    desk.presenter.set_box(BONE)
    desk.run()
    before = desk.panel, desk.state
    desk.segmenter.error = error
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    assert (desk.panel, desk.state) == before
    assert len(desk.view.messages) == 1
    assert word in desk.view.texts[0]
    desk.segmenter.error = None
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    assert shown(desk).sum() == 125 - 27
    assert len(desk.view.messages) == 1


def test_an_empty_mask_is_said_and_cannot_be_accepted(desk):
    desk.presenter.add_point(inside(4, 4, 4))
    desk.presenter.add_point(beside(4.0, 4.0, 4.1))
    desk.run()
    assert desk.view.mask is None
    assert desk.view.messages[0].kind == "info"
    assert Action.ACCEPT not in desk.panel.enabled


def test_texts_are_translated():
    desk = Desk(translate=lambda text: "Knochen {number}" if text == "Bone {number}" else text).open()
    desk.presenter.add_segment()
    assert desk.panel.segments[0].name == "Knochen 1"


def test_what_is_missing_is_prepared_before_the_first_job():
    calls = []

    def prepare():
        calls.append(1)
        if len(calls) == 1:
            raise Cancelled

    desk = Desk(prepare=prepare).open()
    before = desk.panel
    desk.presenter.set_box(BONE)  # the user declines
    assert desk.panel == before
    assert desk.view.messages == []
    desk.presenter.set_box(BONE)
    desk.run()
    assert np.array_equal(shown(desk), voxels(BONE))


def test_what_the_view_reports_while_it_is_redrawn_is_an_echo(desk):
    desk.view.on_render = lambda panel: (
        desk.presenter.choose_volume(None),
        desk.presenter.change_settings(Settings()),
        desk.presenter.cancel(),
    )
    desk.presenter.set_box(BONE)
    desk.run()
    assert np.array_equal(shown(desk), voxels(BONE))


def test_progress_is_shown(desk):
    desk.presenter.set_box(BONE)
    assert desk.panel.progress == (0.0, "")
    desk.run()
    assert (0.5, "segmenting") in [panel.progress for panel in desk.view.panels]
    assert desk.panel.progress is None


# --------------------------------------------------------------------------------------- review and settings


def test_slices_to_review_jump_to_the_mask_in_them(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    assert [place.index for place in desk.panel.review] == [2, 3, 4]
    desk.presenter.jump_to_review(3)
    desk.presenter.jump_to_review(9)  # is not in the list
    assert desk.view.jumps == [(2, 3, (4.0, 4.0, 3.0))]


def test_post_processing_follows_its_settings_without_the_network(desk):
    desk.presenter.set_box(BONE)
    desk.presenter.add_point(inside(11, 9, 7))
    desk.run()
    desk.presenter.add_point(beside(11.0, 9.0, 8.4))
    desk.run()
    asked = len(desk.segmenter.asked)
    whole = desk.view.mask
    desk.set(keep_inside=True)
    desk.run()
    assert np.array_equal(shown(desk), voxels(BONE))
    desk.set(keep_inside=False)
    desk.run()
    assert desk.view.mask == whole
    assert len(desk.segmenter.asked) == asked
    desk.set(depth_attention=False)
    desk.run()
    assert desk.segmenter.asked[-1][3] is False
    assert len(desk.segmenter.asked) == asked + 1


def test_a_positive_point_saves_its_island(desk):
    desk.set(remove_small_islands=True)
    desk.presenter.set_box(BONE)
    desk.presenter.add_point(inside(11, 9, 7))
    desk.run()
    assert shown(desk).sum() == 125 + 27


def test_settings_are_saved_and_a_failure_leaves_them(desk):
    desk.set(smoothing_mm=1.5, second_volume="t2")
    assert Settings.from_strings(desk.settings_store.values) == Settings(smoothing_mm=1.5, second_volume="t2")
    desk.settings_store.error = "The scene is read-only."
    desk.set(live=False)
    assert desk.panel.settings.live
    assert desk.view.texts == ["The scene is read-only."]


def test_settings_of_another_scene(desk):
    desk.settings_store.values = {"live": "false", "device": "cpu"}
    desk.presenter.reload_settings()
    assert desk.panel.settings == Settings(live=False, device="cpu")


def test_other_weights_are_loaded_at_once_and_kept_only_if_they_load(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    mask = desk.view.mask
    desk.set(weights="missing", smoothing_mm=0.0)
    desk.run()
    assert desk.panel.settings.weights == ""
    assert desk.view.texts == ["There are no weights in 'missing'."]
    assert desk.view.mask == mask
    desk.segmenter.bundle = replace(desk.segmenter.bundle, digest="two")
    desk.set(weights="mine")
    desk.run()
    assert desk.panel.settings.weights == "mine"
    assert desk.settings_store.values["weights"] == "mine"
    assert len(desk.segmenter.opened) == 2
    assert desk.segmenter.asked[-1][2] is None  # nothing is built on the answer of other weights


def test_weights_that_were_trained_again_are_loaded_again(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.segmenter.bundle = replace(desk.segmenter.bundle, digest="two")
    desk.presenter.choose_weights("")
    desk.run()
    assert len(desk.segmenter.loads) == len(desk.segmenter.opened) == 2


def test_cancel_while_weights_load_keeps_the_old_ones(desk):
    desk.set(weights="mine")
    desk.runner.work()
    desk.presenter.cancel()
    desk.run()
    assert desk.panel.settings.weights == ""
    desk.presenter.set_box(BONE)
    desk.run()
    assert desk.segmenter.loads[-1] == ("auto", "")


def test_one_session_serves_all_prompts_of_a_volume(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.next_bone()
    desk.presenter.set_box(OTHER_BONE)
    desk.run()
    assert len(desk.segmenter.opened) == 1
    assert desk.source.reads == 1


def test_points_in_patient_coordinates(desk):
    desk.presenter.add_point(Point.from_ras((4, 4, 4)))
    desk.run()
    assert shown(desk).sum() == 27
