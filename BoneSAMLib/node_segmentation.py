"""Segmenting bones of a 3D Slicer scene from a script, without a user interface.

The same path as the panel's, so the same prompts give the same masks. Calls return when the work is done, and
a call that fails leaves the scene as it was.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import slicer

from BoneSAMLib.bone_finding import phrase_places
from BoneSAMLib.bone_kinds import name_of
from BoneSAMLib.companion import check_same_space
from BoneSAMLib.cropped_mask import CroppedMask
from BoneSAMLib.errors import BoneSAMError, Cancelled
from BoneSAMLib.mask_request import MaskRequest
from BoneSAMLib.mrml import boxFromRoi, orientedBoxFromRoi, pointsFromMarkups, requireVolume
from BoneSAMLib.node_segment_store import NodeSegmentStore
from BoneSAMLib.node_volume_source import NodeVolumeSource
from BoneSAMLib.prompt_history import Outcome, Prompts, Step
from BoneSAMLib.prompts import Point
from BoneSAMLib.segmentation_node import requireEditable
from BoneSAMLib.session_cache import SessionCache, VolumeKey, open_segmenter
from BoneSAMLib.settings import Settings
from BoneSAMLib.volume import Float3, Volume
from BoneSAMLib.worker import Job

__all__ = ["Progress", "SegmentedBone", "newCache", "segment", "segmentAll", "segmentMany"]

Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class SegmentedBone:
    """What became of a call.

    Attributes:
        segmentationNode: that holds the bone.
        segmentId: which of its segments is the bone.
        confidence: predicted overlap (IoU) with the true bone, 0 to 1.
        review: indices of the slices that most need a look, worst first.
        reviewAxis: IJK axis of the volume along which these count.
    """

    segmentationNode: Any
    segmentId: str
    confidence: float
    review: tuple[int, ...] = ()
    reviewAxis: int = 2


def newCache() -> SessionCache:
    """What keeps the network and the work done on the last volume, to be passed to several calls.

    A bone is then corrected in a fraction of the time of its first mask. Takes hundreds of megabytes.
    """
    return SessionCache(open_segmenter)


def segment(
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    roiNode: "slicer.vtkMRMLMarkupsROINode | None" = None,
    positivePoints: "slicer.vtkMRMLMarkupsFiducialNode | Sequence[Float3] | None" = None,
    negativePoints: "slicer.vtkMRMLMarkupsFiducialNode | Sequence[Float3] | None" = None,
    bone: str | None = None,
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None" = None,
    segmentId: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    weights: str | Path = "",
    depthAttention: bool = True,
    smoothingMm: float = 0.0,
    keepInsideRoi: bool = False,
    removeSmallIslands: bool = False,
    otherVolumeNodes: "Sequence[slicer.vtkMRMLScalarVolumeNode]" = (),
    fusion: str = "average",
    cache: SessionCache | None = None,
) -> SegmentedBone:
    """Segment one bone from a box, points, or both, and write it into a segment. Other segments stay as is.

    Volume, box, points and segmentation may each be under linear transforms of their own.

    Args:
        volumeNode: the scan: CT, MR or X-ray.
        roiNode: box around the bone, turned or not. Flat along one axis: drawn on that slice, and carried
            through the bone.
        positivePoints: on the bone: a markups node, or positions (R, A, S) in mm, in world coordinates.
        negativePoints: beside it, likewise.
        bone: what it is called, such as "left femur": name of the segment, which also gets the SNOMED CT
            codes for it, and a new segment its color. The network is told the kind of bone. Without box and
            points, in CT and MR, the bone is found by this name.
        segmentationNode: None for a new one, under the transform of the volume.
        segmentId: the segment to be replaced. Given points and no box, they correct it; with `cache`, points
            of the calls that made it still hold, as long as nobody else changed it. None for a new one.
        device: "auto", "cpu" or "cuda".
        progress: called with a fraction, 0 to 1, and a word. It may raise `Cancelled` to stop.
        weights: folder of a bundle; "" for the bundled weights.
        depthAttention: False looks at each slice and its neighbors only.
        smoothingMm: standard deviation of the Gaussian that smooths the mask, 0 to 5 mm.
        keepInsideRoi: the mask does not leave the box.
        removeSmallIslands: only the largest part of the mask stays, and parts with a positive point.
        otherVolumeNodes: further sequences of the same study, such as T2 beside T1, on which the network
            runs as well. They lie where the world shows them, on grids of their own, and may be under
            transforms that register them. Each takes as much time and memory as the first.
        fusion: how the answers become one: "average", or "maximum", which finds what is bone in any of them.
        cache: see `newCache`; None keeps nothing for the next call.

    Raises:
        BoneSAMError: input that cannot be used, or no bone was found; nothing has changed.
        Cancelled: by `progress`; nothing has changed.
    """
    source, key, volume = _opened(volumeNode)
    _requireTarget(segmentationNode, volumeNode)
    if segmentationNode is None and segmentId is not None:
        raise BoneSAMError(f"Say which segmentation the segment '{segmentId}' is in: give segmentationNode.")
    store = NodeSegmentStore(volumeNode.GetScene(), segmentationNode)
    prompts = _prompts(roiNode, positivePoints, negativePoints, volumeNode, volume)
    before = None if segmentId is None else store.read(segmentId, source)
    corrected = before if roiNode is None and before is not None and not before.is_empty else None
    step = Step(prompts, segment=segmentId, base=corrected)
    if not step.can_be_segmented and not (bone and not prompts):
        raise BoneSAMError(
            "There is nothing that says which bone is meant: give roiNode, a box around the bone, or "
            "positivePoints on it. For every bone, use segmentAll."
        )
    if not step.can_be_segmented:
        places = phrase_places(bone or "")
        if len(places) > 1:
            names = ", ".join(name_of(place) for place in places)
            raise BoneSAMError(f"'{bone}' means several bones: segment each by itself ({names}).")
    settings = Settings(
        device=device,
        weights=str(weights),
        depth_attention=depthAttention,
        smoothing_mm=smoothingMm,
        keep_inside=keepInsideRoi,
        remove_small_islands=removeSmallIslands,
        fusion=fusion,
    )
    others = _others(otherVolumeNodes, volumeNode, volume)
    request = MaskRequest(key, volume, settings, step, others, bone or "")
    ask = request.segment if step.can_be_segmented else partial(request.segment_text, bone or "")
    outcome = _answer(ask, cache, progress)
    if outcome.mask.is_empty:
        raise BoneSAMError(
            f"No bone was found in '{volumeNode.GetName()}' there: draw the box closer around the bone, or "
            "give a point on it."
        )
    _requireUnchanged(source, key)
    segmentId = _write(outcome.mask, bone, store, segmentId, source, corrected)
    if cache is not None:
        cache.keep(outcome)
    review = tuple(place.index for place in outcome.review)
    return SegmentedBone(store.segmentationNode, segmentId, outcome.confidence, review, outcome.review_axis)


def segmentMany(
    jobs: Sequence[Mapping[str, Any]], progress: Progress | None = None, cache: SessionCache | None = None
) -> list[SegmentedBone | BoneSAMError]:
    """Segment many bones, in one volume or in several; one that fails does not stop the others.

    Args:
        jobs: each the arguments of one call of `segment` by name, without `progress` and `cache`. Those
            without `segmentationNode` share a new segmentation for every volume. They are done in this
            order; jobs of one volume one after the other are fastest.
        progress: called with the fraction of all of it and a word. It may raise `Cancelled` to stop: bones
            that were done stay.
        cache: as for `segment`.

    Returns:
        For every job what it gave, or the error with what to tell the user.

    Raises:
        BoneSAMError: a job with arguments that `segment` does not have; nothing was done then.
        Cancelled: by `progress`.
    """
    for number, job in enumerate(jobs, start=1):
        try:
            if not {"progress", "cache"}.isdisjoint(job):
                raise TypeError("progress and cache are given to segmentMany itself")
            inspect.signature(segment).bind(**job)
        except TypeError as error:
            raise BoneSAMError(f"Job {number} of {len(jobs)} cannot be done: {error}.") from error
    cache = newCache() if cache is None else cache
    created: dict[int, Any] = {}
    results: list[SegmentedBone | BoneSAMError] = []
    for number, job in enumerate(jobs):
        arguments = dict(job)
        isNew = arguments.get("segmentationNode") is None and arguments.get("segmentId") is None
        if isNew:
            arguments["segmentationNode"] = created.get(id(arguments["volumeNode"]))
        try:
            result = segment(**arguments, progress=_part(progress, number, len(jobs)), cache=cache)
        except Cancelled:
            raise
        except BoneSAMError as error:
            results.append(error)
        else:
            results.append(result)
            if isNew:
                created[id(arguments["volumeNode"])] = result.segmentationNode
    return results


def segmentAll(
    volumeNode: "slicer.vtkMRMLScalarVolumeNode",
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None" = None,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    weights: str | Path = "",
    depthAttention: bool = True,
    smoothingMm: float = 0.0,
    otherVolumeNodes: "Sequence[slicer.vtkMRMLScalarVolumeNode]" = (),
    fusion: str = "average",
    cache: SessionCache | None = None,
) -> list[SegmentedBone]:
    """Segment every bone without a prompt, each into a new segment.

    With a naming network, bones of CT and MR have their names where these are recognized; the others are
    "Bone 1", "Bone 2", ..., and bones that touch may end up in one segment. Arguments as for `segment`.

    Raises:
        BoneSAMError: as `segment`.
        Cancelled: by `progress`; nothing has changed.
    """
    source, key, volume = _opened(volumeNode)
    _requireTarget(segmentationNode, volumeNode)
    settings = Settings(
        device=device,
        weights=str(weights),
        depth_attention=depthAttention,
        smoothing_mm=smoothingMm,
        fusion=fusion,
    )
    others = _others(otherVolumeNodes, volumeNode, volume)
    request = MaskRequest(key, volume, settings, Step(), others)
    outcome = _answer(request.segment_all, cache, progress)
    if not outcome.bones:
        raise BoneSAMError(f"No bone was found in '{volumeNode.GetName()}'.")
    _requireUnchanged(source, key)
    store = NodeSegmentStore(volumeNode.GetScene(), segmentationNode)
    added = store.add_all([(bone.name, bone.mask) for bone in outcome.bones], source)
    return [
        SegmentedBone(store.segmentationNode, segmentId, bone.confidence)
        for segmentId, bone in zip(added, outcome.bones, strict=True)
        if segmentId is not None
    ]


def _opened(volumeNode: Any) -> tuple[NodeVolumeSource, VolumeKey, Volume]:
    _requireClass(volumeNode, "vtkMRMLScalarVolumeNode", "a volume")
    requireVolume(volumeNode)
    if volumeNode.GetScene() is None:
        raise BoneSAMError(
            f"The volume '{volumeNode.GetName()}' is not in a scene: load it, or add it first."
        )
    source = NodeVolumeSource(volumeNode)
    # Before reading: a change in between then counts as one.
    key = VolumeKey(source.identifier, source.modified_time)
    return source, key, source.read()


def _others(
    nodes: "Sequence[slicer.vtkMRMLScalarVolumeNode]", volumeNode: Any, volume: Volume
) -> tuple[tuple[VolumeKey, Volume], ...]:
    if isinstance(nodes, slicer.vtkMRMLNode | str):
        raise BoneSAMError("otherVolumeNodes is a list: give [node], even for one volume.")
    others = []
    for node in nodes:
        if node is volumeNode:
            raise BoneSAMError(f"'{node.GetName()}' is among otherVolumeNodes and the volume itself.")
        _, key, other = _opened(node)
        check_same_space(volume, other)
        others.append((key, other))
    return tuple(others)


def _requireTarget(segmentationNode: Any, volumeNode: Any) -> None:
    _requireClass(segmentationNode, "vtkMRMLSegmentationNode", "a segmentation")
    if segmentationNode is None:
        return
    requireEditable(segmentationNode)
    if segmentationNode.GetScene() is not volumeNode.GetScene():
        raise BoneSAMError(
            f"The segmentation '{segmentationNode.GetName()}' is not in the scene of the volume "
            f"'{volumeNode.GetName()}': choose another one, or none to create one."
        )


def _requireClass(node: Any, className: str, what: str) -> None:
    """Scripts pass names, or other nodes than they mean."""
    if node is None:
        return
    if not isinstance(node, slicer.vtkMRMLNode):
        raise BoneSAMError(
            f"{node!r} is not {what}: give the node itself, for example slicer.util.getNode('its name')."
        )
    if not node.IsA(className):
        raise BoneSAMError(f"'{node.GetName()}' is not {what}, but a {node.GetNodeTagName()} node.")


def _prompts(roiNode: Any, positive: Any, negative: Any, volumeNode: Any, volume: Volume) -> Prompts:
    _requireClass(roiNode, "vtkMRMLMarkupsROINode", "a box (region of interest)")
    box = None
    if roiNode is not None:
        boxFromRoi(roiNode, volumeNode)  # its error names the nodes
        box = orientedBoxFromRoi(roiNode)
    points: list[Point] = []
    for given, isPositive in ((positive, True), (negative, False)):
        if given is None:
            continue
        if isinstance(given, slicer.vtkMRMLNode):
            _requireClass(given, "vtkMRMLMarkupsFiducialNode", "a list of points")
            points += pointsFromMarkups(given, volumeNode, isPositive)
        elif isinstance(given, Iterable) and not isinstance(given, str):
            for position in given:
                point = Point.from_ras(position, isPositive)
                point.to_ijk(volume)  # says so if it lies outside
                points.append(point)
        else:
            raise BoneSAMError(f"{given!r} is no list of points: give a markups node, or positions R, A, S.")
    return Prompts(box, tuple(points))


def _answer(
    ask: Callable[[SessionCache, Job], Outcome], cache: SessionCache | None, progress: Progress | None
) -> Outcome:
    def report(fraction: float, text: str) -> None:
        if progress is not None:
            progress(fraction, text)

    # On this thread: what is delivered is called at once.
    job = Job(lambda job, call: call(), report)
    try:
        return ask(newCache() if cache is None else cache, job)
    except ModuleNotFoundError as error:
        raise BoneSAMError(
            f"The Python package '{error.name}' is missing: install it, for example with "
            f"slicer.util.pip_install('--no-deps {error.name}')."
        ) from error


def _requireUnchanged(source: NodeVolumeSource, key: VolumeKey) -> None:
    """`progress` may let the user go on working."""
    name = source.volumeNode.GetName()
    if source.volumeNode.GetScene() is None:
        raise BoneSAMError(f"The volume '{name}' was removed while it was being segmented.")
    if VolumeKey(source.identifier, source.modified_time) != key:
        raise BoneSAMError(f"The volume '{name}' was changed while it was being segmented: segment it again.")


def _write(
    mask: CroppedMask,
    bone: str | None,
    store: NodeSegmentStore,
    segmentId: str | None,
    source: NodeVolumeSource,
    corrected: CroppedMask | None,
) -> str:
    """Into a segment, which may be `corrected`, or a new one; its ID. After an error nothing has changed."""
    if segmentId is not None:
        store.write(mask, segmentId, source, corrected)
        if bone:
            store.rename(segmentId, bone)
        return segmentId
    before = store.segmentationNode
    added = store.add(bone or "", source)
    try:
        store.write(mask, added, source)
    except Exception:
        if before is None:
            _removeSegmentation(store.segmentationNode)
        else:
            store.remove(added)
        raise
    return added


def _removeSegmentation(segmentationNode: Any) -> None:
    scene = segmentationNode.GetScene()
    scene.RemoveNode(segmentationNode.GetDisplayNode())
    scene.RemoveNode(segmentationNode)


def _part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of several jobs as that of all."""
    if progress is None:
        return None
    return lambda fraction, text: progress((number + fraction) / count, f"{number + 1} of {count}: {text}")
