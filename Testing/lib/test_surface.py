"""Surfaces: closed, smooth, where the bone is, and as 3D Slicer reads STL."""

from collections import Counter

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from BoneSAMLib import surface
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.surface import bone_surface, write_surfaces
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo

pytest.importorskip("skimage", reason="needs scikit-image")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING = np.array([0.7, 0.9, 1.6])


def affine(kind="oblique"):
    matrix = np.eye(4)
    rotation = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    matrix[:3, :3] = (rotation if kind != "axial" else np.diag([-1.0, -1.0, 1.0])) * SPACING
    if kind == "mirrored":
        matrix[:3, 2] *= -1
    matrix[:3, 3] = (-30, 12, 55)
    return matrix


def ball(shape=(24, 40, 48), center=(23, 19, 12), radius=12.0):
    """Bool [k, j, i], around `center` (i, j, k), radius in mm."""
    kji = np.moveaxis(np.indices(shape), 0, -1)
    return np.linalg.norm((kji[..., ::-1] - center) * SPACING, axis=-1) < radius


def volume_of(mask, kind="oblique"):
    return Volume(np.zeros(mask.shape, np.int16), affine(kind))


def to_lps(volume, ijk):
    return (np.append(ijk, 1) @ (LPS @ volume.ijk_to_ras).T)[:3]


def enclosed(triangles):
    first, second, third = np.moveaxis(triangles.astype(float) - triangles[0, 0], 1, 0)
    return np.einsum("ni,ni->", first, np.cross(second, third)) / 6


def is_closed(triangles):
    """Every edge is walked as often in one direction as in the other."""
    _, index = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    faces = index.reshape(-1, 3)
    edges = Counter(
        map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).tolist())
    )
    return all(edges[b, a] == count for (a, b), count in edges.items())


def is_inside(triangles, points):
    """By the solid angle that the surface covers as seen from each point."""
    inside = []
    for point in points:
        a, b, c = np.moveaxis(triangles.astype(float) - point, 1, 0)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        above = np.einsum("ni,ni->n", a, np.cross(b, c))
        below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        inside.append(np.arctan2(above, below).sum() > np.pi)
    return np.array(inside)


def read_stl(path):
    content = path.read_bytes()
    count = int(np.frombuffer(content[80:84], "<u4")[0])
    assert len(content) == 84 + 50 * count
    rows = np.frombuffer(content[84:], np.dtype([("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")]))
    return content[:80], rows["n"], rows["v"]


@pytest.mark.parametrize("kind", ["axial", "oblique", "mirrored"])
def test_ball_is_round_closed_and_in_its_place(kind):
    mask = ball()
    volume = volume_of(mask, kind)
    triangles = bone_surface(mask, volume)
    assert is_closed(triangles)
    distances = np.linalg.norm(triangles - to_lps(volume, (23, 19, 12)), axis=-1)
    assert np.abs(distances - 12).max() < 0.9  # about half the thickness of a slice
    assert distances.std() < 0.25
    assert enclosed(triangles) == pytest.approx(
        4 / 3 * np.pi * 12**3, rel=0.03
    )  # positive: seen from outside


def test_smoother_than_the_voxels_are():
    """Normals of a ball point away from its center; those of a staircase point along the axes."""
    mask = ball()
    volume = volume_of(mask)
    triangles = bone_surface(mask, volume)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    outward = triangles.mean(axis=1) - to_lps(volume, (23, 19, 12))
    cosines = (normals * outward).sum(1) / np.linalg.norm(normals, axis=1) / np.linalg.norm(outward, axis=1)
    assert np.degrees(np.arccos(np.clip(np.median(cosines), -1, 1))) < 12


@pytest.mark.parametrize("seed", range(3))
def test_every_voxel_center_is_on_its_own_side(seed):
    """Thin plates, single voxels and touching corners: smoothing must not eat or add any."""
    mask = np.random.default_rng(seed).random((5, 6, 7)) < (0.2, 0.5, 0.8)[seed]
    volume = volume_of(mask)
    triangles = bone_surface(mask, volume)
    kji = np.argwhere(np.ones_like(mask))
    centers = np.array([to_lps(volume, index[::-1]) for index in kji])
    assert np.array_equal(is_inside(triangles, centers), mask.ravel())


def test_mask_at_the_border_is_closed():
    mask = np.ones((12, 14, 16), bool)
    triangles = bone_surface(mask, volume_of(mask))
    assert is_closed(triangles)
    assert enclosed(triangles) == pytest.approx(mask.size * np.prod(SPACING), rel=0.1)  # edges are rounded


def test_empty_mask_has_no_surface():
    mask = np.zeros((3, 4, 5), bool)
    assert bone_surface(mask, volume_of(mask)).shape == (0, 3, 3)


def test_one_file_a_bone(tmp_path):
    labels = np.zeros((24, 40, 48), np.int32)
    labels[ball(radius=6)] = 3
    labels[ball(center=(40, 33, 19), radius=4)] = 7
    labels[1, 1, 1] = 300
    volume = volume_of(labels)
    segments = [
        SegmentInfo(3, "left: femur / Oberschenkel 骨 ", (1, 0, 0)),
        SegmentInfo(7, 'LEFT" femur   Oberschenkel 骨', (0, 1, 0)),
        SegmentInfo(9, "not found", (0, 0, 1)),
    ]
    written = write_surfaces(labels, volume, tmp_path / "new" / "folder", segments)
    assert [path.name for path in written] == [
        "left  femur   Oberschenkel 骨.stl", "LEFT  femur   Oberschenkel 骨 2.stl", "Bone 300.stl",
    ]  # fmt: skip
    assert len({path.name.casefold() for path in written}) == 3
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        p.name for p in written
    )
    comment, normals, triangles = read_stl(written[0])
    assert b"SPACE=LPS" in comment
    assert not comment.startswith(b"solid")  # that is how STL in text begins
    assert np.array_equal(triangles, bone_surface(labels == 3, volume))
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    outward = triangles.mean(axis=1) - to_lps(volume, (23, 19, 12))
    assert ((normals * outward).sum(axis=1) > 0).all()


def test_a_long_name_is_cut_to_what_disks_take(tmp_path):
    labels = np.where(ball(radius=6), 1, 0).astype(np.uint8)
    (written,) = write_surfaces(labels, volume_of(labels), tmp_path, [SegmentInfo(1, "骨" * 200, (1, 0, 0))])
    assert written.exists()
    assert set(written.stem) == {"骨"}


def test_vtk_reads_the_file(tmp_path):
    vtk_io = pytest.importorskip("vtkmodules.vtkIOGeometry")
    core = pytest.importorskip("vtkmodules.vtkFiltersCore")
    mask = ball()
    (path,) = write_surfaces(mask, volume_of(mask), tmp_path, [SegmentInfo(1, "femur", (1, 0, 0))])
    reader = vtk_io.vtkSTLReader()
    reader.SetFileName(str(path))
    properties = core.vtkMassProperties()
    properties.SetInputConnection(reader.GetOutputPort())
    properties.Update()
    assert reader.GetHeader().startswith("BoneSAM, millimeters, SPACE=LPS")
    assert properties.GetVolume() == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)


# -------------------------------------------------------------------------------------------- bad input


def test_what_has_no_surface(tmp_path, monkeypatch):
    flat = np.ones((1, 9, 9), np.uint8)
    with pytest.raises(BoneSAMError, match="radiograph"):
        write_surfaces(flat, volume_of(flat), tmp_path)
    mask = ball()
    with pytest.raises(BoneSAMError, match="same"):
        write_surfaces(mask[1:], volume_of(mask), tmp_path)
    with pytest.raises(BoneSAMError, match="65535"):
        write_surfaces(mask * 70000, volume_of(mask), tmp_path)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BoneSAMError, match="Cannot make the folder"):
        write_surfaces(mask, volume_of(mask), tmp_path / "file")
    monkeypatch.setattr(surface, "find_spec", lambda name: None)
    with pytest.raises(BoneSAMError, match="pip install scikit-image"):
        write_surfaces(mask, volume_of(mask), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
