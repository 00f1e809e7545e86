"""Boxes and points against straight, oblique, flipped and thin volumes."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.oriented_box import OrientedBox
from BoneSAMLib.prompts import Box, Point, parse_box, parse_point
from BoneSAMLib.volume import Volume


def volume(shape=(20, 30, 40), matrix=None):
    return Volume(np.zeros(shape, np.uint8), np.eye(4) if matrix is None else matrix)


def random_affine(seed):
    generator = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    rotation[:, seed % 3] *= (-1) ** seed
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * generator.uniform(0.4, 4, 3)
    matrix[:3, 3] = generator.uniform(-100, 100, 3)
    return matrix


# --------------------------------------------------------------------------------------------------- boxes


def test_ijk_box_is_inclusive_and_takes_corners_in_any_order():
    assert Box.from_ijk((9, 2, 7), (3, 8, 5)).to_ijk(volume()) == ((3, 2, 5), (9, 8, 7))


def test_ras_box_covers_exactly_the_voxel_centers_inside():
    matrix = np.diag([-0.5, -0.5, 2.0, 1.0])
    box = Box.from_ras((-1.0, -2.2, 3.9), (-6.01, -9.9, 12.1))
    assert box.to_ijk(volume(matrix=matrix)) == ((2, 5, 2), (12, 19, 6))


def test_corners_on_voxel_centers_count_despite_rounding():
    matrix = np.diag([0.1, 0.1, 0.3, 1.0])
    assert Box.from_ras((0.3, 0.7, 0.9), (1.7, 2.3, 2.1)).to_ijk(volume(matrix=matrix)) == (
        (3, 7, 3),
        (17, 23, 7),
    )


@pytest.mark.parametrize("seed", range(8))
def test_box_in_an_oblique_volume_holds_every_voxel_center_inside_it(seed):
    made = volume((14, 15, 16), random_affine(seed))
    generator = np.random.default_rng(seed)
    size = (np.array(made.size) - 1) * np.array(made.spacing)
    first = np.array(made.center_ras) + generator.uniform(-0.3, -0.1, 3) * size.min()
    second = np.array(made.center_ras) + generator.uniform(0.1, 0.3, 3) * size.min()
    low, high = Box.from_ras(first, second).to_ijk(made)
    k, j, i = np.indices(made.shape)
    ras = np.stack([i, j, k, np.ones_like(i)], -1) @ made.ijk_to_ras.T
    inside = ((ras[..., :3] >= first) & (ras[..., :3] <= second)).all(-1)
    covered = np.zeros(made.shape, bool)
    covered[tuple(slice(low[axis], high[axis] + 1) for axis in (2, 1, 0))] = True
    assert inside.any()
    assert not (inside & ~covered).any()
    corners = np.array([[*c, 1] for c in itertools.product(*zip(first, second, strict=True))])
    exact = (corners @ made.ras_to_ijk.T)[:, :3]
    assert (np.array(low) >= np.floor(exact.min(0))).all()
    assert (np.array(high) <= np.ceil(exact.max(0))).all()


def test_box_across_the_border_is_clipped():
    assert Box.from_ijk((-5, 4, 3), (90, 8, 7)).to_ijk(volume()) == ((0, 4, 3), (39, 8, 7))


def test_thin_box_is_the_nearest_slice():
    matrix = np.diag([1.0, 1.0, 5.0, 1.0])
    low, high = Box.from_ras((2, 3, 11.0), (9, 9, 11.0)).to_ijk(volume(matrix=matrix))
    assert (low, high) == ((2, 3, 2), (9, 9, 2))
    low, high = Box.from_ras((2, 3, 13.0), (9, 9, 14.0)).to_ijk(volume(matrix=matrix))
    assert low[2] == high[2] == 3


def test_thin_box_in_the_outer_half_of_a_border_slice():
    matrix = np.diag([1.0, 1.0, 5.0, 1.0])
    for s, k in ((-2.4, 0), (97.4, 19)):
        low, high = Box.from_ras((2, 3, s), (9, 9, s)).to_ijk(volume(matrix=matrix))
        assert low[2] == high[2] == k
    low, high = Box.from_ras((2, 3, 96.0), (9, 9, 300.0)).to_ijk(volume(matrix=matrix))
    assert low[2] == high[2] == 19


@pytest.mark.parametrize("degrees", [0, 3, 20, 40])
def test_a_box_without_thickness_is_drawn_on_a_slice_however_that_is_tilted(degrees):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix() @ np.diag([1, 1, 5])
    made = volume((20, 60, 40), matrix)
    middle, half, depth = made.ijk_to_ras[:3] @ [20, 30, 11, 1], np.array([8, 9, 0]), np.array([0, 0, 6])
    flat = Box.from_ras(middle - half, middle + half)
    low, high = flat.to_ijk(made)
    assert low[2] == high[2] == 11
    assert high[1] - low[1] >= 12
    assert flat.thin_axis(made) == 2
    turned = OrientedBox.from_matrix(
        (-8, -9, 0.3), (8, 9, -0.3), np.vstack([np.c_[np.eye(3), middle], [0, 0, 0, 1]])
    )
    assert turned.to_box(made).thin_axis(made) == 2
    deep = Box.from_ras(middle - half - depth, middle + half + depth)
    assert deep.thin_axis(made) is None


def test_a_deep_box_of_which_one_slice_is_in_sight_is_none_drawn_on_it():
    assert Box.from_ijk((4, 4, -30), (9, 9, 0)).thin_axis(volume()) is None
    assert Box.from_ijk((4, 4, 0), (9, 9, 0)).thin_axis(volume()) == 2
    assert Box.from_ras((-5, -6, -80), (-20, -25, 80)).thin_axis(volume((1, 30, 40))) == 2


def test_box_on_a_single_slice_volume():
    radiograph = volume((1, 30, 40), np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert Box.from_ras((-5, -6, 0), (-20, -25, 0)).to_ijk(radiograph) == ((5, 6, 0), (20, 25, 0))
    assert Box.from_ras((-5, -6, -80), (-20, -25, 80)).to_ijk(radiograph) == ((5, 6, 0), (20, 25, 0))
    with pytest.raises(BoneSAMError, match="single row"):
        Box.from_ras((-5, -6, -1), (-5.2, -25, 1)).to_ijk(radiograph)


@pytest.mark.parametrize(
    "box",
    [
        Box.from_ras((100, 0, 0), (120, 9, 9)),
        Box.from_ijk((5, -9, 2), (9, -2, 4)),
        Box.from_ras((1, 2, 20), (5, 6, 30)),
    ],
)
def test_box_outside_says_where_the_volume_lies(box):
    with pytest.raises(BoneSAMError) as caught:
        box.to_ijk(volume())
    message = str(caught.value)
    assert str(box) in message
    assert "R -0.5 to 39.5, A -0.5 to 29.5, S -0.5 to 19.5 mm" in message
    assert "i 0 to 39, j 0 to 29, k 0 to 19" in message


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box.from_ras((1, 2, 3), (1, 2, 3)),
        lambda: Box.from_ras((1, 2, 3), (1, 2, 8)),
        lambda: Box.from_ijk((4, 4, 4), (4, 9, 4)),
    ],
)
def test_box_without_size(make):
    with pytest.raises(BoneSAMError, match="no size"):
        make()


def test_box_smaller_than_a_voxel():
    with pytest.raises(BoneSAMError, match="single row of voxels"):
        Box.from_ras((3.2, 4.2, 1), (3.4, 4.4, 9)).to_ijk(volume())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box.from_ras((1, 2), (3, 4)),
        lambda: Box.from_ras((1, 2, np.nan), (3, 4, 5)),
        lambda: Box.from_ras("abc", (3, 4, 5)),
        lambda: Box.from_ijk((1, 2, 3.5), (3, 4, 5)),
        lambda: Box((1, 2, 3), (4, 5, 6), "LPS"),
        lambda: Point.from_ras((1, 2, np.inf)),
        lambda: Point((1, 2, 3), True, "lps"),
    ],
)
def test_nonsense_is_refused(make):
    with pytest.raises(BoneSAMError):
        make()


def test_prompts_accept_arrays():
    low, high = Box.from_ijk(np.array([1, 2, 3]), np.array([4, 5, 6])).to_ijk(volume())
    assert (low, high) == ((1, 2, 3), (4, 5, 6))
    assert all(type(value) is int for value in (*low, *high))


# -------------------------------------------------------------------------------------------------- points


@pytest.mark.parametrize("seed", range(4))
def test_point_goes_to_fractional_voxels(seed):
    made = volume(matrix=random_affine(seed))
    ijk = (12.25, 7.5, 3.0)
    ras = (made.ijk_to_ras @ [*ijk, 1])[:3]
    assert Point.from_ras(ras).to_ijk(made) == pytest.approx(ijk, abs=1e-9)
    assert Point.from_ijk(ijk, positive=False).to_ijk(made) == ijk


def test_points_know_their_sign():
    assert Point.from_ras((1, 2, 3)).positive
    assert not Point.from_ras((1, 2, 3), positive=False).positive


def test_point_up_to_the_voxel_face_is_inside():
    assert Point.from_ijk((-0.5, 29.5, 19.5)).to_ijk(volume()) == (-0.5, 29.5, 19.5)
    with pytest.raises(BoneSAMError, match=r"RAS \(0, 0, 19.6\) mm lies outside .* S -0.5 to 19.5 mm"):
        Point.from_ras((0, 0, 19.6)).to_ijk(volume())


# ------------------------------------------------------------------------------------------------- parsing


def test_parsing():
    assert parse_box("1,2,3, -4.5,6,7") == Box.from_ras((1, 2, 3), (-4.5, 6, 7))
    assert parse_box("1,2,3,4,5,6", space="IJK") == Box.from_ijk((1, 2, 3), (4, 5, 6))
    assert parse_point(" 1 , 2e1,-3") == Point.from_ras((1, 20, -3))
    assert parse_point("1,2,3", positive=False) == Point.from_ras((1, 2, 3), positive=False)
    assert parse_point("1,2,3.5", space="IJK") == Point.from_ijk((1, 2, 3.5))


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5,x", "1,2,3,4,5,6,7", "1,2,3,4,5,inf", "1;2;3;4;5;6"]
)
def test_unreadable_boxes_show_what_is_needed(text):
    with pytest.raises(BoneSAMError, match=r"6 numbers .* \(R,A,S,R,A,S in mm\)") as caught:
        parse_box(text)
    assert repr(text) in str(caught.value)


def test_ijk_boxes_need_whole_numbers():
    with pytest.raises(BoneSAMError, match="whole numbers"):
        parse_box("1,2,3,4,5,6.5", space="IJK")


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,2,nan"])
def test_unreadable_points(text):
    with pytest.raises(BoneSAMError, match="3 numbers"):
        parse_point(text)
