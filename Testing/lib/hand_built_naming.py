"""Takes the place of the naming network: boxes of bone that were put into a patient by hand."""

from dataclasses import dataclass

import numpy as np

from BoneSAMLib.bone_kinds import KINDS, LEFT, NUMBER

SURE = 10.0
SIDES = {"left": 8.0, "right": -8.0, None: 0.0}


@dataclass
class Block:
    """Bone between two RAS corners in mm. `logit`: how sure its kind is."""

    kind: str
    low: tuple
    high: tuple
    side: str | None = None
    number: float = 0.0
    logit: float = SURE


def outputs_of(grid, blocks):
    """What the network would answer; later blocks cover earlier ones."""
    outputs = np.zeros((NUMBER + 2, *grid.shape), np.float32)
    outputs[0] = SURE
    w, v, u = np.indices(grid.shape)
    ras = grid.to_ras(np.stack([u, v, w], -1))
    for block in blocks:
        inside = ((ras >= block.low) & (ras <= block.high)).all(-1)
        outputs[:NUMBER, inside] = 0
        outputs[1 + KINDS.index(block.kind), inside] = block.logit
        outputs[NUMBER, inside] = block.number / 10
        outputs[LEFT, inside] = SIDES[block.side]
    return outputs


class HandBuiltNaming:
    """Keeps the grids that it was asked for."""

    digest = "by hand"

    def __init__(self, *blocks):
        self.blocks, self.grids = blocks, []

    def answer(self, volume, grid):
        self.grids.append(grid)
        return outputs_of(grid, self.blocks)
