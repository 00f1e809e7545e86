"""Annotations of every kind land on the grid of their image, in the right place."""

import numpy as np
import pytest
import SimpleITK

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, write_mask
from Testing.training.dicom_objects import write_segmentation, write_series, write_structure_set
from training.annotation import read_annotation, read_structures, says_bone

# Turned about all axes, 0.9 x 1.1 x 3 mm, slices stacked from head to feet.
TURN = np.linalg.qr(np.array([[0.9, 0.2, -0.3], [-0.1, 0.95, 0.25], [0.35, -0.2, 0.9]]))[0]
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = TURN * np.sign(np.diag(TURN)) * (0.9, 1.1, -3.0)
OBLIQUE[:3, 3] = (-12.0, 31.0, 140.0)
SHAPE = (14, 40, 48)
CENTER, RADIUS = np.array([25.2, 17.7, 6.4]), 13.0  # voxels i, j, k; mm


def distance_mm(affine, shape=SHAPE, center=CENTER):
    """Distance of every voxel center to a point given in voxels (i, j, k)."""
    places = np.stack(np.indices(shape)[::-1], axis=-1) - center
    return np.linalg.norm(places @ affine[:3, :3].T, axis=-1)


def segments(*names):
    return [SegmentInfo(value, name, (1.0, 0.5, 0.0), "") for value, name in enumerate(names, start=1)]


@pytest.fixture
def ball():
    return distance_mm(OBLIQUE) <= RADIUS


@pytest.fixture
def scan(ball):
    return Volume(np.where(ball, 500, 20).astype(np.int16), OBLIQUE, "scan", "CT")


def test_a_structure_set_of_a_sphere_on_oblique_slices(tmp_path, scan, ball):
    datasets = write_series(tmp_path / "ct", scan.array, OBLIQUE)
    volume = read_volume(tmp_path / "ct")
    # The contour of each slice is a circle of known radius in the slice's plane, computed, not traced.
    axes = OBLIQUE[:3, :3] / np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    middle = OBLIQUE[:3, :3] @ CENTER + OBLIQUE[:3, 3]
    angles = np.linspace(0, 2 * np.pi, 181)[:-1]
    loops, hole = [], []
    for k in range(SHAPE[0]):
        height = (k - CENTER[2]) * 3.0
        if abs(height) >= RADIUS:
            continue
        across = np.cos(angles)[:, None] * axes[:, 0] + np.sin(angles)[:, None] * axes[:, 1]
        foot = middle + height * axes[:, 2]
        loops.append(foot + np.sqrt(RADIUS**2 - height**2) * across)
        if abs(height) < 4:
            hole.append(foot + np.sqrt(16 - height**2) * across)
    path = tmp_path / "rs.dcm"
    contours = {"Femur_L": loops, "Mandible": loops + hole, "Outline": loops, "Parotid_L": loops[:1]}
    write_structure_set(path, datasets, contours, {"Outline": "EXTERNAL"})
    assert [(s.name, s.is_bone) for s in read_structures(path)] == [
        ("Femur_L", True),
        ("Mandible", True),
        ("Parotid_L", False),
    ]
    annotation = read_annotation(path, volume)
    # DICOM stacks are sorted along their normal: here that turns the slices round.
    drawn = annotation.labels > 0
    found = drawn if np.allclose(volume.ijk_to_ras, OBLIQUE, atol=1e-3) else drawn[::-1]
    assert not (found ^ ball)[np.abs(distance_mm(OBLIQUE) - RADIUS) > 0.03].any()
    # The mandible is the smaller one where both are; in its hole only the femur is left.
    near = distance_mm(OBLIQUE) if found is drawn else distance_mm(OBLIQUE)[::-1]
    assert (annotation.labels[near < 3.9] == 1).all()
    assert (annotation.labels[(near > 4.1) & (near < 12.9)][:] == 2).mean() > 0.9
    assert any("overlap" in note for note in annotation.notes)
    voxel = 0.9 * 1.1 * 3.0
    assert drawn.sum() * voxel == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.02)


def test_contours_between_slices_are_refused(tmp_path, scan):
    datasets = write_series(tmp_path / "ct", scan.array, OBLIQUE)
    volume = read_volume(tmp_path / "ct")
    square = np.array([[10, 10, 5.5], [20, 10, 5.5], [20, 20, 5.5], [10, 20, 5.5]])
    loop = square @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    write_structure_set(tmp_path / "rs.dcm", datasets, {"Femur_L": [loop]})
    with pytest.raises(BoneSAMError, match="lies on no slice of the image"):
        read_annotation(tmp_path / "rs.dcm", volume)
    far = loop + 40.5 * OBLIQUE[:3, 2]
    write_structure_set(tmp_path / "rs.dcm", datasets, {"Femur_L": [far]})
    with pytest.raises(BoneSAMError, match="outside of the image"):
        read_annotation(tmp_path / "rs.dcm", volume)


def test_skipped_contours_are_noted(tmp_path, scan):
    datasets = write_series(tmp_path / "ct", scan.array, OBLIQUE)
    square = np.array([[10, 10, 0], [20, 10, 0], [20, 20, 0], [10, 20, 0]])
    loops = [(square + np.array([0, 0, k])) @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3] for k in (4, 6, 7)]
    write_structure_set(tmp_path / "rs.dcm", datasets, {"Femur_L": loops})
    annotation = read_annotation(tmp_path / "rs.dcm", read_volume(tmp_path / "ct"))
    assert annotation.notes == ("The contours of 'Femur_L' leave out 1 slices between others.",)


def test_a_dicom_segmentation_comes_back(tmp_path, scan, ball):
    datasets = write_series(tmp_path / "ct", scan.array, OBLIQUE)
    cube = np.zeros(SHAPE, bool)
    cube[3:5, 30:38, 2:9] = True
    write_segmentation(tmp_path / "seg.dcm", datasets, {"Left femur": ball, "Liver": cube})
    assert [(s.value, s.name, s.is_bone) for s in read_structures(tmp_path / "seg.dcm")] == [
        (1, "Left femur", True),
        (2, "Liver", False),
    ]
    volume = read_volume(tmp_path / "ct")
    annotation = read_annotation(tmp_path / "seg.dcm", volume)
    same = np.allclose(volume.ijk_to_ras, OBLIQUE, atol=1e-3)
    expected = ball + 2 * cube
    assert np.array_equal(annotation.labels, expected if same else expected[::-1])
    assert annotation.notes == ()


def test_what_the_extension_saves_comes_back(tmp_path, scan, ball):
    labels = ball + 2 * (distance_mm(OBLIQUE) < 4)
    labels[labels == 3] = 2
    write_mask(
        labels.astype(np.uint8), scan, tmp_path / "bones.seg.nrrd", segments("left femur", "Segment_2")
    )
    structures = read_structures(tmp_path / "bones.seg.nrrd")
    assert [(s.value, s.name, s.is_bone) for s in structures] == [
        (1, "left femur", True),
        (2, "Segment_2", False),
    ]
    assert np.array_equal(read_annotation(tmp_path / "bones.seg.nrrd", scan).labels, labels)


def test_a_segmentation_that_was_cut_to_its_content(tmp_path, scan, ball):
    """3D Slicer saves only the part of the grid that holds segments, with an origin of its own."""
    start = np.array([8, 3, 1])  # i, j, k
    cut = OBLIQUE.copy()
    cut[:3, 3] += OBLIQUE[:3, :3] @ start
    part = ball[1:13, 3:36, 8:44]
    write_mask(part.astype(np.uint8), Volume(part, cut), tmp_path / "b.seg.nrrd", segments("left femur"))
    annotation = read_annotation(tmp_path / "b.seg.nrrd", scan)
    assert np.array_equal(annotation.labels > 0, ball)
    assert annotation.notes == ()


def test_overlapping_segments_lie_in_layers(tmp_path, scan, ball):
    inner = distance_mm(OBLIQUE) < 6
    image = SimpleITK.GetImageFromArray(np.stack([ball, inner], axis=-1).astype(np.uint8), isVector=True)
    image.SetDirection((np.diag([-1, -1, 1]) @ OBLIQUE[:3, :3] / (0.9, 1.1, 3.0)).ravel().tolist())
    image.SetSpacing((0.9, 1.1, 3.0))
    image.SetOrigin((12.0, -31.0, 140.0))
    for number, name in enumerate(("right femur", "right patella")):
        image.SetMetaData(f"Segment{number}_ID", f"s{number}")
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_Layer", str(number))
        image.SetMetaData(f"Segment{number}_LabelValue", "1")
    SimpleITK.WriteImage(image, tmp_path / "b.seg.nrrd")
    annotation = read_annotation(tmp_path / "b.seg.nrrd", scan)
    assert np.array_equal(annotation.labels, np.where(inner, 2, ball))
    assert annotation.notes == (f"Structures overlap in {inner.sum()} voxels: the smaller one has them.",)


def test_a_segmentation_of_another_grid_is_resampled_and_elsewhere_refused(tmp_path, scan, ball):
    straight = np.diag([1.0, 1.0, 1.0, 1.0])
    straight[:3, 3] = OBLIQUE[:3, :3] @ CENTER + OBLIQUE[:3, 3] - 15
    fine = Volume(distance_mm(straight, (31, 31, 31), np.array([15, 15, 15])) <= RADIUS, straight)
    write_mask(fine.array.astype(np.uint8), fine, tmp_path / "b.seg.nrrd", segments("left femur"))
    annotation = read_annotation(tmp_path / "b.seg.nrrd", scan)
    wrong = (annotation.labels > 0) ^ ball
    assert not wrong[np.abs(distance_mm(OBLIQUE) - RADIUS) > 1].any()
    assert annotation.notes == ("It was drawn on another grid and is resampled to the nearest voxels.",)
    straight[:3, 3] += 500
    write_mask(
        fine.array.astype(np.uint8), Volume(fine.array, straight), tmp_path / "b.seg.nrrd", segments("femur")
    )
    with pytest.raises(BoneSAMError, match="lies outside of the image"):
        read_annotation(tmp_path / "b.seg.nrrd", scan)


def test_probabilities_are_no_mask(tmp_path, scan, ball):
    image = SimpleITK.GetImageFromArray(ball * np.float32(0.7))
    SimpleITK.WriteImage(image, tmp_path / "mask.nii.gz")
    plain = Volume(scan.array, np.diag([-1.0, -1.0, 1.0, 1.0]), "scan")
    with pytest.raises(BoneSAMError, match="not probabilities"):
        read_annotation(tmp_path / "mask.nii.gz", plain)


def test_damaged_files_are_said_to_be(tmp_path, scan):
    (tmp_path / "b.seg.nrrd").write_bytes(b"NRRD0005\ntype: unsigned")
    with pytest.raises(BoneSAMError, match="damaged"):
        read_annotation(tmp_path / "b.seg.nrrd", scan)
    with pytest.raises(BoneSAMError, match="no file"):
        read_annotation(tmp_path / "none.nrrd", scan)


@pytest.mark.parametrize(
    ("name", "bone"),
    [
        ("Femur_L", True),
        ("Bone 3", True),
        ("left hip bone", True),
        ("Parotid_L", False),
        ("Segment_1", False),
    ],
)
def test_names_of_bones(name, bone):
    assert says_bone(name) == bone
