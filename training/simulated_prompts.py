"""Prompts as people give them: sloppy boxes, a click inside, then clicks on what is wrong.

The recipe of ScribblePrompt (Wong et al. 2024, sec. 4.1) and RITM (Sofiiuk et al. 2022): a few rounds per
sample, each with the previous logits, detached, as mask prompt.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from BoneSAMLib.model.prompt_encoder import BOX_HIGH, BOX_LOW, INPUT_SIZE, NEGATIVE, PADDING, POSITIVE

SLOTS = 8  # two box corners and up to six clicks
INWARD, OUTWARD = 0.06, 0.12  # how far people miss a box side, as a share of that side's length
# The same of the naming network: on validation nine of ten faces lie between -0.2 and 0.5.
LOOSE_INWARD, LOOSE_OUTWARD = 0.25, 0.5
NEIGHBORHOOD = 9  # pixels of the 128-pixel mask over which an error is "large"


@dataclass
class Prompts:
    """Prompts of B cases of two slices: points [B, 2, SLOTS, 3] (x, y, depth), labels [B, SLOTS]."""

    points: Tensor
    labels: Tensor
    used: Tensor  # [B] filled slots

    @classmethod
    def empty(cls, count: int) -> "Prompts":
        """No prompt yet, for `count` cases."""
        return cls(
            torch.zeros(count, 2, SLOTS, 3),
            torch.full((count, SLOTS), PADDING),
            torch.zeros(count, dtype=torch.long),
        )

    def flat(self) -> tuple[Tensor, Tensor]:
        """Points [2 B, SLOTS, 3] and labels [2 B, SLOTS], slices of a case next to each other."""
        return self.points.flatten(0, 1), self.labels.repeat_interleave(2, 0)

    def add_boxes(self, boxes: Tensor, depths: Tensor, chosen: Tensor) -> None:
        """`boxes` [B, 6] relative to slice 0; `depths` [B, 2] of the slices; `chosen` [B] bool."""
        for slot, corner, label in ((0, boxes[:, :3], BOX_LOW), (1, boxes[:, 3:], BOX_HIGH)):
            for part in range(2):
                placed = corner.clone()
                placed[:, 2] -= depths[:, part]
                self.points[chosen, part, slot] = placed[chosen]
            self.labels[chosen, slot] = label
        self.used[chosen] = 2

    def add_clicks(self, places: Tensor, part: Tensor, signs: Tensor, depths: Tensor, chosen: Tensor) -> None:
        """One click per case: `places` [B, 2] (x, y) on slice `part` [B], `signs` [B] 1 or 0."""
        for case in torch.nonzero(chosen & (self.used < SLOTS)).flatten().tolist():
            slot = int(self.used[case])
            at = float(depths[case, int(part[case])])
            for slice_ in range(2):
                depth = at - float(depths[case, slice_])
                self.points[case, slice_, slot] = torch.tensor([*places[case].tolist(), depth])
            self.labels[case, slot] = POSITIVE if signs[case] else NEGATIVE
            self.used[case] += 1


def jitter(boxes: Tensor, generator: torch.Generator | None = None, loose: Tensor | None = None) -> Tensor:
    """Move each face of the boxes [B, 6] in or out by a share of its side; farther where `loose` [B]."""
    loose = torch.zeros(len(boxes), dtype=torch.bool) if loose is None else loose
    low, high = boxes[:, :3], boxes[:, 3:]
    side = high - low
    inward = torch.where(loose, LOOSE_INWARD, INWARD)[:, None]
    outward = torch.where(loose, LOOSE_OUTWARD, OUTWARD)[:, None]
    share = torch.rand(2, *low.shape, generator=generator) * (inward + outward) - inward
    # A click of the mouse is never better than a pixel or two.
    hand = torch.randn(2, *low.shape, generator=generator) * 1.0 * (side > 0)
    return torch.cat([low - share[0] * side + hand[0], high + share[1] * side + hand[1]], 1)


def click_on(error: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A place well inside the errors [N, h, w] of 0..1 -> places [N, 2] (x, y) in region pixels, sizes [N].

    The mean of the error over a window is largest deep inside its largest part: a stand-in for the distance
    transform's maximum that works on a batch. Noise makes the place vary as people do.
    """
    width = error.shape[-1]
    depth = functional.avg_pool2d(error[:, None], NEIGHBORHOOD, 1, NEIGHBORHOOD // 2)[:, 0]
    score = error * (depth + 0.15 * torch.rand(depth.shape, generator=generator))
    index = score.flatten(1).argmax(1)
    places = torch.stack([index % width, index // width], 1).float() + 0.5
    return places * (INPUT_SIZE / width), error.flatten(1).sum(1)
