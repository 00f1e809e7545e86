"""An accepted segment is corrected from the network's own answer, as long as that is what is stored."""

from dataclasses import replace

import numpy as np
import pytest

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.postprocess import smooth
from BoneSAMLib.prompts import Box
from BoneSAMLib.session_cache import SessionCache, VolumeKey
from Testing.lib.fake_engine import FakeEngine
from Testing.presenter.fakes import (
    BONE,
    OTHER_BONE,
    Desk,
    FakeBundle,
    FakeResult,
    FakeSegmenter,
    FakeSource,
    beside,
    inside,
)
from Testing.presenter.test_real_session import BOX, CLICKS, BrightSegmenter, Source

CLICK = beside(3, 3, 3)


def accept_bone(desk, box=BONE):
    desk.presenter.set_box(box)
    desk.run()
    desk.presenter.add_point(inside(11, 3, 3))
    desk.run()
    desk.presenter.accept()
    return desk


@pytest.fixture
def accepted(desk):
    return accept_bone(desk)


def click(desk, point=CLICK):
    """What the network was asked to go on from."""
    asked = len(desk.segmenter.asked)
    desk.presenter.add_point(point)
    desk.run()
    assert len(desk.segmenter.asked) == asked + 1
    return desk.segmenter.asked[-1][2]


def stored(desk, identifier="segment1"):
    return desk.store.masks[identifier].to_array()


def starts_from_the_stored_mask(desk, identifier="segment1"):
    before = stored(desk, identifier)
    start = click(desk)
    assert isinstance(start, np.ndarray)
    assert np.array_equal(start, before)
    return True


# --------------------------------------------------------------------------------- the stored mask is known


def test_a_correction_goes_on_from_the_accepted_result_with_its_points(accepted):
    before = stored(accepted)
    start = click(accepted)
    assert isinstance(start, FakeResult)
    assert start.points == (inside(11, 3, 3),)
    assert np.array_equal(start.mask, before)
    assert accepted.segmenter.asked[-1][1] == (inside(11, 3, 3), CLICK)
    assert accepted.panel.points == (CLICK,)
    second = click(accepted, inside(7, 9, 7))
    assert second.points == (inside(11, 3, 3), CLICK)
    assert accepted.segmenter.asked[-1][1] == (inside(11, 3, 3), CLICK, inside(7, 9, 7))


def test_every_accepted_correction_can_be_corrected_in_turn(accepted):
    click(accepted)
    accepted.presenter.accept()
    start = click(accepted, inside(7, 9, 7))
    assert start.points == (inside(11, 3, 3), CLICK)
    assert np.array_equal(start.mask, stored(accepted))


def test_a_click_on_the_place_of_an_accepted_one_replaces_it(accepted):
    start = click(accepted, beside(11, 3, 3))
    assert start.points == ()
    assert accepted.segmenter.asked[-1][1] == (beside(11, 3, 3),)
    assert not accepted.view.mask.to_array()[3, 3, 11]
    click(accepted, inside(7, 9, 7))
    assert accepted.segmenter.asked[-1][1] == (beside(11, 3, 3), inside(7, 9, 7))


def test_a_removed_point_leaves_the_accepted_result_to_go_on_from(accepted):
    before = stored(accepted)
    click(accepted)
    click(accepted, inside(7, 9, 7))
    accepted.presenter.remove_point(0)
    accepted.run()
    start = accepted.segmenter.asked[-1][2]
    assert start.points == (inside(11, 3, 3),)
    assert np.array_equal(start.mask, before)


def test_clicks_correct_what_was_accepted_last_and_before_that(accepted):
    accepted.presenter.next_bone()
    accept_bone(accepted, OTHER_BONE)
    accepted.presenter.select_segment("segment1")
    assert isinstance(click(accepted), FakeResult)
    accepted.presenter.cancel()
    accepted.presenter.select_segment("segment2")
    assert isinstance(click(accepted), FakeResult)


def test_accept_and_a_click_encode_nothing_and_give_what_the_click_alone_gives():
    desks = []
    for accept in (False, True):
        segmenter, engine = BrightSegmenter(), FakeEngine()
        segmenter.open = lambda volume, *_, engine=engine: type(BrightSegmenter().open(volume))(
            volume, engine
        )
        desk = Desk()
        desk.presenter._cache._open = lambda device, weights, segmenter=segmenter: segmenter
        desk.presenter.choose_volume(Source())
        desk.presenter.set_box(BOX)
        desk.presenter.add_point(CLICKS[0])
        desk.run()
        encoded, attended = len(engine.encoded), engine.attended
        if accept:
            desk.presenter.accept()
        desk.presenter.add_point(beside(12, 12, 7))
        desk.run()
        assert (len(engine.encoded), engine.attended) == (encoded, attended)
        desks.append(desk)
    assert desks[1].panel.correcting
    assert desks[0].view.mask == desks[1].view.mask
    assert desks[0].view.mask != desks[1].store.masks["segment1"]


# ----------------------------------------------------------------------------------------- or it is not


def test_a_segment_edited_by_hand(accepted):
    array = stored(accepted)
    array[0, 0, :5] = True
    accepted.store.masks["segment1"] = CroppedMask.from_array(array)
    accepted.presenter.segment_edited("segment1")
    assert starts_from_the_stored_mask(accepted)


def test_a_segment_changed_without_a_word(accepted):
    array = stored(accepted)
    array[4] = False
    accepted.store.masks["segment1"] = CroppedMask.from_array(array)
    assert starts_from_the_stored_mask(accepted)


def test_an_accept_that_was_undone_in_the_segmentation(accepted):
    first = accepted.store.masks["segment1"]
    accepted.presenter.cancel()
    click(accepted)
    accepted.presenter.accept()
    accepted.store.masks["segment1"] = first
    accepted.presenter.segment_edited("segment1")
    start = click(accepted)
    assert np.array_equal(start.mask, first.to_array())  # the answer that gave the first mask, not the second
    assert start.points == (inside(11, 3, 3),)


def test_a_store_that_masks_what_is_written(desk):
    write = desk.store.write

    def masked(mask, identifier, source):
        array = mask.to_array()
        array[3] = False
        write(CroppedMask.from_array(array), identifier, source)

    desk.store.write = masked
    accept_bone(desk)
    assert starts_from_the_stored_mask(desk)


def test_a_removed_segment(accepted):
    accepted.presenter.remove_segment("segment1")
    asked = len(accepted.segmenter.asked)
    accepted.presenter.add_point(inside(4, 4, 4))
    accepted.run()
    assert accepted.segmenter.asked[asked:] == [(None, (inside(4, 4, 4),), None, True)]


@pytest.mark.parametrize("event", ["change", "move", "other"])
def test_another_state_of_the_volume_or_another_volume(accepted, event):
    if event == "other":
        accepted.presenter.choose_volume(FakeSource("other"))
        accepted.presenter.choose_volume(FakeSource())
        accepted.presenter.select_segment("segment1")
    else:
        accepted.source.change(offset=0.25 if event == "move" else None)
    assert starts_from_the_stored_mask(accepted)
    assert len(accepted.segmenter.opened) >= 2


@pytest.mark.parametrize("how", ["chosen", "reloaded", "unnoticed", "with the scene"])
def test_other_weights(accepted, how):
    accepted.segmenter.bundle = FakeBundle("two", {})
    if how == "chosen":
        accepted.set(weights="mine")
    elif how == "reloaded":
        accepted.presenter.choose_weights("")
    elif how == "with the scene":
        accepted.settings_store.values = replace(accepted.presenter.settings, weights="mine").to_strings()
        accepted.presenter.reload_settings()
    accepted.run()
    assert starts_from_the_stored_mask(accepted)
    assert len(accepted.segmenter.opened) == 2


def test_with_and_without_depth_attention(accepted):
    accepted.set(depth_attention=False)
    assert starts_from_the_stored_mask(accepted)


def test_parts_that_post_processing_took_away_do_not_come_back(desk):
    desk.set(keep_inside=True)
    accept_bone(desk)  # the point lies outside of the box
    assert not stored(desk)[3, 3, 11]
    assert starts_from_the_stored_mask(desk)
    assert not desk.view.mask.to_array()[3, 3, 11]


def test_post_processing_that_took_nothing_away_is_no_hindrance(desk):
    desk.set(keep_inside=True, remove_small_islands=True)
    desk.presenter.set_box(BONE)
    desk.run()
    desk.presenter.accept()
    assert isinstance(click(desk), FakeResult)


def test_a_smoothed_segment_is_not_smoothed_twice(desk):
    desk.set(smoothing_mm=2.0)
    accept_bone(desk)
    before = stored(desk)
    start = click(desk, inside(12, 10, 8))
    assert isinstance(start, FakeResult)
    assert not np.array_equal(start.mask, before)
    answer = start.mask.copy()
    answer[7:10, 9:12, 11:14] = True
    once = smooth(CroppedMask.from_array(answer), desk.presenter.volume, 2.0)
    assert desk.view.mask == once != smooth(once, desk.presenter.volume, 2.0)
    desk.presenter.cancel()
    desk.set(smoothing_mm=0.0)  # it would be smooth no longer
    assert starts_from_the_stored_mask(desk)


def test_all_bones_at_once(desk):
    desk.presenter.segment_all()
    desk.run()
    desk.presenter.accept()
    desk.presenter.select_segment("segment2")
    assert starts_from_the_stored_mask(desk, "segment2")


# ------------------------------------------------------------------------------------------ memory


def test_only_a_few_results_are_kept_and_none_without_their_session(desk):
    for n in range(6):
        desk.presenter.set_box(Box.from_ijk((n, 2, 2), (n + 4, 6, 6)))
        desk.run()
        desk.presenter.next_bone()
    cache = desk.presenter._cache
    assert len(cache._accepted) == 3
    assert all(outcome.result.mask.base.size == 1 for outcome in cache._accepted)
    desk.presenter.select_segment("segment1")
    assert starts_from_the_stored_mask(desk)
    desk.presenter.choose_volume(None)
    assert not cache._accepted


def test_what_another_session_answered_is_not_used(accepted):
    """A script's progress may segment something else meanwhile, so that the answer comes to a new session."""
    (outcome,) = accepted.presenter._cache._accepted
    cache = SessionCache(FakeSegmenter().load)
    source = FakeSource()
    session = cache.session(VolumeKey("volume", 1), source.read(), "auto", "")
    cache.keep(outcome)
    assert cache.accepted(outcome.mask, session) is None
