"""Volume: validation, geometry, and what is guessed from the values."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume


def affine(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), rotation=None):
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.asarray(spacing)
    matrix[:3, 3] = origin
    return matrix


def volume(shape=(4, 5, 6), spacing=(1.0, 1.0, 1.0), **options):
    return Volume(np.zeros(shape, np.int16), affine(spacing, **options))


# ---------------------------------------------------------------------------------------------- validation


def test_does_not_copy_the_array_and_protects_its_affine():
    array, matrix = np.zeros((3, 4, 5), np.float32), np.eye(4)
    made = Volume(array, matrix)
    assert made.array is array
    matrix[0, 0] = 7
    assert made.ijk_to_ras[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        made.ijk_to_ras[0, 0] = 2
    with pytest.raises(AttributeError):
        made.array = array


def test_a_picture_becomes_one_slice():
    made = Volume(np.zeros((5, 6), np.uint8), np.eye(4))
    assert made.shape == (1, 5, 6)
    assert made.size == (6, 5, 1)
    assert made.is_projection


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int16, ">i2", np.uint32, np.int64, np.float16, np.float64]
)
def test_accepts_every_real_type(dtype):
    assert Volume(np.zeros((2, 3, 4), dtype), np.eye(4)).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5, 6)), "no voxels"),
        (np.zeros((1, 1, 6)), "one row of voxels"),
        (np.zeros((3, 4, 5, 6)), "series of 3 volumes"),
        (np.zeros((4, 5, 6, 3)), "color image"),
        (np.zeros(7), "1 dimensions"),
        (np.zeros((3, 4, 5), complex), "complex"),
        (np.full((3, 4, 5), None), "object"),
    ],
)
def test_refuses_what_is_no_volume(array, message):
    with pytest.raises(BoneSAMError, match=message):
        Volume(array, np.eye(4), name="scan")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_values_that_are_no_numbers_and_says_where(bad):
    array = np.zeros((3, 4, 5), np.float32)
    array[2, 1, 3] = array[2, 1, 4] = bad
    with pytest.raises(BoneSAMError, match=r"'scan', 2 voxels .* i, j, k = 3, 1, 2"):
        Volume(array, np.eye(4), name="scan")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), "shape 3 x 3"),
        (affine(origin=(0, np.nan, 0)), "not finite"),
        (affine(spacing=(1, 0, 1)), "spacing along j is zero"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "parallel"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1.0]]), "0 0 0 1"),
    ],
)
def test_refuses_affines_that_are_none(matrix, message):
    with pytest.raises(BoneSAMError, match=message):
        Volume(np.zeros((3, 4, 5)), matrix)


def test_micrometer_voxels_are_not_singular():
    assert volume(spacing=(1e-3, 1e-3, 1e-3)).spacing == pytest.approx((1e-3, 1e-3, 1e-3))


def test_refuses_an_unknown_modality():
    with pytest.raises(BoneSAMError, match=r"'US'.*CT, MR, X-ray"):
        Volume(np.zeros((3, 4, 5)), np.eye(4), modality="US")


# ------------------------------------------------------------------------------------------------ geometry


def test_geometry_of_an_oblique_flipped_volume():
    rotation = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    rotation[:, 1] *= -1
    made = volume((7, 8, 9), (0.5, 0.75, 3.0), origin=(-10, 20, 30), rotation=rotation)
    assert made.spacing == pytest.approx((0.5, 0.75, 3.0))
    assert np.allclose(made.ras_to_ijk @ made.ijk_to_ras, np.eye(4), atol=1e-12)
    assert made.through_plane_axis == 2
    assert np.allclose(made.center_ras, (made.ijk_to_ras @ [4, 3.5, 3, 1])[:3])


def test_bounds_include_the_outer_faces():
    made = Volume(np.zeros((3, 4, 5)), np.diag([-1.0, -2.0, 4.0, 1.0]))
    assert made.bounds_ras == ((-4.5, 0.5), (-7.0, 1.0), (-2.0, 10.0))
    assert made.bounds_text == "R -4.5 to 0.5, A -7.0 to 1.0, S -2.0 to 10.0 mm"


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((30, 256, 256), (0.7, 0.7, 4.0), 2),  # axial stack
        ((256, 30, 256), (0.7, 4.0, 0.7), 1),
        ((256, 256, 30), (4.0, 0.7, 0.7), 0),
        ((300, 512, 512), (0.7, 0.7, 0.8), 2),  # nearly isotropic: fewest voxels
        ((400, 380, 60), (1.0, 1.0, 1.0), 0),  # isotropic, sagittal slab
        ((200, 180, 190), (1.0, 1.0, 1.0), 2),  # isotropic cube: along S
        ((128, 128, 128), (3.9, 3.9, 2.5), 2),  # coarse square pixels, thinner slices
        ((128, 128, 128), (0.5, 1.0, 1.0), 0),
        ((128, 128, 128), (1.0, 1.15, 1.3), 2),
        ((100, 100, 40), (3.0, 1.0, 4.0), 2),  # the thickest of two
        ((1, 300, 200), (0.2, 0.2, 0.1), 2),  # single slice, whatever its thickness
        ((300, 1, 200), (0.2, 1.0, 0.2), 1),
        ((300, 200, 1), (9.0, 0.2, 0.2), 0),
    ],
)
def test_through_plane_axis(shape, spacing, axis):
    assert volume(shape, spacing).through_plane_axis == axis


def test_through_plane_axis_of_an_isotropic_cube_follows_the_body():
    for order in itertools.permutations(range(3)):
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[:, list(order)]  # IJK axis n runs along RAS axis order[n]
        made = Volume(np.zeros((50, 50, 50), np.uint8), matrix)
        assert made.through_plane_axis == order.index(2)


@pytest.mark.parametrize(
    ("directions", "code"),
    [
        (np.diag([-1, -1, 1]), "LPS"),
        (np.eye(3), "RAS"),
        (np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]), "AIR"),
        (Rotation.from_euler("z", 30, degrees=True).as_matrix(), "RAS"),
    ],
)
def test_orientation(directions, code):
    assert volume(rotation=directions).orientation == code


# ------------------------------------------------------------------------------------------------ modality

GENERATOR = np.random.default_rng(5)


def body(shape=(40, 48, 48)):
    """Hounsfield units of a cylinder of fat, muscle and bone in air."""
    k, j, i = np.indices(shape)
    radius = np.hypot(j - shape[1] / 2, i - shape[2] / 2)
    values = np.full(shape, -1000.0)
    values[radius < 20] = -100
    values[radius < 17] = 50
    values[radius < 6] = 300
    values[(radius > 4) & (radius < 6) & (k > 3)] = 1100
    return values + GENERATOR.normal(0, 12, shape)


def as_volume(values, dtype=np.int16):
    return Volume(values.round().astype(dtype), affine((1, 1, 2)))


def test_ct_in_hounsfield_units():
    made = as_volume(body())
    assert made.modality_guess == "CT"
    assert made.intensity_offset == 0


def test_resampled_ct_with_fractions_and_padding():
    values = body().astype(np.float32)
    values[:, :4] = -3024
    made = Volume(values, np.eye(4))
    assert made.modality_guess == "CT"
    assert made.intensity_offset == 0


def test_ct_stored_with_an_offset_of_1024():
    stored = body() + 1024
    stored[body() < -500] = 0
    for dtype in (np.uint16, np.int16, np.float32):
        made = as_volume(np.clip(stored, 0, 4095), dtype)
        assert made.modality_guess == "CT"
        assert made.intensity_offset == -1024


def test_stated_modality_wins_and_keeps_the_offset_only_for_ct():
    stored = np.where(body() < -500, 0, body() + 1024).round().clip(0, 4095).astype(np.uint16)
    assert Volume(stored, np.eye(4), modality="MR").modality_guess == "MR"
    assert Volume(stored, np.eye(4), modality="MR").intensity_offset == 0
    assert Volume(stored, np.eye(4), modality="CT").intensity_offset == -1024
    assert Volume(body(), np.eye(4), modality="CT").intensity_offset == 0


def test_mr_with_background_zero_is_not_taken_for_offset_ct():
    values = np.where(body() < -500, 0, GENERATOR.gamma(4, 300, (40, 48, 48)))  # broad tissue contrast
    assert as_volume(np.clip(values, 0, 4095), np.uint16).modality_guess == "MR"
    flat = np.where(body() < -500, 0, GENERATOR.normal(1050, 330, (40, 48, 48)))
    assert as_volume(np.clip(flat, 0, 4095), np.uint16).modality_guess == "MR"


def test_signed_mr_is_not_taken_for_ct():
    phase = GENERATOR.uniform(-4096, 4095, (40, 48, 48))
    assert as_volume(phase).modality_guess == "MR"
    scores = GENERATOR.normal(0, 1, (40, 48, 48))
    assert Volume(scores, np.eye(4)).modality_guess == "MR"


def test_eight_bit_stack_is_mr_and_single_slice_is_x_ray():
    assert as_volume(GENERATOR.integers(0, 256, (20, 30, 30)), np.uint8).modality_guess == "MR"
    assert as_volume(GENERATOR.integers(0, 256, (1, 300, 200)), np.uint8).modality_guess == "X-ray"


def test_single_slices():
    assert as_volume(body()[:1]).modality_guess == "CT"
    radiograph = np.where(body()[:1] < -500, 0, GENERATOR.normal(1050, 50, (1, 48, 48))).clip(0, 4095)
    radiograph[0, 0, 0] = 4000
    made = as_volume(radiograph, np.uint16)
    assert made.modality_guess == "X-ray"
    assert made.intensity_offset == 0


def test_an_empty_ct_is_still_a_ct():
    assert as_volume(np.full((10, 10, 10), -1000.0)).modality_guess == "CT"
