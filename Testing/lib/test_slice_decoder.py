"""Asking the network about nothing."""

import numpy as np

from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from Testing.lib.fake_engine import FakeEngine


def test_a_click_far_from_the_bone_changes_nothing():
    array = np.zeros((120, 24, 24), np.float32)
    array[4:12, 6:18, 6:18] = 1
    session = Session(Volume(array, np.diag([1.0, 1.0, 2.0, 1.0])), FakeEngine())
    first = session.segment(box=Box.from_ijk((4, 4, 2), (19, 19, 13)))
    assert first.mask.any()
    far = Point.from_ijk((12, 12, 110), positive=False)
    second = session.segment(points=[far], mask=first)
    assert np.array_equal(second.mask, first.mask)
    assert second.points == (far,)
