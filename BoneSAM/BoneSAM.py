"""BoneSAM in 3D Slicer: draw a box, get the bone.

Thin: what the panel does is in `BoneSAMPanel`, what it decides and computes in `BoneSAMLib`.
"""

import sys
from pathlib import Path

import slicer
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

# In a source checkout the library lies beside this file's folder; installed, beside this file.
_CHECKOUT = Path(__file__).resolve().parents[1]
if (_CHECKOUT / "BoneSAMLib").is_dir() and str(_CHECKOUT) not in sys.path:
    sys.path.append(str(_CHECKOUT))


class BoneSAM(ScriptedLoadableModule):
    """What 3D Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        from BoneSAMPanel.help_text import acknowledgementText, helpText

        self.parent.title = "BoneSAM"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Markups", "Segmentations", "SegmentEditor", "Volumes"]
        self.parent.contributors = ["BoneSAM developers"]
        self.parent.helpText = helpText()
        self.parent.acknowledgementText = acknowledgementText()
        slicer.app.connect("startupCompleted()", _registerSampleData)


def _registerSampleData():
    from BoneSAMPanel.sample_data import registerSampleData

    registerSampleData()


class BoneSAMWidget(ScriptedLoadableModuleWidget):
    """The module's panel."""

    def __init__(self, parent=None):
        self.view = None
        ScriptedLoadableModuleWidget.__init__(self, parent)

    @property
    def presenter(self):
        """What the panel shows and decides."""
        return self.view.presenter

    def setup(self):
        """Make the panel, when the module is first shown."""
        ScriptedLoadableModuleWidget.setup(self)
        from BoneSAMPanel.module_view import ModuleView

        panel = slicer.util.loadUI(self.resourcePath("UI/BoneSAM.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        icons = Path(self.resourcePath("Icons"))
        self.view = ModuleView(self.ui, icons, slicer.mrmlScene, slicer.app.applicationLogic())

    def enter(self):
        """The module is shown."""
        if self.view is not None:
            self.view.enter()

    def exit(self):
        """Another module is shown."""
        if self.view is not None:
            self.view.exit()

    def cleanup(self):
        """The module is unloaded, or 3D Slicer ends."""
        if self.view is not None:
            self.view.close()
            self.view = None

    def onReload(self):
        """Read all of the module's code again, not only this file."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("BoneSAMLib", "BoneSAMPanel")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class BoneSAMLogic(ScriptedLoadableModuleLogic):
    """Segmentation without a user interface, for scripts and batches. Nothing is installed and nobody asked.

    The methods take what the functions of `BoneSAMLib.node_segmentation` take, where everything is described.
    The logic keeps the network and its work on the last volume (hundreds of megabytes) for the next call.

    Example:
        >>> bone = BoneSAMLogic().segment(volumeNode, roiNode=roiNode, bone="left femur")
        >>> bone.segmentationNode, bone.segmentId, bone.confidence
    """

    def __init__(self, *arguments):
        ScriptedLoadableModuleLogic.__init__(self, *arguments)
        self._cache = None

    def segment(
        self,
        volumeNode,
        roiNode=None,
        positivePoints=None,
        negativePoints=None,
        bone=None,
        segmentationNode=None,
        segmentId=None,
        device="auto",
        progress=None,
        **options,
    ):
        """Segment one bone from a box, points, or both, and write it into a segment.

        :return: where the bone is and how sure BoneSAM is of it.
        :raises BoneSAMError: input that cannot be used, or no bone there; nothing has changed then.
        """
        from BoneSAMLib.node_segmentation import segment

        return segment(
            volumeNode,
            roiNode,
            positivePoints,
            negativePoints,
            bone,
            segmentationNode,
            segmentId,
            device,
            progress,
            **self._withCache(options),
        )

    def segmentMany(self, jobs, progress=None, **options):
        """Segment many bones; one that fails does not stop the others.

        :param jobs: dictionaries of the arguments of `segment`.
        :return: for every job what it gave, or its error.
        """
        from BoneSAMLib.node_segmentation import segmentMany

        return segmentMany(jobs, progress, **self._withCache(options))

    def segmentAll(self, volumeNode, segmentationNode=None, device="auto", progress=None, **options):
        """Segment every bone, each into a segment of its own.

        :return: a list of what `segment` returns.
        """
        from BoneSAMLib.node_segmentation import segmentAll

        return segmentAll(volumeNode, segmentationNode, device, progress, **self._withCache(options))

    def _withCache(self, options):
        from BoneSAMLib.node_segmentation import newCache

        self._cache = self._cache or newCache()
        return {"cache": self._cache, **options}


class BoneSAMTest(ScriptedLoadableModuleTest):
    """The whole flow, in 3D Slicer."""

    def runTest(self):
        """Run all tests; the first that fails ends them."""
        # Here, for 3D Slicer reads this file whenever it starts.
        from BoneSAMPanel.self_test import SelfTest

        type("Tests", (SelfTest, ScriptedLoadableModuleTest), {})().runTest()
