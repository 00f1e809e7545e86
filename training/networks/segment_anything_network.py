"""SAM (ViT-B, -L, -H), MedSAM and MobileSAM behind the same three calls as BoneSAM-T.

The layers are those of the package `segment_anything` (its `modeling` alone) and of `tiny_vit`.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from BoneSAMLib.model.kind_prompt import KindPrompt
from BoneSAMLib.model.prompt_encoder import INPUT_SIZE, SpatialPromptEncoder
from BoneSAMLib.model.segment_anything_modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from training.networks.promptable import (
    EMBEDDING_DIM,
    Brightness,
    DepthEmbedding,
    PromptableNetwork,
    QuietFusion,
    resized,
)
from training.networks.tiny_vit import TinyViT

PATCH = 16


@dataclass(frozen=True)
class VisionTransformer:
    """Shape of an image encoder; 0 wide is MobileSAM's TinyViT."""

    dim: int
    depth: int = 0
    heads: int = 0
    everywhere: tuple[int, ...] = ()  # blocks whose attention is not in windows
    normalized: bool = True  # MedSAM is given brightness as it is

    def build(self, image_size: int) -> nn.Module:
        """The network, with random weights."""
        if not self.dim:
            return TinyViT()
        from segment_anything.modeling.image_encoder import ImageEncoderViT

        return ImageEncoderViT(
            img_size=image_size,
            patch_size=PATCH,
            embed_dim=self.dim,
            depth=self.depth,
            num_heads=self.heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            global_attn_indexes=self.everywhere,
            window_size=14,
            out_chans=EMBEDDING_DIM,
        )


VIT_B = VisionTransformer(768, 12, 12, (2, 5, 8, 11))
VIT_L = VisionTransformer(1024, 24, 16, (5, 11, 17, 23))
VIT_H = VisionTransformer(1280, 32, 16, (7, 15, 23, 31))
MEDSAM = VisionTransformer(768, 12, 12, (2, 5, 8, 11), normalized=False)
VIT_T = VisionTransformer(0)


class SegmentAnythingNetwork(PromptableNetwork):
    """As `BoneSAM`, with an official encoder and decoder. `image_size` is a multiple of 16."""

    def __init__(self, shape: VisionTransformer, image_size: int = 1024) -> None:
        super().__init__(_Encoder(shape, image_size), _Decoder())


class _Encoder(nn.Module):
    def __init__(self, shape: VisionTransformer, image_size: int) -> None:
        super().__init__()
        self.brightness = Brightness(image_size, shape.normalized)
        self.network = shape.build(image_size)

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Slices [N, 3, s, s] -> embedding [N, 256, size/16, ...], and a zero [N, 1, 1, 1] for the skip."""
        embedding = self.network(self.brightness(slices))
        return embedding, embedding[:, :1, :1, :1] * 0


class _PromptEncoder(SpatialPromptEncoder):
    """SAM's own, for one set of prompts per slice, whose tokens also say how far away they are."""

    def __init__(self) -> None:
        super().__init__(EMBEDDING_DIM)
        official = PromptEncoder(EMBEDDING_DIM, (PATCH, PATCH), (INPUT_SIZE, INPUT_SIZE), mask_in_chans=16)
        self.mask_downscaling = official.mask_downscaling
        self.no_mask_embed = official.no_mask_embed
        del self.depth_embedding
        self.far = DepthEmbedding()

    def embed(
        self, points: Tensor, labels: Tensor, masks: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Prompts as in `SpatialPromptEncoder` -> tokens [N, P, 256] and a dense embedding of `size`."""
        position = self.pe_layer._pe_encoding(points[..., :2] / INPUT_SIZE) + self.far(points[..., 2:])
        kinds = torch.stack([embedding.weight[0] for embedding in self.point_embeddings])
        known = (labels >= 0).unsqueeze(-1)
        sparse = torch.where(
            known, position + kinds[labels.clamp(min=0).long()], self.not_a_point_embed.weight[0]
        )
        given = self.mask_downscaling(resized(masks, (4 * size[0], 4 * size[1])))
        has_mask = (masks.abs().amax((1, 2, 3)) > 0)[:, None, None, None]
        return sparse, torch.where(has_mask, given, self.no_mask_embed.weight.reshape(1, -1, 1, 1))


class _MaskDecoder(MaskDecoder):
    """SAM's own, for one set of prompts per slice instead of many sets for one image."""

    def __init__(self) -> None:
        transformer = TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_DIM, num_heads=8, mlp_dim=2048)
        super().__init__(transformer_dim=EMBEDDING_DIM, transformer=transformer)

    def forward(self, embedding: Tensor, position: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding with the dense prompt, its position code, tokens -> logits [N, 4, 4h, 4w], IoU [N, 4]."""
        count = embedding.shape[0]
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([tokens.unsqueeze(0).expand(count, -1, -1).to(sparse.dtype), sparse], 1)
        tokens, features = self.transformer(embedding, position.expand(count, -1, -1, -1), tokens)
        upscaled = self.output_upscaling(features.transpose(1, 2).reshape(embedding.shape))
        chosen = tokens[:, 1 : 1 + self.num_mask_tokens]
        weights = torch.stack([mlp(chosen[:, n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        n, c, h, w = upscaled.shape
        logits = (weights @ upscaled.reshape(n, c, h * w)).reshape(n, -1, h, w)
        return logits, self.iou_prediction_head(tokens[:, 0])


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fusion = QuietFusion()
        self.prompt_encoder = _PromptEncoder()
        self.kind_prompt = KindPrompt(EMBEDDING_DIM)
        self.mask_decoder = _MaskDecoder()

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
        """As `PromptedDecoder`; logits are twice as fine as the attention map."""
        size = (embedding.shape[-2], embedding.shape[-1])
        wanted = (2 * attention.shape[-2], 2 * attention.shape[-1])
        fused = self.fusion(embedding, resized(attention, size), use_attention)
        sparse, dense = self.prompt_encoder.embed(points, labels, masks, size)
        sparse, dense = self.kind_prompt(kinds, sparse, dense)
        position = self.prompt_encoder.pe_layer(size).unsqueeze(0).to(embedding.dtype)
        # Nothing is added; an input that is never read would be missing in the exported graph.
        logits, iou = self.mask_decoder(fused + dense + skip, position, sparse.to(embedding.dtype))
        return resized(logits, wanted), iou
