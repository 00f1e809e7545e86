"""What the panel shows now: the bone at work, the segments and the settings as one `Panel`."""

from BoneSAMLib.bone_in_progress import BoneInProgress
from BoneSAMLib.panel import Action, Facts, Panel, State, Tool, enabled_actions
from BoneSAMLib.segment_table import SegmentTable
from BoneSAMLib.settings import Settings

__all__ = ["TOOL_ACTIONS", "enabled_now", "panel_now"]

# What must be enabled for a tool to draw.
TOOL_ACTIONS = {
    Tool.BOX: Action.BOX,
    Tool.POSITIVE_POINT: Action.POSITIVE_POINT,
    Tool.NEGATIVE_POINT: Action.NEGATIVE_POINT,
}


def enabled_now(bone: BoneInProgress, table: SegmentTable, settings: Settings) -> frozenset[Action]:
    """What may be done."""
    step, outcome = bone.step, bone.step.outcome
    return enabled_actions(
        Facts(
            has_volume=bone.opened is not None,
            work=bone.work,
            has_prompts=bool(step.prompts),
            has_outcome=outcome is not None,
            has_mask=outcome is not None and not outcome.mask.is_empty,
            has_review=outcome is not None and bool(outcome.review),
            due=step.is_due(settings.recipe),
            correcting=step.base is not None,
            has_active=step.segment is not None,
            has_segments=bool(table.entries),
            can_undo=bone.history.can_undo,
            can_redo=bone.history.can_redo,
        )
    )


def panel_now(bone: BoneInProgress, table: SegmentTable, settings: Settings) -> Panel:
    """The whole picture."""
    step, outcome = bone.step, bone.step.outcome
    enabled = enabled_now(bone, table, settings)
    return Panel(
        state=_state(bone),
        work=bone.work,
        progress=bone.progress,
        enabled=enabled,
        tool=bone.tool if bone.tool is not None and TOOL_ACTIONS[bone.tool] in enabled else None,
        volume_name=bone.opened.volume.name if bone.opened is not None else "",
        box=step.prompts.box,
        points=step.prompts.points,
        segments=table.entries,
        active_segment=step.segment,
        correcting=step.base is not None,
        bone_count=len(outcome.bones) if outcome is not None else 0,
        confidence=outcome.confidence if outcome is not None else None,
        seconds=outcome.seconds if outcome is not None else None,
        review_axis=outcome.review_axis if outcome is not None else 2,
        review=outcome.review if outcome is not None else (),
        settings=settings,
    )


def _state(bone: BoneInProgress) -> State:
    if bone.work is not None:
        return State.RUNNING
    if bone.opened is None:
        return State.NO_VOLUME
    if bone.step.outcome is not None:
        return State.PREVIEW
    return State.DRAWING if bone.step.prompts else State.READY
