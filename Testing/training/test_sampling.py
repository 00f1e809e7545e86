"""Training samples: image, truth, box and cube belong together, and what is unknown is marked so."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from BoneSAMLib.bone_kinds import KINDS
from BoneSAMLib.model.prompt_encoder import INPUT_SIZE
from Testing.training.spheres import FAT, LARGE, THIN, anatomy, partial_scan
from training.lookup import brightness_at
from training.sampling import ALL_BONES, ANYTHING, CUBE_SIZE, OBJECT, UNKNOWN, Mixture, Sampler, draw_sample
from training.store import Subject, Target

SIZE = 96
FEMUR = 1 + KINDS.index("femur")
PLAIN = {
    "synthetic": 1.0,
    "unlabelled": 0.0,
    "radiograph": 0.0,
    "all_bones": 0.0,
    "anything": 0.0,
    "two_dimensional_box": 0.0,
    "cut_out": 0.0,
}


def draw(subject, count, with_cube=True, seed=0, **changes):
    rng = np.random.default_rng(seed)
    mixture = Mixture(**(PLAIN | changes))
    return [draw_sample([subject], mixture, SIZE, with_cube, rng) for _ in range(count)]


def extent(mask):
    """Low x, low y, high x, high y of a mask in the box's units."""
    rows, columns = np.nonzero(mask)
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return edges * INPUT_SIZE / mask.shape[0]


def visible(mask):
    """Whether the mask ends before the border of the picture."""
    return not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


@pytest.fixture(scope="module")
def samples():
    return draw(anatomy(), 40)


def test_a_sample_has_the_promised_arrays(samples):
    for sample in samples:
        for name, shape, kind in (
            ("slices", (2, 3, SIZE, SIZE), np.float16),
            ("target", (2, SIZE, SIZE), np.uint8),
            ("weight", (2, SIZE, SIZE), np.uint8),
            ("cube", (CUBE_SIZE,) * 3, np.float16),
            ("cube_bone", (CUBE_SIZE,) * 3, np.uint8),
            ("cube_target", (CUBE_SIZE,) * 3, np.uint8),
            ("box", (6,), np.float32),
            ("depths", (2,), np.float32),
            ("cube_plane", (2,), np.float32),
        ):
            assert sample[name].shape == shape
            assert sample[name].dtype == kind
            assert np.isfinite(sample[name]).all()
        assert 0 <= sample["slices"].min() <= sample["slices"].max() <= 1
        assert set(np.unique(sample["target"])) <= {0, 1}
        assert sample["weight"].all()
        assert sample["depths"][0] == 0
        assert sample["mode"] == OBJECT


def test_the_box_encloses_the_target(samples):
    tolerance = 0.03 * INPUT_SIZE
    checked = 0
    for sample in samples:
        box = sample["box"]
        assert (box[:3] < box[3:]).all()
        for target, depth in zip(sample["target"], sample["depths"], strict=True):
            if not target.any():
                continue
            low, high = extent(target)[:2], extent(target)[2:]
            assert (low > box[:2] - tolerance).all()
            assert (high < box[3:5] + tolerance).all()
            assert box[2] - tolerance < depth < box[5] + tolerance
            checked += 1
    assert checked > 50


def test_the_box_is_tight_where_the_ball_is_cut_in_the_middle(samples):
    checked = 0
    for sample in samples:
        box, target = sample["box"], sample["target"][0]
        if abs(box[2] + box[5]) > 0.3 * (box[5] - box[2]) or not visible(target) or not target.any():
            continue
        low, high = extent(target)[:2], extent(target)[2:]
        assert ((high - low) > 0.75 * (box[3:5] - box[:2])).all()
        checked += 1
    assert checked > 5


def test_the_target_is_mostly_in_sight(samples):
    shares = [visible(sample["target"][0]) for sample in samples]
    assert np.mean(shares) > 0.8


def test_the_cube_shows_what_the_slices_show(samples):
    scores = []
    for sample in samples:
        plane = int(np.rint(sample["cube_plane"][0]))
        if not 0 <= plane < CUBE_SIZE or sample["target"][0].sum() < 600:  # near a tip, half a cell decides
            continue
        cube = np.kron(sample["cube_target"][plane], np.ones((3, 3), np.uint8))
        slice_ = np.kron(sample["target"][0], np.ones((2, 2), np.uint8))
        scores.append(2 * (cube & slice_).sum() / (cube.sum() + slice_.sum()))
        assert (sample["cube_bone"] >= sample["cube_target"]).all()
    assert len(scores) > 15
    assert np.mean(scores) > 0.9
    assert min(scores) > 0.4


def test_without_a_cube_there_is_none():
    (sample,) = draw(anatomy(), 1, with_cube=False)
    assert sample["has_cube"] == 0
    assert not sample["cube"].any()


def test_all_bones_marks_both_balls():
    for sample in draw(anatomy(), 8, all_bones=1.0):
        assert sample["mode"] == ALL_BONES
        assert sample["flat"] == 0
        assert np.array_equal(sample["cube_target"], sample["cube_bone"])


def test_half_of_the_bones_with_a_name_are_called_by_it():
    subject = anatomy()
    subject.names[LARGE] = "left femur"
    kinds = [sample["kind"] for sample in draw(subject, 60, with_cube=False)]
    assert set(kinds) == {0, FEMUR}
    assert 6 < kinds.count(FEMUR) < 30  # the other bone has no name
    for changes in ({"named": 0.0}, {"all_bones": 1.0}, {"anything": 1.0}):
        assert not any(sample["kind"] for sample in draw(subject, 8, with_cube=False, **changes))
    shadows = draw(subject, 12, with_cube=False, radiograph=1.0, named=1.0)
    assert {sample["kind"] for sample in shadows} == {0, FEMUR}


def test_anything_also_means_soft_tissue():
    subject = anatomy()
    seen = other = 0
    for sample in draw(subject, 30, anything=1.0):
        assert sample["mode"] == ANYTHING
        seen += bool(sample["target"].any())
        other += not (sample["cube_target"] & sample["cube_bone"]).any()
    assert seen > 21
    assert other >= 1


def test_a_synthetic_slice_tells_the_ball_from_the_fat():
    told = 0
    samples = draw(anatomy(), 20, seed=3)
    for sample in samples:
        image, target = sample["slices"][0, 1].astype(float), sample["target"][0] == 1
        if 50 < target.sum() < 0.9 * target.size:
            told += abs(image[target].mean() - image[~target].mean()) > 0.02
    assert told > 10


def test_a_radiograph_is_flat_and_shows_the_shadow():
    for sample in draw(anatomy(), 12, radiograph=1.0):
        assert sample["flat"] == 1
        assert sample["has_cube"] == 0
        assert (sample["box"][[2, 5]] == 0).all()
        first, second = sample["slices"][:, 1].astype(float)
        assert np.abs(first - second).mean() < 0.25  # the same picture, but each with its own noise
        target = sample["target"][0]
        assert target.any()
        if visible(target):
            size = extent(target)[2:] - extent(target)[:2]
            side = sample["box"][3:5] - sample["box"][:2]
            assert (size < side + 0.03 * INPUT_SIZE).all()
            assert (size > 0.75 * side).all()


def test_where_not_every_bone_is_annotated_nobody_asks_for_all():
    for sample in draw(partial_scan(), 10, synthetic=0.0, all_bones=1.0):
        assert sample["mode"] == OBJECT


def test_all_bones_may_be_judged_near_annotated_ones():
    asked = draw(partial_scan(), 12, synthetic=0.0, all_near=1.0, seed=5, with_cube=False)
    assert {sample["mode"] for sample in asked} == {ALL_BONES}
    for sample in asked:
        target, weight = sample["target"], sample["weight"]
        assert target.any()
        assert weight[target > 0].all()
        assert 0 < weight.mean() < 1
        assert not weight[~target.any((1, 2))].any()  # a slice without any says nothing
    assert not all(sample["target"].any((1, 2)).all() for sample in asked)
    assert not any(sample["has_cube"] for sample in draw(partial_scan(), 4, synthetic=0.0, all_near=1.0))
    scan = partial_scan()
    scan.modality = "CT"
    for sample in draw(scan, 10, synthetic=0.0, all_near=1.0):
        assert sample["mode"] == OBJECT


def test_one_annotated_bone_is_known_even_where_others_are_not():
    for sample in draw(partial_scan(), 10, synthetic=0.0):
        assert sample["weight"].all()
        assert not (sample["cube_target"] == UNKNOWN).any()
        assert (sample["cube_bone"] == UNKNOWN).all()


def test_thick_slices_are_neighbors_in_the_scan():
    subject = partial_scan()
    ball = np.argwhere(subject.labels)[:, ::-1]
    assert np.ptp(ball[:, 2]) + 1 == 27
    subject.targets[0].points = ball.astype(np.float32)
    rng = np.random.default_rng(0)
    for _ in range(10):
        sample = Sampler(subject, Mixture(**PLAIN), SIZE, False, rng).draw()
        if sample is not None:
            thickness = sample["box"][5] - sample["box"][2]
            steps = sample["depths"][1] / thickness * 27
            assert abs(steps - np.rint(steps)) < 0.01
            assert abs(steps) > 0.9


def test_bones_may_be_shown_at_their_ends():
    anywhere, at_ends = (draw(anatomy(), 60, False, ends=ends) for ends in (0.0, 1.0))
    beyond = [np.mean([not sample["target"][1].any() for sample in drawn]) for drawn in (anywhere, at_ends)]
    assert beyond[0] < 0.3
    assert beyond[1] > 0.4
    for sample in at_ends:
        assert sample["box"][2] - 1 < 0 < sample["box"][5] + 1  # slice 0 is in the bone
        ends = sample["box"][2], sample["box"][5]
        before, after = (min(abs(depth - end) for end in ends) for depth in sample["depths"])
        past = not ends[0] < sample["depths"][1] < ends[1]
        assert past or after < before


def test_thick_slices_at_an_end_are_slices_of_the_scan():
    subject = partial_scan()
    subject.targets[0].points = np.argwhere(subject.labels)[:, ::-1].astype(np.float32)
    for sample in draw(subject, 20, False, synthetic=0.0, ends=1.0):
        steps = sample["depths"][1] / (sample["box"][5] - sample["box"][2]) * 27
        assert abs(steps - np.rint(steps)) < 0.01
        assert 1 <= abs(np.rint(steps)) <= 6


def test_unlabelled_scans_give_regions_of_similar_brightness():
    scan = partial_scan()
    subject = Subject(
        "scan",
        "made up",
        "train",
        "unlabelled",
        "MR",
        scan.spacing,
        False,
        scan.slicing,
        {},
        {},
        [],
        image=scan.image,
    )
    for sample in draw(subject, 4, unlabelled=1.0):
        target = sample["target"][0] == 1
        assert sample["mode"] == ANYTHING
        assert sample["flat"] == 1
        assert np.allclose(extent(target), sample["box"][[0, 1, 3, 4]], atol=1e-3)


def plate():
    """A bone 3 mm thick, like a shoulder blade, in a thick body."""
    labels = np.full((80, 80, 80), FAT, np.uint16)
    labels[10:70, 39:40, 10:70] = LARGE
    targets = [Target(LARGE, "plate", (10, 39, 10), (69, 39, 69), True)]
    depth = np.where(labels == LARGE, 4, 0).astype(np.uint8)
    tissues = {FAT: "fat", LARGE: "bone"}
    return Subject(
        "plate", "made up", "train", "labels", "any", np.full(3, 3.0), False, THIN, tissues, {}, targets,
        labels=labels, depth=depth,
    )  # fmt: skip


def test_the_shadow_of_a_thin_bone_has_no_holes():
    shadows = [np.argwhere(sample["target"][0]) for sample in draw(plate(), 16, radiograph=1.0)]
    # Seen edge-on and bent, a plate's shadow is a sickle: not filled, and no fault.
    faced = [places for places in shadows if len(places) > 0.05 * SIZE**2]
    assert len(faced) >= 4
    for places in faced:
        assert len(places) > 0.9 * ConvexHull(places).volume


def test_a_box_on_one_slice_fits_what_that_slice_shows():
    for sample in draw(anatomy(), 30, two_dimensional_box=1.0):
        target = sample["target"][0]
        if target.any() and visible(target):
            size = extent(target)[2:] - extent(target)[:2]
            assert (sample["box"][3:5] - sample["box"][:2] < 1.15 * size + 6).all()


def test_what_is_cut_out_of_the_image_does_not_count():
    for sample in draw(anatomy(), 8, cut_out=1.0):
        unseen = sample["weight"] == 0
        assert unseen.any()
        assert not sample["slices"][:, 1][unseen].any()


def test_samples_wider_than_voxels_average_them():
    scan = partial_scan()
    _, j, i = np.indices(scan.image.shape)
    scan.image = (200 * ((i + j) % 2)).astype(np.uint8)  # gray from afar
    voxels = np.random.default_rng(1).uniform(5, 55, (500, 3)).astype(np.float32)
    assert brightness_at(scan, voxels, 0.9, across=2).std() > 0.1
    far = brightness_at(scan, voxels, 2.0, across=2)
    assert np.abs(far - 100 / 255).max() < 0.01
