"""What every official network is wrapped in, so that it answers the same three calls as BoneSAM-T.

Slices and prompts come in as they do for `BoneSAMLib.model.bonesam.BoneSAM`: three neighboring slices, points
with their distance from the slice, the depth attention's map. What the official network lacks for that begins
without any effect, so that the first answer is the official one.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.model.bonesam import AttentionFusion, BoneSAM
from BoneSAMLib.model.depth_attention import DepthAttention
from BoneSAMLib.model.prompt_encoder import INPUT_SIZE
from training.networks.adapters import fold_low_rank

EMBEDDING_DIM = 256
SAM_MEAN, SAM_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of brightness 0..1


class Brightness(nn.Module):
    """Slices [N, 3, s, s] in 0..1 to what an official encoder was trained on, at its own size in pixels.

    The slices below and above take the place of red and blue: a slice without neighbors is gray.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, size: int, normalized: bool = True) -> None:
        super().__init__()
        self.size = size
        mean, spread = (SAM_MEAN, SAM_SPREAD) if normalized else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(spread).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, slices: Tensor) -> Tensor:
        if slices.shape[-1] != self.size:
            size = (self.size, self.size)
            slices = functional.interpolate(slices, size=size, mode="bilinear", align_corners=False)
        return (slices - self.mean) / self.spread


class DepthEmbedding(nn.Module):
    """Distance of a prompt from the slice, in region pixels [N, P, 1] -> what to add to its token."""

    def __init__(self, dim: int = EMBEDDING_DIM) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, dim))
        last = cast(nn.Linear, self.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, distance: Tensor) -> Tensor:
        depth = distance / INPUT_SIZE
        near = [torch.exp(-8 * depth.abs()), torch.exp(-32 * depth.abs())]
        return self.layers(torch.cat([depth, depth.abs(), *near], -1))


class QuietFusion(AttentionFusion):
    """As BoneSAM-T's, but without effect at first: an official decoder does not know the depth attention."""

    def __init__(self, dim: int = EMBEDDING_DIM) -> None:
        super().__init__(dim)
        last = cast(nn.Conv2d, self.project[1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(nn.Parameter, last.bias))


class PromptableNetwork(nn.Module):
    """An official encoder and decoder, and BoneSAM-T's depth attention."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.depth_attention = DepthAttention()
        self.decoder = decoder

    def fuse_norms(self) -> "PromptableNetwork":
        """Fold batch norms and low-rank parts into what they belong to, for use."""
        fold_low_rank(self)
        BoneSAM.fuse_norms(cast(Any, self))
        return self


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, and only where the size differs."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
