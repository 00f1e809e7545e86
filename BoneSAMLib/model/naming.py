"""The naming network: which bone each place of a scan belongs to, on a coarse grid of the whole scan.

Where bone is, it says of every cell; which one it would be, of every 2x2x2, by a head that all cells share.
With 28 outputs for each of eight kinds of cells, it had not learned after 180 steps on synthetic CT what a
threshold finds (Dice 0.92); bone against none alone was learned in 30.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..bone_kinds import KINDS, OUTPUTS
from .depth_attention import CHANNELS
from .folded_unet import FoldedUNet3d, unfold


class NamingNetwork(FoldedUNet3d):
    """Scan [N, 2, D, H, W] -> [N, 28, D, H, W], D to superior, H to posterior, W to left.

    Input channel 0 is the intensity in 0..1, 0 beyond the scan; channel 1 the grid's spacing everywhere, as
    `spacing_channel`. Outputs are logits of no bone and of each of `bone_kinds.KINDS`, then the number in a
    row of bones divided by 10, and the logit of being a left one: both mean something inside bone only.
    """

    def __init__(self) -> None:
        super().__init__(2, 1, CHANNELS, deepest=1)
        self.which = nn.Conv3d(CHANNELS[0], OUTPUTS - 1, 1)

    def forward(self, scan: Tensor) -> Tensor:
        features = self.features(scan)
        which = functional.interpolate(self.which(features), scale_factor=2.0, mode="trilinear")
        return joined(unfold(self.head(features)), which)

    def at_cells(self, scan: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of bone [M, 8] of the voxels of some 2x2x2, and what is said of which bone it is [M, 27].

        Enough for a loss: with many outputs, the heads and the loss on all voxels took half of a step.
        `cells` [M] counts through N, D/2, H/2, W/2; nothing is interpolated here.
        """
        features = self.features(scan).permute(0, 2, 3, 4, 1).flatten(0, 3)[cells]
        bone = functional.linear(features, self.head.weight.flatten(1), self.head.bias)
        return bone, functional.linear(features, self.which.weight.flatten(1), self.which.bias)

    def start_from(self, depth_attention: dict[str, Tensor]) -> None:
        """Take over what the depth attention has learned of bones (its own state), but for the outputs.

        Its second input, the box, is another here.
        """
        own = self.state_dict()
        shared = {name: tensor for name, tensor in depth_attention.items() if not name.startswith("head.")}
        own |= {name: tensor for name, tensor in shared.items() if name in own}
        own["stem.0.0.weight"][:, 8:] = 0.0
        self.load_state_dict(own)


def joined(bone: Tensor, which: Tensor) -> Tensor:
    """Logit of bone [N, 1, ...] and what bone it is [N, 27, ...] -> outputs [N, 28, ...].

    The softmax of the first 26 is the probability of no bone, and that of bone shared among its kinds.
    """
    kinds, rest = which.split([len(KINDS), OUTPUTS - 1 - len(KINDS)], 1)
    return torch.cat([-bone, functional.log_softmax(kinds, 1), rest], 1)
