"""What a bone is called, as a prompt beside boxes and clicks."""

import torch
from torch import Tensor, nn

from BoneSAMLib.bone_kinds import KINDS


class KindPrompt(nn.Module):
    """Tells the decoder the kind of bone that is meant.

    SAM's text prompt (Kirillov et al. 2023, sec. 3) is one more token. Here it is added to all of them, so
    that the empty ones become it, and to every pixel, as boxes and clicks are. It is zero at first, and
    always where there is no name: a network answers those as it did before it learned names.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(len(KINDS), dim))
        self.everywhere = nn.Parameter(torch.zeros(len(KINDS), dim))

    def forward(self, kinds: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Kinds [N], 1 + their place in KINDS or 0, tokens [N, P, dim], embedding [N, dim, h, w] -> both."""
        return sparse + _row(self.token, kinds)[:, None], dense + _row(self.everywhere, kinds)[
            :, :, None, None
        ]


def _row(table: Tensor, kinds: Tensor) -> Tensor:
    return torch.cat([table.new_zeros(1, table.shape[1]), table]).index_select(0, kinds)
