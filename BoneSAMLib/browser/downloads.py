"""Accepted segments as files to take away: a 3D Slicer segmentation, a labeled NIfTI, or surfaces."""

import io
import re
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from aiohttp import web
from vtk.util.numpy_support import vtk_to_numpy

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.segmentation_node import readMask
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import SegmentInfo, write_mask

__all__ = ["FORMATS", "Download", "Downloads", "make_download"]

Download = tuple[str, bytes]  # name and content
FORMATS = ("seg.nrrd", "nii.gz", "stl")
_SURFACE = "Closed surface"


class Downloads:
    """A file is made first, then fetched once. Only the last one is kept.

    Args:
        folder: for temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready: dict[str, Download] = {}

    def prepare(self, ending: str, segmentation_node: Any, volume_node: Any, volume: Volume) -> str:
        """Make a file; returns its address, below the page's. Arguments and errors as for `make_download`."""
        download = make_download(ending, segmentation_node, volume_node, volume, self._folder)
        ticket = uuid.uuid4().hex
        self._ready = {ticket: download}
        return f"download/{ticket}"

    async def send(self, request: Any) -> Any:
        """The answer to a request for it."""
        download = self._ready.pop(request.match_info["ticket"], None)
        if download is None:
            raise web.HTTPNotFound
        name, content = download
        ascii_name = name.encode("ascii", "replace").decode().replace("?", "_")
        return web.Response(
            body=content,
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{ascii_name}"'},
        )


def make_download(
    ending: str, segmentation_node: Any, volume_node: Any, volume: Volume, folder: Path
) -> Download:
    """One file of all segments.

    Args:
        ending: of `FORMATS`. STL comes as a ZIP of one file a segment, in LPS mm, as other programs expect.
        segmentation_node: accepted segments; None if there are none yet.
        volume_node, volume: the scan they belong to.
        folder: for a temporary file.

    Raises:
        BoneSAMError: no segments, an unknown ending, or the file cannot be written.
    """
    if segmentation_node is None or segmentation_node.GetSegmentation().GetNumberOfSegments() == 0:
        raise BoneSAMError("There is no segment to download: accept a bone first.")
    if ending not in FORMATS:
        raise BoneSAMError(f"'{ending}' is no format to download: use {', '.join(FORMATS)}.")
    name = f"{_stem(volume_node.GetName())}-bones"
    if ending == "stl":
        return f"{name}-stl.zip", _surfaces(segmentation_node)
    path = folder / f"download.{ending}"
    try:
        if ending == "seg.nrrd":
            _write_segmentation(segmentation_node, path)
        else:
            _write_labels(segmentation_node, volume_node, volume, path)
        return f"{name}.{ending}", path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _write_segmentation(segmentation_node: Any, path: Path) -> None:
    """With names, colors and terminology, and in layers where segments overlap."""
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    storage.SetCropToMinimumExtent(False)
    if not storage.WriteData(segmentation_node):
        raise BoneSAMError("The segmentation could not be written: is the disk of the server full?")


def _write_labels(segmentation_node: Any, volume_node: Any, volume: Volume, path: Path) -> None:
    """Numbers in the order of the list; where segments overlap, the later one is seen."""
    segmentation = segmentation_node.GetSegmentation()
    identifiers: Sequence[str] = segmentation.GetSegmentIDs()
    labels = np.zeros(volume.shape, np.uint8 if len(identifiers) < 256 else np.uint16)
    infos = []
    for number, identifier in enumerate(identifiers, 1):
        labels[readMask(segmentation_node, identifier, volume_node)] = number
        segment = segmentation.GetSegment(identifier)
        red, green, blue = segment.GetColor()
        infos.append(SegmentInfo(number, segment.GetName(), (red, green, blue)))
    write_mask(labels, volume, path, infos)


def _surfaces(segmentation_node: Any) -> bytes:
    segmentation = segmentation_node.GetSegmentation()
    was_there = segmentation.ContainsRepresentation(_SURFACE)
    if not was_there:
        segmentation.CreateRepresentation(_SURFACE)
    to_lps = vtk.vtkTransform()
    parent = segmentation_node.GetParentTransformNode()
    to_world = vtk.vtkMatrix4x4()
    if parent is not None:
        parent.GetMatrixTransformToWorld(to_world)
    to_lps.Scale(-1, -1, 1)
    to_lps.Concatenate(to_world)
    buffer = io.BytesIO()
    names: set[str] = set()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        for identifier in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(identifier)
            surface = segment.GetRepresentation(_SURFACE)
            if surface is None or surface.GetNumberOfPoints() == 0:
                continue
            turned = vtk.vtkTransformPolyDataFilter()
            turned.SetTransform(to_lps)
            turned.SetInputData(surface)
            triangles = vtk.vtkTriangleFilter()
            triangles.SetInputConnection(turned.GetOutputPort())
            triangles.PassLinesOff()
            triangles.PassVertsOff()
            triangles.Update()
            archive.writestr(_unused(_stem(segment.GetName()), names), _stl(triangles.GetOutput()))
    if not was_there:
        segmentation.RemoveRepresentation(_SURFACE)
    if not names:
        raise BoneSAMError("The segments are empty: there is no surface to download.")
    return buffer.getvalue()


def _stl(surface: Any) -> bytes:
    """Binary STL: normal and corners of every triangle."""
    points = vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float32)
    corners = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    triangles = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    triangles["corners"] = places = points[corners]
    normals = np.cross(places[:, 1] - places[:, 0], places[:, 2] - places[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    triangles["normal"] = np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)
    header = b"BoneSAM, LPS, mm".ljust(80)
    return header + len(corners).to_bytes(4, "little") + bytes(triangles.tobytes())


def _unused(stem: str, names: set[str]) -> str:
    name = next(name for n in range(1, 10_000) if (name := stem + (f"-{n}" if n > 1 else "")) not in names)
    names.add(name)
    return f"{name}.stl"


def _stem(name: str) -> str:
    """A name that can be a file's."""
    for ending in (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".png", ".jpg", ".tif"):
        name = name.removesuffix(ending)
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "scan"
