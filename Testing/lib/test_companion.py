"""Several volumes of a study as one: resampled to the first one's grid, their logits fused."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BoneSAMLib.companion import Companion, fused
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.region import Region, SliceFrame
from BoneSAMLib.session import Session
from BoneSAMLib.slice_decoder import BATCH
from BoneSAMLib.volume import Volume

from .fake_engine import FakeEngine

SIZE = (24, 20, 16)
DARK, BRIGHT = -250.0, 1250.0
# Two parts of one bone, along k; each volume of a study shows one of them.
LOWER, UPPER = ((7, 6, 4), (16, 13, 8)), ((7, 6, 9), (16, 13, 12))
BOX = Box.from_ijk((6, 5, 3), (17, 14, 13))


def volume(*parts, matrix=None):
    values = np.full(SIZE[::-1], DARK, np.float32)
    for low, high in parts:
        values[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))] = BRIGHT
    return Volume(values, np.eye(4) if matrix is None else matrix, name="scan", modality="CT")


def mask_of(*volumes, box=BOX, fusion="average", **arguments):
    return Session(volumes[0], FakeEngine(), volumes[1:], fusion).segment(box=box, **arguments).mask


def fractions(other, fusion):
    """Share of the lower and of the upper part that is found when one volume shows the first only."""
    mask = mask_of(volume(LOWER), other, fusion=fusion)
    truths = [volume(part).array > 0 for part in (LOWER, UPPER)]
    return [np.count_nonzero(mask & truth) / np.count_nonzero(truth) for truth in truths]


def test_the_largest_logit_finds_what_any_volume_shows():
    lower, upper = fractions(volume(UPPER), "maximum")
    assert lower > 0.8
    assert upper > 0.8
    # By itself the first volume shows one part.
    alone = mask_of(volume(LOWER))
    assert not (alone & (volume(UPPER).array > 0)).sum() > 0.2 * (volume(UPPER).array > 0).sum()


class StoredEngine(FakeEngine):
    """Keeps the logits it answers."""

    def __init__(self):
        super().__init__()
        self.answers = []

    def decode(self, inputs):
        logits, iou = super().decode(inputs)
        # Predicted IoU that differs between volumes.
        iou = iou - np.float32(0.1) * (len(self.answers) % 2)
        self.answers.append((logits, iou))
        return logits, iou


@pytest.mark.parametrize(("fusion", "join"), [("average", np.mean), ("maximum", np.max)])
def test_logits_are_fused_as_asked_for(fusion, join):
    one, other = volume(LOWER), volume(LOWER, UPPER)
    engine = StoredEngine()
    session = Session(one, engine, [other], fusion)
    result = session.segment(box=BOX, depth_attention=False)
    of_one, of_other = engine.answers[::2], engine.answers[1::2]
    assert len(of_one) == len(of_other) == -(-len(result._stack.indices) // BATCH)
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(of_one, of_other, strict=True))
    logits, iou = (
        [np.concatenate([answer[n] for answer in answers]) for answers in (of_one, of_other)] for n in (0, 1)
    )
    assert np.allclose(result._stack.logits, join(logits, axis=0)[:, 0], atol=1e-6)
    assert np.allclose(result._stack.iou, np.mean(iou, axis=0)[:, 0])


@pytest.mark.parametrize("fusion", ["average", "maximum"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_same_volume_again_changes_nothing(fusion, count):
    one = volume(LOWER)
    expected = Session(one, FakeEngine()).segment(box=BOX)
    result = Session(one, FakeEngine(), [volume(LOWER) for _ in range(count)], fusion).segment(box=BOX)
    if count == 1:
        assert np.array_equal(result._stack.logits, expected._stack.logits)
    assert np.allclose(result._stack.logits, expected._stack.logits, atol=1e-5)
    assert np.array_equal(result.mask, expected.mask)
    assert result.confidence == pytest.approx(expected.confidence)
    assert result.review == expected.review


def test_all_bones_look_at_every_volume():
    bones = Session(volume(LOWER), FakeEngine(), [volume(UPPER)], "maximum").segment_all()
    labels = bones.labels > 0
    assert labels[4:12, 8:12, 9:15].all()


GRIDS = {
    "shifted": ((30, 26, 20), (1, 1, 1), (-2.5, -3.25, -1.5), None),
    "finer": ((50, 44, 40), (0.5, 0.5, 0.5), (-0.5, -0.5, -1), None),
    "coarser": ((16, 14, 12), (2, 2, 2), (-3, -3, -3), None),
    "flipped": ((30, 26, 20), (-1, 1, -1), (26.5, -2.5, 17.5), None),
    "rotated": ((44, 44, 40), (1, 1, 1), None, Rotation.from_euler("xyz", (20, -15, 30), degrees=True)),
    "permuted": ((26, 30, 20), (1, 1, 1), (-2, -2, -2), Rotation.from_euler("z", 90, degrees=True)),
}


def grid(kind):
    size, spacing, origin, rotation = GRIDS[kind]
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else rotation.as_matrix()) * spacing
    if kind == "permuted":
        origin = (26, -2, -2)
    if origin is None:
        origin = (np.array(SIZE) - 1) / 2 - matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    matrix[:3, 3] = origin
    return size, matrix


def ramp(ras):
    """Linear in space, so that linear interpolation gives it exactly."""
    return 3 * ras[..., 0] - 2 * ras[..., 1] + 5 * ras[..., 2] + 100


def positions(size, matrix):
    k, j, i = np.mgrid[: size[2], : size[1], : size[0]]
    return np.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize("turned", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("kind", GRIDS)
def test_every_voxel_has_the_value_of_its_place_in_space(kind, turned):
    size, matrix = grid(kind)
    turn = np.eye(4)
    if turned:
        turn[:3, :3] = Rotation.from_euler("xyz", (10, 35, -20), degrees=True).as_matrix()
        turn[:3, 3] = 40, -30, 7
    other = Volume(ramp(positions(size, matrix)).astype(np.float32), turn @ matrix, name="other")
    companion = Companion(volume(matrix=turn), other)
    on_grid = companion.on_grid()
    assert on_grid.shape == SIZE[::-1]
    assert np.array_equal(on_grid.ijk_to_ras, turn)
    inner = (slice(2, -2),) * 3
    expected = ramp(positions(SIZE, np.eye(4)))
    assert np.allclose(on_grid.array[inner], expected[inner], atol=1e-2)


def test_beyond_the_other_volume_there_is_black_and_only_the_first_counts():
    part = Volume(
        np.full((6, 20, 24), BRIGHT, np.float32), np.eye(4), name="part", modality="CT"
    )  # all bright, below k = 6
    first = volume(LOWER)
    on_grid = Companion(first, part).on_grid()
    assert (on_grid.array[:6] == BRIGHT).all()
    alone = Session(first, FakeEngine()).segment(box=BOX, depth_attention=False)
    both = Session(first, FakeEngine(), [part], "average").segment(box=BOX, depth_attention=False)
    n = alone._stack.indices
    assert np.array_equal(both._stack.logits[n > 5], alone._stack.logits[n > 5])
    assert not np.array_equal(both._stack.logits[n <= 5], alone._stack.logits[n <= 5])
    assert [both._stack.iou[n > 5].tolist()] == [alone._stack.iou[n > 5].tolist()]
    dark = Volume(np.full((6, 20, 24), 7, np.int16) + np.arange(6, dtype=np.int16)[:, None, None], np.eye(4))
    array = Companion(first, dark).on_grid().array
    assert array.dtype == np.int16
    assert (array[6:] == 7).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("flips", list(itertools.product([1, -1], repeat=3)))
def test_where_it_has_voxels_is_told_in_the_pixels_of_the_region(axis, flips):
    matrix = np.diag([*flips, 1]).astype(float)
    first = volume(matrix=matrix)
    part = np.zeros(SIZE[::-1], bool)
    part[4:12, 3:11, 6:20] = True
    low = np.eye(4)
    low[:3, 3] = 6, 3, 4
    companion = Companion(first, Volume(np.zeros((8, 8, 14), np.float32), matrix @ low))
    frame = SliceFrame(first, axis)
    region = Region(frame, tuple(12.0 * s for s in frame.spacing[:2]), 30.0)
    indices = np.arange(frame.size[2])
    seen = companion.seen(companion.region(region), indices, 120)
    # Voxel centers: what the region says of them is what the volume has.
    rows, columns = region.voxels
    back = np.stack([region.to_voxels(plane[None].astype(np.float32))[0] > 0.5 for plane in seen])
    assert np.array_equal(back, frame.of_array(part)[:, rows, columns])


def test_only_slices_that_another_volume_has_are_computed_and_each_once():
    engine = FakeEngine()
    part = Volume(np.full((4, 20, 24), DARK, np.float32), np.eye(4), modality="CT")
    session = Session(volume(LOWER), engine, [part])
    session.segment(box=BOX, depth_attention=False)
    slices = sum(engine.encoded)
    assert slices < 2 * 16
    first = session.segment(box=BOX, depth_attention=False)
    assert sum(engine.encoded) == slices  # all from the cache, of both volumes
    corrected = session.segment(
        box=BOX, points=[Point.from_ijk((12, 10, 6))], mask=first, depth_attention=False
    )
    assert sum(engine.encoded) == slices
    assert corrected.mask.any()


def test_the_window_is_that_of_the_whole_other_volume():
    """Not that of the part of it that lies on the first one's grid."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 100, (40, 40, 40)).astype(np.float32)
    values[:20] *= 10
    matrix = np.eye(4)
    matrix[:3, 3] = 0, 0, -22.25
    other = Volume(values, matrix, modality="MR")
    companion = Companion(volume(), other)
    region = companion.region(Region(SliceFrame(volume(), 2), (10.0, 10.0), 20.0))
    assert region.frame.window == SliceFrame(other, 2).window
    assert region.frame.window[1] > 500
    assert region.frame.volume.array.max() < 200


def test_cancelling_while_it_is_resampled_leaves_it_for_the_next_time():
    matrix = np.eye(4)
    matrix[:3, 3] = 0.5
    companion = Companion(volume(), volume(LOWER, matrix=matrix))
    calls = []

    def stop():
        calls.append(None)
        if len(calls) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        companion.on_grid(stop)
    assert companion.on_grid() is companion.on_grid()
    assert (companion.on_grid().array > 0).any()


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, ">i2", np.uint16, np.float16, np.float64])
def test_values_of_any_type(kind):
    matrix = np.eye(4)
    matrix[:3, 3] = 0.25
    other = Volume((volume(LOWER).array > 0).astype(kind), matrix)
    mask = Companion(volume(), other).on_grid().array
    assert mask[6, 10, 12] == 1
    assert mask[1, 1, 1] == 0


def far():
    matrix = np.eye(4)
    matrix[:3, 3] = 500, 0, 0
    return volume(LOWER, matrix=matrix)


def test_volumes_that_do_not_overlap_are_refused():
    with pytest.raises(BoneSAMError, match=r"do not overlap.*register.*R 499\.5") as error:
        Session(volume(LOWER), FakeEngine(), [far()])
    assert "\n" not in str(error.value)


def test_volumes_of_different_frames_of_reference_are_refused():
    def framed(frame):
        return Volume(volume(LOWER).array, np.eye(4), name="scan", frame_of_reference=frame)

    with pytest.raises(BoneSAMError, match=r"different DICOM frames of reference.*register"):
        Session(framed("1.2.3"), FakeEngine(), [framed("1.2.4")])
    for frames in (("1.2.3", "1.2.3"), ("1.2.3", ""), ("", "1.2.3")):
        Session(framed(frames[0]), FakeEngine(), [framed(frames[1])])


def test_a_radiograph_among_several_is_refused():
    radiograph = Volume(np.zeros((1, 20, 24), np.uint16), np.eye(4), name="hand", modality="X-ray")
    for pair in ((radiograph, volume()), (volume(), radiograph)):
        with pytest.raises(BoneSAMError, match="'hand' is a radiograph"):
            Session(pair[0], FakeEngine(), [pair[1]])


def test_an_unknown_fusion_is_refused():
    with pytest.raises(BoneSAMError, match="average, maximum"):
        Session(volume(), FakeEngine(), [volume()], "median")


def test_a_thin_slab_across_the_volume_overlaps():
    matrix = np.eye(4)
    matrix[:3, 3] = 11.5, 0, 0
    matrix[0, 0] = 0.1
    thin = Volume(np.zeros((16, 20, 1), np.int16), matrix, modality="MR")
    assert Companion(volume(), thin).on_grid().shape == SIZE[::-1]


def test_fusing_weighs_by_what_each_volume_has():
    one, two = np.full((1, 1, 2, 2), 2, np.float32), np.full((1, 1, 2, 2), -4, np.float32)
    seen = np.array([[[True, False], [False, False]]])
    iou = np.array([[0.9]], np.float32), np.array([[0.4]], np.float32)
    answers = [(one, iou[0], None), (two, iou[1], seen)]
    logits, predicted = fused(answers, "average")
    assert logits.ravel().tolist() == [-1, 2, 2, 2]
    assert predicted == pytest.approx((0.9 + 0.25 * 0.4) / 1.25)
    assert fused(answers, "maximum")[0].ravel().tolist() == [2, 2, 2, 2]
    answers = [(two, iou[0], None), (one, iou[1], seen)]
    assert fused(answers, "maximum")[0].ravel().tolist() == [2, -4, -4, -4]
