"""Masks in every format: geometry to the last digit, 3D Slicer's segmentation header, and failing disks."""

import errno
import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from BoneSAMLib import writing
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.itk_reading import lps_to_ras
from BoneSAMLib.reading import read_volume
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import BONE_TERMINOLOGY, SegmentInfo, distinct_color, open_complete, write_mask

ENDINGS = [".nii", ".nii.gz", ".nrrd", ".mha", ".seg.nrrd"]


def volume(shape=(6, 7, 8), seed=0):
    generator = np.random.default_rng(seed)
    affine = np.eye(4)
    rotation = Rotation.random(random_state=seed).as_matrix()
    if seed % 2:
        rotation[:, seed % 3] *= -1
    affine[:3, :3] = rotation * generator.uniform(0.3, 5, 3)
    affine[:3, 3] = generator.uniform(-120, 120, 3)
    return Volume(np.zeros(shape, np.int16), affine)


def labels(shape=(6, 7, 8), highest=2, seed=0):
    array = np.random.default_rng(seed).integers(0, highest + 1, shape)
    array.flat[-1] = highest
    return array


def itk_affine(path):
    image = SimpleITK.ReadImage(str(path))
    return lps_to_ras(image.GetOrigin(), image.GetSpacing(), image.GetDirection())


def header(path):
    """Fields and key/value pairs of an NRRD file."""
    text = path.read_bytes().split(b"\n\n", 1)[0].decode()
    lines = [line for line in text.split("\n")[1:] if not line.startswith("#")]
    pairs = dict(line.split(":=", 1) for line in lines if ":=" in line)
    return dict(line.split(": ", 1) for line in lines if ":=" not in line), pairs


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ending", ENDINGS)
def test_geometry_and_labels_come_back_in_our_reader_and_in_itk(tmp_path, ending, seed):
    made, array = volume(seed=seed), labels(highest=(1, 300, 70000)[seed % 3])
    path = tmp_path / f"mask{ending}"
    write_mask(array, made, path)
    back = read_volume(path)
    assert np.array_equal(back.array, array)
    assert back.array.dtype == (np.uint8, np.uint16, np.uint32)[seed % 3]
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), array)
    tolerance = 1e-5 if ".nii" in ending else 1e-12  # NIfTI has single precision
    assert np.abs(back.ijk_to_ras - made.ijk_to_ras).max() < tolerance
    assert np.abs(itk_affine(path) - made.ijk_to_ras).max() < tolerance


@pytest.mark.parametrize("seed", range(12))
def test_both_nifti_affines_agree(tmp_path, seed):
    made = volume(seed=seed)
    path = tmp_path / "mask.nii"
    write_mask(labels(), made, path)
    content = bytearray(path.read_bytes())
    content[254:256] = b"\0\0"  # forget the sform, so that the qform counts
    path.write_bytes(content)
    assert np.abs(read_volume(path).ijk_to_ras - made.ijk_to_ras).max() < 2e-5
    assert np.abs(itk_affine(path) - made.ijk_to_ras).max() < 2e-5


@pytest.mark.parametrize("angles", [(0, 0, 180), (180, 0, 0), (0, 180, 0), (90, 90, 0), (0, 0, 0)])
def test_qform_of_right_angles(tmp_path, angles):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().round()
    path = tmp_path / "mask.nii"
    write_mask(labels(), Volume(np.zeros((6, 7, 8)), affine), path)
    content = bytearray(path.read_bytes())
    content[254:256] = b"\0\0"
    path.write_bytes(content)
    assert np.allclose(read_volume(path).ijk_to_ras, affine, atol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_radiograph_and_a_bool_mask(tmp_path, ending):
    made = Volume(np.zeros((1, 30, 40), np.uint8), np.diag([-0.2, -0.2, 1.0, 1.0]))
    mask = np.zeros(made.shape, bool)
    mask[0, 5:9, 10:20] = True
    write_mask(mask, made, tmp_path / f"mask{ending}")
    back = read_volume(tmp_path / f"mask{ending}")
    assert np.array_equal(back.array, mask)
    assert np.allclose(back.ijk_to_ras, made.ijk_to_ras)


def test_non_contiguous_and_signed_labels(tmp_path):
    array = labels((8, 7, 6)).astype(np.int64).T
    write_mask(array, volume(), tmp_path / "mask.nrrd")
    assert np.array_equal(read_volume(tmp_path / "mask.nrrd").array, array)


def test_the_same_mask_gives_the_same_bytes(tmp_path):
    for ending in ENDINGS:
        write_mask(labels(), volume(), tmp_path / f"a{ending}")
        write_mask(labels(), volume(), tmp_path / f"b{ending}")
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


# ------------------------------------------------------------------------------- segmentation for 3D Slicer


def test_segmentation_header(tmp_path):
    array = np.zeros((6, 7, 8), np.uint16)
    array[2:4, 1:5, 3:6] = 1
    array[5, 6, 7] = 300
    path = tmp_path / "Knochen rechts.seg.nrrd"
    segments = [
        SegmentInfo(1, "Fémur, left | \\ half\n", (1, 0.5, 0)),
        SegmentInfo(9, "Not found", (0, 0, 1), ""),
    ]
    write_mask(array, volume(), path, segments)
    fields, pairs = header(path)
    assert fields["space"] == "left-posterior-superior"
    assert fields["sizes"] == "8 7 6"
    assert fields["kinds"] == "domain domain domain"
    assert fields["type"] == "uint16"
    assert pairs["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert pairs["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    assert pairs["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    name, geometry, _ = pairs["Segmentation_ConversionParameters"].split("|")
    numbers = [float(number) for number in geometry.rstrip(";").split(";")]
    assert name == "Reference image geometry"
    assert np.array_equal(np.reshape(numbers[:16], (4, 4)), volume().ijk_to_ras)
    assert numbers[16:] == [0, 7, 0, 6, 0, 5]
    assert pairs["Segment0_ID"] == "Segment_1"
    assert pairs["Segment0_Name"] == "Fémur, left | \\\\ half\\n"
    assert pairs["Segment0_Color"] == "1 0.5 0"
    assert pairs["Segment0_LabelValue"] == "1"
    assert pairs["Segment0_Tags"] == f"TerminologyEntry:{BONE_TERMINOLOGY}|"
    assert pairs["Segment1_Name"] == "Not found"
    assert pairs["Segment1_Tags"] == "|"
    assert pairs["Segment2_ID"] == "Segment_300"
    assert pairs["Segment2_Name"] == "Bone 300"
    assert "Segment3_ID" not in pairs
    for index in range(3):
        assert pairs[f"Segment{index}_Layer"] == "0"
        assert pairs[f"Segment{index}_Extent"] == "3 7 1 6 2 5"  # of the layer, i j k
    image = SimpleITK.ReadImage(str(path))  # and ITK reads the names too
    assert image.GetMetaData("Segment0_Name").startswith("Fémur, left | \\ half")


def test_empty_segmentation(tmp_path):
    path = tmp_path / "none.seg.nrrd"
    write_mask(np.zeros((6, 7, 8), np.uint8), volume(), path, [SegmentInfo(1, "Bone", (1, 0, 0))])
    assert header(path)[1]["Segment0_Extent"] == "0 -1 0 -1 0 -1"


def test_a_plain_nrrd_has_no_segments(tmp_path):
    write_mask(labels(), volume(), tmp_path / "mask.nrrd", [SegmentInfo(1, "Bone", (1, 0, 0))])
    assert header(tmp_path / "mask.nrrd")[1] == {}


def test_3d_slicer_itself_reads_the_segmentation(tmp_path):
    slicer = pytest.importorskip("slicer", reason="needs the slicer-core package")
    numpy_support = pytest.importorskip("vtkmodules.util.numpy_support")
    array, made = labels((6, 7, 8), 3), volume(seed=3)
    path = tmp_path / "bones.seg.nrrd"
    segments = [SegmentInfo(n, f"Bone é {n}", distinct_color(n)) for n in (1, 2, 3)]
    write_mask(array, made, path, segments)
    scene = slicer.vtkMRMLScene()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert storage.ReadData(node)
    for n, info in enumerate(segments):
        segment_id = node.GetSegmentation().GetNthSegmentID(n)
        segment = node.GetSegmentation().GetSegment(segment_id)
        assert segment.GetName() == info.name
        assert segment.GetLabelValue() == info.value
        assert np.allclose(segment.GetColor(), info.color, atol=1e-5)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(segment_id, image)
        i0, i1, j0, j1, k0, k1 = image.GetExtent()
        found = np.zeros(array.shape, bool)
        found[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = (
            numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(
                k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1
            )
            > 0
        )
        assert np.array_equal(found, array == info.value)


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 7, 9), np.uint8), "shape"),
        (np.zeros((6, 7, 8), np.float32), "whole numbers"),
        (np.full((6, 7, 8), -1), "from -1 to -1"),
        (np.full((6, 7, 8), 2**33), "4294967295"),
    ],
)
def test_bad_labels(tmp_path, array, message):
    with pytest.raises(BoneSAMError, match=message):
        write_mask(array, volume(), tmp_path / "mask.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_bad_segments(tmp_path):
    with pytest.raises(BoneSAMError, match="labels start at 1"):
        SegmentInfo(0, "Background", (0, 0, 0))
    with pytest.raises(BoneSAMError, match="three numbers from 0 to 1"):
        SegmentInfo(1, "Bone", (255, 0, 0))
    twice = [SegmentInfo(1, "a", (1, 0, 0)), SegmentInfo(1, "b", (0, 1, 0))]
    with pytest.raises(BoneSAMError, match="same label"):
        write_mask(labels(), volume(), tmp_path / "mask.seg.nrrd", twice)
    assert list(tmp_path.iterdir()) == []


def test_bad_names(tmp_path):
    with pytest.raises(BoneSAMError, match=r"mask.stl.*nii.gz"):
        write_mask(labels(), volume(), tmp_path / "mask.stl")
    with pytest.raises(BoneSAMError, match="no folder"):
        write_mask(labels(), volume(), tmp_path / "nowhere" / "mask.nrrd")
    (tmp_path / "taken.nrrd").mkdir()
    with pytest.raises(BoneSAMError, match="it is a folder"):
        write_mask(labels(), volume(), tmp_path / "taken.nrrd")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BoneSAMError, match="no folder"):
        write_mask(labels(), volume(), tmp_path / "file" / "mask.nrrd")


def test_sheared_volume_is_refused(tmp_path):
    affine = np.eye(4)
    affine[0, 2] = 0.2
    with pytest.raises(BoneSAMError, match="not perpendicular"):
        write_mask(labels(), Volume(np.zeros((6, 7, 8)), affine), tmp_path / "mask.nrrd")


def test_more_voxels_than_nifti_can_hold(tmp_path):
    wide = Volume(np.zeros((1, 2, 40000), np.uint8), np.eye(4))
    with pytest.raises(BoneSAMError, match="32767"):
        write_mask(wide.array, wide, tmp_path / "mask.nii.gz")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ full disks


class FullDisk:
    """A file that takes some bytes and then fails, as on a full disk."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        size = memoryview(data).nbytes
        if size > self.room:
            self.file.write(memoryview(data).cast("B")[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= size
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.file.close()


@pytest.mark.parametrize("older", [None, b"an older mask"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, ending, older):
    path = tmp_path / f"mask{ending}"
    if older:
        path.write_bytes(older)
    real_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r": FullDisk(real_open(self, mode), 300))
    with pytest.raises(BoneSAMError, match="disk is full") as caught:
        write_mask(labels((60, 70, 80), 200), volume((60, 70, 80)), path)
    monkeypatch.undo()
    assert path.name in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ([path.name] if older else [])
    assert not older or path.read_bytes() == older


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_real_limit_on_the_size_of_files(tmp_path, ending):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(BoneSAMError, match="disk is full"):
            write_mask(labels((60, 70, 80), 200), volume((60, 70, 80)), tmp_path / f"mask{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_failure_of_the_last_step_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises(BoneSAMError, match=r"Cannot write .*mask.nrrd.*error"):
        write_mask(labels(), volume(), tmp_path / "mask.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BoneSAMError, match="not permitted"):
        write_mask(labels(), volume(), tmp_path / "mask.nrrd")


def test_a_name_that_no_disk_takes(tmp_path):
    with pytest.raises(BoneSAMError, match=r"Cannot write .*too long"):
        write_mask(labels(), volume(), tmp_path / f"{'x' * 300}.nrrd")


def test_interrupt_leaves_nothing_behind(tmp_path):
    def write():
        with open_complete(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_replaces_an_older_file(tmp_path):
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"old")
    write_mask(labels(), volume(), path)
    assert gzip.decompress(path.read_bytes())[344:347] == b"n+1"
    assert [file.name for file in tmp_path.iterdir()] == ["mask.nii.gz"]


# ----------------------------------------------------------------------------------------------- colors


def test_colors_of_neighbors_differ():
    colors = np.array([distinct_color(n) for n in range(1, 25)])
    assert ((colors >= 0) & (colors <= 1)).all()
    apart = np.linalg.norm(colors[:, np.newaxis] - colors, axis=-1)
    assert apart[np.eye(24, k=1, dtype=bool)].min() > 0.4
    assert (apart + np.eye(24)).min() > 0.05
