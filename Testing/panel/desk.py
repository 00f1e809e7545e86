"""A shown panel with everything around it, and what a user does with it."""

from pathlib import Path

import vtk
from PySide6 import QtCore, QtWidgets
from PySide6.QtTest import QTest

from Testing.panel import pythonqt
from Testing.panel.application import MODULE, child_widget_variables, run_until
from Testing.panel.slicer_widgets import load, release
from Testing.slicer.scenes import add_volume, world_of_voxels


def settle():
    """Let what was asked for the main thread happen."""
    QtWidgets.QApplication.processEvents()


class PanelDesk:
    """`view` is the module's; `ui` its widgets as PythonQt shows them."""

    def __init__(self, application, scene, segmenter):
        from BoneSAMPanel.module_view import ModuleView

        self.application, self.scene, self.segmenter = application, scene, segmenter
        panel = load(MODULE / "Resources" / "UI" / "BoneSAM.ui")
        scroll = QtWidgets.QScrollArea()
        frame = QtWidgets.QWidget()
        QtWidgets.QVBoxLayout(frame).addWidget(panel)  # with a margin, as module panels have
        scroll.setWidget(frame)
        scroll.setWidgetResizable(True)
        application.window.setCentralWidget(scroll)
        application.window.resize(460, 1000)
        application.window.show()
        self.ui = child_widget_variables(pythonqt.Wrapped(panel))
        self.slice = scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
        self.slice.SetLayoutName("Red")
        self.view = ModuleView(
            self.ui,
            Path(MODULE / "Resources" / "Icons"),
            scene,
            application.logic,
            segmenter.load,
            prepare=lambda: None,
        )
        self.presenter = self.view.presenter
        self.view.enter()

    def close(self):
        self.view.exit()
        self.view.close()
        QtWidgets.QApplication.processEvents()
        release(self.application.window)
        self.application.window.takeCentralWidget().deleteLater()

    @property
    def panel(self):
        return self.presenter.panel

    def open(self, geometry="axis-aligned", parent="none"):
        """Load a scan and choose it."""
        self.volume = add_volume(self.scene, geometry, parent)
        self.places = world_of_voxels(self.volume)
        self.ui.volumeSelector.setCurrentNode(self.volume)
        return self

    def press(self, name):
        """Press a button, as far as it is enabled."""
        button = pythonqt.unwrap(getattr(self.ui, name))
        assert button.isEnabled(), name
        button.click()

    def key(self, key, modifiers=QtCore.Qt.NoModifier):
        QTest.keyClick(self.application.window, key, modifiers)

    def answer(self):
        """Wait for the mask."""
        settle()
        run_until(lambda: self.panel.work is None)

    def place(self, i, j, k):
        """Where a voxel lies in the world."""
        return [float(value) for value in self.places[k, j, i]]

    # What the mouse does in a slice view, through the nodes that its widgets change.

    @property
    def interaction(self):
        return self.application.logic.GetInteractionNode()

    @property
    def placed(self):
        """The node that the next click places a point of, or None."""
        if self.interaction.GetCurrentInteractionMode() != self.interaction.Place:
            return None
        return self.scene.GetNodeByID(self.application.logic.GetSelectionNode().GetActivePlaceNodeID())

    def click(self, *ijk):
        """Click in a slice view that is at a voxel."""
        node = self.placed
        is_box = node.IsA("vtkMRMLMarkupsROINode")
        if is_box and node.GetNumberOfControlPoints() == 0:
            # An emptied region waits for two corners again once the mouse moves over a view; here, so:
            node.SetROIType(node.ROITypeBoundingBox)
            node.SetROIType(node.ROITypeBox)
        node.AddControlPointWorld(vtk.vtkVector3d(self.place(*ijk)))
        if not self.interaction.GetPlaceModePersistence() and (not is_box or min(node.GetSize()) > 0):
            self.interaction.SwitchToViewTransformMode()
        settle()

    def escape(self):
        """The panel's own key."""
        self.key(QtCore.Qt.Key_Escape)
        settle()

    def right_click(self):
        """In a slice view: 3D Slicer ends placing points."""
        self.interaction.SwitchToViewTransformMode()
        settle()

    def drawBox(self, low, high, button="boxButton"):
        """Two clicks, on the slice in the middle between two voxels."""
        self.press(button)
        middle = (low[2] + high[2]) // 2
        self.click(low[0], low[1], middle)
        self.click(high[0], high[1], middle)

    def drag(self, node, change):
        """Drag something of a markup."""
        node.InvokeEvent(node.PointStartInteractionEvent)
        change()
        node.InvokeEvent(node.PointEndInteractionEvent)
        settle()

    def node(self, name):
        """A node of the panel's own."""
        return self.scene.GetFirstNodeByName(name)

    @property
    def segmentation(self):
        found = [
            self.scene.GetNthNodeByClass(n, "vtkMRMLSegmentationNode")
            for n in range(self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"))
        ]
        return next((node for node in found if node.GetName() != "BoneSAM preview"), None)

    def names(self):
        node = self.segmentation
        if node is None:
            return []
        segmentation = node.GetSegmentation()
        return [segmentation.GetSegment(name).GetName() for name in segmentation.GetSegmentIDs()]

    def voxels(self, node, number=0):
        """A segment on the scan's grid."""
        from BoneSAMLib.segmentation_node import readMask

        return readMask(node, node.GetSegmentation().GetNthSegmentID(number), self.volume)

    @property
    def message(self):
        frame = pythonqt.unwrap(self.ui.messageFrame)
        return self.ui.messageLabel.text if not frame.isHidden() else None
