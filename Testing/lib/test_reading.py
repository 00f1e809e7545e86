"""Every format that can be read, and every way in which a file can be bad."""

import gzip
import os
import struct

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.reading import read_volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd):
    yield
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def values(shape=(6, 7, 8), dtype=np.int16, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def oblique_image(array, seed=1, flip=False):
    rotation = Rotation.random(random_state=seed).as_matrix()
    if flip:
        rotation[:, 2] *= -1
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.6, 0.9, 3.0))
    image.SetOrigin((-33.5, 12.25, 101.0))
    image.SetDirection(rotation.ravel().tolist())
    return image


def itk_affine(image):
    """RAS affine, computed point by point by ITK itself."""
    affine = np.eye(4)
    origin = np.array(image.TransformContinuousIndexToPhysicalPoint((0.0, 0.0, 0.0)))
    for axis in range(3):
        step = image.TransformContinuousIndexToPhysicalPoint([float(axis == n) for n in range(3)])
        affine[:3, axis] = np.array(step) - origin
    affine[:3, 3] = origin
    return LPS @ affine


# --------------------------------------------------------------------------------------------- 3D files


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd", "NII.GZ"])
def test_values_and_geometry(tmp_path, ending, flip):
    array = values()
    image = oblique_image(array, flip=flip)
    path = tmp_path / f"scan.{ending.lower()}"
    SimpleITK.WriteImage(image, str(path))
    path = path.rename(tmp_path / f"scan.{ending}")
    volume = read_volume(path)
    assert np.array_equal(volume.array, array)
    assert np.allclose(volume.ijk_to_ras, itk_affine(image), atol=1e-5)
    assert volume.name == path.name
    assert volume.modality is None
    assert read_volume(str(path), modality="MR").modality == "MR"


def test_names_with_spaces_and_foreign_letters(tmp_path):
    folder = tmp_path / "Hüfte 骨盤 études"
    folder.mkdir()
    for ending in ("nii.gz", "nrrd", "mha"):
        path = folder / f"Röntgen λ 骨.{ending}"
        SimpleITK.WriteImage(oblique_image(values()), str(path))
        assert np.array_equal(read_volume(path).array, values())
    picture = folder / "Röntgen λ 骨.png"
    Image.fromarray(values((7, 8), np.uint8)).save(picture)
    assert read_volume(picture).shape == (1, 7, 8)
    write_dicom(folder / "骨.dcm", values((7, 8)))
    assert read_volume(folder / "骨.dcm").shape == (1, 7, 8)


def test_nrrd_in_ras(tmp_path):
    path = tmp_path / "scan.nrrd"
    header = (
        "NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 4 3 2\n"
        "space directions: (0,2,0) (-1,0,0) (0,0,3)\nkinds: domain domain domain\nencoding: raw\n"
        "space origin: (5,6,7)\n\n"
    )
    path.write_bytes(header.encode() + bytes(range(24)))
    volume = read_volume(path)
    expected = [[0, -1, 0, 5], [2, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]]
    assert np.allclose(volume.ijk_to_ras, expected)
    assert np.array_equal(volume.array.ravel(), np.arange(24))


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_one_volume_in_four_dimensions_is_read(tmp_path, ending):
    image = SimpleITK.JoinSeries([oblique_image(values())])
    path = tmp_path / f"scan.{ending}"
    SimpleITK.WriteImage(image, str(path))
    assert np.array_equal(read_volume(path).array, values())


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_several_volumes_are_refused_with_their_number(tmp_path, ending):
    image = SimpleITK.JoinSeries([oblique_image(values())] * 5)
    path = tmp_path / f"scan.{ending}"
    SimpleITK.WriteImage(image, str(path))
    with pytest.raises(BoneSAMError, match=r"scan.* holds 5 volumes \(size 8 x 7 x 6 x 5\)"):
        read_volume(path)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_colors_are_refused(tmp_path, ending):
    image = SimpleITK.GetImageFromArray(values((6, 7, 8, 3), np.uint8), isVector=True)
    path = tmp_path / f"scan.{ending}"
    SimpleITK.WriteImage(image, str(path))
    with pytest.raises(BoneSAMError, match=r"color|3 values per voxel"):
        read_volume(path)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha", "png", "jpg", "tif", "dcm"])
@pytest.mark.parametrize("damage", ["empty", "junk", "half", "text"])
def test_damaged_files(tmp_path, ending, damage):
    path = tmp_path / f"scan.{ending}"
    if ending == "dcm":
        write_dicom(path, values((64, 64)))
    elif ending in ("png", "jpg", "tif"):
        Image.fromarray(values((64, 64), np.uint8)).save(path)
    else:
        SimpleITK.WriteImage(oblique_image(values((20, 30, 40))), str(path), True)
    content = path.read_bytes()
    junk = np.random.default_rng(1).bytes(3000)
    path.write_bytes(
        {"empty": b"", "junk": junk, "half": content[: len(content) // 2], "text": b"hi"}[damage]
    )
    with pytest.raises(BoneSAMError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert "ITK" not in message


def test_a_flipped_bit_in_compressed_data_is_noticed(tmp_path):
    path = tmp_path / "scan.nii.gz"
    SimpleITK.WriteImage(oblique_image(values((20, 30, 40))), str(path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BoneSAMError, match="damaged"):
        read_volume(path)


def test_missing_unknown_and_forbidden(tmp_path):
    with pytest.raises(BoneSAMError, match="no file or folder"):
        read_volume(tmp_path / "scan.nii.gz")
    (tmp_path / "scan.xyz").write_text("what is this")
    with pytest.raises(BoneSAMError, match=r"format of .*scan.xyz.* NIfTI, NRRD"):
        read_volume(tmp_path / "scan.xyz")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing here")
    with pytest.raises(BoneSAMError, match="no DICOM images"):
        read_volume(tmp_path / "notes")
    SimpleITK.WriteImage(oblique_image(values()), str(tmp_path / "pair.mhd"))
    (tmp_path / "pair.raw").unlink()
    with pytest.raises(BoneSAMError, match="data file is missing"):
        read_volume(tmp_path / "pair.mhd")


def test_unreadable_for_lack_of_permission(tmp_path, monkeypatch):
    path = tmp_path / "scan.nii.gz"
    SimpleITK.WriteImage(oblique_image(values()), str(path))

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(BoneSAMError, match="Permission denied"):
        read_volume(path)


def test_nan_says_where(tmp_path):
    array = values().astype(np.float32)
    array[1, 2, 3] = np.nan
    path = tmp_path / "scan.nii.gz"
    SimpleITK.WriteImage(oblique_image(array), str(path))
    with pytest.raises(BoneSAMError, match=r"scan.nii.gz.* i, j, k = 3, 2, 1"):
        read_volume(path)


# ------------------------------------------------------------------------------------------------ NIfTI


def nifti(path, array, **fields):
    """A NIfTI-1 file whose header fields are set by hand."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    content = bytearray(path.read_bytes())
    places = {
        "dim": ("8h", 40), "datatype": ("h", 70), "pixdim": ("8f", 76), "slope": ("2f", 112),
        "units": ("B", 123), "codes": ("2h", 252), "quaternion": ("3f", 256), "offset": ("3f", 268),
        "rows": ("12f", 280),
    }  # fmt: skip
    for name, value in fields.items():
        code, place = places[name]
        struct.pack_into("<" + code, content, place, *np.atleast_1d(value).ravel())
    path.write_bytes(content)
    return path


def rows(angle, spacing=(0.7, 0.8, 2.5), origin=(1.0, 2.0, 3.0), shear=0.0):
    matrix = Rotation.from_euler("z", angle).as_matrix() * spacing
    matrix[0, 2] += shear
    return np.column_stack([matrix, origin])


SPACED = (1, 0.7, 0.8, 2.5, 0, 0, 0, 0)


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("s_code", range(5))
@pytest.mark.parametrize("q_code", range(5))
def test_the_same_affine_counts_as_in_itk(tmp_path, q_code, s_code, handedness):
    path = nifti(
        tmp_path / "scan.nii",
        values(),
        pixdim=(handedness, *SPACED[1:]),
        codes=(q_code, s_code),
        quaternion=(0.1, -0.2, np.sin(0.15)),
        offset=(5, 6, 7),
        rows=rows(0.5),
    )
    assert np.allclose(read_volume(path).ijk_to_ras, itk_affine(SimpleITK.ReadImage(str(path))), atol=1e-5)


def test_sheared_sform_falls_back_to_the_qform(tmp_path):
    path = nifti(
        tmp_path / "scan.nii",
        values(),
        pixdim=SPACED,
        codes=(1, 1),
        quaternion=(0, 0, 0),
        offset=(5, 6, 7),
        rows=rows(0.0, shear=0.3),
    )
    assert np.allclose(read_volume(path).ijk_to_ras[:3, 3], (5, 6, 7))


def test_slightly_sheared_sform_is_straightened_with_a_warning(tmp_path, caplog):
    path = nifti(tmp_path / "scan.nii", values(), pixdim=SPACED, codes=(0, 1), rows=rows(0.4, shear=0.004))
    volume = read_volume(path)
    axes = volume.ijk_to_ras[:3, :3] / volume.spacing
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    true = np.vstack([rows(0.4, shear=0.004), [0, 0, 0, 1]])
    corners = np.array([[i, j, k, 1] for i in (0, 7) for j in (0, 6) for k in (0, 5)])
    assert np.abs(corners @ (volume.ijk_to_ras - true).T).max() < 0.02  # mm
    assert "straightened" in caplog.text


def test_clearly_sheared_sform_is_refused(tmp_path):
    path = nifti(tmp_path / "scan.nii", values(), pixdim=SPACED, codes=(0, 1), rows=rows(0.4, shear=0.9))
    with pytest.raises(BoneSAMError, match=r"not perpendicular .* voxels"):
        read_volume(path)


@pytest.mark.parametrize("sform", [1, 2])
def test_two_spacings_in_one_header(tmp_path, sform):
    rounded = (1, 0.701, 0.8, 2.5, 0, 0, 0, 0)
    path = nifti(tmp_path / "scan.nii", values(), pixdim=rounded, codes=(0, sform), rows=rows(0.4))
    volume = read_volume(path)
    assert volume.spacing == pytest.approx((0.701, 0.8, 2.5))
    assert np.allclose(volume.ijk_to_ras, itk_affine(SimpleITK.ReadImage(str(path))), atol=1e-5)
    for spacing in ((1, 1, 1), (0, 0, 0), (np.nan, 1, 1)):
        nifti(path, values(), pixdim=(1, *spacing, 0, 0, 0, 0), codes=(0, sform), rows=rows(0.4))
        with pytest.raises(BoneSAMError, match=r"two different spacings.* and 0.7 x 0.8 x 2.5 mm"):
            read_volume(path)


def test_singular_sform(tmp_path):
    path = nifti(tmp_path / "scan.nii", values(), pixdim=SPACED, codes=(0, 1), rows=np.zeros((3, 4)))
    with pytest.raises(BoneSAMError, match="singular"):
        read_volume(path)


def test_rescaling_units_and_big_endian(tmp_path):
    array = values()
    path = nifti(tmp_path / "scan.nii", array, slope=(2.0, -1024.0), codes=(0, 0), pixdim=SPACED, units=3)
    volume = read_volume(path)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array * 2.0 - 1024.0)
    assert np.allclose(volume.ijk_to_ras, np.diag([-0.0007, -0.0008, 0.0025, 1]))
    plain = nifti(tmp_path / "plain.nii", array, slope=(0.0, 7.0))
    assert np.array_equal(read_volume(plain).array, array)
    assert read_volume(plain).array.dtype == np.int16
    assert read_volume(plain).array.flags.writeable

    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, 8, 7, 6, 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 4, 16)
    struct.pack_into(">8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into(">f", header, 108, 352)
    header[344:348] = b"n+1\0"
    (tmp_path / "big.nii").write_bytes(header + array.astype(">i2").tobytes())
    big = read_volume(tmp_path / "big.nii")
    assert np.array_equal(big.array, array)
    assert big.array.dtype.isnative


def test_nifti_2(tmp_path):
    array = values()
    header = bytearray(544)
    struct.pack_into("<i", header, 0, 540)
    struct.pack_into("<8s", header, 4, b"n+2\0\r\n\x1a\n")
    struct.pack_into("<2h", header, 12, 4, 16)
    struct.pack_into("<8q", header, 16, 3, 8, 7, 6, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 0.7, 0.8, 2.5, 0, 0, 0, 0)
    struct.pack_into("<q", header, 168, 544)
    struct.pack_into("<2i", header, 344, 0, 1)
    struct.pack_into("<12d", header, 400, *rows(0.3).ravel())
    struct.pack_into("<i", header, 500, 2)
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(bytes(header) + array.tobytes()))
    volume = read_volume(path)
    assert np.array_equal(volume.array, array)
    assert np.allclose(volume.ijk_to_ras[:3], rows(0.3), atol=1e-12)


def test_two_dimensional_nifti(tmp_path):
    path = tmp_path / "slice.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values((7, 8))), str(path))
    assert read_volume(path).shape == (1, 7, 8)


@pytest.mark.parametrize("field", [{"dim": (0, 8, 7, 6, 1, 1, 1, 1)}, {"dim": (3, -8, 7, 6, 1, 1, 1, 1)}])
def test_impossible_nifti_headers(tmp_path, field):
    with pytest.raises(BoneSAMError, match="header"):
        read_volume(nifti(tmp_path / "scan.nii", values(), **field))


def test_nifti_of_complex_numbers_or_without_voxels(tmp_path):
    with pytest.raises(BoneSAMError, match="complex"):
        read_volume(nifti(tmp_path / "scan.nii", values(), datatype=32))
    with pytest.raises(BoneSAMError, match="no voxels"):
        read_volume(nifti(tmp_path / "scan.nii", values(), dim=(3, 8, 0, 6, 1, 1, 1, 1)))


# --------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("name", "mode", "dtype"),
    [
        ("a.png", "L", np.uint8),
        ("a.png", "RGB", np.uint8),
        ("a.png", "RGBA", np.uint8),
        ("a.png", "LA", np.uint8),
        ("a.png", "P", np.uint8),
        ("a.png", "I;16", np.uint16),
        ("a.bmp", "L", np.uint8),
        ("a.tif", "L", np.uint8),
        ("a.tif", "I;16", np.uint16),
        ("a.TIFF", "F", np.float32),
    ],
)
def test_gray_pictures(tmp_path, name, mode, dtype):
    array = values((7, 8), dtype)
    image = Image.fromarray(array)
    (image if image.mode == mode else image.convert(mode)).save(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == dtype
    assert np.array_equal(volume.array, array[np.newaxis])
    assert np.array_equal(volume.ijk_to_ras, np.diag([-1, -1, 1, 1]))
    assert volume.modality_guess == "X-ray"


def test_gray_jpeg_in_color_mode(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)
    Image.fromarray(smooth).convert("RGB").save(tmp_path / "a.jpg", quality=90)
    assert np.abs(read_volume(tmp_path / "a.jpg").array[0].astype(int) - smooth).max() < 10


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_color_pictures_are_refused(tmp_path, name):
    colors = values((40, 50, 3), np.uint8)
    colors[..., 0] = 250
    Image.fromarray(colors).save(tmp_path / name)
    with pytest.raises(BoneSAMError, match="has colors"):
        read_volume(tmp_path / name)


def test_pages_are_refused(tmp_path):
    image = Image.fromarray(values((7, 8), np.uint8))
    image.save(tmp_path / "a.tif", save_all=True, append_images=[image, image])
    with pytest.raises(BoneSAMError, match="3 pages"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_pixel_size_is_that_of_itk(tmp_path, name):
    Image.fromarray(values((7, 8), np.uint8)).save(tmp_path / name, dpi=(254, 254))
    expected = SimpleITK.ReadImage(str(tmp_path / name)).GetSpacing()
    assert read_volume(tmp_path / name).spacing[:2] == pytest.approx(expected)
    assert expected == pytest.approx((1, 1) if name == "a.png" else (0.1, 0.1))


# ------------------------------------------------------------------------------------------------ DICOM


def write_dicom(
    path, array, modality="CT", position=(0.0, 0.0, 0.0), orientation=(1, 0, 0, 0, 1, 0), **fields
):
    """One DICOM image; `fields` are further attributes, None removes one."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage if modality == "CT" else DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = "1.2.3"
    dataset.SeriesInstanceUID = "1.2.3.4"
    dataset.SeriesNumber = 4
    dataset.SeriesDescription = "Pelvis bone"
    dataset.Modality = modality
    dataset.PatientName = dataset.PatientID = "nobody"
    if position is not None:
        dataset.ImagePositionPatient = [round(float(value), 4) for value in position]
        dataset.ImageOrientationPatient = [round(float(value), 6) for value in orientation]
    dataset.PixelSpacing = [0.8, 0.7]
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if modality == "CT":
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    for name, value in fields.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.PixelData = array.astype("<u2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, count=6, seed=3, gap=2.5, name="IM{}", positions=None, **fields):
    """An oblique series whose file names and instance numbers say nothing about the order."""
    folder.mkdir(parents=True, exist_ok=True)
    rotation = Rotation.random(random_state=seed).as_matrix()
    array = values((count, 7, 8), seed=seed)
    origin = np.array([10.0, -20.0, 30.0])
    shuffled = np.random.default_rng(seed).permutation(count)
    for number, k in enumerate(shuffled):
        place = origin + rotation[:, 2] * gap * k if positions is None else positions(origin, rotation, k)
        write_dicom(
            folder / name.format(number),
            array[k],
            position=place,
            orientation=rotation[:, :2].T.ravel(),
            **{"InstanceNumber": number, **fields},
        )
    affine = np.eye(4)
    affine[:3, :3] = rotation * [0.7, 0.8, gap]
    affine[:3, 3] = origin
    return array.astype(int) - 1024, LPS @ affine


def test_dicom_series_is_sorted_by_geometry(tmp_path):
    expected, affine = write_series(tmp_path / "CT series")
    for path in (tmp_path / "CT series", tmp_path / "CT series" / "IM3"):
        volume = read_volume(path)
        assert np.array_equal(volume.array, expected)
        assert np.allclose(volume.ijk_to_ras, affine, atol=1e-3)
        assert volume.modality == "CT"
        assert volume.name == path.name
        assert volume.through_plane_axis == 2
    assert read_volume(tmp_path / "CT series", modality="MR").modality == "MR"


def test_dicom_geometry_agrees_with_itk(tmp_path):
    write_series(tmp_path)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, SimpleITK.GetArrayFromImage(image))
    assert np.allclose(volume.ijk_to_ras, itk_affine(image), atol=1e-3)


def test_dicom_in_subfolders_and_among_other_files(tmp_path):
    expected, _ = write_series(tmp_path / "disk" / "SE0001", name="IM{}.dcm")
    (tmp_path / "disk" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"broken")
    (tmp_path / "disk" / "viewer.exe").write_bytes(b"MZ")
    write_dicom(tmp_path / "disk" / "SE0001" / "report.dcm", values((7, 8)), Modality="SR")
    assert np.array_equal(read_volume(tmp_path / "disk").array, expected)


def test_several_series_are_listed(tmp_path):
    write_series(tmp_path, name="a{}")
    write_series(
        tmp_path,
        3,
        name="b{}",
        SeriesInstanceUID="1.9",
        SeriesNumber=2,
        SeriesDescription="Scout",
        Modality="MR",
    )
    with pytest.raises(BoneSAMError) as caught:
        read_volume(tmp_path)
    message = str(caught.value)
    assert "holds 2 series" in message
    assert "2 'Scout' (MR, 3 images, b0); 4 'Pelvis bone' (CT, 6 images, a0)" in message
    assert read_volume(tmp_path / "b1").shape == (3, 7, 8)


def test_missing_slices(tmp_path):
    write_series(tmp_path, 9)
    for path in tmp_path.iterdir():
        if (
            abs(np.linalg.norm(np.array(pydicom.dcmread(path).ImagePositionPatient) - [10, -20, 30]) - 10)
            < 0.1
        ):
            path.unlink()
    with pytest.raises(
        BoneSAMError, match=r"1 of 9 slices are missing \(between IM\d and IM\d the gap is 5.00"
    ):
        read_volume(tmp_path)


def test_uneven_spacing(tmp_path):
    write_series(
        tmp_path, 6, positions=lambda origin, rotation, k: origin + rotation[:, 2] * (2 * k + 0.3 * k**2)
    )
    with pytest.raises(BoneSAMError, match=r"not evenly spaced \(2.30 to 4.70 mm"):
        read_volume(tmp_path)


def test_rounded_positions_are_no_irregularity(tmp_path):
    def rounded(origin, rotation, k):
        return np.round(origin + rotation[:, 2] * 1.25 * k, 1)

    expected, _ = write_series(tmp_path, 12, positions=rounded)
    assert np.array_equal(read_volume(tmp_path).array, expected)


def test_shifted_slices(tmp_path):
    write_series(
        tmp_path,
        positions=lambda origin, rotation, k: origin + rotation @ [3.0 * (k in (2, 3)), 0.0, 2.5 * k],
    )
    with pytest.raises(BoneSAMError, match=r"shifted sideways .* 3.0 mm"):
        read_volume(tmp_path)


def test_repeated_positions(tmp_path):
    write_series(tmp_path, positions=lambda origin, rotation, k: origin + rotation[:, 2] * 2.5 * (k // 2))
    with pytest.raises(BoneSAMError, match="6 slices lie at 3 positions"):
        read_volume(tmp_path)


def test_mixed_directions_and_sizes(tmp_path):
    write_series(tmp_path / "a", seed=3)
    write_series(tmp_path / "a", 2, seed=4, name="localizer{}")
    with pytest.raises(BoneSAMError, match=r"one stack.* differ in direction"):
        read_volume(tmp_path / "a")
    write_series(tmp_path / "b")
    write_dicom(tmp_path / "b" / "IM9", values((9, 8)))
    with pytest.raises(BoneSAMError, match="differ in size"):
        read_volume(tmp_path / "b")


def test_single_slice_keeps_its_thickness(tmp_path):
    write_dicom(tmp_path / "one.dcm", values((7, 8)), SliceThickness=5)
    volume = read_volume(tmp_path / "one.dcm")
    assert volume.spacing == pytest.approx((0.7, 0.8, 5))
    assert volume.is_projection


def test_radiographs(tmp_path):
    array = values((7, 8))
    options = {"modality": "DX", "position": None, "PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.1]}
    write_dicom(tmp_path / "pa", array, **options)
    volume = read_volume(tmp_path)
    assert np.array_equal(volume.array, array[np.newaxis])
    assert np.allclose(volume.ijk_to_ras, np.diag([-0.1, -0.2, 1, 1]))
    assert volume.modality == "X-ray"
    write_dicom(tmp_path / "lateral", array, PhotometricInterpretation="MONOCHROME1", **options)
    inverted = read_volume(tmp_path / "lateral").array[0]
    assert np.array_equal(
        np.argsort(inverted.ravel(), kind="stable")[-1:], [array.ravel().argmin()]
    )  # bones bright
    with pytest.raises(BoneSAMError, match=r"2 radiographs: .* such as lateral"):
        read_volume(tmp_path)


def test_dicom_without_geometry_in_a_stack(tmp_path):
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.PixelSpacing
        dataset.save_as(path)
    with pytest.raises(BoneSAMError, match="says not where"):
        read_volume(tmp_path)


def test_dicom_without_an_image(tmp_path):
    write_dicom(tmp_path / "seg.dcm", values((7, 8)), Modality="SEG")
    with pytest.raises(BoneSAMError, match="without an image"):
        read_volume(tmp_path / "seg.dcm")


def test_differently_rescaled_slices(tmp_path):
    for k in range(3):
        write_dicom(
            tmp_path / f"{k}",
            np.full((7, 8), 10),
            position=(0, 0, k),
            RescaleSlope=0.5 + k,
            RescaleIntercept=0,
        )
    assert read_volume(tmp_path).array[:, 0, 0].tolist() == [5, 15, 25]


def multi_frame(path, count=5, gap=2.0, order=None, positions=True):
    array = values((count, 7, 8))
    order = list(range(count)) if order is None else order

    def frame(k):
        item, place = Dataset(), Dataset()
        place.ImagePositionPatient = [5, 6, 7 + gap * k]
        item.PlanePositionSequence = Sequence([place])
        return item

    shared, orientation, measures, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], gap
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024, "HU"
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    groups = {
        "SharedFunctionalGroupsSequence": Sequence([shared]),
        "PerFrameFunctionalGroupsSequence": Sequence([frame(k) for k in order]),
    }
    write_dicom(
        path,
        array[order],
        position=None,
        PixelSpacing=None,
        RescaleSlope=None,
        RescaleIntercept=None,
        NumberOfFrames=count,
        SOPClassUID=EnhancedCTImageStorage,
        **(groups if positions else {}),
    )
    return array.astype(int) - 1024


def test_multi_frame_is_sorted_by_geometry(tmp_path):
    expected = multi_frame(tmp_path / "enhanced.dcm", order=[4, 2, 0, 1, 3])
    for path in (tmp_path, tmp_path / "enhanced.dcm"):
        volume = read_volume(path)
        assert np.array_equal(volume.array, expected)
        assert np.allclose(
            volume.ijk_to_ras, LPS @ [[0.7, 0, 0, 5], [0, 0.8, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]]
        )


def test_film_is_refused(tmp_path):
    multi_frame(tmp_path / "film.dcm", positions=False)
    with pytest.raises(BoneSAMError, match="5 frames without positions"):
        read_volume(tmp_path / "film.dcm")


def test_two_multi_frame_files(tmp_path):
    multi_frame(tmp_path / "a.dcm")
    multi_frame(tmp_path / "b.dcm")
    with pytest.raises(BoneSAMError, match="2 multi-frame files"):
        read_volume(tmp_path)


def test_silence_ends_with_the_reading(tmp_path, capfd):
    SimpleITK.WriteImage(oblique_image(values()), str(tmp_path / "scan.mha"))
    read_volume(tmp_path / "scan.mha")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
    assert SimpleITK.ProcessObject.GetGlobalWarningDisplay()
