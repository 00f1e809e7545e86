"""BoneSAM-T: image encoder, depth attention, prompts and mask decoder as one network."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .decoder import BoneMaskDecoder
from .depth_attention import DepthAttention
from .encoder import ConvNorm, ImageEncoder, double
from .kind_prompt import KindPrompt
from .prompt_encoder import SpatialPromptEncoder


class AttentionFusion(nn.Module):
    """Adds what the depth attention sees to the embedding, through a gate between 0 and 1.

    SegmentAnyBone's gate is an unbounded scalar and its map is normalized by its own maximum, so a slab
    without bone is told "bone". Here the map is a probability and the gate a sigmoid.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate_logit = nn.Parameter(torch.zeros(1))
        self.project = nn.Sequential(ConvNorm(dim + 2, dim), nn.Conv2d(dim, dim, 1))

    @property
    def gate(self) -> Tensor:
        return torch.sigmoid(self.gate_logit)

    def forward(self, embedding: Tensor, attention: Tensor, use: Tensor) -> Tensor:
        """Embedding [N, dim, h, w], attention [N, 2, h, w] in 0..1, use [N] 0 or 1 -> embedding."""
        change = self.project(torch.cat([embedding, attention], dim=1))
        return embedding + (self.gate * use)[:, None, None, None] * change


class AttentionPrior(nn.Module):
    """What the depth attention takes for the bone meant, as logits that the decoder's masks are added to.

    Through the embedding alone the decoder used little of it, even where it was told the truth there: see
    `training/LOG.md`, third training.
    """

    def __init__(self, masks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((masks,), 0.5))

    def forward(self, attention: Tensor, use: Tensor) -> Tensor:
        """Attention [N, 2, h, w] in 0..1, use [N] 0 or 1 -> logits [N, masks, 2h, 2w]; +-2 at first."""
        bounded = attention[:, 1:].float().clamp(0.02, 0.98)
        logits = double(torch.log(bounded) - torch.log(1 - bounded))
        prior: Tensor = logits * (self.weight * use[:, None])[:, :, None, None]
        return prior


class PromptedDecoder(nn.Module):
    """Everything after the image embedding; runs again for every prompt."""

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        self.fusion = AttentionFusion(dim)
        self.prompt_encoder = SpatialPromptEncoder(dim)
        self.kind_prompt = KindPrompt(dim)
        self.mask_decoder = BoneMaskDecoder(dim)
        self.prior = AttentionPrior(self.mask_decoder.num_mask_tokens)

    def forward(
        self,
        embedding: Tensor,
        skip: Tensor,
        attention: Tensor,
        use_attention: Tensor,
        points: Tensor,
        labels: Tensor,
        masks: Tensor,
        kinds: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Prompts as in `SpatialPromptEncoder` and `KindPrompt`, attention as in `AttentionFusion`.

        Returns logits [N, 4, 2h, 2w] and predicted IoU [N, 4].
        """
        sparse, dense = self.prompt_encoder(points, labels, masks)
        sparse, dense = self.kind_prompt(kinds, sparse, dense)
        height, width = embedding.shape[-2:]
        position = self.prompt_encoder.pe_layer((height // 2, width // 2)).unsqueeze(0).to(embedding.dtype)
        fused = self.fusion(embedding, attention, use_attention)
        logits, iou = self.mask_decoder(fused, skip, position, sparse.to(embedding.dtype), dense)
        return logits + self.prior(attention, use_attention), iou


class BoneSAM(nn.Module):
    """The three networks that the bundle holds."""

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        self.encoder = ImageEncoder(dim)
        self.depth_attention = DepthAttention()
        self.decoder = PromptedDecoder(dim)

    def fuse_norms(self) -> "BoneSAM":
        """Fold every batch norm into the convolution before it, for use; a bundle holds this form."""
        fuse_norms(self)
        return self


def fuse_norms(model: nn.Module) -> None:
    """Fold every batch norm of a model into the convolution before it, in place; instance norms stay."""
    model.eval()
    for module in model.modules():
        if isinstance(module, ConvNorm):
            convolution = cast(nn.Conv2d, module[0])
            module[0] = fuse_conv_bn_eval(convolution, cast(_BatchNorm, module[1]))
            module[1] = nn.Identity()
