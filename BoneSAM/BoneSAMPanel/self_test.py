# ruff: noqa: PT009, PT027 (unittest runs it, and its assertions show the values)
"""What `BoneSAMTest` checks inside 3D Slicer: samples, scripts, and the panel from box to accepted segment.

3D Slicer's test class is named in BoneSAM.py only, so that these checks can be tried without the application.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.panel import Action, State
from BoneSAMLib.prompts import Point
from BoneSAMLib.terminology import bone_meaning
from BoneSAMPanel.sample_data import SAMPLES, registerSampleData, samplesFolder

__all__ = ["SelfTest", "runSelfTest"]

LONGEST_WAIT = 180.0  # seconds; the computers that test 3D Slicer every night are slow
# Far below what the weights reach: a mask in the wrong place has nearly none.
LEAST_OVERLAP = 0.4


def runSelfTest(test: Any) -> None:
    """All checks. Each begins with an empty scene; all are made, whichever fails.

    Args:
        test: the `unittest.TestCase` that they are part of.
    """
    checks = SelfTest(test)
    for name in sorted(name for name in dir(SelfTest) if name.startswith("test_")):
        with test.subTest(name):
            slicer.mrmlScene.Clear()
            slicer.app.processEvents()
            print(f"BoneSAM: {name}")  # noqa: T201 (a crash in 3D Slicer leaves no other trace)
            getattr(checks, name)()
    slicer.mrmlScene.Clear()


class SelfTest:
    """The checks.

    Args:
        test: gives unittest's assertions.
    """

    def __init__(self, test: Any) -> None:
        self.test = test

    # Samples.

    def test_samples_load_without_a_network(self) -> None:
        """Every sample is offered once, comes from this computer, and is a volume."""
        import SampleData

        registerSampleData()
        registerSampleData()
        for sample in SAMPLES:
            sources = [
                source
                for category in slicer.modules.sampleDataSources.values()
                for source in category
                if source.sampleName == sample.name
            ]
            self.test.assertEqual(len(sources), 1)
            self.test.assertTrue(all(uri.startswith("file:") for uri in sources[0].uris))
            node = SampleData.downloadSample(sample.name)
            self.test.assertTrue(node.IsA("vtkMRMLScalarVolumeNode"))
            self.test.assertEqual(node.GetName(), sample.name)
            self.test.assertGreater(len(np.unique(slicer.util.arrayFromVolume(node))), 50)

    # Scripts.

    def test_script_segments_a_bone_and_leaves_others_alone(self) -> None:
        """The right bone, named and coded; a second one and a correction change nothing else."""
        volume, labels = self._hip()
        before = slicer.util.arrayFromVolume(volume).copy()
        steps: list[float] = []
        femur = self._logic().segment(
            volume,
            roiNode=self._box(labels, 5),
            bone="right femur",
            progress=lambda fraction, text: steps.append(fraction),
        )
        node, mask = femur.segmentationNode, self._mask(femur, volume)
        self.test.assertGreater(_overlap(mask, labels == 5), LEAST_OVERLAP)
        segment = node.GetSegmentation().GetSegment(femur.segmentId)
        self.test.assertEqual(segment.GetName(), "right femur")
        self.test.assertEqual(_terminology(segment), bone_meaning("right femur").terminology)
        self.test.assertEqual((steps == sorted(steps), steps[-1]), (True, 1.0))

        other = self._logic().segment(
            volume, roiNode=self._box(labels, 3), bone="left femur", segmentationNode=node
        )
        self.test.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 2)
        self.test.assertGreater(_overlap(self._mask(other, volume), labels == 3), LEAST_OVERLAP)
        self.test.assertTrue(np.array_equal(self._mask(femur, volume), mask))

        inside = _middle(mask, self._to_world(volume))
        self._logic().segment(
            volume, negativePoints=[inside], segmentationNode=node, segmentId=femur.segmentId
        )
        self.test.assertFalse(np.array_equal(self._mask(femur, volume), mask))
        self.test.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 2)
        self.test.assertTrue(np.array_equal(slicer.util.arrayFromVolume(volume), before))

    def test_script_follows_a_moved_volume(self) -> None:
        """A volume under a transform gives the same bone, where the volume is."""
        volume, labels = self._hip()
        matrix = vtk.vtkTransform()
        matrix.Translate(40, -25, 60)
        matrix.RotateZ(25)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(matrix.GetMatrix())
        volume.SetAndObserveTransformNodeID(transform.GetID())
        roi = self._box(labels, 5)
        roi.SetAndObserveTransformNodeID(transform.GetID())
        found = self._logic().segment(volume, roiNode=roi)
        self.test.assertEqual(found.segmentationNode.GetTransformNodeID(), transform.GetID())
        self.test.assertGreater(_overlap(self._mask(found, volume), labels == 5), LEAST_OVERLAP)

    def test_script_refuses_what_it_cannot_use(self) -> None:
        """One sentence each, and nothing in the scene has changed."""
        volume, labels = self._hip()
        outside = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        outside.SetCenter(5000, 0, 0)
        outside.SetSize(10, 10, 10)
        color = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
        slicer.util.updateVolumeFromArray(color, np.zeros((3, 4, 5, 3), np.uint8))
        warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
        warped = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        slicer.util.updateVolumeFromArray(warped, np.zeros((3, 4, 5), np.int16))
        warped.SetAndObserveTransformNodeID(warp.GetID())
        region = self._box(labels, 5)
        count = slicer.mrmlScene.GetNumberOfNodes()
        for arguments in (
            {"volumeNode": None},
            {"volumeNode": volume},
            {"volumeNode": volume, "roiNode": outside},
            {"volumeNode": color, "roiNode": region},
            {"volumeNode": warped, "roiNode": region},
        ):
            with self.test.assertRaises(BoneSAMError) as caught:
                self._logic().segment(**arguments)
            self.test.assertNotIn("\n", str(caught.exception))
        self.test.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)

    # The panel.

    def test_panel_from_a_box_to_the_next_bone(self) -> None:
        """Box, click, undo, redo, accept, correct, cancel, next bone."""
        volume, labels = self._hip()
        presenter = self._panel(volume)
        presenter.set_box(_box_of(labels, 5))
        first = self._answer(presenter)
        self.test.assertEqual(first.state, State.PREVIEW)
        self.test.assertGreater(first.confidence, 0)
        self.test.assertEqual(self._segmentations(), [])
        presenter.add_point(Point.from_ijk(_center(labels == 5)))
        self.test.assertEqual(len(self._answer(presenter).points), 1)
        presenter.undo()
        self.test.assertEqual(presenter.panel.points, ())
        self.test.assertEqual(presenter.panel.confidence, first.confidence)
        presenter.redo()
        self.test.assertEqual(len(self._answer(presenter).points), 1)
        presenter.accept("right femur")
        self.test.assertEqual([entry.name for entry in presenter.panel.segments], ["right femur"])
        (node,) = self._segmentations()
        identifier = presenter.panel.active_segment
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume) > 0
        self.test.assertGreater(_overlap(mask, labels == 5), LEAST_OVERLAP)

        presenter.add_point(Point.from_ijk(_center(mask), positive=False))
        self.test.assertTrue(self._answer(presenter).correcting)
        presenter.cancel()
        kept = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume) > 0
        self.test.assertTrue(np.array_equal(kept, mask))

        presenter.next_bone()
        presenter.set_box(_box_of(labels, 3))
        self._answer(presenter)
        presenter.next_bone("left femur")
        self.test.assertEqual(
            [entry.name for entry in presenter.panel.segments], ["right femur", "left femur"]
        )
        kept = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume) > 0
        self.test.assertTrue(np.array_equal(kept, mask))

    def test_panel_cancels_at_once(self) -> None:
        """Cancel leaves what was there, within half a second."""
        volume, _ = self._hip()
        presenter = self._panel(volume)
        presenter.segment_all()
        self.test.assertEqual(presenter.panel.state, State.RUNNING)
        start = time.monotonic()
        presenter.cancel()
        slicer.app.processEvents()
        self.test.assertLess(time.monotonic() - start, 0.5)
        self.test.assertEqual(presenter.panel.state, State.READY)
        self.test.assertEqual(self._segmentations(), [])

    def test_panel_survives_its_volume_and_its_scene(self) -> None:
        """The volume is removed, then the scene closed, while the network runs."""
        for remove in (slicer.mrmlScene.RemoveNode, lambda volume: slicer.mrmlScene.Clear()):
            volume, labels = self._hip()
            presenter = self._panel(volume)
            presenter.set_box(_box_of(labels, 5))
            self.test.assertEqual(presenter.panel.state, State.RUNNING)
            remove(volume)
            self._wait(lambda presenter=presenter: presenter.panel.state == State.NO_VOLUME)
            self.test.assertIn(Action.CHOOSE_VOLUME, presenter.enabled)

    def test_scene_is_saved_with_names_codes_and_colors(self) -> None:
        """What was accepted is the same after saving and loading."""
        volume, labels = self._hip()
        found = self._logic().segment(volume, roiNode=self._box(labels, 5), bone="right femur")
        segment = found.segmentationNode.GetSegmentation().GetSegment(found.segmentId)
        before = (segment.GetName(), _terminology(segment), segment.GetColor())
        mask = self._mask(found, volume)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "scene.mrb")
            self.test.assertTrue(slicer.util.saveScene(path))
            slicer.mrmlScene.Clear()
            self.test.assertTrue(slicer.util.loadScene(path))
            (node,) = self._segmentations()
            identifier = node.GetSegmentation().GetNthSegmentID(0)
            segment = node.GetSegmentation().GetSegment(identifier)
            self.test.assertEqual((segment.GetName(), _terminology(segment), segment.GetColor()), before)
            (volume,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            again = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, volume)
            self.test.assertTrue(np.array_equal(again > 0, mask))

    def test_the_module_is_left_and_reloaded(self) -> None:
        """While the network runs; segments stay, and the new panel works.

        By its name the last one: what others have imported is another class after reloading.
        """
        volume, labels = self._hip()
        presenter = self._panel(volume)
        presenter.set_box(_box_of(labels, 5))
        self._answer(presenter)
        presenter.accept("right femur")
        presenter.set_box(_box_of(labels, 3))
        slicer.util.selectModule("Data")
        slicer.util.getModuleWidget("BoneSAM").onReload()
        self.test.assertEqual(presenter.panel.state, State.CLOSED)
        (node,) = self._segmentations()
        self.test.assertEqual(node.GetSegmentation().GetNumberOfSegments(), 1)
        again = self._panel(volume)
        self.test.assertIsNot(again, presenter)
        again.set_box(_box_of(labels, 3))
        self.test.assertEqual(self._answer(again).state, State.PREVIEW)

    # What they need.

    def _logic(self) -> Any:
        import BoneSAM

        return BoneSAM.BoneSAMLogic()

    def _panel(self, volume: Any) -> Any:
        """The presenter of the shown panel, working on a volume, each prompt segmented at once."""
        slicer.util.selectModule("BoneSAM")
        widget = slicer.util.getModuleWidget("BoneSAM")
        widget.ui.volumeSelector.setCurrentNode(volume)
        presenter = widget.view.presenter
        self.test.assertEqual(presenter.panel.state, State.READY)
        self.test.assertTrue(presenter.settings.live)
        return presenter

    def _answer(self, presenter: Any) -> Any:
        """The panel once the network is done."""
        self._wait(lambda: presenter.panel.work is None)
        return presenter.panel

    def _wait(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + LONGEST_WAIT
        while not done():
            self.test.assertLess(time.monotonic(), end, "the answer did not come")
            slicer.app.processEvents()
            time.sleep(0.01)

    def _hip(self) -> tuple[Any, Any]:
        """The CT of the hips and its true bones [k, j, i]."""
        import SampleData

        registerSampleData()
        volume = SampleData.downloadSample("BoneSAMHipCT")
        truth = json.loads((samplesFolder() / "samples.json").read_text(encoding="utf-8"))["hip_ct"]["truth"]
        node = slicer.util.loadLabelVolume(str(samplesFolder() / truth))
        labels = slicer.util.arrayFromVolume(node).copy()
        slicer.mrmlScene.RemoveNode(node)
        self.test.assertEqual(labels.shape, slicer.util.arrayFromVolume(volume).shape)
        self._affine = self._to_world(volume)
        return volume, labels

    def _box(self, labels: Any, value: int) -> Any:
        """A region of interest around a bone, where the hips lie without a transform."""
        places = np.argwhere(labels == value)[:, ::-1]
        corners = [self._affine[:3] @ [*place, 1] for place in (places.min(0) - 0.5, places.max(0) + 0.5)]
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        node.SetCenter(*np.mean(corners, 0))
        node.SetSize(*np.abs(np.subtract(*corners)))
        return node

    def _to_world(self, volume: Any) -> Any:
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix)

    def _mask(self, found: Any, volume: Any) -> Any:
        return slicer.util.arrayFromSegmentBinaryLabelmap(found.segmentationNode, found.segmentId, volume) > 0

    def _segmentations(self) -> list[Any]:
        return list(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))


def _overlap(mask: Any, truth: Any) -> float:
    """Dice."""
    return 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())


def _box_of(labels: Any, value: int) -> Any:
    from BoneSAMLib.prompts import Box

    places = np.argwhere(labels == value)[:, ::-1]
    return Box.from_ijk(tuple(map(int, places.min(0))), tuple(map(int, places.max(0))))


def _center(mask: Any) -> tuple[int, int, int]:
    """A voxel (i, j, k) of a mask, near its middle."""
    places = np.argwhere(mask)
    k, j, i = places[np.abs(places - places.mean(0)).sum(1).argmin()]
    return int(i), int(j), int(k)


def _middle(mask: Any, to_world: Any) -> tuple[float, float, float]:
    r, a, s = to_world[:3] @ [*_center(mask), 1]
    return float(r), float(a), float(s)


def _terminology(segment: Any) -> str:
    entry = vtk.reference("")
    segment.GetTag(segment.GetTerminologyEntryTagName(), entry)
    return str(entry)
