"""The panel's settings in a 3D Slicer scene."""

from collections.abc import Mapping
from dataclasses import fields

import slicer

from BoneSAMLib.settings import Settings

__all__ = ["MODULE_NAME", "NodeSettingsStore"]

MODULE_NAME = "BoneSAM"
# A reference to a node, which Slicer corrects when it gives nodes other IDs while loading a scene.
_VOLUME = "second_volume"
_NAMES = [field.name for field in fields(Settings)]


class NodeSettingsStore:
    """The module's parameter node, one to a scene; a `SettingsStore`.

    It is the node that a scripted module's own logic would make, saved with the scene. Closing the scene
    empties it: the settings last kept or loaded then hold on, and `load` puts them into the node again. So
    load after a scene was closed or loaded (`vtkMRMLScene.EndCloseEvent`, `EndImportEvent`).

    Args:
        scene: the scene.
    """

    def __init__(self, scene: "slicer.vtkMRMLScene") -> None:
        self._scene = scene
        self._last: dict[str, str] = {}

    @property
    def parameterNode(self) -> "slicer.vtkMRMLScriptedModuleNode | None":
        """Where settings are kept; None if the scene has none yet."""
        return self._scene.GetSingletonNode(MODULE_NAME, "vtkMRMLScriptedModuleNode")

    def load(self) -> dict[str, str]:
        """The settings in the scene, or the last ones if the scene has none. No node is made for no settings.

        A second volume that is not in the scene is left out.
        """
        node = self.parameterNode
        # The panel may keep more than settings there.
        names = [] if node is None else [name for name in _NAMES if node.HasParameter(name)]
        if node is not None and names:
            self._last = {name: node.GetParameter(name) for name in names}
            self._last[_VOLUME] = node.GetNodeReferenceID(_VOLUME) or ""
        elif self._last:
            self.save(self._last)
        if self._scene.GetNodeByID(self._last.get(_VOLUME, "")) is None:
            self._last.pop(_VOLUME, None)
        return dict(self._last)

    def save(self, values: Mapping[str, str]) -> None:
        """Keep these."""
        node = self.parameterNode or self._created()
        self._last = dict(values)
        wasModifying = node.StartModify()
        try:
            node.SetAttribute("ModuleName", MODULE_NAME)
            for name, value in values.items():
                if name != _VOLUME:
                    node.SetParameter(name, value)
            volume = values.get(_VOLUME, "")
            node.SetNodeReferenceID(_VOLUME, volume if self._scene.GetNodeByID(volume) else None)
        finally:
            node.EndModify(wasModifying)

    def _created(self) -> "slicer.vtkMRMLScriptedModuleNode":
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag(MODULE_NAME)
        node.SetName(MODULE_NAME)
        return self._scene.AddNode(node)
