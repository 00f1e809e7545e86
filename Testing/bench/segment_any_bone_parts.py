"""The parts of SegmentAnyBone at random weights, to time BoneSAM against on the same machine.

SegmentAnyBone (Gu et al. 2025, doi:10.1016/j.media.2025.103469) runs three networks for every slice:
MobileSAM's image encoder at 1024 pixels, a SAM mask decoder, and MONAI's VNet on the whole volume squeezed
to 64 x 64 x 64. Random weights take as long as trained ones. Left out, in its favor: its adapters and
attention fusion, and all reading, resizing and normalizing of images.
"""

import torch
from monai.networks.nets import VNet
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.model.segment_anything_modeling import (
    LayerNorm2d,
    MaskDecoder,
    PromptEncoder,
    TwoWayTransformer,
)

IMAGE_SIZE = 1024
EMBEDDING_SIZE = 64
EMBEDDING_DIM = 256
CUBE_SIZE = 64


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch normalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        )


class InvertedBottleneck(nn.Module):
    """TinyViT's block of the first, convolutional stage: widen four times, depthwise 3x3, narrow."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(dim, 4 * dim),
            nn.GELU(),
            ConvNorm(4 * dim, 4 * dim, 3, groups=4 * dim),
            nn.GELU(),
            ConvNorm(4 * dim, dim),
        )

    def forward(self, image: Tensor) -> Tensor:
        return functional.gelu(image + self.layers(image))


class PatchMerging(nn.Sequential):
    """Change of width between stages; stride 2 halves the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            ConvNorm(inputs, outputs),
            nn.GELU(),
            ConvNorm(outputs, outputs, 3, stride, groups=outputs),
            nn.GELU(),
            ConvNorm(outputs, outputs),
        )


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each distance between two pixels of a window."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.biases = nn.Parameter(torch.zeros(heads, window * window))
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        pixels = torch.stack([rows.flatten(), columns.flatten()])
        distance = (pixels[:, :, None] - pixels[:, None, :]).abs()
        self.register_buffer("distance", distance[0] * window + distance[1], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """[n, h, w, dim] -> [n, h, w, dim], padded to whole windows in between."""
        n, h, w, dim = image.shape
        size = self.window
        padded = functional.pad(image, (0, 0, 0, -w % size, 0, -h % size))
        rows, columns = padded.shape[1] // size, padded.shape[2] // size
        windows = padded.view(n, rows, size, columns, size, dim).transpose(2, 3).reshape(-1, size * size, dim)
        qkv = self.qkv(self.norm(windows)).unflatten(2, (self.heads, 3, dim // self.heads))
        query, key, value = qkv.permute(3, 0, 2, 1, 4)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self.biases[:, self.distance][None]
        )
        out = self.project(attended.transpose(1, 2).flatten(2))
        out = out.view(n, rows, columns, size, size, dim).transpose(2, 3)
        return out.reshape(n, rows * size, columns * size, dim)[:, :h, :w]


class AttentionBlock(nn.Module):
    """TinyViT's block of the later stages: window attention, depthwise 3x3, two-layer perceptron."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.attention = WindowAttention(dim, heads, window)
        self.local = ConvNorm(dim, dim, 3, groups=dim)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, image: Tensor) -> Tensor:
        image = image + self.attention(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        pixels = self.local(image).permute(0, 2, 3, 1)
        return (pixels + self.perceptron(pixels)).permute(0, 3, 1, 2)


def mobile_sam_encoder() -> nn.Module:
    """MobileSAM's TinyViT-5M (arXiv:2306.14289): [n, 3, 1024, 1024] -> [n, 256, 64, 64].

    The last merging keeps the resolution (stride 1), so the embedding has stride 16. Without the
    classification head, which MobileSAM carries but never runs.
    """
    stages: list[nn.Module] = [InvertedBottleneck(64) for _ in range(2)]
    layout = [(64, 128, 2, 2, 4, 7), (128, 160, 2, 6, 5, 14), (160, 320, 1, 2, 10, 7)]
    for inputs, dim, stride, depth, heads, window in layout:
        stages.append(PatchMerging(inputs, dim, stride))
        stages.extend(AttentionBlock(dim, heads, window) for _ in range(depth))
    stem = [ConvNorm(3, 32, 3, 2), nn.GELU(), ConvNorm(32, 64, 3, 2)]
    neck = [
        nn.Conv2d(320, EMBEDDING_DIM, 1, bias=False),
        LayerNorm2d(EMBEDDING_DIM),
        nn.Conv2d(EMBEDDING_DIM, EMBEDDING_DIM, 3, padding=1, bias=False),
        LayerNorm2d(EMBEDDING_DIM),
    ]
    return nn.Sequential(*stem, *stages, *neck)


def sam_decoder() -> nn.Module:
    """SAM's mask decoder with the sizes of its published models."""
    return MaskDecoder(
        transformer_dim=EMBEDDING_DIM,
        transformer=TwoWayTransformer(depth=2, embedding_dim=EMBEDDING_DIM, num_heads=8, mlp_dim=2048),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )


class SegmentAnyBoneParts(nn.Module):
    """All that SegmentAnyBone computes for one slice of a volume."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mobile_sam_encoder()
        self.prompt_encoder = PromptEncoder(
            embed_dim=EMBEDDING_DIM,
            image_embedding_size=(EMBEDDING_SIZE, EMBEDDING_SIZE),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        )
        self.decoder = sam_decoder()
        self.depth_attention = VNet()
        self.eval()

    @torch.inference_mode()
    def attend(self, cube: Tensor) -> Tensor:
        """[1, 1, 64, 64, 64] -> bone probability of the same shape."""
        return torch.sigmoid(self.depth_attention(cube))

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Tensor:
        """[1, 3, 1024, 1024] -> embedding [1, 256, 64, 64]."""
        return self.encoder(image)

    @torch.inference_mode()
    def decode(self, embedding: Tensor, box: Tensor) -> Tensor:
        """Embedding [1, 256, 64, 64] and box [1, 4] in pixels -> logits [1, 3, 256, 256]."""
        sparse, dense = self.prompt_encoder(points=None, boxes=box, masks=None)
        logits, _ = self.decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return logits

    def segment_slice(self, image: Tensor, cube: Tensor, box: Tensor) -> Tensor:
        """One slice as SegmentAnyBone does it: the 3D network runs again for every slice."""
        self.attend(cube)
        return self.decode(self.encode(image), box)
