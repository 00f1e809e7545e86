"""A `Panel` as plain values and sentences for the page."""

from typing import Any

from BoneSAMLib.panel import Action, Panel, State, Tool, Work

__all__ = ["page_values"]

_WORK = {
    Work.SEGMENT: "Segmenting the bone...",
    Work.ALL_BONES: "Finding every bone...",
    Work.TEXT: "Finding the named bone...",
    Work.LOAD: "Loading the network...",
}
_TOOLS = {
    Tool.BOX: "Click two opposite corners around one bone in a slice.",
    Tool.POSITIVE_POINT: "Click on the bone where it is missing. Escape ends.",
    Tool.NEGATIVE_POINT: "Click on what must not belong to the bone. Escape ends.",
}


def page_values(panel: Panel, flat: bool) -> dict[str, Any]:
    """Everything that the page shows of a panel. `flat`: the box in hand is meant for one slice."""
    tool = "" if panel.tool is None else panel.tool.name.lower()
    fraction, _ = panel.progress or (0.0, "")
    settings = panel.settings
    return {
        "state": panel.state.value,
        "running": panel.work is not None,
        "percent": round(100 * fraction),
        "enabled": {action.name.lower(): True for action in panel.enabled},
        "tool": "slice_box" if flat and panel.tool is Tool.BOX else tool,
        "hint": _hint(panel),
        "result": _result(panel),
        "bones": panel.bone_count,
        "percent_sure": None if panel.confidence is None else round(100 * panel.confidence),
        "review": [
            {"index": place.index, "percent": round(100 * place.confidence)} for place in panel.review
        ],
        "segments": [
            {
                "id": entry.identifier,
                "name": entry.name,
                "color": "#{:02x}{:02x}{:02x}".format(*(round(255 * part) for part in entry.color)),
                "visible": entry.visible,
            }
            for entry in panel.segments
        ],
        "active": panel.active_segment or "",
        "names_one": panel.active_segment is None and panel.bone_count < 2,
        "live": settings.live,
        "depth_attention": settings.depth_attention,
        "keep_inside": settings.keep_inside,
        "remove_small_islands": settings.remove_small_islands,
        "smoothing_mm": settings.smoothing_mm,
    }


def _hint(panel: Panel) -> str:
    """What to do next."""
    if panel.tool is not None:
        return _TOOLS[panel.tool]
    if panel.work is not None:
        return _WORK[panel.work]
    if panel.state is State.NO_VOLUME:
        return "Open a CT, MR or X-ray: drop it on this page."
    if panel.state is State.PREVIEW:
        return "Check the mask. Correct it with + and - points, then accept it."
    if panel.state is State.DRAWING:
        if Action.SEGMENT in panel.enabled:
            return "Press Segment, or add points first."
        return "Draw a box around the bone, or click on it with + Point."
    if panel.active_segment is not None:
        return (
            f"Points change '{_active_name(panel)}'. A box is for another bone, or this one if it is empty."
        )
    return "Draw a box around one bone, or click on it with + Point."


def _result(panel: Panel) -> str:
    if panel.bone_count == 0 or panel.seconds is None:
        return ""
    seconds = f"{panel.seconds:.1f} s"
    if panel.correcting:
        return f"Correction of '{_active_name(panel)}', {seconds}"
    return f"{panel.bone_count} bones, {seconds}" if panel.bone_count > 1 else f"One bone, {seconds}"


def _active_name(panel: Panel) -> str:
    return next((entry.name for entry in panel.segments if entry.identifier == panel.active_segment), "")
