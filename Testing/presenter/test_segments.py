"""Accepted segments: written once, corrected by points, never lost."""

import numpy as np
import pytest

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.panel import State
from Testing.presenter.fakes import BONE, OTHER_BONE, SHAPE, Desk, FakeSource, FakeStore, beside, inside


@pytest.fixture
def accepted(desk):
    """One accepted bone, "Bone 1", active."""
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.accept()
    return desk


def test_accept_writes_the_shown_mask_and_clears_the_prompts(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    mask = desk.view.mask
    desk.presenter.accept("Femur")
    assert desk.contents() == {"Femur": mask}
    assert desk.panel.box is None
    assert desk.view.mask is None
    assert desk.panel.active_segment == "segment1"
    assert desk.panel.segments[0].name == "Femur"


def test_points_after_accept_correct_the_accepted_segment(accepted):
    accepted.presenter.add_point(beside(3, 3, 3))
    assert accepted.panel.correcting
    accepted.run()
    assert accepted.segmenter.asked[-1][2].mask.sum() == 125  # the segment's own mask
    corrected = accepted.view.mask
    assert accepted.contents()["Bone 1"] != corrected  # not before Accept
    accepted.presenter.add_point(inside(10, 9, 7))
    accepted.run()
    accepted.presenter.accept()
    assert accepted.contents()["Bone 1"].to_array().sum() == 125 - 27 + 27
    assert len(accepted.panel.segments) == 1


def test_undo_of_a_correction_leads_back_to_the_segment(accepted):
    before = accepted.state
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.run()
    accepted.presenter.undo()
    assert accepted.state == before
    accepted.presenter.redo()
    assert accepted.panel.correcting
    accepted.presenter.accept()
    assert accepted.contents()["Bone 1"].to_array().sum() == 125 - 27


def test_a_box_after_accept_is_the_next_bone(accepted):
    accepted.presenter.set_box(OTHER_BONE)
    accepted.run()
    assert accepted.panel.active_segment is None
    accepted.presenter.accept()
    assert [mask.to_array().sum() for mask in accepted.contents().values()] == [125, 100]
    assert list(accepted.contents()) == ["Bone 1", "Bone 2"]


def test_next_bone_accepts_and_begins_a_new_one(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.next_bone()
    assert desk.panel.active_segment is None
    desk.presenter.add_point(inside(10, 9, 7))
    desk.run()
    desk.presenter.next_bone()
    assert [mask.to_array().sum() for mask in desk.contents().values()] == [125, 27]


def test_an_added_empty_segment_takes_the_next_bone(desk):
    desk.presenter.add_segment("Tibia")
    desk.presenter.set_box(BONE)
    desk.run()
    assert not desk.panel.correcting
    desk.presenter.accept("ignored")
    assert list(desk.contents()) == ["Tibia"]
    assert desk.contents()["Tibia"].to_array().sum() == 125


def test_names_are_free_ones(desk):
    desk.presenter.add_segment()
    desk.presenter.add_segment()
    desk.presenter.remove_segment("segment1")
    desk.presenter.add_segment(" Hip ")
    desk.presenter.add_segment()
    assert [entry.name for entry in desk.panel.segments] == ["Bone 2", "Hip", "Bone 1"]


def test_the_table(accepted):
    presenter = accepted.presenter
    presenter.rename_segment("segment1", " Femur ")
    presenter.recolor_segment("segment1", (0.0, 1.0, 0.0))
    presenter.show_segment("segment1", False)
    (entry,) = accepted.panel.segments
    assert (entry.name, entry.color, entry.visible) == ("Femur", (0.0, 1.0, 0.0), False)
    presenter.rename_segment("segment1", "  ")
    assert accepted.view.texts == ["A segment needs a name."]
    presenter.select_segment(None)
    assert accepted.panel.active_segment is None
    presenter.select_segment("segment1")
    assert accepted.panel.active_segment == "segment1"
    for call in (presenter.select_segment, presenter.remove_segment):
        call("no such segment")
    presenter.rename_segment("no such segment", "x")
    presenter.recolor_segment("no such segment", (0, 0, 0))
    presenter.show_segment("no such segment", True)
    presenter.remove_segment("segment1")
    assert accepted.panel.segments == ()
    assert accepted.panel.active_segment is None
    assert len(accepted.view.messages) == 1


@pytest.mark.parametrize("fault", ["read_only", "fail_on_write"])
@pytest.mark.parametrize("button", ["accept", "next_bone"])
def test_a_store_that_refuses_leaves_the_unaccepted_mask(accepted, fault, button):
    accepted.presenter.set_box(OTHER_BONE)
    accepted.run()
    before = accepted.panel, accepted.state, accepted.contents()
    setattr(accepted.store, fault, True)
    getattr(accepted.presenter, button)()
    assert (accepted.panel, accepted.state, accepted.contents()) == before
    assert len(accepted.view.messages) == 1
    setattr(accepted.store, fault, False)
    getattr(accepted.presenter, button)()
    assert len(accepted.contents()) == 2


def test_a_refused_correction_leaves_the_segment(accepted):
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.run()
    before = accepted.panel, accepted.state, accepted.contents()
    accepted.store.read_only = True
    accepted.presenter.accept()
    assert (accepted.panel, accepted.state, accepted.contents()) == before
    assert len(accepted.view.messages) == 1


# ------------------------------------------------------------------------------------------------ all bones


def test_all_bones_are_shown_and_accepted_as_one_segment_each(accepted):
    accepted.presenter.segment_all()
    accepted.run()
    assert accepted.panel.bone_count == 3
    assert accepted.view.texts == ["3 bones were found. Accept makes one segment of each."]
    assert len(accepted.contents()) == 1
    accepted.presenter.accept("ignored")
    assert list(accepted.contents()) == ["Bone 1", "Bone 2", "Bone 3", "Bone 4"]
    masks = [mask.to_array() for mask in accepted.contents().values()]
    assert [mask.sum() for mask in masks] == [125, 240, 240, 240]
    assert masks[2][:, :, 3:5].all()


def test_all_bones_can_be_undone_before_accept(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    before = desk.state
    desk.presenter.segment_all()
    desk.run()
    desk.presenter.undo()
    assert desk.state == before
    desk.presenter.redo()
    assert desk.panel.bone_count == 3
    desk.presenter.add_point(inside(9, 9, 7))  # begins a bone of its own
    desk.run()
    assert desk.view.mask.to_array().sum() == 27


def test_all_bones_finds_none(desk):
    desk.segmenter.bones = 0
    before = desk.panel
    desk.presenter.segment_all()
    desk.run()
    assert desk.panel == before
    assert desk.view.texts == ["No bone was found in this volume."]


def test_a_disk_that_is_full_leaves_none_of_all_bones(accepted):
    accepted.presenter.segment_all()
    accepted.run()
    before = accepted.contents(), accepted.view.mask
    accepted.store.fail_on_write = True
    accepted.presenter.accept()
    assert (accepted.contents(), accepted.view.mask) == before


# --------------------------------------------------------------------------- what happens outside the panel


def test_a_segment_removed_by_others_takes_its_correction_along(accepted):
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.store.remove("segment1")
    accepted.run()
    assert accepted.panel.state == State.READY
    assert accepted.panel.active_segment is None
    assert accepted.view.messages == []


def test_a_segment_removed_by_others_leaves_a_new_bone(accepted):
    accepted.presenter.set_box(OTHER_BONE)
    accepted.run()
    accepted.store.remove("segment1")
    accepted.presenter.undo()
    accepted.presenter.redo()
    accepted.presenter.accept()
    assert [mask.to_array().sum() for mask in accepted.contents().values()] == [100]


def test_an_empty_segment_removed_by_others_leaves_the_bone_drawn_for_it(desk):
    desk.presenter.add_segment("Femur")
    desk.presenter.set_box(BONE)
    desk.store.remove("segment1")
    desk.run()
    desk.presenter.accept()
    assert list(desk.contents()) == ["Bone 1"]


def edit_by_hand(desk, identifier):
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, :5] = True
    desk.store.masks[identifier] = CroppedMask.from_array(mask)
    desk.presenter.segment_edited(identifier)
    return desk.store.masks[identifier]


def test_editing_by_hand_is_not_overwritten_by_an_older_correction(accepted):
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.runner.work()
    mask = edit_by_hand(accepted, "segment1")
    accepted.run()
    assert accepted.panel.state == State.READY
    assert accepted.view.messages[0].kind == "info"
    accepted.presenter.add_point(inside(9, 9, 9))
    accepted.run()
    assert np.array_equal(accepted.segmenter.asked[-1][2], mask.to_array())


def test_editing_by_hand_is_not_overwritten_through_undo(accepted):
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.run()
    accepted.presenter.cancel()
    accepted.presenter.set_box(OTHER_BONE)  # running
    edit_by_hand(accepted, "segment1")
    accepted.run()
    accepted.presenter.undo()
    assert not accepted.panel.correcting
    assert accepted.view.mask.to_array().sum() == 100  # and the new bone is there


def test_cancel_after_editing_by_hand(accepted):
    accepted.presenter.set_box(OTHER_BONE)
    edit_by_hand(accepted, "segment1")
    accepted.presenter.cancel()
    assert accepted.panel.state == State.DRAWING
    accepted.presenter.undo()
    accepted.presenter.redo()


def test_an_empty_segment_painted_by_hand_is_not_overwritten(desk):
    desk.presenter.add_segment("Femur")
    desk.presenter.set_box(BONE)
    desk.run()
    mask = edit_by_hand(desk, "segment1")
    desk.presenter.accept()
    assert desk.contents()["Femur"] == mask
    assert len(desk.contents()) == 2


def test_another_segmentation_takes_an_unfinished_new_bone_but_no_correction(accepted):
    other = FakeStore()
    accepted.presenter.set_box(OTHER_BONE)
    accepted.run()
    accepted.presenter.choose_store(other)
    accepted.presenter.accept()
    assert len(accepted.store.masks) == len(other.masks) == 1
    accepted.presenter.add_point(beside(10, 9, 5))
    accepted.presenter.choose_store(accepted.store)
    accepted.run()
    assert accepted.panel.state == State.READY
    assert accepted.view.mask is None


# ------------------------------------------------------------------------------------------- the volume


def test_a_modified_volume_stops_the_job_and_drops_the_embeddings(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.add_point(beside(3, 3, 3))
    desk.runner.work()
    desk.source.change()
    desk.presenter.volume_modified()
    desk.run()
    assert desk.panel.state == State.PREVIEW
    assert len(desk.view.messages) == 1
    desk.presenter.segment()
    desk.run()
    assert len(desk.segmenter.opened) == 2
    assert desk.segmenter.asked[-1][2] is None
    assert desk.view.mask.to_array().sum() == 125 - 27


def test_a_modified_volume_is_noticed_without_being_told(desk):
    desk.presenter.set_box(BONE)
    desk.runner.work()
    desk.source.change()
    desk.run()
    assert desk.view.mask is None  # the late answer is of the old volume
    desk.source.change()
    desk.presenter.segment()
    desk.run()
    assert desk.view.mask.to_array().sum() == 125
    assert len(desk.segmenter.opened) == 2


def test_a_volume_that_moved_drops_the_unfinished_bone_only(accepted):
    accepted.presenter.set_box(OTHER_BONE)
    accepted.run()
    accepted.source.change(offset=3.0)
    accepted.presenter.accept()
    assert accepted.panel.state == State.READY
    assert len(accepted.contents()) == 1
    assert len(accepted.view.messages) == 1


def test_a_volume_that_can_no_longer_be_segmented(accepted):
    accepted.presenter.set_box(OTHER_BONE)
    accepted.source.change(error="The volume is under a non-linear transform: harden it first.")
    accepted.presenter.volume_modified()
    accepted.run()
    assert accepted.panel.state == State.NO_VOLUME
    assert accepted.view.texts == ["The volume is under a non-linear transform: harden it first."]
    assert len(accepted.contents()) == 1


def test_a_removed_volume(accepted):
    accepted.set(second_volume="volume")
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.runner.work()
    accepted.presenter.volume_removed("another")
    accepted.presenter.volume_removed("volume")
    accepted.run()
    assert accepted.panel.state == State.NO_VOLUME
    assert accepted.panel.settings.second_volume == ""
    assert accepted.contents()["Bone 1"].to_array().sum() == 125
    assert len(accepted.view.messages) == 1


def test_another_volume_while_running(accepted):
    accepted.presenter.set_box(OTHER_BONE)
    accepted.runner.work()
    accepted.presenter.choose_volume(FakeSource("other", shape=(4, 5, 6)))
    accepted.run()
    assert accepted.panel.volume_name == "other"
    assert accepted.view.mask is None
    assert len(accepted.contents()) == 1
    accepted.presenter.add_point(inside(1, 1, 1))
    accepted.run()
    assert accepted.view.mask.shape == (4, 5, 6)


def test_the_same_volume_again_changes_nothing(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    before = desk.panel, desk.state
    desk.presenter.choose_volume(FakeSource())
    assert (desk.panel, desk.state) == before
    changed = FakeSource()
    changed.change()
    desk.presenter.choose_volume(changed)
    assert desk.state == before[1]


def test_a_volume_chosen_while_weights_load_does_not_stop_them():
    desk = Desk()
    desk.set(weights="mine")
    desk.open()
    desk.run()
    assert desk.panel.settings.weights == "mine"


def test_after_closing_nothing_reaches_the_view(desk):
    desk.presenter.set_box(BONE)
    desk.runner.work()
    told = len(desk.view.panels), len(desk.view.masks), len(desk.view.messages)
    desk.presenter.close()
    desk.presenter.close()
    desk.run()
    desk.presenter.accept()
    desk.presenter.volume_removed("volume")
    assert (len(desk.view.panels), len(desk.view.masks), len(desk.view.messages)) == told
    assert desk.runner.closed


def test_a_segment_that_lies_elsewhere_is_not_replaced(accepted):
    """After another volume was chosen, or this one moved: the mask of "Bone 1" is empty on it."""
    whole = accepted.contents()["Bone 1"]
    accepted.store.masks["segment1"] = CroppedMask.from_array(np.zeros(SHAPE, bool))
    accepted.store.elsewhere.add("segment1")
    accepted.presenter.set_box(OTHER_BONE)
    accepted.run()
    accepted.presenter.accept("Another")
    assert [entry.name for entry in accepted.panel.segments] == ["Bone 1", "Another"]
    assert accepted.store.masks["segment1"].is_empty  # nothing was written to it
    assert not whole.is_empty


def test_a_correction_is_written_with_what_it_began_from(accepted, monkeypatch):
    written = []
    write = accepted.store.write
    monkeypatch.setattr(
        accepted.store, "write", lambda mask, *rest: written.append((mask, rest[-1])) or write(mask, *rest)
    )
    before = accepted.contents()["Bone 1"]
    accepted.presenter.add_point(beside(3, 3, 3))
    accepted.run()
    accepted.presenter.accept()
    assert written == [(accepted.contents()["Bone 1"], before)]
