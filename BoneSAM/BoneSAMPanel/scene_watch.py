"""What happens to the scene, told to the presenter: volumes and segments that others change or remove."""

from typing import Any

import slicer
import vtk
from slicer.util import VTKObservationMixin

from BoneSAMLib.presenter import Presenter

__all__ = ["SceneWatch"]


class SceneWatch(VTKObservationMixin):
    """Observes the chosen volume and segmentation.

    Args:
        presenter: is told.
    """

    def __init__(self, presenter: Presenter) -> None:
        VTKObservationMixin.__init__(self)
        self._presenter = presenter
        self._volumeNode: Any = None
        self._segmentationNode: Any = None
        self._imageTimes: dict[str, int] = {}

    def watchVolume(self, volumeNode: Any) -> None:
        """Observe this volume and no other; None for none."""
        if volumeNode is self._volumeNode:
            return
        node = slicer.vtkMRMLScalarVolumeNode
        for event in (node.ImageDataModifiedEvent, node.TransformModifiedEvent, vtk.vtkCommand.ModifiedEvent):
            if self._volumeNode is not None:
                self.removeObserver(self._volumeNode, event, self._onVolumeModified)
            if volumeNode is not None:
                self.addObserver(volumeNode, event, self._onVolumeModified)
        self._volumeNode = volumeNode

    def watchSegmentation(self, segmentationNode: Any) -> None:
        """Observe this segmentation and no other; None for none."""
        if segmentationNode is self._segmentationNode:
            return
        events = slicer.vtkSegmentation
        handlers = {
            events.SegmentAdded: self._onSegmentsChanged,
            events.SegmentRemoved: self._onSegmentsChanged,
            events.SegmentModified: self._onSegmentsChanged,
            events.SegmentsOrderModified: self._onSegmentsChanged,
            slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent: self._onSegmentsChanged,
            events.SourceRepresentationModified: self._onMaskChanged,
        }
        for event, handler in handlers.items():
            if self._segmentationNode is not None:
                self.removeObserver(self._segmentationNode, event, handler)
            if segmentationNode is not None:
                self.addObserver(segmentationNode, event, handler)
        self._segmentationNode = segmentationNode
        self._imageTimes = {} if segmentationNode is None else _imageTimes(segmentationNode)

    def close(self) -> None:
        """Observe nothing any more."""
        self.removeObservers()
        self._volumeNode = self._segmentationNode = None

    def _onVolumeModified(self, caller: Any, event: str) -> None:
        self._presenter.volume_modified()

    def _onSegmentsChanged(self, caller: Any, event: str) -> None:
        self._presenter.segments_changed()

    def _onMaskChanged(self, caller: Any, event: str) -> None:
        # The event does not say whose mask: its image tells. Segments may share one, then all of them count.
        before, self._imageTimes = self._imageTimes, _imageTimes(caller)
        for identifier, time in self._imageTimes.items():
            if before.get(identifier, time) != time:
                self._presenter.segment_edited(identifier)


def _imageTimes(segmentationNode: Any) -> dict[str, int]:
    """When the image that holds each segment was last changed."""
    times = {}
    for identifier in segmentationNode.GetSegmentation().GetSegmentIDs():
        image = segmentationNode.GetBinaryLabelmapInternalRepresentation(identifier)
        times[identifier] = 0 if image is None else image.GetMTime()
    return times
