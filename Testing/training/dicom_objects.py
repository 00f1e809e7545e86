"""A DICOM series of a volume, and a segmentation object and a structure set drawn on it, for tests."""

import highdicom
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

STUDY, FRAME = generate_uid(), generate_uid()


def write_series(folder, array, affine, patient="P1", number=1):
    """Write slices [k, j, i] in Hounsfield units, with an affine to RAS; returns their datasets."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    series = generate_uid()
    datasets = []
    for k, plane in enumerate(array):
        dataset = _file(CTImageStorage, patient)
        dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = "CT", series, number
        dataset.InstanceNumber = k + 1
        dataset.Rows, dataset.Columns = plane.shape
        dataset.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        dataset.SliceThickness = float(spacing[2])
        dataset.ImageOrientationPatient = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
        dataset.ImagePositionPatient = (lps[:3, 3] + k * lps[:3, 2]).tolist()
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
        dataset.PixelData = np.ascontiguousarray(plane, np.int16).tobytes()
        dataset.save_as(folder / f"{number}_{k:03}.dcm")
        datasets.append(dataset)
    return datasets


def write_segmentation(path, datasets, masks):
    """Write bool masks [k, j, i] by name as a DICOM segmentation, drawn on a series."""
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=Code("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=Code("85756007", "SCT", "Tissue"),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, start=1)
    ]
    segmentation = highdicom.seg.Segmentation(
        source_images=datasets,
        pixel_array=np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=90,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    segmentation.save_as(path)


def write_structure_set(path, datasets, contours, kinds=None):
    """Write contours {name: [[n, 3] in RAS mm, ...]} as an RT structure set, drawn on a series."""
    dataset = _file(RTStructureSetStorage, str(datasets[0].PatientID))
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = FRAME, [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    dataset.RTROIObservationsSequence = []
    for number, (name, loops) in enumerate(contours.items(), start=1):
        roi, rows, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        rows.ReferencedROINumber, rows.ContourSequence = number, []
        for loop in loops:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(loop)
            contour.ContourData = [round(float(value), 4) for value in (loop * (-1, -1, 1)).ravel()]
            rows.ContourSequence.append(contour)
        observed.ObservationNumber = observed.ReferencedROINumber = number
        observed.RTROIInterpretedType = (kinds or {}).get(name, "ORGAN")
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(rows)
        dataset.RTROIObservationsSequence.append(observed)
    dataset.save_as(path)


def _file(kind, patient):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = STUDY, FRAME
    dataset.PatientID, dataset.PatientName = patient, f"{patient}^"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20200101", "120000", ""
    dataset.PositionReferenceIndicator = ""
    return dataset
