"""The depth-attention network: one small 3D U-Net per region, which tells each slice what the volume knows.

SegmentAnyBone (Gu et al. 2025, sec. 3.3) runs a 45 M-parameter V-Net at 64^3 once per slice on the
anisotropically stretched volume. Here it runs once per region, on a cube that is isotropic in millimeters.
"""

from .folded_unet import FoldedUNet3d

CHANNELS = (32, 64, 128, 192)


class DepthAttention(FoldedUNet3d):
    """Cube [N, 2, D, H, W] (intensity 0..1, inside-the-box 0/1) -> logits [N, 2, D, H, W].

    Output channel 0: any bone. Output channel 1: the bone meant by the box. Without a box the second input
    channel is zero everywhere and the second output means any bone as well. D, H, W are multiples of 16,
    not all of them 16.
    """

    def __init__(self) -> None:
        super().__init__(2, 2, CHANNELS)
