"""What a bone is called: the names to choose from, and the one name that a typed text means."""

from BoneSAMLib.bone_phrase_questions import UnclearPhrase
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_table import BoneTarget, bone_table

__all__ = ["bone_names", "named_bone"]


def bone_names() -> list[str]:
    """English names to offer while one is typed: each bone with its side, in the order of the table."""
    return [BoneTarget(bone, side).name for bone in bone_table().bones.values() for side in bone.sides]


def named_bone(text: str) -> str:
    """The English name of the one bone that a text means, in any of the table's languages.

    A bone that comes in pairs may be named without its side.

    Raises:
        UnclearPhrase: it means several bones, none, or it is unclear which.
    """
    targets = understand(text).targets
    if len({target.bone for target in targets}) > 1:
        names = [target.name for target in targets]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise UnclearPhrase(f'"{text.strip()}" means {len(names)} bones ({shown}): name one.', names, True)
    return targets[0].name if len(targets) == 1 else targets[0].bone.name
