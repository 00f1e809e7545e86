"""Small scans on disk for the tests of batches."""

import numpy as np
import pydicom
import SimpleITK
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def bright_block(shape=(6, 24, 20), seed=0):
    """Dark with noise, and a bright block in the middle."""
    array = np.random.default_rng(seed).integers(0, 20, shape).astype(np.int16)
    array[1:-1, 6:18, 5:15] = 900  # bone, as HU too
    return array


def write_scan(path, array=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(bright_block(seed=seed) if array is None else array)
    image.SetSpacing((2.0, 2.0, 4.0)[: image.GetDimension()] + (1.0,) * (image.GetDimension() - 3))
    SimpleITK.WriteImage(image, str(path))
    return path


def write_series(folder, number=1, count=6, seed=0, **changes):
    """Slices of a CT; `changes` are DICOM attributes, or functions of the slice's index that give them."""
    folder.mkdir(parents=True, exist_ok=True)
    array, series, study, frame = bright_block((count, 24, 20), seed), *(generate_uid() for _ in range(3))
    for index, plane in enumerate(array):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "1", "Test^Batch"
        dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
        dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = (
            series,
            study,
            frame,
        )
        dataset.SeriesNumber, dataset.InstanceNumber = number, index + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-20, -24, 4 * index]
        dataset.PixelSpacing, dataset.SliceThickness = [2, 2], 4
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = plane.tobytes()
        for name, value in changes.items():
            value = value(index) if callable(value) else value
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        # Names say nothing: hospitals export without an ending.
        dataset.save_as(folder / f"IM{number}{(index * 5) % 7:02d}", enforce_file_format=True)
    return folder
