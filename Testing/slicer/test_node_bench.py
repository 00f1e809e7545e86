"""The bench of the panel's speed goes the panel's way, and says when a target was missed."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

from BoneSAMLib import Box, Point, Volume
from Testing.presenter.fakes import FakeSegmenter


@pytest.fixture
def bench(monkeypatch):
    from Testing.bench import slicer_bench

    monkeypatch.setattr(slicer_bench, "ROUNDS", 2)
    return slicer_bench


def test_every_step_is_done_as_often_as_said(scene, bench):
    volume = Volume(np.zeros((14, 18, 22), np.int16), np.diag([1.0, 1.0, 3.0, 1.0]))
    clicks = [Point.from_ijk((5, 5, 5), False), Point.from_ijk((15, 12, 8))]
    segmenter = FakeSegmenter()
    times = bench.measure(scene, volume, Box.from_ijk((3, 3, 3), (9, 9, 9)), clicks, segmenter.load)
    assert [len(each.wall) for each in times] == [1, 2, 2, 4, 4]
    assert all(0 < each.median < 60 for each in times)
    assert len(segmenter.loads) == 1
    assert len(segmenter.opened) == 5  # every box is on a new volume
    assert len(segmenter.asked) == 13
    node = scene.GetFirstNodeByName("Scan bones")
    assert [node.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)] == ["Bone 1", "Bone 2"]


def test_missed_targets_are_told(bench):
    slow = bench.Times("click", 0.5, [0.4, 0.6, 0.7], [1.0, 1.0, 1.0])
    fast = bench.Times("click", 0.5, [0.4, 0.4, 0.7], [1.0, 1.0, 1.0])
    assert (slow.met, fast.met, bench.Times("cold", None, [9.0], [9.0]).met) == (False, True, None)
    assert str(slow).endswith("MISSED")
    assert str(fast).endswith("met")


def test_an_error_in_the_panel_is_no_measurement(scene, bench):
    segmenter = FakeSegmenter()
    volume = Volume(np.zeros((14, 18, 22), np.int16), np.eye(4))
    outside = Box.from_ijk((100, 100, 100), (109, 109, 109))
    with pytest.raises(RuntimeError, match="The panel said"):
        bench.measure(scene, volume, outside, [], segmenter.load)
