"""The depth-attention network: one small 3D U-Net per region, which tells each slice what the volume knows.

SegmentAnyBone (Gu et al. 2025, sec. 3.3) runs a 45 M-parameter V-Net at 64^3 once per slice on the
anisotropically stretched volume. Here it runs once per region, on a cube that is isotropic in millimeters.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (32, 64, 128, 192)
CUBE_SIZE = 64


class ConvNorm3d(nn.Sequential):
    """3x3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(inplace=True),
        )


class DepthAttention(nn.Module):
    """Cube [N, 2, D, H, W] (intensity 0..1, inside-the-box 0/1) -> logits [N, 2, D, H, W].

    Output channel 0: any bone. Output channel 1: the bone meant by the box. Without a box the second input
    channel is zero everywhere and the second output means any bone as well. D, H, W are multiples of 16.
    The finest convolutions run at half resolution, on 2x2x2 voxels folded into channels: at full resolution
    they would take three quarters of the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm3d(16, CHANNELS[0]), ConvNorm3d(CHANNELS[0], CHANNELS[0]))
        steps = list(pairwise(CHANNELS))
        self.down = nn.ModuleList(
            nn.Sequential(ConvNorm3d(i, o, stride=2), ConvNorm3d(o, o)) for i, o in steps
        )
        self.narrow = nn.ModuleList(nn.Conv3d(o, i, 1) for i, o in reversed(steps))
        self.up = nn.ModuleList(ConvNorm3d(i, i) for i, _ in reversed(steps))
        self.head = nn.Conv3d(CHANNELS[0], 16, 1)

    def forward(self, cube: Tensor) -> Tensor:
        features = self.stem(_fold(cube))
        skips = []
        for block in self.down:
            skips.append(features)
            features = block(features)
        for narrow, block in zip(self.narrow, self.up, strict=True):
            features = functional.interpolate(narrow(features), scale_factor=2.0, mode="trilinear")
            features = block(features + skips.pop())
        return _unfold(self.head(features))


def _fold(cube: Tensor) -> Tensor:
    """[N, C, D, H, W] -> [N, 8 C, D/2, H/2, W/2]."""
    n, c, d, h, w = cube.shape
    cube = cube.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return cube.reshape(n, 8 * c, d // 2, h // 2, w // 2)


def _unfold(features: Tensor) -> Tensor:
    """Inverse of `_fold`."""
    n, c, d, h, w = features.shape
    features = features.reshape(n, c // 8, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return torch.reshape(features, (n, c // 8, 2 * d, 2 * h, 2 * w))
