"""SAM 2 and 2.1 (Ravi et al. 2024) behind the same three calls as BoneSAM-T, with `transformers`' layers.

Its memory carries a mask from one slice to the next, as from one video frame to the next: `carried`
conditions a slice's embedding on another slice and its mask. Object pointers, which tell apart things that
vanish and come back, are left out: a bone's slices are one piece.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.kind_prompt import KindPrompt
from BoneSAMLib.model.prompt_encoder import INPUT_SIZE
from training.losses import mask_loss
from training.networks.promptable import (
    EMBEDDING_DIM,
    Brightness,
    DepthEmbedding,
    PromptableNetwork,
    QuietFusion,
    resized,
)
from training.sampling import OBJECT

# Of Hiera: width, heads, blocks per stage, blocks with attention everywhere, windows, background of position.
SIZES: dict[str, tuple[int, int, list[int], list[int], list[int], list[int]]] = {
    "tiny": (96, 1, [1, 2, 7, 2], [5, 7, 9], [8, 4, 14, 7], [7, 7]),
    "small": (96, 1, [1, 2, 11, 2], [7, 10, 13], [8, 4, 14, 7], [7, 7]),
    "base-plus": (112, 2, [2, 3, 16, 3], [12, 16, 20], [8, 4, 14, 7], [14, 14]),
    "large": (144, 2, [2, 6, 36, 4], [23, 33, 43], [8, 4, 16, 8], [7, 7]),
}
SCALE_FACTOR = 8  # how much narrower than their features the multi-scale adapters are
KNOWN = 10.0  # logit of a mask that is certain


def build_sam2(name: str, image_size: int) -> "Sam2Network":
    """The network with random weights; `image_size` is a multiple of 32.

    Raises:
        BoneSAMError: `transformers` is not installed.
    """
    try:
        from transformers import Sam2VideoConfig, Sam2VideoModel
        from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig, Sam2VisionConfig
    except ImportError as error:
        raise BoneSAMError(
            "SAM 2 needs the package transformers: pip install --editable '.[sam2]'"
        ) from error
    width, heads, blocks, everywhere, windows, background = SIZES[name]
    widths = [width * 2**stage for stage in range(4)]
    sides = [image_size // stride for stride in (4, 8, 16)]
    backbone = Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=heads,
        image_size=[image_size, image_size],
        window_positional_embedding_background_size=background,
        blocks_per_stage=blocks,
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
        window_size_per_stage=windows,
        global_attention_blocks=everywhere,
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[side, side] for side in sides],
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": image_size},
        image_size=image_size,
        memory_attention_rope_feat_sizes=[sides[-1], sides[-1]],
    )
    return Sam2Network(Sam2VideoModel(config), image_size)


class Sam2Network(PromptableNetwork):
    """As `BoneSAM`, and with a memory."""

    def __init__(self, official: Any, image_size: int) -> None:
        super().__init__(_Encoder(official, image_size), _Decoder(official))
        self.memory = _Memory(official, image_size)

    def carried(self, embedding: Tensor, logits: Tensor, onto: Tensor) -> Tensor:
        """Embedding [N, 256, h, w] of slices, their masks' logits [N, H, W], others -> those, conditioned."""
        return self.memory(embedding, logits, onto)

    def carrying_loss(self, batch: dict[str, Tensor], device: torch.device) -> Tensor:
        """Loss of finding a bone in the second slice of a case from its mask in the first, unprompted."""
        chosen = (batch["mode"] == OBJECT) & (batch["depths"][:, 1] != 0)
        chosen &= batch["target"][:, 0].flatten(1).any(1)
        if not chosen.any():
            return torch.zeros((), device=device)
        slices = batch["slices"][chosen].to(device, torch.float32)
        target, weight = (
            nn.functional.avg_pool2d(batch[k][chosen].float(), 2).to(device) for k in ("target", "weight")
        )
        embedding, _ = self.encoder(slices[:, 0])
        onto, skip = self.encoder(slices[:, 1])
        conditioned = self.carried(embedding, KNOWN * (2 * target[:, 0] - 1), onto)
        logits, _ = self.unprompted(conditioned, skip, target.shape[-1])
        return mask_loss(logits[:, :1].float(), target[:, 1:], (weight[:, 1:] > 0.99).float()).mean()

    def unprompted(self, conditioned: Tensor, skip: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Logits [N, 4, size, size] and IoU of slices that know what to find from the memory."""
        count, half = conditioned.shape[0], size // 2
        blank = conditioned.new_zeros
        labels = torch.full((count, 1), -1, device=conditioned.device)
        prompts = (blank(count, 1, 3), labels, blank(count, 1, half, half), torch.zeros_like(labels[:, 0]))
        decoder = cast(_Decoder, self.decoder)
        return decoder(
            conditioned, skip, blank(count, 2, half, half), blank(count), *prompts, remembered=True
        )

    @torch.inference_mode()
    def carry_through(self, slices: Tensor, logits: Tensor, start: int) -> Tensor:
        """Follow a mask from slice `start` of a stack [D, 3, s, s] up and down.

        `logits` [s/2, s/2] are the mask there. Returns logits [D, s/2, s/2]. Each slice remembers the first
        one and the one before it.
        """
        found = logits.new_zeros(len(slices), *logits.shape)
        found[start] = logits
        first, _ = self.encoder(slices[start : start + 1])
        for way in (range(start + 1, len(slices)), range(start - 1, -1, -1)):
            before, mask = first, logits
            for index in way:
                embedding, skip = self.encoder(slices[index : index + 1])
                known = [(first, logits[None], 0), (before, mask[None], 1)]
                conditioned = self.memory.recall(known if before is not first else known[:1], embedding)
                answer, _ = self.unprompted(conditioned, skip, logits.shape[-1])
                mask = answer[0, 0]
                found[index], before = mask, embedding
        return found


class _Encoder(nn.Module):
    def __init__(self, official: Any, image_size: int) -> None:
        super().__init__()
        self.brightness = Brightness(image_size)
        self.vision = official.vision_encoder
        self.conv_s0, self.conv_s1 = official.mask_decoder.conv_s0, official.mask_decoder.conv_s1
        del official.mask_decoder.conv_s0, official.mask_decoder.conv_s1
        self.adapters = nn.ModuleList(_ScaleAdapter(EMBEDDING_DIM) for _ in range(3))

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """Slices [N, 3, s, s] -> embedding [N, 256, size/16, ...] and finer features [N, 192, size/8, ...].

        The latter are those of stride 4, folded, and of stride 8.
        """
        maps = self.vision(self.brightness(slices)).fpn_hidden_states
        fine, middle, coarse = (adapter(seen) for adapter, seen in zip(self.adapters, maps, strict=True))
        folded = nn.functional.pixel_unshuffle(self.conv_s0(fine), 2)
        return coarse, torch.cat([folded, self.conv_s1(middle)], 1)


class _ScaleAdapter(nn.Module):
    """A convolutional bottleneck beside the features of one scale; without effect at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        last = nn.Conv2d(dim // SCALE_FACTOR, dim, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(nn.Parameter, last.bias))
        narrow = nn.Conv2d(dim // SCALE_FACTOR, dim // SCALE_FACTOR, 3, padding=1)
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim // SCALE_FACTOR, 1), nn.GELU(), narrow, nn.GELU(), last
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class _PromptEncoder(nn.Module):
    def __init__(self, official: Any) -> None:
        super().__init__()
        self.official, self.shared = official.prompt_encoder, official.shared_image_embedding
        self.far = DepthEmbedding()

    def forward(
        self, points: Tensor, labels: Tensor, masks: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Tokens [N, P, 256] and a dense embedding of `size`; prompts as in `SpatialPromptEncoder`."""
        position = self.official.shared_embedding(points[..., :2] / INPUT_SIZE) + self.far(points[..., 2:])
        kind = self.official.point_embed(labels.clamp(min=0).long())
        known = (labels >= 0).unsqueeze(-1)
        sparse = torch.where(known, position + kind, self.official.not_a_point_embed.weight)
        given = self.official.mask_embed(resized(masks, (4 * size[0], 4 * size[1])))
        has_mask = (masks.abs().amax((1, 2, 3)) > 0)[:, None, None, None]
        return sparse, torch.where(has_mask, given, self.official.no_mask_embed.weight.reshape(1, -1, 1, 1))

    def grid(self, size: tuple[int, int]) -> Tensor:
        """Position code [1, 256, h, w]."""
        weight = self.shared.positional_embedding
        rows, columns = (torch.arange(n, device=weight.device, dtype=weight.dtype) for n in size)
        rows, columns = torch.meshgrid((rows + 0.5) / size[0], (columns + 0.5) / size[1], indexing="ij")
        return self.shared(torch.stack([columns, rows], -1)).permute(2, 0, 1)[None]


class _Decoder(nn.Module):
    def __init__(self, official: Any) -> None:
        super().__init__()
        self.fusion = QuietFusion()
        self.prompt_encoder = _PromptEncoder(official)
        self.kind_prompt = KindPrompt(EMBEDDING_DIM)
        self.mask_decoder = official.mask_decoder
        self.no_memory = official.no_memory_embedding

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
        remembered: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As `PromptedDecoder`; `remembered`: the embedding comes from the memory."""
        size = (embedding.shape[-2], embedding.shape[-1])
        wanted = (2 * attention.shape[-2], 2 * attention.shape[-1])
        if not remembered:
            embedding = embedding + self.no_memory.reshape(1, -1, 1, 1)
        fused = self.fusion(embedding, resized(attention, size), use_attention)
        sparse, dense = self.prompt_encoder(points, labels, masks, size)
        sparse, dense = self.kind_prompt(kinds, sparse, dense)
        position = self.prompt_encoder.grid(size).to(fused.dtype)
        logits, iou = self._masks(fused + dense, position, sparse.to(fused.dtype), skip)
        return resized(logits, wanted), iou

    def _masks(
        self, embedding: Tensor, position: Tensor, sparse: Tensor, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All four masks: the official forward gives either the first or the other three."""
        parts, count = self.mask_decoder, embedding.shape[0]
        tokens = torch.cat([parts.obj_score_token.weight, parts.iou_token.weight, parts.mask_tokens.weight])
        tokens = torch.cat([tokens[None].expand(count, -1, -1).to(sparse.dtype), sparse], 1)[:, None]
        tokens, features = parts.transformer(
            point_embeddings=tokens,
            image_embeddings=embedding,
            image_positional_embeddings=position.expand(count, -1, -1, -1),
            attention_similarity=None,
        )
        at16 = features.transpose(2, 3).reshape(embedding.shape)
        folded, at8 = skip.split([skip.shape[1] - EMBEDDING_DIM // 4, EMBEDDING_DIM // 4], 1)
        upscaled = parts.activation(parts.upscale_layer_norm(parts.upscale_conv1(at16) + at8))
        at4 = nn.functional.pixel_shuffle(folded, 2)
        upscaled = parts.activation(parts.upscale_conv2(upscaled) + at4)
        chosen = tokens[:, 0, 2 : 2 + parts.num_mask_tokens]
        weights = torch.stack([mlp(chosen[:, n]) for n, mlp in enumerate(parts.output_hypernetworks_mlps)], 1)
        n, c, h, w = upscaled.shape
        logits = (weights @ upscaled.reshape(n, c, h * w)).reshape(n, -1, h, w)
        return logits, parts.iou_prediction_head(tokens[:, 0, 1])


class _Memory(nn.Module):
    """SAM 2's memory encoder and memory attention, for one or two remembered slices."""

    def __init__(self, official: Any, image_size: int) -> None:
        super().__init__()
        self.attention, self.encoder = official.memory_attention, official.memory_encoder
        self.time = official.memory_temporal_positional_encoding
        self.image_size = image_size
        self.scale, self.bias = (
            official.config.sigmoid_scale_for_mem_enc,
            official.config.sigmoid_bias_for_mem_enc,
        )
        # Of the embedding, as the image encoder codes it.
        kind = type(self.encoder.position_encoding)
        self.position = kind(num_position_features=EMBEDDING_DIM // 2, normalize=True)

    def forward(self, embedding: Tensor, logits: Tensor, onto: Tensor) -> Tensor:
        """As `Sam2Network.carried`."""
        return self.recall([(embedding, logits, 0)], onto)

    def recall(self, known: list[tuple[Tensor, Tensor, int]], onto: Tensor) -> Tensor:
        """Condition `onto` [N, 256, h, w] on (embedding, logits, age) of slices; age 0 is the first one."""
        memories, positions = [], []
        for embedding, logits, age in known:
            mask = torch.sigmoid(resized(logits[:, None].float(), (self.image_size, self.image_size)))
            memory, position = self.encoder(embedding, mask * self.scale + self.bias)
            memories.append(_sequence(memory))
            # The last code is the prompted slice's, the first that of the slice before.
            positions.append(_sequence(position).expand_as(memories[-1]) + self.time[age - 1])
        position = self.position(onto.shape, onto.device, onto.dtype)
        conditioned = self.attention(
            current_vision_features=_sequence(onto),
            memory=torch.cat(memories),
            current_vision_position_embeddings=_sequence(position),
            memory_posision_embeddings=torch.cat(positions),  # its name in the package
        )
        # The package gives [1, N, h * w, 256].
        sequences = conditioned.reshape(len(onto), -1, EMBEDDING_DIM)
        return sequences.transpose(1, 2).reshape(onto.shape)


def _sequence(maps: Tensor) -> Tensor:
    """[N, C, h, w] -> [h * w, N, C]."""
    return maps.flatten(2).permute(2, 0, 1)
