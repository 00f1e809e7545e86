"""The naming network: which bone each place of a scan belongs to, on a coarse grid of the whole scan."""

from torch import Tensor

from ..bone_kinds import OUTPUTS
from .depth_attention import CHANNELS
from .folded_unet import FoldedUNet3d


class NamingNetwork(FoldedUNet3d):
    """Scan [N, 2, D, H, W] -> [N, 28, D, H, W], D to superior, H to posterior, W to left.

    Input channel 0 is the intensity in 0..1, 0 beyond the scan; channel 1 the grid's spacing everywhere, as
    `spacing_channel`. Outputs are logits of no bone and of each of `bone_kinds.KINDS`, then the number in a
    row of bones divided by 10, and the logit of being a left one: both mean something inside bone only.
    """

    def __init__(self) -> None:
        super().__init__(2, OUTPUTS, CHANNELS, deepest=1)

    def start_from(self, depth_attention: dict[str, Tensor]) -> None:
        """Take over what the depth attention has learned of bones (its own state), but for the outputs.

        Its second input, the box, is another here.
        """
        own = self.state_dict()
        shared = {name: tensor for name, tensor in depth_attention.items() if not name.startswith("head.")}
        own |= {name: tensor for name, tensor in shared.items() if name in own}
        own["stem.0.0.weight"][:, 8:] = 0.0
        self.load_state_dict(own)
