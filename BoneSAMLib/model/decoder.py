"""Mask decoder: SAM's two-way transformer at the bottom of a small prompt-mixing pyramid."""

import torch
from torch import Tensor, nn

from .encoder import STEM_CHANNELS, ConvNorm, double
from .segment_anything_modeling import MaskDecoder, TwoWayTransformer

UPSCALED_CHANNELS = 32


class BoneMaskDecoder(MaskDecoder):
    """SAM's mask decoder (Kirillov et al. 2023, appendix A), one set of prompts per image of the batch.

    Two changes. Prompts are added to the embedding at stride 4 and mixed by convolutions down to stride 16
    before the transformer, because no operation of SAM's decoder compares a prompt with its local
    surroundings; the transformer itself runs at stride 8, where it costs a quarter. While upscaling, stride-4
    and stride-2 features are added (as in HQ-SAM, Ke et al. 2023).
    Masks are 128x128 for a 256-pixel region; four of them: 0 for clear prompts, 1-3 for ambiguous ones.
    """

    def __init__(self, dim: int = 128) -> None:
        transformer = TwoWayTransformer(depth=2, embedding_dim=dim, num_heads=8, mlp_dim=4 * dim)
        super().__init__(transformer_dim=dim, transformer=transformer, iou_head_hidden_dim=dim)
        self.down8 = ConvNorm(dim, dim, 3, 2)
        self.down16 = ConvNorm(dim, dim, 3, 2)
        self.bottom = ConvNorm(dim, dim, 3)
        self.merge8 = ConvNorm(dim, dim, 3)
        self.narrow4 = nn.Conv2d(dim, dim // 2, 1)
        self.narrow8 = nn.Conv2d(dim, dim // 2, 1)
        self.merge4 = ConvNorm(dim // 2, dim // 2, 3)
        self.output_upscaling = nn.ConvTranspose2d(dim // 2, UPSCALED_CHANNELS, kernel_size=2, stride=2)
        self.skip = nn.Conv2d(STEM_CHANNELS, UPSCALED_CHANNELS, 1)
        self.refine = ConvNorm(UPSCALED_CHANNELS, UPSCALED_CHANNELS, 3)
        for mlp in self.output_hypernetworks_mlps:
            mlp.layers[-1] = nn.Linear(dim, UPSCALED_CHANNELS)

    def forward(
        self, embedding: Tensor, skip: Tensor, position: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features to masks.

        embedding and dense [N, dim, h, w], skip [N, 32, 2h, 2w], position [1, dim, h/2, w/2] and
        sparse [N, P, dim]. Returns logits [N, 4, 2h, 2w] and predicted IoU [N, 4] in 0..1.
        """
        at4 = embedding + dense
        at8 = self.down8(at4)
        at16 = self.down16(at8)
        at8 = self.merge8(at8 + double(at16 + self.bottom(at16)))
        count = embedding.shape[0]
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([tokens.unsqueeze(0).expand(count, -1, -1).to(sparse.dtype), sparse], dim=1)
        tokens, keys = self.transformer(at8, position.expand(count, -1, -1, -1), tokens)
        at8 = at8 + keys.transpose(1, 2).reshape(at8.shape)
        upscaled = self.output_upscaling(
            self.merge4(self.narrow4(at4) + double(self.narrow8(at8)))
        ) + self.skip(skip)
        upscaled = upscaled + self.refine(upscaled)
        mask_tokens = tokens[:, 1 : 1 + self.num_mask_tokens]
        weights = torch.stack(
            [m(mask_tokens[:, n]) for n, m in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        n, c, h, w = upscaled.shape
        logits = (weights @ upscaled.reshape(n, c, h * w)).reshape(n, -1, h, w)
        return logits, torch.sigmoid(self.iou_prediction_head(tokens[:, 0]))
