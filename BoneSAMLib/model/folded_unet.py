"""A 3D U-Net whose finest convolutions run at half resolution, on 2x2x2 voxels folded into channels.

At full resolution they would take three quarters of the time. Every volume has its own (instance) norm: CT
beside MR in a batch took the contrast of both. `training/LOG.md` has what it brought each network.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNorm3d(nn.Sequential):
    """3x3x3 convolution, instance norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
            nn.InstanceNorm3d(outputs, affine=True),
            nn.ReLU(inplace=True),
        )


class FoldedUNet3d(nn.Module):
    """Volume [N, inputs, D, H, W] -> logits [N, outputs, D, H, W].

    D, H, W are multiples of 16, not all of them 16.
    `channels`: at half, quarter, ... of the resolution; `deepest`: convolutions at the last of these.
    """

    def __init__(self, inputs: int, outputs: int, channels: Sequence[int], deepest: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm3d(8 * inputs, channels[0]), ConvNorm3d(channels[0], channels[0]))
        steps = list(pairwise(channels))
        further = [1] * (len(steps) - 1) + [deepest - 1]
        self.down = nn.ModuleList(
            nn.Sequential(ConvNorm3d(i, o, stride=2), *(ConvNorm3d(o, o) for _ in range(n)))
            for (i, o), n in zip(steps, further, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv3d(o, i, 1) for i, o in reversed(steps))
        self.up = nn.ModuleList(ConvNorm3d(i, i) for i, _ in reversed(steps))
        self.head = nn.Conv3d(channels[0], 8 * outputs, 1)

    def forward(self, volume: Tensor) -> Tensor:
        return unfold(self.head(self.features(volume)))

    def features(self, volume: Tensor) -> Tensor:
        """What the head sees, at half resolution."""
        features = self.stem(fold(volume))
        skips = []
        for block in self.down:
            skips.append(features)
            features = block(features)
        for narrow, block in zip(self.narrow, self.up, strict=True):
            features = functional.interpolate(narrow(features), scale_factor=2.0, mode="trilinear")
            features = block(features + skips.pop())
        return features


def fold(volume: Tensor) -> Tensor:
    """[N, C, D, H, W] -> [N, 8 C, D/2, H/2, W/2]."""
    n, c, d, h, w = volume.shape
    volume = volume.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return volume.reshape(n, 8 * c, d // 2, h // 2, w // 2)


def unfold(features: Tensor) -> Tensor:
    """Inverse of `_fold`."""
    n, c, d, h, w = features.shape
    features = features.reshape(n, c // 8, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return torch.reshape(features, (n, c // 8, 2 * d, 2 * h, 2 * w))
