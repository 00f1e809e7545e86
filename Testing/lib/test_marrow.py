"""Holes in masks: which of them are marrow, and what corrections leave as it was."""

import numpy as np
import pytest

from BoneSAMLib.marrow import close_marrow
from BoneSAMLib.prompt_tokens import Clicks
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume

from .fake_engine import BRIGHT, DARK, Deaf

SIZE = 40
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
FROM_AXIS = np.hypot(ROWS - 20, COLUMNS - 20)
BONE, MARROW = FROM_AXIS < 12, FROM_AXIS < 6
BY_THE_ENDS = [-1.0] * 10 + [-4.1] * 20 + [-1.0] * 10  # a shaft: in its middle marrow is taken for none
BOX = Box.from_ijk((5, 5, 2), (35, 35, 97))


def shaft(levels):
    """Logits of a bone whose marrow has these, slice by slice."""
    logits = np.full((len(levels), SIZE, SIZE), -6.0, np.float32)
    logits[:, BONE] = 6.0
    for plane, level in zip(logits, levels, strict=True):
        plane[MARROW] = level
    return logits


def clicks(*places):
    """Clicks (column, row, slice, positive)."""
    table = np.array(places, float).reshape(-1, 4)
    return Clicks(table[:, :3], table[:, 3] > 0)


def closed(levels, changed=None, told=(), earlier=None):
    """The share of marrow in the mask, slice by slice; `earlier` likewise, of the mask before."""
    logits = shaft(levels)
    chosen = np.zeros(len(levels), bool)
    chosen[slice(None) if changed is None else changed] = True
    if earlier is not None:
        earlier = shaft(earlier) > 0
    close_marrow(logits, chosen, clicks(*told), earlier)
    assert (logits[:, BONE & ~MARROW] > 0).all()
    assert (logits[:, ~BONE] < 0).all()
    return (logits[:, MARROW] > 0).mean(1)


def test_a_shaft_is_marrow_by_its_ends():
    assert (closed(BY_THE_ENDS) == 1).all()
    assert (closed([-4.1] * 40) == 0).all()


def test_a_correction_in_the_middle_of_a_shaft_leaves_its_marrow():
    assert (closed(BY_THE_ENDS, slice(15, 25), earlier=[6.0] * 40)[15:25] == 1).all()


def test_what_was_erased_is_not_filled_again():
    assert (closed([-1.0] * 40, slice(10, 30), earlier=[-6.0] * 40) == 0).all()


def test_slices_that_were_not_seen_again_stay():
    share = closed([-1.0] * 40, slice(10, 20), earlier=[6.0] * 40)
    assert (share[10:20] == 1).all()
    assert (share[:10] == 0).all()
    assert (share[20:] == 0).all()


def test_holes_of_slices_far_apart_are_two():
    changed = np.r_[0:10, 30:40]
    share = closed([-1.0] * 20 + [-3.0] * 20, changed)
    assert (share[:10] == 1).all()
    assert (share[30:] == 0).all()


@pytest.mark.parametrize(
    ("places", "is_closed"),
    [
        ([(20, 20, 5, 0)], False),
        ([(10, 20, 5, 0)], True),  # in the cortex: not in the hole
        ([(20, 20, 45, 0)], True),  # beyond the bone's end
        ([(-3, 20, 5, 0), (20, 99, 5, 0)], True),
        ([(20, 20, 5, 0), (21, 20, 7, 1)], True),
        ([(21, 20, 7, 1), (20, 20, 5, 0)], False),
    ],
)
def test_the_last_click_in_a_hole_decides(places, is_closed):
    assert (closed([-1.0] * 40, told=places) == is_closed).all()


def test_an_erased_hole_that_is_clicked_as_bone_is_filled():
    assert (closed([-1.0] * 40, told=[(20, 20, 5, 1)], earlier=[-6.0] * 40) == 1).all()


def test_a_click_on_bone_says_nothing_of_the_hole_beside_it():
    logits, earlier = shaft([-1.0] * 40), shaft([6.0] * 40) > 0
    earlier[:, FROM_AXIS < 4] = False  # erased in a part of what the network takes for a hole
    close_marrow(logits, np.ones(40, bool), clicks((25, 20, 5, 1)), earlier)
    assert np.array_equal(logits > 0, earlier)


def test_nothing_to_close():
    solid = shaft([6.0] * 40)
    close_marrow(solid, np.ones(40, bool), clicks())
    assert np.array_equal(solid, shaft([6.0] * 40))


def seen(levels):
    """A shaft of 100 slices as CT, with levels as the fake network sees them, and its marrow."""
    array = np.full((100, SIZE, SIZE), DARK)
    array[:, BONE] = BRIGHT
    for plane, level in zip(array, levels, strict=True):
        plane[MARROW] = DARK + (BRIGHT - DARK) * (0.5 + level / 12)
    marrow = np.zeros(array.shape, bool)
    marrow[2:98, FROM_AXIS < 5] = True
    return Volume(array, np.diag([1.0, 1.0, 1.5, 1.0]), modality="CT"), marrow


@pytest.fixture(scope="module")
def scan():
    return seen([-1.0] * 20 + [-4.1] * 60 + [-1.0] * 20)


def test_shafts_are_whole_with_and_without_a_prompt(scan):
    volume, marrow = scan
    session = Session(volume, Deaf())
    assert session.segment(box=BOX).mask[marrow].all()
    assert (session.segment_all(depth_attention=False).labels > 0)[marrow].all()


@pytest.mark.parametrize("positive", [True, False])
def test_a_click_beside_the_marrow_does_not_open_it(scan, positive):
    volume, marrow = scan
    session = Session(volume, Deaf())
    first = session.segment(box=BOX)
    place = Point.from_ijk((29, 20, 50) if positive else (38, 20, 50), positive=positive)
    assert session.segment(mask=first, points=[place]).mask[marrow].all()


def test_marrow_that_was_erased_by_hand_stays_erased(scan):
    volume, marrow = scan
    session = Session(volume, Deaf())
    erased = session.segment(box=BOX).mask & ~marrow
    again = session.segment(mask=erased, points=[Point.from_ijk((29, 20, 10))])
    assert not again.mask[marrow].any()


def test_a_hole_that_the_network_is_sure_of_stays():
    volume, marrow = seen([-3.0] * 100)
    session = Session(volume, Deaf())
    assert not session.segment(box=BOX).mask[marrow].any()
    assert not session.segment_all(depth_attention=False).labels[marrow].any()


def test_a_negative_click_opens_the_whole_hole(scan):
    volume, marrow = scan
    session = Session(volume, Deaf())
    first = session.segment(box=BOX)
    second = session.segment(mask=first, points=[Point.from_ijk((20, 20, 50), positive=False)])
    assert not second.mask[50][marrow[50]].any()  # a disk alone would be smaller
    assert second.mask[90][marrow[90]].all()


def test_holes_in_radiographs_stay():
    array = np.full((1, SIZE, SIZE), 0.0)
    array[:, BONE], array[:, MARROW] = 3000, 1250  # the fake network sees -1
    session = Session(Volume(array.astype(np.uint16), np.diag([0.2, 0.2, 1, 1])), Deaf())
    mask = session.segment(box=Box.from_ijk((5, 5, 0), (35, 35, 0))).mask[0]
    assert not mask[20, 20]
    assert mask[20, 11]
