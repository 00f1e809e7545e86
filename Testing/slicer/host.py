"""A scene with the logics that 3D Slicer's application would have made, on the classes of slicer-core.

Nodes, transforms, markups and segmentations are Slicer's own; only what surrounds them is made here.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager

import slicer.util
import vtk

LOGICS = {
    "volumes": ("Volumes", "vtkSlicerVolumesLogic"),
    "segmentations": ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    "markups": ("Markups", "vtkSlicerMarkupsLogic"),
    "subjecthierarchy": ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
}


def start(folder):
    """Make a scene and its logics, and put them where Slicer's Python code looks for them; returns the scene.

    Scene files are unpacked in `folder`.
    """
    scene = slicer.vtkMRMLScene()
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(str(folder))
    cache.SetMRMLScene(scene)
    files = slicer.vtkDataIOManager()
    files.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(files)
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    modules = {"application": application}
    for module, (name, class_name) in LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLScene(scene)
        logic.SetMRMLApplicationLogic(application)
        application.SetModuleLogic(name, logic)
        modules[module] = types.SimpleNamespace(logic=lambda logic=logic: logic)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, add_to_subject_hierarchy)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, remove_from_subject_hierarchy)
    slicer.mrmlScene = scene
    slicer.modules = types.SimpleNamespace(**modules)
    return scene


@vtk.calldata_type(vtk.VTK_OBJECT)
def add_to_subject_hierarchy(scene, _event, node):
    """What the application does for every node with data."""
    if node.IsA("vtkMRMLDisplayableNode") and not scene.IsImporting():
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def remove_from_subject_hierarchy(scene, _event, node):
    """What the application does for every node that goes, unless all go."""
    if node.IsA("vtkMRMLDisplayableNode") and not scene.IsClosing():
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.RemoveItem(hierarchy.GetItemByDataNode(node), False, False)


@contextmanager
def no_vtk_messages() -> Iterator[None]:
    """Fail if anything inside makes VTK or Slicer report an error or a warning."""
    before = vtk.vtkOutputWindow.GetInstance()
    window = vtk.vtkStringOutputWindow()
    vtk.vtkOutputWindow.SetInstance(window)
    try:
        yield
    finally:
        vtk.vtkOutputWindow.SetInstance(before)
    assert not window.GetOutput(), window.GetOutput()
