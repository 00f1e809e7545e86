"""Scripts that pass a cache correct a bone from the network's own answer, while that is what is stored."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs slicer-core: run make test")

import slicer.util

from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.mrml import worldFromIjk
from BoneSAMLib.node_segmentation import segment
from BoneSAMLib.segmentation_node import readMask, writeMask
from BoneSAMLib.session_cache import SessionCache
from Testing.presenter.fakes import FakeBundle, FakeResult, FakeSegmenter
from Testing.slicer.scenes import add_roi, add_volume

FIRST, SECOND = (14, 12, 8), (8, 7, 6)  # a click on the bone, and one to correct it


class Script:
    """A bone that was segmented from a box and a click, and may be corrected."""

    def __init__(self, scene):
        self.scene, self.segmenter = scene, FakeSegmenter()
        self.cache = SessionCache(self.segmenter.load)
        self.volume_node = add_volume(scene, "oblique", "linear")
        self.first, self.second = (worldFromIjk(place, self.volume_node) for place in (FIRST, SECOND))
        roi = add_roi(scene, (0, 0, 0), (6, 6, 7))
        roi.SetCenterWorld(worldFromIjk((8, 7, 6), self.volume_node))
        self.done = segment(self.volume_node, roi, [self.first], cache=self.cache)

    def stored(self):
        return readMask(self.done.segmentationNode, self.done.segmentId, self.volume_node)

    def correct(self, cache=True, **options):
        """What the network was asked to go on from, and with which points."""
        segment(
            self.volume_node,
            negativePoints=[self.second],
            segmentationNode=self.done.segmentationNode,
            segmentId=self.done.segmentId,
            cache=self.cache if cache else SessionCache(self.segmenter.load),
            **options,
        )
        _, points, start, _ = self.segmenter.asked[-1]
        return start, [point.positive for point in points]


@pytest.fixture
def script(scene):
    return Script(scene)


def test_a_correction_goes_on_from_the_answer_that_is_stored(script):
    before = script.stored()
    start, points = script.correct()
    assert isinstance(start, FakeResult)
    np.testing.assert_array_equal(start.mask, before)
    assert points == [True, False]
    assert 0 < script.stored().sum() < before.sum()
    script.second = worldFromIjk((6, 6, 4), script.volume_node)
    start, points = script.correct()
    assert isinstance(start, FakeResult)
    assert points == [True, False, False]


def edit(script):
    mask = script.stored()
    mask[6, 7, 8] = False
    writeMask(
        CroppedMask.from_array(mask), script.volume_node, script.done.segmentationNode, script.done.segmentId
    )


def change_voxels(script):
    slicer.util.arrayFromVolumeModified(script.volume_node)


def other_weights(script):
    script.segmenter.bundle = FakeBundle("two", {})


def segment_another_volume(script):
    other = add_volume(script.scene, "flipped")
    segment(other, positivePoints=[worldFromIjk(SECOND, other)], cache=script.cache)


@pytest.mark.parametrize("event", [edit, change_voxels, other_weights, segment_another_volume])
def test_what_changed_meanwhile_is_corrected_as_it_is_stored(script, event):
    event(script)
    before = script.stored()
    start, points = script.correct()
    np.testing.assert_array_equal(start, before)
    assert points == [False]


def test_without_the_cache_or_with_other_options(script):
    before = script.stored()
    start, _ = script.correct(cache=False)
    np.testing.assert_array_equal(start, before)
    before = script.stored()
    start, _ = script.correct(depthAttention=False)
    np.testing.assert_array_equal(start, before)


def test_an_answer_that_came_while_another_volume_was_segmented(scene, script):
    """`progress` lets a script do anything: the session that the answer is of may be gone when it comes."""
    step = iter([segment_another_volume])
    script.correct(progress=lambda fraction, text: next(step, lambda script: None)(script))
    before = script.stored()
    start, _ = script.correct()
    np.testing.assert_array_equal(start, before)
