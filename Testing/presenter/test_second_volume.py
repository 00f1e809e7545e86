"""Another sequence of the study, which the network looks at as well."""

import pytest

from BoneSAMLib.panel import Action, State
from Testing.presenter.fakes import BONE, Desk, FakeSource, inside


@pytest.fixture
def desk():
    made = Desk().open()
    made.others |= {"second": FakeSource("second"), "third": FakeSource("third")}
    return made


def names(desk):
    """What the last session looks at."""
    return [volume.name for volume in (desk.segmenter.opened[-1], *desk.segmenter.others[-1])]


def test_the_network_looks_at_both(desk):
    desk.set(second_volume="second", fusion="maximum")
    desk.presenter.set_box(BONE)
    desk.run()
    assert names(desk) == ["volume", "second"]
    assert desk.segmenter.fusions == ["maximum"]
    assert desk.panel.state is State.PREVIEW
    desk.presenter.add_point(inside(8, 8, 8))
    desk.run()
    assert len(desk.segmenter.opened) == 1  # the same session


def test_the_mask_follows_the_choice(desk):
    desk.presenter.set_box(BONE)
    desk.run()
    assert names(desk) == ["volume"]
    desk.set(fusion="maximum")
    assert desk.panel.work is None  # there is nothing to fuse
    for choice, fusion, expected in (
        ("second", "maximum", ["volume", "second"]),
        ("third", "maximum", ["volume", "third"]),
        ("third", "average", ["volume", "third"]),
        ("", "average", ["volume"]),
    ):
        desk.set(second_volume=choice, fusion=fusion)
        assert desk.panel.state is State.RUNNING
        desk.run()
        assert names(desk) == expected
        assert desk.segmenter.fusions[-1] == fusion
        # From its beginning: what one network answered is not corrected by another.
        assert desk.segmenter.asked[-1][2] is None


def test_on_demand_it_waits_for_segment():
    desk = Desk(live=False).open()
    desk.others["second"] = FakeSource("second")
    desk.presenter.set_box(BONE)
    desk.presenter.segment()
    desk.run()
    assert Action.SEGMENT not in desk.panel.enabled
    desk.set(second_volume="second")
    assert Action.SEGMENT in desk.panel.enabled
    desk.presenter.segment()
    desk.run()
    assert names(desk) == ["volume", "second"]


def test_all_bones_look_at_both(desk):
    desk.set(second_volume="second")
    desk.presenter.segment_all()
    desk.run()
    assert names(desk) == ["volume", "second"]


def test_embeddings_of_an_earlier_state_are_not_used(desk):
    desk.set(second_volume="second")
    desk.presenter.set_box(BONE)
    desk.run()
    desk.others["second"].change()
    desk.presenter.add_point(inside(8, 8, 8))
    desk.run()
    assert len(desk.segmenter.opened) == 2
    assert names(desk) == ["volume", "second"]
    assert desk.view.mask is not None


def test_changed_while_it_runs(desk):
    desk.set(second_volume="second")
    desk.presenter.set_box(BONE)
    desk.runner.work()
    desk.others["second"].change()
    desk.view.pump()
    assert desk.view.texts == ["The other sequence was changed meanwhile: segment the bone again."]
    assert desk.panel.state is State.DRAWING
    desk.presenter.segment()
    desk.run()
    assert desk.panel.state is State.PREVIEW


@pytest.mark.parametrize("running", [False, True])
def test_removed(desk, running):
    desk.set(second_volume="second")
    desk.presenter.set_box(BONE)
    if not running:
        desk.run()
    desk.others.clear()
    desk.presenter.volume_removed("second")
    assert desk.panel.settings.second_volume == ""
    desk.run()
    assert names(desk) == ["volume"]
    assert desk.panel.state is State.PREVIEW
    assert desk.view.texts == []


def test_one_that_cannot_be_used_is_refused_and_the_former_stays(desk):
    desk.set(second_volume="second")
    desk.others["far"] = FakeSource("far")
    desk.others["far"].change(offset=500.0)
    desk.others["color"] = FakeSource("color", error="'color' is a color image.")
    desk.others["volume"] = desk.source
    for identifier, words in (
        ("far", "do not overlap"),
        ("color", "color image"),
        ("volume", "volume itself"),
    ):
        desk.view.messages.clear()
        desk.set(second_volume=identifier)
        (text,) = desk.view.texts
        assert words in text
        assert desk.panel.settings.second_volume == "second"
    desk.presenter.set_box(BONE)
    desk.run()
    assert names(desk) == ["volume", "second"]


def test_one_that_moved_away_is_said_when_it_is_needed(desk):
    desk.set(second_volume="second")
    desk.others["second"].change(offset=500.0)
    desk.presenter.set_box(BONE)
    desk.run()
    (text,) = desk.view.texts
    assert "do not overlap" in text
    assert desk.panel.state is State.READY
    desk.set(second_volume="")
    desk.presenter.set_box(BONE)
    desk.run()
    assert desk.panel.state is State.PREVIEW


def test_a_volume_that_it_does_not_suit_is_used_alone(desk):
    desk.set(second_volume="second")
    elsewhere = FakeSource("elsewhere")
    elsewhere.change(offset=500.0)
    desk.presenter.choose_volume(elsewhere)
    (text,) = desk.view.texts
    assert "do not overlap" in text
    assert desk.panel.volume_name == "elsewhere"
    assert desk.panel.settings.second_volume == ""


def test_the_second_becomes_the_volume(desk):
    desk.set(second_volume="second")
    desk.presenter.choose_volume(desk.others["second"])
    assert desk.view.texts == []
    assert desk.panel.settings.second_volume == ""
    desk.presenter.set_box(BONE)
    desk.run()
    assert names(desk) == ["second"]


def test_one_that_a_scene_brings_is_used(desk):
    desk.settings_store.values = desk.settings_store.values | {"second_volume": "second"}
    desk.presenter.reload_settings()
    desk.presenter.set_box(BONE)
    desk.run()
    assert names(desk) == ["volume", "second"]


def test_one_that_is_nowhere_is_not_missed(desk):
    desk.set(second_volume="gone")
    desk.presenter.set_box(BONE)
    desk.run()
    assert names(desk) == ["volume"]
    assert desk.view.texts == []
