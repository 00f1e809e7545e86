"""One volume to be segmented, and what is wanted of it."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.many_bones import BonePrompts
from BoneSAMLib.prompts import Box, Point

__all__ = ["MASK_ENDINGS", "BatchPrompts", "Case"]

MASK_ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")  # the last: DICOM segmentation


@dataclass(frozen=True)
class BatchPrompts:
    """What to segment in a volume.

    Attributes:
        everything: every bone, without prompts.
        boxes, points: grouped into bones against the volume, as `bonesam segment` does.
        bones: prompts that are grouped already, one entry per bone, with names.
        depth_attention: False looks at each slice and its neighbors only.

    Raises:
        BoneSAMError: nothing is asked for, or things that exclude each other.
    """

    everything: bool = False
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    bones: tuple[BonePrompts, ...] = ()
    depth_attention: bool = True

    def __post_init__(self) -> None:
        if sum((self.everything, bool(self.boxes or self.points), bool(self.bones))) != 1:
            raise BoneSAMError("Either all bones or prompts are needed for every volume, and not both.")
        if self.everything and not self.depth_attention:
            raise BoneSAMError(
                "Without a prompt, the kind of scan decides on depth attention: it cannot be off."
            )

    @property
    def are_names(self) -> bool:
        """Whether a bone is to be found by its name."""
        return any(bone.is_by_name for bone in self.bones)

    def digest(self) -> str:
        """SHA-256 of all that a mask depends on beside volume and weights."""
        bones = [[_box(bone.box), [_point(point) for point in bone.points], bone.name] for bone in self.bones]
        wanted = [
            self.everything,
            [_box(box) for box in self.boxes],
            [_point(point) for point in self.points],
            bones,
            self.depth_attention,
        ]
        return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


@dataclass(frozen=True)
class Case:
    """A volume, its prompts and its mask's file.

    Attributes:
        name: shown to the user; unique in a batch.
        source: file, or one file of a DICOM series, or a folder with one series.
        output: mask; ends in one of `MASK_ENDINGS`.
        prompts: what to segment; None when `error` says why that is not known.
        error: a sentence, when it is known from the start that this case fails.
        surfaces: whether an STL file of each bone is wanted too.
    """

    name: str
    source: Path
    output: Path
    prompts: BatchPrompts | None
    error: str = ""
    surfaces: bool = False

    @property
    def stem(self) -> str:
        """The output's name without its ending."""
        name = self.output.name
        return next((name[: -len(end)] for end in MASK_ENDINGS if name.lower().endswith(end)), name)

    @property
    def record(self) -> Path:
        """The JSON file beside the mask. It has a name of its own: images often bring a .json along."""
        return self.output.parent / f"{self.stem}.bonesam.json"

    @property
    def surface_folder(self) -> Path:
        """The folder beside the mask for the STL files."""
        return self.output.parent / f"{self.stem}_stl"

    @property
    def staging(self) -> Path:
        """Folder beside the mask where it is made; whoever takes over a dead worker's case removes it."""
        return (
            self.output.parent / f".bonesam-{hashlib.sha256(os.fsencode(self.output.name)).hexdigest()[:12]}"
        )


def _box(box: Box | None) -> list[object] | None:
    return None if box is None else [box.space, *box.first, *box.second]


def _point(point: Point) -> list[object]:
    return [point.space, *point.position, point.positive]
