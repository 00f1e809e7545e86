"""MobileSAM's image encoder (Zhang et al. 2023), a TinyViT (Wu et al., ECCV 2022) of stride 16.

Written anew from the papers; submodules are called as in `mobile_sam.pt`, so that its tensors load.
Stochastic depth is left out: MobileSAM's is 0.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.model.segment_anything_modeling import LayerNorm2d

DIMS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
EXPANSION = 4


class _ConvNorm(nn.Sequential):
    """Convolution without bias (`c`) and batch norm (`bn`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)


class _Stem(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(_ConvNorm(3, dim // 2, 3, 2), nn.GELU(), _ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, image: Tensor) -> Tensor:
        return self.seq(image)


class _InvertedBottleneck(nn.Module):
    """MobileNetV2's block, with GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = EXPANSION * dim
        self.conv1 = _ConvNorm(dim, hidden)
        self.conv2 = _ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = _ConvNorm(hidden, dim)

    def forward(self, features: Tensor) -> Tensor:
        hidden = functional.gelu(self.conv2(functional.gelu(self.conv1(features))))
        return functional.gelu(features + self.conv3(hidden))


class _Downsample(nn.Module):
    """Between stages; before the last one the stride is 1, so that the embedding has stride 16."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if outputs == DIMS[-1] else 2
        self.conv1 = _ConvNorm(inputs, outputs)
        self.conv2 = _ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = _ConvNorm(outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(features)))))


class _WindowAttention(nn.Module):
    """Self-attention in a window, biased by the offset between two places."""

    attention_bias_idxs: Tensor

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        places = torch.stack([rows.flatten(), columns.flatten()], 1)
        offsets = (places[:, None] - places[None]).abs()
        # As they are met first, reading the pairs of places row by row: the order of the checkpoint.
        index = offsets[..., 0] * window + offsets[..., 1]
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("attention_bias_idxs", index, persistent=False)

    def forward(self, places: Tensor) -> Tensor:
        """Windows [N, window**2, dim] -> the same."""
        count, length, dim = places.shape
        # Each head's query, key and value stand next to each other.
        mixed = self.qkv(self.norm(places)).reshape(count, length, self.heads, 3, dim // self.heads)
        query, key, value = mixed.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.attention_biases[:, self.attention_bias_idxs].to(query.dtype)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(found.transpose(1, 2).reshape(count, length, dim))


class _Mlp(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, EXPANSION * dim)
        self.fc2 = nn.Linear(EXPANSION * dim, dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(features))))


class _Block(nn.Module):
    """Window attention, a depthwise convolution, and an MLP."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _WindowAttention(dim, heads, window)
        self.mlp = _Mlp(dim)
        self.local_conv = _ConvNorm(dim, dim, 3, groups=dim)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, dim, h, w] -> the same."""
        features = features + self._attend(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        features = self.local_conv(features)
        return features + self.mlp(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _attend(self, features: Tensor) -> Tensor:
        count, height, width, dim = features.shape
        window = self.window
        below, right = -height % window, -width % window
        features = functional.pad(features, (0, 0, 0, right, 0, below))
        rows, columns = (height + below) // window, (width + right) // window
        split = features.reshape(count, rows, window, columns, window, dim).transpose(2, 3)
        found = self.attn(split.reshape(count * rows * columns, window * window, dim))
        found = found.reshape(count, rows, columns, window, window, dim).transpose(2, 3)
        return found.reshape(count, height + below, width + right, dim)[:, :height, :width]


class _Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            features = block(features)
        return features if self.downsample is None else self.downsample(features)


class TinyViT(nn.Module):
    """Normalized images [N, 3, H, W] -> embedding [N, 256, H/16, W/16]."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = _Stem(DIMS[0])
        steps: list[nn.Module | None] = [_Downsample(i, o) for i, o in pairwise(DIMS)]
        self.layers = nn.ModuleList()
        for number, downsample in enumerate([*steps, None]):
            dim, heads, window = DIMS[number], HEADS[number], WINDOWS[number]
            blocks: list[nn.Module] = [
                _InvertedBottleneck(dim) if number == 0 else _Block(dim, heads, window)
                for _ in range(DEPTHS[number])
            ]
            self.layers.append(_Stage(blocks, downsample))
        self.neck = nn.Sequential(
            nn.Conv2d(DIMS[-1], 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, image: Tensor) -> Tensor:
        features = self.patch_embed(image)
        for layer in self.layers:
            features = layer(features)
        return self.neck(features)
