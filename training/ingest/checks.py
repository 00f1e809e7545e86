"""What is wrong with an annotated case: sentences for whoever made it."""

from collections.abc import Sequence

import numpy as np

from BoneSAMLib.bone_words import tokens, words
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.volume import Volume
from training.annotation import Annotation
from training.cases import BoneObject, Case
from training.ingest.boundary import placements
from training.masks import Mask

__all__ = ["refuse_useless", "suspicions"]

# Of 154 real cases, no flip fits better than 1.02 times, and shifts of 4 fit better than 1.2 times.
FLIP_GAIN = 1.1
SHIFT_GAIN = 1.2
# More than this share of a stack is no bone but a mask whose background and foreground were swapped.
_MOST_BONE = 0.6
# Centers of a right and a left bone, nearer than this along R: no side can be told.
_SIDE_MM = 10.0


def refuse_useless(case: Case, annotation: Annotation, objects: Sequence[BoneObject]) -> None:
    """Check what makes a case useless.

    Raises:
        BoneSAMError: its mask is empty, has labels without a name, or nothing of the size of a bone.
    """
    if not annotation.labels.any():
        raise BoneSAMError(f"The mask of case {case.id} is empty: annotate a bone, or leave the mask away.")
    unknown = case.unknown_labels(annotation)
    if unknown:
        values, named = _listed(unknown), _listed(sorted(case.labels)) or "none"
        raise BoneSAMError(
            f"The mask of case {case.id} has labels without a name: {values} (named are {named}). Name them, "
            "or give them the name null if they are no bone."
        )
    if not objects:
        names = _listed(sorted(set(case.names(annotation).values()))) or "no structure that is a bone"
        raise BoneSAMError(
            f"The mask of case {case.id} holds nothing of the size of a bone: {names}, and no 50 voxels "
            "of it in one piece."
        )


def suspicions(volume: Volume, objects: Sequence[BoneObject]) -> list[str]:
    """Whole sentences on what looks wrong and may be right; none for most cases."""
    found = []
    mask = np.logical_or.reduce([bone.mask for bone in objects])
    share = float(mask.mean())
    if share > _MOST_BONE and not volume.is_projection:
        found.append(f"{share:.0%} of all voxels are bone: background and bone may be swapped.")
    found += _misplaced(volume, mask)
    found += _wrong_sides(volume, objects)
    return found


def _misplaced(volume: Volume, mask: Mask) -> list[str]:
    flip, shift = placements(volume, mask)
    if flip.gain >= max(FLIP_GAIN, shift.gain):
        return [f"The mask fits the edges of the image {flip.gain:.1f} times better {flip.text}."]
    if shift.gain >= SHIFT_GAIN:
        return [f"The mask fits the edges of the image {shift.gain:.1f} times better {shift.text}."]
    return []


def _wrong_sides(volume: Volume, objects: Sequence[BoneObject]) -> list[str]:
    """Right bones must lie to the right of left ones, and of bones without a side."""
    places: dict[str, list[float]] = {"right": [], "left": [], "": []}
    for bone in objects:
        sides = _sides(bone.name)
        center = np.argwhere(bone.mask).mean(axis=0)[::-1]
        right_mm = float(volume.ijk_to_ras[0, :3] @ center + volume.ijk_to_ras[0, 3])
        places[sides.pop() if len(sides) == 1 else ""].append(right_mm)
    middle = {side: float(np.mean(found)) for side, found in places.items() if found}
    for right, left in (("right", "left"), ("right", ""), ("", "left")):
        if right in middle and left in middle and middle[right] < middle[left] - _SIDE_MM:
            named = " and ".join(side for side in (right, left) if side)
            return [
                f"Bones named {named} lie on the other side of the body: the names or the header are wrong."
            ]
    return []


def _sides(name: str) -> set[str]:
    """The sides that a name says: "femur_left", "Femur L"; not "L5"."""
    read = tokens(name)
    said: set[str] = {token.kind for token in read if token.kind in ("left", "right")}
    if said or any(token.kind == "number" for token in read):
        return said
    letters = words().side_letters
    return {letters[token.text] for token in read if token.text in letters}


def _listed(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return f"{shown} and {len(values) - 8} more" if len(values) > 8 else shown
