"""The presenter with the real session, on an engine that finds what is bright."""

import numpy as np

from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from Testing.lib.fake_engine import FakeEngine
from Testing.lib.hand_built_naming import HandBuiltNaming
from Testing.presenter.fakes import Desk, FakeBundle, FakeSource

SHAPE = (20, 40, 40)
BOX = Box.from_ijk((6, 6, 4), (24, 24, 14))
CLICKS = (Point.from_ijk((15, 15, 9), positive=False), Point.from_ijk((33, 33, 10)))


class Source(FakeSource):
    def read(self):
        array = np.full(SHAPE, -1000, np.int16)
        array[5:14, 8:22, 8:22] = 1000
        return Volume(array, np.eye(4), modality="CT")


class BrightSegmenter:
    bundle = FakeBundle("bright", {})

    def open(self, volume, others=(), fusion="average"):
        return Session(volume, FakeEngine(), others, fusion, HandBuiltNaming())


def test_the_presenter_gives_what_the_session_gives():
    desk = Desk()
    desk.presenter._cache._open = lambda device, weights: BrightSegmenter()
    source = Source()
    desk.presenter.choose_volume(source)
    session = BrightSegmenter().open(source.read())
    expected = [session.segment(box=BOX)]
    desk.presenter.set_box(BOX)
    desk.run()
    for n in range(len(CLICKS)):
        expected.append(session.segment(box=BOX, points=CLICKS[: n + 1], mask=expected[-1]))
        desk.presenter.add_point(CLICKS[n])
        desk.run()
    masks = [result.mask for result in expected]
    assert [int(mask.sum()) > 0 for mask in masks] == [True] * 3
    assert not np.array_equal(masks[0], masks[1])
    for mask in masks[::-1]:
        assert np.array_equal(desk.view.mask.to_array(), mask)
        desk.presenter.undo()
    desk.presenter.redo()
    assert desk.panel.confidence == expected[0].confidence
    assert [place.index for place in desk.panel.review] == expected[0].review
    # After undo, the same click corrects the same result again.
    desk.presenter.add_point(CLICKS[0])
    desk.run()
    assert np.array_equal(desk.view.mask.to_array(), masks[1])
    desk.presenter.accept()
    desk.presenter.add_point(CLICKS[1])
    desk.run()
    corrected = session.segment(points=CLICKS, mask=expected[1])
    assert np.array_equal(desk.view.mask.to_array(), corrected.mask)
    desk.presenter.cancel()
    desk.presenter.segment_all()
    desk.run()
    assert desk.panel.bone_count == session.segment_all().count > 0
    assert desk.view.messages == []
