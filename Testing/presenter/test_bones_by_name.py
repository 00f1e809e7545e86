"""Bones that are looked for by name: prompts, several at once, missing ones, errors."""

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.panel import Action
from Testing.presenter.fakes import BONE, OTHER_BONE, beside
from Testing.presenter.test_prompts_to_mask import shown, voxels


def ask(desk, text):
    desk.presenter.segment_text(text)
    return desk.run()


def names(desk):
    return [entry.name for entry in desk.panel.segments]


def test_one_bone_is_as_if_its_box_had_been_drawn(desk):
    ask(desk, " left femur ")
    assert desk.panel.box == BONE
    assert (shown(desk) == voxels(BONE)).all()
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    box, points, mask, _ = desk.segmenter.asked[-1]
    assert (box, points) == (BONE, (beside(3, 3, 3),))
    assert mask is not None
    assert shown(desk).sum() == 125 - 27
    desk.presenter.undo()
    assert (shown(desk) == voxels(BONE)).all()
    desk.presenter.undo()
    assert desk.panel.box is None
    assert desk.view.mask is None
    assert desk.view.messages == []


def test_the_network_is_told_the_name_of_the_bone(desk):
    ask(desk, "left femur")
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    desk.presenter.accept()
    assert desk.segmenter.called == ["left femur", "left femur"]
    desk.presenter.add_segment("sacrum")
    desk.presenter.set_box(OTHER_BONE)
    desk.run()
    assert desk.segmenter.called[2:] == ["sacrum"]
    desk.presenter.accept()
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    assert desk.segmenter.called[3:] == ["sacrum"]


def test_a_bone_keeps_its_name_while_it_is_corrected(desk):
    ask(desk, "left femur")
    desk.presenter.add_point(beside(3, 3, 3))
    desk.run()
    desk.set(remove_small_islands=not desk.presenter.settings.remove_small_islands)
    desk.run()
    desk.presenter.accept()
    assert names(desk) == ["left femur"]


def test_another_box_is_another_bone(desk):
    ask(desk, "left femur")
    desk.presenter.set_box(OTHER_BONE)
    desk.run()
    desk.presenter.accept()
    assert names(desk) == ["Bone 1"]


def test_a_box_that_was_drawn_before_does_not_cut_the_bone(desk):
    desk.set(keep_inside=True)
    desk.presenter.set_box(OTHER_BONE)
    desk.run()
    ask(desk, "left femur")
    assert (shown(desk) == voxels(BONE)).all()


def test_several_bones_become_a_segment_each(desk):
    ask(desk, "left femur and right femur")
    assert desk.panel.box is None
    assert desk.panel.bone_count == 2
    assert (shown(desk) == voxels(BONE) | voxels(OTHER_BONE)).all()
    assert len(desk.view.texts) == 1
    assert desk.view.texts[0].startswith("2 bones")
    desk.presenter.accept()
    assert names(desk) == ["left femur", "right femur"]
    contents = desk.contents()
    assert (contents["left femur"].to_array() == voxels(BONE)).all()
    assert (contents["right femur"].to_array() == voxels(OTHER_BONE)).all()


def test_bones_that_overlap_share_no_voxel(desk):
    desk.segmenter.shown["right femur"] = BONE.__class__.from_ijk((4, 2, 2), (9, 6, 6))
    ask(desk, "left femur and right femur")
    desk.presenter.accept()
    masks = [mask.to_array() for mask in desk.contents().values()]
    assert len(masks) == 2
    assert not (masks[0] & masks[1]).any()


def test_missing_bones_are_told(desk):
    ask(desk, "left femur and sacrum and left tibia")
    assert desk.panel.box == BONE
    (text,) = desk.view.texts
    assert "sacrum, left tibia" in text
    assert "femur" not in text


def test_nothing_found_is_told_once_and_changes_nothing(desk):
    desk.presenter.set_box(OTHER_BONE)
    desk.run()
    before = desk.panel, desk.state
    ask(desk, "sacrum")
    assert (desk.panel, desk.state) == before
    assert [message.kind for message in desk.view.messages] == ["error"]
    assert "does not show the sacrum" in desk.view.texts[0]


def test_a_failing_job_is_told_once_and_changes_nothing(desk):
    before = desk.panel, desk.state
    desk.segmenter.error = BoneSAMError("The disk is full.")
    ask(desk, "left femur and right femur")
    assert (desk.panel, desk.state) == before
    assert desk.view.texts == ["The disk is full."]


def test_cancel(desk):
    before = desk.panel
    desk.presenter.segment_text("left femur")
    desk.runner.work()
    assert Action.CANCEL in desk.panel.enabled
    desk.presenter.cancel()
    desk.run()
    assert desk.panel == before
    assert desk.view.mask is None


def test_all_bones_have_the_names_that_are_known(desk):
    desk.segmenter.names = {1: "left femur", 3: "sacrum"}
    desk.presenter.segment_all()
    desk.run()
    desk.presenter.accept()
    assert names(desk)[::2] == ["left femur", "sacrum"]
    assert names(desk)[1].startswith("Bone")


def test_missing_bones_are_told_with_those_that_were_found(desk):
    """In one sentence: a second one would take the place of the first before anybody read it."""
    ask(desk, "left femur and right femur and sacrum")
    (text,) = desk.view.texts
    assert "2 bones were found, but not the sacrum." in text
