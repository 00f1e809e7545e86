"""The one path, on phantoms: bright ellipsoids in volumes of every geometry, with a thresholding engine."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.prompt_tokens import BOX_LOW, POSITIVE
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.session import Session
from BoneSAMLib.slice_decoder import CACHED_SLICES
from BoneSAMLib.volume import Volume

from .fake_engine import BRIGHT, DARK, Deaf, FakeEngine

CENTER = np.array([10.0, -20.0, 30.0])
RADII = np.array([14.0, 10.0, 18.0])
BOX = Box.from_ras(CENTER - RADII - 1, CENTER + RADII + 1)
INSIDE = Point.from_ras(CENTER)


def near(r, a, s):
    """A place so many mm from CENTER."""
    return CENTER + np.array([r, a, s])


def affine(size, spacing, rotation=None):
    """An affine that puts the middle of the grid a little beside CENTER."""
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.asarray(spacing, float)
    matrix[:3, 3] = near(1.3, -0.7, 0.6) - matrix[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return matrix


def ellipsoids(size, matrix, *bodies):
    """How much of each voxel [k, j, i] lies in any of the bodies (center, radii), by samples."""
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    filled = np.zeros(size[::-1], np.float32)
    k, j, i = np.mgrid[: size[2], : size[1], : size[0]]
    grid = np.stack([i, j, k], -1).astype(np.float32)
    to_ras = matrix.astype(np.float32)
    # Odd numbers: exactly half full, a voxel would be in or out by rounding.
    steps = [(np.arange(n) + 0.5) / n - 0.5 for n in np.where(spacing > 2, 7, 3)]
    offsets = list(itertools.product(*steps))
    for offset in offsets:
        ras = (grid + np.array(offset, np.float32)) @ to_ras[:3, :3].T + to_ras[:3, 3]
        within = np.zeros(filled.shape, bool)
        for center, radii in bodies:
            within |= (((ras - np.float32(center)) / np.float32(radii)) ** 2).sum(-1) <= 1
        filled += within
    return filled / len(offsets)


def phantom(size=(44, 40, 50), spacing=(1.0, 1.0, 1.0), rotation=None, bodies=((CENTER, RADII),)):
    """A volume and the mask of its bodies."""
    matrix = affine(size, spacing, rotation)
    filled = ellipsoids(size, matrix, *bodies)
    return Volume(DARK + (BRIGHT - DARK) * filled, matrix, modality="CT"), filled > 0.5


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def centroid(mask):
    return np.argwhere(mask).mean(0)


def assert_is(mask, truth, least=0.97):
    assert mask.dtype == bool
    assert mask.shape == truth.shape
    assert dice(mask, truth) >= least
    assert np.abs(centroid(mask) - centroid(truth)).max() < 0.5


def changed_slices(a, b, axis=2):
    return np.flatnonzero((a != b).any(axis=tuple(n for n in range(3) if n != 2 - axis)))


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture(scope="module")
def plain():
    """Axis-aligned and isotropic; never changed."""
    return phantom()


@pytest.fixture
def session(plain, engine):
    return Session(plain[0], engine)


# ------------------------------------------------------------------------------------- geometry of volumes

ROTATIONS = [
    np.array([[s if p == column else 0 for column in range(3)] for p, s in zip(order, signs, strict=True)])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
OBLIQUE = Rotation.from_euler("xyz", (30, -20, 40), degrees=True).as_matrix()


@pytest.mark.parametrize("number", range(0, 48, 5))
def test_every_orientation_gives_the_same(number):
    volume, truth = phantom(rotation=ROTATIONS[number])
    session = Session(volume, FakeEngine())
    assert_is(session.segment(box=BOX).mask, truth)
    assert_is(session.segment(points=[INSIDE]).mask, truth)


@pytest.mark.parametrize(
    ("size", "spacing", "rotation", "least"),
    [
        ((44, 40, 50), (1, 1, 1), OBLIQUE, 0.97),
        ((80, 76, 10), (0.5, 0.5, 5), None, 0.97),
        ((80, 10, 76), (0.5, 5, 0.5), None, 0.97),
        ((10, 80, 100), (5, 0.5, 0.5), None, 0.97),
        ((80, 80, 12), (0.6, 0.6, 4), OBLIQUE, 0.97),
        ((60, 30, 40), (0.6, 1.0, 1.2), None, 0.97),
        ((14, 14, 22), (4, 4, 2.5), None, 0.95),
        ((64, 64, 30), (1, 1, 1.5), ROTATIONS[11], 0.97),
    ],
    ids=["oblique", "thick k", "thick j", "thick i", "thick oblique", "all unequal", "coarse", "flipped"],
)
def test_every_grid_gives_the_same(size, spacing, rotation, least):
    volume, truth = phantom(size, spacing, rotation)
    session = Session(volume, FakeEngine())
    assert_is(session.segment(box=BOX).mask, truth, least)
    assert_is(session.segment(points=[INSIDE]).mask, truth, least)


def test_an_array_in_any_memory_order_and_type():
    volume, truth = phantom()
    turned = np.asfortranarray(volume.array.astype(">i2"))
    result = Session(Volume(turned, volume.ijk_to_ras, modality="CT"), FakeEngine()).segment(box=BOX)
    assert_is(result.mask, truth)


def test_a_sheared_grid():
    size = (50, 46, 50)
    shear = np.array([[1.0, 0.25, 0.0], [0.0, 1.0, 0.0], [0.0, 0.1, 1.0]])
    volume, truth = phantom(size, (1, 1, 1), shear)
    assert_is(Session(volume, FakeEngine()).segment(box=BOX).mask, truth)


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_a_single_slice_along_any_axis(thin):
    size, spacing = [60, 64, 70], [0.8, 0.8, 0.8]
    size[thin], spacing[thin] = 1, 3.0
    volume, truth = phantom(tuple(size), tuple(spacing))
    session = Session(volume, FakeEngine())
    box = session.segment(box=BOX)
    assert_is(box.mask, truth)
    assert list(box.slice_confidence) == [0]
    assert_is(session.segment(points=[INSIDE]).mask, truth)
    assert_is(session.segment_all().labels > 0, truth)


def test_a_radiograph():
    j, i = np.mgrid[:300, :400]
    truth = (np.hypot((i - 150) / 40, (j - 100) / 70) < 1) | (np.hypot(i - 330, j - 220) < 30)
    rng = np.random.default_rng(0)
    picture = (truth * 3000 + rng.integers(200, 400, truth.shape)).astype(np.uint16)
    session = Session(Volume(picture, np.diag([0.2, 0.2, 1, 1])), FakeEngine())
    one = truth & (i < 250)
    result = session.segment(box=Box.from_ijk((105, 25, 0), (195, 175, 0)))
    assert_is(result.mask, one[None])
    assert session.segment_all().count == 2
    click = session.segment(points=[Point.from_ijk((150, 100, 0))])
    assert dice(click.mask, one[None]) > 0.95
    mask = session.segment(mask=one, points=[Point.from_ijk((150, 40, 0), positive=False)]).mask
    assert not mask[0, 40, 150]
    assert dice(mask, one[None]) > 0.8


def test_a_tiny_volume():
    volume, truth = phantom((8, 8, 3), (4, 4, 10), bodies=((CENTER, (9, 9, 9)),))
    session = Session(volume, FakeEngine())
    result = session.segment(box=Box.from_ras(CENTER - 10, CENTER + 10))
    assert result.mask.shape == (3, 8, 8)
    assert dice(result.mask, truth) > 0.8
    session.segment(points=[INSIDE])
    session.segment(box=Box.from_ijk((0, 0, 0), (7, 7, 2)))
    assert session.segment_all().labels.shape == (3, 8, 8)


def test_wide_empty_borders(plain):
    volume, truth = plain
    padding = ((30, 2), (0, 60), (90, 40))
    array = np.pad(volume.array, padding, constant_values=-3024)
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ (90, 0, 30)
    session = Session(Volume(array, matrix, modality="CT"), FakeEngine())
    truth = np.pad(truth, padding)
    assert_is(session.segment(box=BOX).mask, truth)
    assert_is(session.segment(points=[INSIDE]).mask, truth)
    everything = session.segment_all()
    assert everything.count == 1
    assert_is(everything.labels == 1, truth, 0.96)


# --------------------------------------------------------------------------------------------------- boxes


def test_a_box_beyond_the_border_finds_what_is_inside():
    volume, truth = phantom((30, 26, 24), bodies=((near(12, -9, 10), RADII),))
    session = Session(volume, FakeEngine())
    far = near(12, -9, 10)
    assert_is(session.segment(box=Box.from_ras(far - RADII - 1, far + RADII + 1)).mask, truth, 0.96)
    assert_is(session.segment(box=Box.from_ijk((0, 0, 0), (29, 25, 23))).mask, truth, 0.96)


def test_a_box_keeps_out_what_lies_beside_it():
    other = (near(0, 0, 30), (9, 9, 9))
    volume, truth = phantom((44, 40, 90), bodies=((CENTER, RADII), other))
    alone = phantom((44, 40, 90))[1]
    result = Session(volume, FakeEngine()).segment(box=BOX)
    assert truth.sum() > alone.sum() + 1000
    assert_is(result.mask, alone)


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.6])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_on_one_slice_is_carried_through_the_bone(session, plain, axis, shift):
    truth = plain[1]
    places = np.argwhere(truth)[:, ::-1]
    low, high = places.min(0), places.max(0)
    low[axis] = high[axis] = round((low[axis] + high[axis]) / 2 + shift * (high[axis] - low[axis]) / 2)
    on_slice = places[places[:, axis] == low[axis]]
    low, high = on_slice.min(0), on_slice.max(0)
    result = session.segment(box=Box.from_ijk(low, high))
    assert_is(result.mask, truth)
    assert set(result.slice_confidence) == set(np.unique(places[:, axis]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_on_one_plane_of_thick_slices(axis):
    volume, truth = phantom((80, 76, 11), (0.5, 0.5, 5))
    places = np.argwhere(truth)[:, ::-1]
    at = round(float(places[:, axis].mean()))
    on_slice = places[places[:, axis] == at]
    result = Session(volume, FakeEngine()).segment(box=Box.from_ijk(on_slice.min(0), on_slice.max(0)))
    assert_is(result.mask, truth)
    assert set(result.slice_confidence) == set(np.unique(places[:, 2]))


@pytest.mark.parametrize("axis", range(3))
def test_the_slice_that_a_box_was_drawn_on_comes_first(session, plain, axis):
    low, high = (list(corner) for corner in BOX.to_ijk(plain[0]))
    low[axis] = high[axis] = (low[axis] + high[axis]) // 2
    first, progress = [], []
    found = session.segment(
        box=Box.from_ijk(low, high),
        progress=lambda fraction, text: progress.append(fraction),
        preview=lambda mask: first.append((mask, max(progress))),
    )
    ((mask, done),) = first
    assert done < 0.1
    planes = np.moveaxis(mask.to_array(), 2 - axis, 0)
    assert np.flatnonzero(planes.any((1, 2))).tolist() == [low[axis]]
    now, then = planes[low[axis]], np.moveaxis(found.mask, 2 - axis, 0)[low[axis]]
    assert 2 * (now & then).sum() / (now.sum() + then.sum()) > 0.9


def test_the_whole_bone_is_seen_before_all_slices_are(session, plain):
    seen, progress = [], []
    found = session.segment(
        box=BOX,
        progress=lambda fraction, text: progress.append(fraction),
        preview=lambda mask: seen.append((mask.to_array(), max(progress))),
    ).mask
    ((mask, done),) = seen
    assert done == 0
    assert len(set(progress)) > 3
    assert progress[-1] == 1
    assert dice(mask, found) > 0.9  # an ellipsoid between five slices is a cone in pieces
    ends = [np.flatnonzero(each.any((1, 2)))[[0, -1]] for each in (mask, found)]
    assert np.abs(ends[0] - ends[1]).max() <= 0.15 * np.ptp(ends[1])
    assert np.array_equal(found, Session(plain[0], FakeEngine()).segment(box=BOX).mask)


def test_nothing_is_seen_before_a_correction_or_a_few_slices(session, plain):
    seen = []
    result = session.segment(box=BOX)
    session.segment(mask=result, points=[INSIDE], preview=seen.append)
    low, high = (list(corner) for corner in BOX.to_ijk(plain[0]))
    high[2] = low[2] + 2
    session.segment(box=Box.from_ijk(low, high), preview=seen.append)
    assert seen == []
    session.segment(points=[INSIDE], preview=seen.append)
    assert len(seen) == 1


def test_a_box_on_a_slice_without_bone_gives_an_empty_mask(session, plain):
    result = session.segment(box=Box.from_ijk((2, 2, 0), (12, 12, 0)))
    assert not result.mask.any()
    assert (result.confidence, result.slice_confidence, result.review) == (0, {}, [])


def test_progress_of_a_box_on_a_slice_without_bone_rises_to_one(session):
    told = []
    session.segment(box=Box.from_ijk((2, 2, 0), (12, 12, 0)), progress=lambda done, _: told.append(done))
    assert told == sorted(told)
    assert told[-1] == 1


def test_a_flat_box_in_a_tilted_volume_is_carried_through_the_bone():
    rotation = Rotation.from_euler("xy", (9, -6), degrees=True).as_matrix()
    volume, truth = phantom(rotation=rotation)
    flat = Box.from_ras(CENTER - RADII * (1, 1, 0) - (1, 1, 0), CENTER + RADII * (1, 1, 0) + (1, 1, 0))
    assert_is(Session(volume, FakeEngine()).segment(box=flat).mask, truth, 0.95)


def test_specks_are_dropped_and_clicked_ones_kept():
    speck = near(0, 12, 0)
    volume, _ = phantom(bodies=((CENTER, RADII - 2), (speck, (2, 2, 2))))
    k, j, i = np.rint(volume.ras_to_ijk[:3] @ [*speck, 1]).astype(int)[::-1]
    session = Session(volume, FakeEngine())
    box = Box.from_ras(CENTER - RADII - 5, CENTER + RADII + 5)
    assert not session.segment(box=box).mask[k, j, i]
    assert session.segment(box=box, points=[Point.from_ras(speck)]).mask[k, j, i]


def test_what_was_drawn_apart_from_the_bone_survives_a_correction():
    speck = near(0, 12, 0)
    volume, _ = phantom(bodies=((CENTER, RADII - 2), (speck, (2, 2, 2))))
    k, j, i = np.rint(volume.ras_to_ijk[:3] @ [*speck, 1]).astype(int)[::-1]
    session = Session(volume, FakeEngine())
    drawn = session.segment(box=BOX).mask
    click = Point.from_ras(near(3, 0, 1))
    assert not session.segment(box=BOX, points=[click], mask=drawn).mask[k, j, i]
    drawn[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = True
    assert session.segment(box=BOX, points=[click], mask=drawn).mask[k, j, i]


# -------------------------------------------------------------------------------------------------- clicks


@pytest.mark.parametrize("offset", [(0, 0, 0), (6, 0, 9), (-4, 3, -12), (0.5, 0.5, 0.5)])
def test_one_click_finds_the_bone(session, plain, offset):
    assert_is(session.segment(points=[Point.from_ras(near(*offset))]).mask, plain[1])


class PartOrWhole(FakeEngine):
    """To a click alone, a blurred spot with the highest predicted IoU, and the bone with a lower one."""

    def decode(self, inputs):
        logits, iou = super().decode(inputs)
        for n in np.flatnonzero(~(inputs.labels == BOX_LOW).any(1)):
            x, y, _ = inputs.points[n][inputs.labels[n] == POSITIVE][0]
            places = np.arange(128) * 2 + 1.0
            spot = np.hypot(places[None] - x, places[:, None] - y)
            logits[n, :3] = 0.1 * (6 - spot)
            iou[n] = 0.9, 0.9, 0.9, 0.6
        return logits, iou


def test_a_click_means_the_stable_mask_and_not_the_spot_around_it():
    j, i = np.mgrid[:300, :400]
    bone = np.hypot((i - 150) / 60, (j - 150) / 100) < 1
    session = Session(Volume((bone * 3000).astype(np.uint16), np.diag([0.2, 0.2, 1, 1])), PartOrWhole())
    assert dice(session.segment(points=[Point.from_ijk((150, 150, 0))]).mask, bone[None]) > 0.95


def test_no_click_is_without_effect(plain):
    volume, truth = plain
    session = Session(volume, Deaf())
    first = session.segment(box=BOX)
    assert_is(first.mask, truth)
    beside = Point.from_ras(near(0, 0, 0), positive=False)
    second = session.segment(box=BOX, points=[beside], mask=first)
    i, j, k = np.rint(beside.to_ijk(volume)).astype(int)
    assert not second.mask[k, j, i]
    assert 0 < (first.mask ^ second.mask).sum() < 40
    third = session.segment(box=BOX, points=[beside, Point.from_ras(near(0, 0, 0))], mask=second)
    assert third.mask[k, j, i]


def test_clicks_beyond_the_box_enlarge_it(session, plain):
    half = Box.from_ras(CENTER - RADII - 1, CENTER + RADII * (1, 1, 0) + (1, 1, 0))
    top = Point.from_ras(near(0, 0, 16))
    assert dice(session.segment(box=half).mask, plain[1]) < 0.85
    assert_is(session.segment(box=half, points=[top]).mask, plain[1])


def test_a_click_at_the_outermost_edge_of_the_volume(session):
    size = session.volume.size
    session.segment(box=BOX, points=[Point.from_ijk([n - 0.5 for n in size])])
    session.segment(box=BOX, points=[Point.from_ijk([-0.5] * 3, positive=False)])


@pytest.mark.parametrize("positive", [True, False])
def test_a_correction_changes_nearby_slices_only(session, plain, positive):
    first = session.segment(box=BOX)
    place = near(0, 0 if not positive else 13, 9)
    click = Point.from_ras(place, positive)
    k, j, i = np.rint(session.volume.ras_to_ijk[:3] @ [*place, 1]).astype(int)[::-1]
    assert first.mask[k, j, i] != positive
    second = session.segment(box=BOX, points=[click], mask=first)
    assert second.mask[k, j, i] == positive
    assert second.points == (click,)
    axis = session.volume.through_plane_axis
    assert axis == 2
    changed = changed_slices(first.mask, second.mask)
    assert k in changed
    assert len(changed) < 20
    assert np.abs(changed - k).max() <= 11


def test_a_second_correction_keeps_the_first(session):
    first = session.segment(box=BOX)
    low, high = (Point.from_ras(near(0, 0, z), False) for z in (-13, 13))
    second = session.segment(box=BOX, points=[low], mask=first)
    third = session.segment(box=BOX, points=[low, high], mask=second)
    for point in (low, high):
        i, j, k = np.rint(point.to_ijk(session.volume)).astype(int)
        assert not third.mask[k, j, i]
    below = session.volume.shape[0] // 2
    np.testing.assert_array_equal(third.mask[:below], second.mask[:below])


def test_a_click_outside_of_the_region_extends_it():
    far = near(45, 0, 3)
    volume, both = phantom((140, 60, 50), bodies=((CENTER, RADII), (far, (6, 6, 6))))
    session = Session(volume, FakeEngine())
    first = session.segment(box=BOX)
    i, j, k = np.rint(Point.from_ras(far).to_ijk(volume)).astype(int)
    assert not first.mask[k, j, i]
    second = session.segment(points=[Point.from_ras(far)], mask=first)
    assert second.mask[k, j, i]
    around = slice(k - 1, k + 2)
    assert dice(second.mask[around], both[around]) > 0.95
    ends = np.r_[: k - 19, k + 20 : 50]
    np.testing.assert_array_equal(second.mask[ends], first.mask[ends])


def test_a_click_beyond_the_last_slice_extends_the_stack():
    other = (near(0, 0, 31), (9, 9, 9))
    volume, _ = phantom((60, 60, 90), bodies=((CENTER, RADII), other))
    session = Session(volume, FakeEngine())
    first = session.segment(box=BOX)
    second = session.segment(box=BOX, points=[Point.from_ras(other[0])], mask=first)
    i, j, k = np.rint(Point.from_ras(other[0]).to_ijk(volume)).astype(int)
    assert second.mask[k, j, i]
    assert not first.mask[k].any()
    assert volume.through_plane_axis == 2
    low = np.arange(k - 12)
    np.testing.assert_array_equal(second.mask[low], first.mask[low])


def test_the_latest_of_many_clicks_are_heard(session, engine):
    first = session.segment(box=BOX)
    points, result = [], first
    for n in range(9):
        angle = 2 * np.pi * n / 9
        points.append(Point.from_ras(near(15.5 * np.cos(angle), 12 * np.sin(angle), 0)))
        result = session.segment(box=BOX, points=points, mask=result)
        i, j, k = np.rint(points[-1].to_ijk(session.volume)).astype(int)
        assert result.mask[k, j, i]
    assert max(labels.count(POSITIVE) for labels in engine.labels) == 6
    alone = session.segment(points=points[:1] * 12)
    assert alone.mask.any()


def test_clicks_on_several_slices_all_reach_the_nearest(session, engine):
    points = [Point.from_ras(near(0, 0, z)) for z in range(-15, 16, 2)]
    assert_is(session.segment(box=BOX, points=points).mask, phantom()[1])
    heard = [labels.count(POSITIVE) for labels in engine.labels]
    assert max(heard) == 6
    assert min(heard) >= 4  # at the ends, some are too far to matter


# --------------------------------------------------------------------------------------------------- masks


def test_a_mask_from_elsewhere_is_corrected_near_the_click_only(session, plain):
    volume, truth = plain
    drawn = truth.copy()
    drawn[:, ::7] = False  # stripes that no network would make
    click = Point.from_ras(near(0, 0, -12))
    k = round(click.to_ijk(volume)[2])
    result = session.segment(points=[click], mask=drawn)
    changed = changed_slices(result.mask, drawn)
    assert k in changed
    assert np.abs(changed - k).max() <= 11
    assert dice(result.mask[k - 2 : k + 3], truth[k - 2 : k + 3]) > 0.97
    as_numbers = session.segment(points=[click], mask=drawn.astype(np.uint8) * 255)
    np.testing.assert_array_equal(as_numbers.mask, result.mask)
    again = session.segment(points=[click, INSIDE], mask=result)
    assert again.mask.any()


def test_a_mask_alone_is_seen_again_everywhere(session, plain):
    drawn = plain[1].copy()
    drawn[:, ::7] = False
    assert_is(session.segment(mask=drawn).mask, plain[1])


def test_the_mask_given_is_not_changed(session, plain):
    first = session.segment(box=BOX)
    before, logits = first.mask.copy(), first._stack.logits.copy()
    session.segment(points=[Point.from_ras(CENTER, False)], mask=first)
    np.testing.assert_array_equal(first.mask, before)
    np.testing.assert_array_equal(first._stack.logits, logits)
    drawn = plain[1].copy()
    session.segment(points=[Point.from_ras(CENTER, False)], mask=drawn)
    np.testing.assert_array_equal(drawn, plain[1])


def test_a_box_on_one_slice_can_be_corrected(plain):
    volume, truth = phantom((80, 76, 11), (0.5, 0.5, 5))
    places = np.argwhere(truth)[:, ::-1]
    for axis in range(3):
        on_slice = places[places[:, axis] == round(float(places[:, axis].mean()))]
        box = Box.from_ijk(on_slice.min(0), on_slice.max(0))
        session = Session(volume, FakeEngine())
        first = session.segment(box=box)
        click = Point.from_ras(near(0, 0, 13), False)
        i, j, k = np.rint(click.to_ijk(volume)).astype(int)
        second = session.segment(box=box, points=[click], mask=first)
        assert not second.mask[k, j, i]
        assert_is(second.mask | first.mask, truth)
        assert dice(second.mask, truth) > 0.85


# ---------------------------------------------------------------------------------------- no prompt at all


def test_everything_is_numbered_from_the_largest():
    bodies = [
        (near(-20, 0, 0), (5, 6, 7)),
        (near(15, 0, 0), (12, 12, 16)),
        (near(-10, 20, 10), (8, 8, 8)),
        (near(-15, -20, -10), (2, 2, 2)),  # 33 mm3: noise
    ]
    volume, truth = phantom((70, 60, 50), bodies=bodies)
    engine = FakeEngine()
    everything = Session(volume, engine).segment_all()
    assert everything.count == 3
    assert everything.labels.shape == volume.shape
    assert everything.labels.dtype == np.uint8
    assert list(everything.confidence) == [1, 2, 3]
    assert list(everything.confidence.values()) == pytest.approx([0.9] * 3)
    for number, index in zip((1, 2, 3), (1, 2, 0), strict=True):
        i, j, k = np.rint(Point.from_ras(bodies[index][0]).to_ijk(volume)).astype(int)
        assert everything.labels[k, j, i] == number
    sizes = np.bincount(everything.labels.ravel())[1:]
    assert list(sizes) == sorted(sizes, reverse=True)
    assert dice(everything.labels > 0, truth) > 0.97
    assert engine.decoded == volume.size[volume.through_plane_axis]
    assert all(set(labels) == {-1} for labels in engine.labels)


def test_nothing_bright_gives_nothing():
    volume = Volume(np.full((10, 20, 20), DARK), np.eye(4), modality="CT")
    everything = Session(volume, FakeEngine()).segment_all()
    assert (everything.count, everything.confidence) == (0, {})
    assert not everything.labels.any()


def test_many_bones_need_larger_numbers():
    array = np.full((9, 180, 180), DARK)
    for j, i in itertools.product(range(4, 170, 9), repeat=2):
        array[2:7, j : j + 6, i : i + 6] = BRIGHT
    everything = Session(Volume(array, np.eye(4), modality="CT"), FakeEngine()).segment_all()
    assert everything.count == 361
    assert everything.labels.dtype == np.uint16
    assert everything.labels.max() == 361


# -------------------------------------------------------------------------------------- results and errors


def test_asking_twice_gives_the_same(session, plain):
    for call in (
        {"box": BOX},
        {"points": [INSIDE]},
        {"box": Box.from_ijk((5, 5, 25), (40, 35, 25))},
        {"mask": plain[1], "points": [INSIDE]},
    ):
        first, second = session.segment(**call), session.segment(**call)
        fresh = Session(plain[0], FakeEngine()).segment(**call)
        for other in (second, fresh):
            np.testing.assert_array_equal(first.mask, other.mask)
            assert first.slice_confidence == other.slice_confidence
    np.testing.assert_array_equal(session.segment_all().labels, session.segment_all().labels)


def test_what_a_result_says(plain):
    class Doubtful(FakeEngine):
        def decode(self, inputs):
            logits, iou = super().decode(inputs)
            area = (logits[:, 0] > 0).sum((1, 2))
            return logits, iou * (area / 12000)[:, None].astype(np.float32)

    result = Session(plain[0], Doubtful()).segment(box=BOX)
    slices = np.flatnonzero(result.mask.any((1, 2)))
    assert list(result.slice_confidence) == slices.tolist()
    assert result.review == sorted(result.review, key=lambda w: result.slice_confidence[w])
    assert set(result.review[:2]) == {slices[0], slices[-1]}
    assert len(result.review) == 10
    areas = result.mask.sum((1, 2))[slices]
    expected = np.average(list(result.slice_confidence.values()), weights=areas)
    assert result.confidence == pytest.approx(expected)
    assert 0 < result.confidence < 1
    assert result.seconds > 0
    assert result.points == ()


def test_errors(session, plain):
    with pytest.raises(BoneSAMError, match="no prompt"):
        session.segment()
    with pytest.raises(BoneSAMError, match="no prompt"):
        session.segment(points=[Point.from_ras(CENTER, False)])
    with pytest.raises(BoneSAMError, match=r"outside.*lies at"):
        session.segment(box=Box.from_ras((900, 900, 900), (950, 950, 950)))
    for prompts in ({}, {"box": BOX}, {"mask": plain[1]}):
        with pytest.raises(BoneSAMError, match=r"outside.*lies at"):
            session.segment(points=[Point.from_ras((900, 0, 0))], **prompts)
    with pytest.raises(BoneSAMError, match=r"shape \(3, 4, 5\)"):
        session.segment(mask=np.ones((3, 4, 5), bool))
    with pytest.raises(BoneSAMError, match="empty"):
        session.segment(mask=np.zeros(plain[0].shape, bool), points=[INSIDE])
    other = Session(phantom()[0], FakeEngine()).segment(box=BOX)
    with pytest.raises(BoneSAMError, match="another volume"):
        session.segment(mask=other)


# ----------------------------------------------------------------------------------- progress, cancelling


class After:
    """Set from the nth question on."""

    def __init__(self, questions):
        self.left = questions

    def is_set(self):
        self.left -= 1
        return self.left < 0


CALLS = {
    "box": {"box": BOX},
    "click": {"points": [INSIDE]},
    "slice": {"box": Box.from_ijk((5, 5, 25), (40, 35, 25))},
    "mask": {"mask": phantom()[1]},
    "all": None,
}


def call(session, name, **options):
    if CALLS[name] is None:
        return session.segment_all(**options).labels
    return session.segment(**CALLS[name], **options).mask


@pytest.mark.parametrize("name", list(CALLS))
def test_progress_rises_to_one(session, name):
    told = []
    call(session, name, progress=lambda fraction, text: told.append((fraction, text)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.2
    assert fractions[-1] == 1
    assert len(set(fractions)) >= 4
    assert all(text for _, text in told)


@pytest.mark.parametrize("name", list(CALLS))
def test_cancelling_at_any_time_leaves_the_session_usable(session, plain, name):
    for questions in (0, 1, 2, 4, 5):
        with pytest.raises(Cancelled):
            call(session, name, cancel=After(questions))
    fresh = call(Session(plain[0], FakeEngine()), name)
    np.testing.assert_array_equal(call(session, name, cancel=After(10_000)), fresh)


def test_nothing_is_computed_when_cancelled_before(session, engine):
    with pytest.raises(Cancelled):
        session.segment(box=BOX, cancel=After(0))
    assert (engine.encoded, engine.attended, engine.decoded) == ([], 0, 0)


# --------------------------------------------------------------------------- what is kept between the calls


def test_nothing_is_computed_twice(session, engine):
    for name in ("box", "click", "slice", "all"):
        call(session, name)
        seen = sum(engine.encoded), engine.attended
        call(session, name)
        assert (sum(engine.encoded), engine.attended) == seen


def test_clicks_and_masks_need_no_new_embedding(session, engine):
    first = session.segment(box=BOX)
    seen = sum(engine.encoded), engine.attended
    decoded = engine.decoded
    click = Point.from_ras(near(0, 0, 9), False)
    session.segment(box=BOX, points=[click])
    session.segment(box=BOX, points=[click], mask=first)
    session.segment(points=[click], mask=first)
    assert (sum(engine.encoded), engine.attended) == seen
    assert engine.decoded - decoded < 2.5 * decoded


def test_a_longer_box_embeds_the_new_slices_only(session, engine):
    session.segment(box=Box.from_ijk((5, 5, 15), (40, 35, 24)))
    before = sum(engine.encoded)
    assert before == 12
    session.segment(box=Box.from_ijk((5, 5, 15), (40, 35, 26)))
    assert sum(engine.encoded) == before + 2
    session.segment(box=Box.from_ijk((6, 5, 15), (40, 35, 26)))
    assert sum(engine.encoded) == before + 2 + 14


def test_the_cache_does_not_grow_with_the_volume():
    engine = FakeEngine()
    array = np.full((400, 12, 12), DARK, np.float32)
    session = Session(Volume(array, np.diag([1, 1, 2, 1]), modality="CT"), engine)
    session.segment_all()
    session.segment(box=Box.from_ijk((2, 2, 0), (9, 9, 390)))
    assert len(session._decoder._embeddings) == 0  # longer than the cache: it would only push others out
    for k in range(0, 390, 60):
        session.segment(box=Box.from_ijk((2, 2, k), (9, 9, k + 59)))
    assert len(session._decoder._embeddings) == CACHED_SLICES
    assert len(session._decoder._attention_maps) <= 8
    assert max(engine.encoded) <= 8


# --------------------------------------------------------------------------------------- depth attention


def test_without_depth_attention_the_cube_is_not_computed(session, engine, plain):
    assert_is(session.segment(box=BOX, depth_attention=False).mask, plain[1])
    session.segment_all(depth_attention=False)
    assert engine.attended == 0
    assert not any(use for _, use in engine.attention)


@pytest.mark.parametrize(("modality", "attends"), [("CT", True), ("MR", False)])
def test_without_a_prompt_only_ct_has_depth_attention(plain, modality, attends):
    engine = FakeEngine()
    Session(dataclasses.replace(plain[0], modality=modality), engine).segment_all()
    assert bool(engine.attended) is attends


def test_few_cubes_serve_a_bone(session, engine):
    session.segment(box=Box.from_ijk((5, 5, 10), (40, 35, 34)))
    assert engine.attended == 1
    session.segment(box=BOX)
    assert engine.attended == 3
    session.segment(points=[INSIDE])
    assert engine.attended <= 16
    assert all(use for _, use in engine.attention)


def test_a_long_bone_takes_several_cubes():
    volume, truth = phantom((20, 20, 60), (1, 1, 2), bodies=((CENTER, (6, 6, 55)),))
    engine = FakeEngine()
    box = Box.from_ras(CENTER - (7, 7, 56), near(7, 7, 56))
    assert_is(Session(volume, engine).segment(box=box).mask, truth, 0.96)
    assert 5 <= engine.attended <= 9
    assert all(use for _, use in engine.attention)


@pytest.mark.parametrize("rotation", [None, ROTATIONS[9], ROTATIONS[30], OBLIQUE])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (1.0, 2.0, 1.0)])
def test_attention_maps_show_the_same_slice_as_the_image(spacing, rotation):
    class Watching(FakeEngine):
        def __init__(self):
            super().__init__()
            self.in_image, self.in_box = [], []

        def decode(self, inputs):
            cells = np.arange(64) * 4 + 2
            images, corners = inputs.embedding[:, 0] > 0.5, inputs.points[:, :2]
            for image, maps, (low, high) in zip(images, inputs.attention, corners, strict=True):
                x, y = ((cells >= low[axis]) & (cells <= high[axis]) for axis in (0, 1))
                if image.sum() > 200:
                    self.in_image.append(dice(image, maps[0] > 0.5))
                if min(-low[2], high[2]) > 8:
                    self.in_box.append(dice(y[:, None] & x, maps[1] > 0.5))
            return super().decode(inputs)

    size = tuple(round(1.4 * 40 / s) for s in spacing)
    volume, _ = phantom(size, spacing, rotation)
    engine = Watching()
    session = Session(volume, engine)
    session.segment(box=BOX)
    assert np.median(engine.in_image) > 0.95
    assert min(engine.in_image) > 0.75
    assert min(engine.in_box) > 0.99
    engine.in_image.clear()
    session.segment_all()
    assert np.median(engine.in_image) > 0.95


# ------------------------------------------------------------------------------------- bones that run away


def long_bone(center, radius):
    """A bone along k, slices 6 to 111 of 120: its center (i) and radius by slice, in 1 mm voxels, as a CT."""
    k, j, i = np.mgrid[:120, :140, :140]
    truth = ((i - center(k)) ** 2 + (j - 70) ** 2 <= radius(k) ** 2) & (k > 5) & (k < 112)
    array = np.where(truth, 1250, -250).astype(np.float32)
    return Volume(array, np.diag([1.0, 1.0, 1.0, 1.0]), modality="CT"), truth


LONG_BONES = {
    "a shaft that widens threefold": (lambda k: 70, lambda k: np.clip(12 + (k - 70) * 1.3, 12, 38), 40),
    "a rod that leaves its first region": (lambda k: 20 + 0.85 * k, lambda k: 10 + 0 * k, 60),
}


@pytest.mark.parametrize("prompt", ["box", "click"])
@pytest.mark.parametrize("name", LONG_BONES)
def test_a_bone_is_followed_where_it_widens_and_wanders(name, prompt):
    center, radius, seed = LONG_BONES[name]
    volume, truth = long_bone(center, radius)
    i, r = int(center(np.array(seed))), int(radius(np.array(seed))) + 2
    session = Session(volume, FakeEngine())
    if prompt == "box":
        mask = session.segment(box=Box.from_ijk((i - r, 70 - r, seed), (i + r, 70 + r, seed))).mask
    else:
        mask = session.segment(points=[Point.from_ijk((i, 70, seed))]).mask
    assert_is(mask, truth, 0.95)
    assert (mask & truth).sum() > 0.99 * truth.sum()


@pytest.mark.parametrize("as_array", [False, True])
def test_a_click_farther_along_the_bone_leaves_no_gap(as_array):
    volume, truth = long_bone(lambda k: 70, lambda k: 12 + 0 * k)
    session = Session(volume, FakeEngine())
    half = session.segment(box=Box.from_ijk((56, 56, 5), (84, 84, 50)))
    assert half.mask.any((1, 2)).sum() < 60
    earlier = half.mask if as_array else half
    mask = session.segment(points=[Point.from_ijk((70, 70, 105))], mask=earlier).mask
    assert (mask & ~truth).sum() < 0.01 * truth.sum()
    assert (mask & truth)[6:106].sum() > 0.99 * truth[6:106].sum()
