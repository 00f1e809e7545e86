"""Voxelizing, depth, objects and geometry of the label volumes, on spheres whose answers are known."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial import ConvexHull

from BoneSAMLib.errors import BoneSAMError
from training.synthesis import anatomy

GRID = anatomy.Grid(origin=(-30.0, -30.0, -30.0), spacing=(1.0, 1.0, 1.0), size=(61, 61, 61))


def sphere(center, radius, name="ball", tissue="bone"):
    """A closed sphere of 3,000 points, with its faces."""
    n = np.arange(3000) + 0.5
    height, angle = 1.0 - 2.0 * n / 3000, np.pi * (1.0 + 5.0**0.5) * n
    across = np.sqrt(1.0 - height**2)
    points = np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=1) * radius
    faces = ConvexHull(points).simplices.astype(np.int64)
    # The hull's triangles are not wound alike: turn them outward.
    a, b, c = (points[faces[:, column]] for column in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return anatomy.Structure(name, tissue, points + np.array(center), faces)


def write_meshes(folder, structures):
    """The structures in the format of the mesh files: LPS, 1/50 mm, faces local to their structure."""
    rows, points, faces = [], [], []
    point_count = face_count = 0
    for structure in structures:
        rows.append(
            {
                "name": structure.name,
                "tissue": structure.tissue,
                "point_range": [point_count, point_count + len(structure.points)],
                "face_range": [face_count, face_count + len(structure.faces)],
            }
        )
        points.append(np.rint(structure.points * (-50, -50, 50)).astype(np.int32))
        faces.append(structure.faces.astype(np.int32))
        point_count += len(structure.points)
        face_count += len(structure.faces)
    np.savez(folder / "body.npz", points_50th_mm=np.concatenate(points), faces=np.concatenate(faces))
    (folder / "body.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "body"


@pytest.mark.parametrize("spacing", [1.0, 0.7])
def test_a_sphere_has_its_volume(spacing):
    ball = sphere((1.3, -2.2, 0.4), 17.0)
    exact = 4.0 / 3.0 * np.pi * 17.0**3
    grid = anatomy.Grid.around((-25, -25, -25), (25, 25, 25), spacing)
    assert ball.volume == pytest.approx(exact, rel=0.01)
    assert (anatomy.paint([ball], grid) > 0).sum() * spacing**3 == pytest.approx(exact, rel=0.02)


def test_voxels_lie_where_the_sphere_is():
    labels = anatomy.paint([sphere((10.0, -5.0, 3.0), 8.0)], GRID)
    k, j, i = np.argwhere(labels).mean(axis=0)
    assert (i, j, k) == pytest.approx((40.0, 25.0, 33.0), abs=0.1)


def test_a_sphere_beyond_the_border_is_cut_and_one_outside_left_out():
    labels = anatomy.paint([sphere((30.0, 0.0, 0.0), 10.0), sphere((100.0, 0.0, 0.0), 10.0)], GRID)
    assert set(np.unique(labels)) == {0, anatomy.FIRST_STRUCTURE}
    assert labels[30, 30, 60]
    assert not labels[30, 30, 45]


def test_meshes_are_turned_from_lps_to_ras(tmp_path):
    path = write_meshes(
        tmp_path, [sphere((-50.0, -20.0, 7.0), 5.0, name="First"), sphere((20.0, 30.0, -8.0), 5.0)]
    )
    first, second = anatomy.read_structures(path)
    assert first.name == "first"
    assert first.points.mean(axis=0) == pytest.approx((-50.0, -20.0, 7.0), abs=0.1)
    assert second.points.mean(axis=0) == pytest.approx((20.0, 30.0, -8.0), abs=0.1)
    stored = np.load(tmp_path / "body.npz")["points_50th_mm"][:3000].mean(axis=0) / 50
    assert stored == pytest.approx((50.0, 20.0, 7.0), abs=0.1)


def test_missing_meshes_are_named(tmp_path):
    with pytest.raises(BoneSAMError, match=r"body\.json is missing"):
        anatomy.read_structures(tmp_path / "body")


def test_bones_win_over_soft_structures_and_teeth_over_bones():
    soft, bone = sphere((0, 0, 0), 5.0, tissue="muscle"), sphere((0, 0, 0), 15.0)
    tooth, small = sphere((0, 0, 0), 12.0, tissue="tooth"), sphere((25, 0, 0), 3.0, tissue="vessel")
    labels = anatomy.paint([tooth, soft, bone, small, sphere((25, 0, 0), 5.0, tissue="organ")], GRID)
    assert labels[30, 30, 30] == anatomy.FIRST_STRUCTURE
    assert labels[30, 30, 43] == anatomy.FIRST_STRUCTURE + 2
    assert labels[30, 30, 55] == anatomy.FIRST_STRUCTURE + 3


def test_depth_at_the_center_is_the_radius():
    depth = anatomy.bone_depth(anatomy.paint([sphere((0, 0, 0), 20.0)], GRID), GRID.sampling)
    assert depth.dtype == np.uint8
    assert depth[30, 30, 30] * anatomy.DEPTH_STEP_MM == pytest.approx(20.0, abs=1.0)
    assert depth[30, 30, 30 + 10] * anatomy.DEPTH_STEP_MM == pytest.approx(10.0, abs=1.0)
    assert depth[0, 0, 0] == 0


def test_touching_bones_each_have_a_surface():
    hard = np.zeros((20, 20, 20), np.uint16)
    hard[:, :, :10], hard[:, :, 10:] = 2, 3
    depth = anatomy.bone_depth(hard, (1.0, 1.0, 1.0))
    assert depth[10, 10, 9] == depth[10, 10, 10] == 2
    assert depth[10, 10, 5] == depth[10, 10, 14] == 18
    # The border of the volume is no surface.
    assert depth[10, 10, 0] == depth[0, 0, 0] == 38


def test_depth_saturates():
    hard = np.zeros((3, 3, 50), np.uint16)
    hard[:, :, 1:] = 2
    assert anatomy.bone_depth(hard, (1.0, 1.0, 3.0))[1, 1, 49] == 255


def test_pieces_of_one_label_become_objects_and_crumbs_do_not():
    labels = np.zeros((30, 30, 30), np.uint16)
    labels[5:15, 5:15, 5:15] = 2
    labels[5:15, 5:15, 20:30] = 2
    labels[25, 25, 5] = 2
    table = {0: ("air", "air"), 1: ("fat", "fat"), 2: ("pelvis", "bone")}
    first, second = anatomy.separate_objects(labels, table)
    assert [first["label"], second["label"]] == [2, 3]
    assert {first["voxels"], second["voxels"]} == {1000}
    left, right = sorted((first, second), key=lambda row: row["low"][0])
    assert left["low"] == [5, 5, 5]
    assert left["high"] == [14, 14, 14]
    assert left["complete"]
    assert not right["complete"]
    assert table[3] == ("pelvis, piece 2", "bone")
    assert (labels == 3).sum() == 1000


def test_names_decide_tissues():
    assert anatomy.mesh_tissue("intervertebral disk of axis", "cartilage") == "disc"
    assert anatomy.mesh_tissue("right optic tract", "muscle") == "neural"
    assert anatomy.mesh_tissue("ascending part of left trapezius", "organ") == "muscle"
    assert anatomy.mesh_tissue("thalamogeniculate artery", "vessel") == "vessel"
    assert anatomy.mesh_tissue("left hip bone", "bone") == "bone"
    assert anatomy.label_tissue("costal_cartilages") == "cartilage"
    assert anatomy.label_tissue("L5-L4-IntervertebralDisc") == "disc"
    assert anatomy.label_tissue("right_renal_pelvis") == "organ"
    assert anatomy.label_tissue("Pelvis") == "bone"
    assert anatomy.label_tissue("3") == "fat"
    with pytest.raises(BoneSAMError, match="'gizzard' has no tissue"):
        anatomy.label_tissue("gizzard")


def test_label_maps_are_turned_to_ras_and_cut_to_their_annotation(tmp_path):
    array = np.zeros((6, 4, 5), np.uint8)
    array[1:5, 0, 0] = 7
    image = sitk.GetImageFromArray(array)
    # Stored as L, P, S from the patient's right and front on: voxel 0 is the rightmost and foremost.
    image.SetOrigin((-10.0, -20.0, 5.0))
    image.SetSpacing((1.0, 1.0, 2.0))
    path = tmp_path / "map.nii.gz"
    sitk.WriteImage(image, str(path))
    labels, grid = anatomy.read_label_map(path)
    assert labels.shape == (4, 4, 5)
    assert (labels[:, 3, 4] == 7).all()
    assert grid.origin == pytest.approx((6.0, 17.0, 7.0))
    assert grid.spacing == pytest.approx((1.0, 1.0, 2.0))


def test_the_body_closes_gaps_and_covers():
    union = np.zeros((5, 60, 60), bool)
    union[:, 25:35, 20:25] = union[:, 25:35, 33:38] = True
    body = anatomy.close_and_cover(union, (1.0, 1.0, 1.0), 6.0, 3.0)
    assert body[:, 30, 17:41].all()
    assert not body[:, 30, :16].any()
    assert not body[:, :15].any()


def test_a_written_subject_is_complete_and_kept(tmp_path, capsys):
    def build():
        structures = [sphere((0, 0, 0), 10.0, name="ball"), sphere((0, 0, 20), 8.0, "flesh", "muscle")]
        outline = anatomy.body_outline(structures)
        return anatomy.region_subject("two", "test", GRID, structures, outline)

    anatomy.make("two", tmp_path, build)
    anatomy.make("two", tmp_path, build)
    assert "two: kept" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.depth.npy", "two.json", "two.labels.npy"]
    header = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))
    labels, depth = np.load(tmp_path / "two.labels.npy"), np.load(tmp_path / "two.depth.npy")
    assert labels.dtype == np.uint16
    assert depth.dtype == np.uint8
    assert labels.shape == depth.shape == (61, 61, 61)
    assert set(header["labels"]) == {"1", "2", "3"}
    assert header["labels"]["2"] == {"name": "ball", "tissue": "bone"}
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert ((depth > 0) == (labels == 2)).all()
    (row,) = header["objects"]
    assert row["label"] == 2
    assert row["complete"]
    assert row["voxels"] == (labels == 2).sum()


def test_a_region_of_a_left_limb_mirrors_that_of_the_right():
    region = anatomy.Region("knee", r"{side} patella", 1.0, 10, 20, 5, 5, 5, 5)
    bones = [sphere((50, 0, 0), 4.0, "right patella"), sphere((-50, 0, 0), 4.0, "left patella")]
    right, left = (anatomy.region_grid(region, side, bones) for side in ("right", "left"))
    assert right.size == left.size
    assert right.origin[0] == pytest.approx(50 - 4 - 20, abs=0.1)
    assert left.origin[0] == pytest.approx(-50 - 4 - 10, abs=0.1)
    with pytest.raises(BoneSAMError, match="knee"):
        anatomy.region_grid(region, "right", [])


def test_lungs_are_made_from_airways_only_where_they_are_missing():
    airways = [sphere((side * 40.0, 0, 0), 20.0, "apical bronchial tree", "lung_airway") for side in (1, -1)]
    hulls = anatomy.missing_organs(airways)
    assert [hull.name for hull in hulls] == ["right lung", "left lung"]
    assert hulls[0].low[0] > 0 > hulls[1].high[0]
    assert not anatomy.missing_organs([*airways, sphere((0, 0, 0), 5.0, "upper lobe of left lung")])
