"""Prompts in slice coordinates, and the numbers that the network is given for them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.region import Array, Region, SliceFrame, Vector

PROMPT_SLOTS = 8  # as in training: two box corners and six clicks
CLICK_REACH = 96.0  # region pixels along the stack: a click farther away would only take another's place
BEYOND_BOX = 0.08  # people miss a bone's ends by up to this part of the box's depth
PADDING, NEGATIVE, POSITIVE, BOX_LOW, BOX_HIGH = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class Clicks:
    """Clicks in slice coordinates.

    Attributes:
        places: [n, 3] (u, v, w) in voxels; w is a whole number, the slice that was clicked.
        positive: [n] on the bone, or beside it.
    """

    places: Vector
    positive: NDArray[np.bool_]

    @classmethod
    def none(cls) -> "Clicks":
        """No clicks."""
        return cls(np.zeros((0, 3)), np.zeros(0, bool))


@dataclass(frozen=True)
class SlicePrompts:
    """What is asked of slices.

    Attributes:
        clicks: in any number; each slice hears of those nearest to it.
        box: its low and high faces, each (u, v, w) in voxels, if there is one.
        drawn_on: slice on which a 2D box was drawn; None for a 3D box.
        kind: what the bone is, as in `engine.DecoderInputs`.
    """

    clicks: Clicks
    box: tuple[Vector, Vector] | None = None
    drawn_on: int | None = None
    kind: int = 0

    @property
    def depth(self) -> tuple[float, float] | None:
        """Ends of a 3D box along the stack, in slices; None where the depth is unknown."""
        if self.box is None or self.drawn_on is not None:
            return None
        return float(self.box[0][2]), float(self.box[1][2])

    def reach(self, frame: SliceFrame) -> tuple[int, int]:
        """First and last slice that can be meant: a little beyond a 3D box, else the whole stack."""
        end = frame.size[2] - 1
        if self.depth is None:
            return 0, end
        low, high = self.depth
        margin = max(1.0, BEYOND_BOX * (high - low))
        first, last = np.clip([np.ceil(low - margin), np.floor(high + margin)], 0, end)
        return int(first), int(last)

    def tokens(self, region: Region, indices: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
        """Points [n, 8, 3] (x, y, depth from the slice, in region pixels) and labels [n, 8] of slices [n]."""
        points = np.zeros((len(indices), PROMPT_SLOTS, 3), np.float32)
        labels = np.full((len(indices), PROMPT_SLOTS), PADDING, np.int64)
        depth = indices[:, None] * region.frame.spacing[2] * region.scale
        used = 0
        if self.box is not None:
            corners = region.to_pixels(np.stack(self.box))
            if self.drawn_on is not None:
                corners[:, 2] = self.drawn_on * region.frame.spacing[2] * region.scale
            points[:, :2] = corners[None]
            points[:, :2, 2] -= depth
            labels[:, :2] = BOX_LOW, BOX_HIGH
            used = 2
        # The latest first: of equally near ones it corrects what the others left.
        places = region.to_pixels(self.clicks.places[::-1])
        positive = self.clicks.positive[::-1]
        offsets = places[None, :, 2] - depth
        nearest = np.argsort(np.abs(offsets), axis=1, kind="stable")[:, : PROMPT_SLOTS - used]
        for row, order in enumerate(nearest):
            chosen = order[np.abs(offsets[row, order]) <= CLICK_REACH]
            end = used + len(chosen)
            points[row, used:end, :2] = places[chosen, :2]
            points[row, used:end, 2] = offsets[row, chosen]
            labels[row, used:end] = np.where(positive[chosen], POSITIVE, NEGATIVE)
        return points, labels
