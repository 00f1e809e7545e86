"""Synthetic CT series with geometry that is known exactly, and readers that share no code with BoneSAM."""

from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

# Axes of the patient (LPS) as columns: row direction, column direction, from slice to slice.
AXIAL = np.eye(3)
SAGITTAL = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float).round()
OBLIQUE = Rotation.from_euler("xyz", [25, -15, 40], degrees=True).as_matrix()
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class CtScan:
    """A bright, lopsided bone (values of CT, HU) in slices whose places are known.

    `positions` are of the first pixel of each slice, [n, 3], LPS mm; `spacing` along i and j.
    """

    array: np.ndarray
    axes: np.ndarray
    positions: np.ndarray
    spacing: tuple[float, float] = (0.8, 1.1)

    @property
    def bone(self):
        return self.array > 400

    def places(self, mask):
        """Centers of the voxels of a mask [n, rows, columns] in LPS mm, sorted."""
        k, j, i = np.nonzero(mask)
        steps = np.outer(i * self.spacing[0], self.axes[:, 0]) + np.outer(
            j * self.spacing[1], self.axes[:, 1]
        )
        return in_order(self.positions[k] + steps)


def in_order(points):
    points = np.round(points, 3) + 0.0
    return points[np.lexsort(points.T)]


def ct_scan(axes=AXIAL, count=9, step=2.5, tilt=0.0, sideways=0.0, size=(26, 30), seed=0):
    """`tilt`: degrees by which the slices are shifted along the columns; `sideways` along the rows."""
    j, i = np.mgrid[: size[0], : size[1]]
    array = np.random.default_rng(seed).integers(-60, 60, (count, *size)).astype(np.int16)
    for k in range(1, count - 1):  # an L that grows, so that no flip or turn goes unnoticed
        leg = (i >= 6) & (i < 12) & (j >= 5) & (j < 18 + k % 3)
        foot = (i >= 6) & (i < 14 + k) & (j >= 14) & (j < 19)
        array[k][leg | foot] = 900
    shift = np.tan(np.radians([sideways, tilt])) @ axes[:, :2].T
    positions = np.array([-41.0, 17.0, 103.0]) + np.outer(np.arange(count) * step, axes[:, 2] + shift)
    return CtScan(array, axes, positions)


def write_ct(folder, scan, compress=None, shuffled=True, **changes):
    """One file a slice, in an order that says nothing; `compress` changes a dataset before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    names = np.random.default_rng(1).permutation(len(scan.array)) if shuffled else range(len(scan.array))
    for k, (plane, name) in enumerate(zip(scan.array, names, strict=True)):
        dataset = _header(scan, series, CTImageStorage)
        dataset.InstanceNumber = int(name) + 1
        dataset.ImagePositionPatient = [float(value) for value in scan.positions[k].round(6)]
        dataset.ImageOrientationPatient = [float(value) for value in scan.axes[:, :2].T.ravel().round(9)]
        dataset.PixelSpacing, dataset.SliceThickness = [scan.spacing[1], scan.spacing[0]], 2.0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        _finish(dataset, plane + 1024, compress, {key: _of_slice(value, k) for key, value in changes.items()})
        dataset.save_as(folder / f"IM{name:03d}", enforce_file_format=True)
    return folder


def write_enhanced_ct(path, scan, order=None, compress=None, rescaling=None, **changes):
    """One multi-frame file; `rescaling` gives slope and intercept of each frame instead of those of all."""
    order = list(range(len(scan.array))) if order is None else order
    dataset = _header(scan, generate_uid(), EnhancedCTImageStorage)
    dataset.NumberOfFrames = len(order)
    dataset.InstanceNumber = 1
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [float(value) for value in scan.axes[:, :2].T.ravel().round(9)]
    measures.PixelSpacing, measures.SliceThickness = [scan.spacing[1], scan.spacing[0]], 2.0
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    if rescaling is None:
        shared.PixelValueTransformationSequence = [_rescale(1, -1024)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames, stored = [], []
    for k in order:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [float(value) for value in scan.positions[k].round(6)]
        frame.PlanePositionSequence = [place]
        slope, intercept = (1, -1024) if rescaling is None else rescaling(k)
        if rescaling is not None:
            frame.PixelValueTransformationSequence = [_rescale(slope, intercept)]
        frames.append(frame)
        stored.append((scan.array[k].astype(float) - intercept) / slope)
    dataset.PerFrameFunctionalGroupsSequence = frames
    path.parent.mkdir(parents=True, exist_ok=True)
    _finish(dataset, np.rint(stored), compress, changes)
    dataset.save_as(path, enforce_file_format=True)
    return path


def frames_of_segments(path):
    """{segment number: centers of its voxels, LPS mm, sorted} of a DICOM-SEG, by pydicom and arithmetic."""
    dataset = pydicom.dcmread(path)
    pixels = np.atleast_3d(dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    found = {int(segment.SegmentNumber): [] for segment in dataset.SegmentSequence}
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        row, column = np.reshape(
            _either(group, shared, "PlaneOrientationSequence")[0].ImageOrientationPatient, (2, 3)
        )
        measures = _either(group, shared, "PixelMeasuresSequence")[0].PixelSpacing
        position = np.array(_either(group, shared, "PlanePositionSequence")[0].ImagePositionPatient, float)
        number = int(_either(group, shared, "SegmentIdentificationSequence")[0].ReferencedSegmentNumber)
        j, i = np.nonzero(frame)
        steps = np.outer(i * float(measures[1]), row.astype(float)) + np.outer(
            j * float(measures[0]), column.astype(float)
        )
        found[number].append(position + steps)
    return {number: in_order(np.concatenate(parts or [np.zeros((0, 3))])) for number, parts in found.items()}


def _either(group, shared, keyword):
    return group[keyword].value if keyword in group else shared[keyword].value


def _header(scan, series, storage):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "P1", "Müller^Jürgen"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260101", "120000", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, "1.2.3.1"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.3.2", ""
    dataset.SeriesNumber = 4
    dataset.Rows, dataset.Columns = scan.array.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    return dataset


def _rescale(slope, intercept):
    item = Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = slope, intercept, "HU"
    return item


def _of_slice(value, k):
    return value(k) if callable(value) else value


def _finish(dataset, stored, compress, changes):
    dataset.PixelData = np.asarray(stored).astype("<u2").tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if compress is not None:
        compress(dataset)
