"""U-Net, DeepLabV3+ and SwinUNETR: a slice, its two neighbors and a box channel to a mask."""

from collections.abc import Callable

import torch
from monai.networks.blocks.aspp import SimpleASPP
from monai.networks.blocks.convolutions import Convolution
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.resnet import ResNetFeatures
from monai.networks.nets.swin_unetr import SwinUNETR
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.prompt_encoder import BOX_HIGH, BOX_LOW, INPUT_SIZE

CHANNELS = 4  # slice before, slice, slice after, box
BEYOND = 0.5  # the box channel on slices beyond the box's ends, where people may have cut off some bone


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ (Chen et al. 2018) on three stages of a ResNet-18: stride 16, as there."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder = ResNetFeatures("resnet18", pretrained=False, spatial_dims=2, in_channels=CHANNELS)
        del self.encoder.layer4, self.encoder.avgpool
        self.context = SimpleASPP(2, 256, width, (1, 3, 3, 3), (1, 6, 12, 18))
        self.narrow = Convolution(2, 4 * width, 4 * width, kernel_size=1)
        self.detail = Convolution(2, 64, 48, kernel_size=1)
        self.mix = nn.Sequential(
            Convolution(2, 4 * width + 48, 2 * width), Convolution(2, 2 * width, 2 * width)
        )
        self.last = nn.Conv2d(2 * width, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Image [N, 4, h, w] -> logits [N, 1, h, w]."""
        features = self.encoder
        early = features.act(features.bn1(features.conv1(image)))
        at4 = features.layer1(features.maxpool(early))
        at16 = features.layer3(features.layer2(at4))
        context = self.narrow(self.context(at16))
        context = functional.interpolate(context, size=at4.shape[-2:], mode="bilinear")
        logits = self.last(self.mix(torch.cat([context, self.detail(at4)], 1)))
        return functional.interpolate(logits, size=image.shape[-2:], mode="bilinear")


def _unet() -> nn.Module:
    features = (32, 48, 96, 192, 320, 48)
    return BasicUNet(2, CHANNELS, 1, features, norm="batch", upsample="nontrainable")


def _swin_unetr() -> nn.Module:
    return SwinUNETR(CHANNELS, 1, feature_size=12, spatial_dims=2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": _unet,
    "deeplabv3plus": DeepLabV3Plus,
    "swin-unetr": _swin_unetr,
}


def build(name: str) -> nn.Module:
    """One of `NETWORKS`: images [N, 4, h, w], h and w multiples of 32, to logits [N, 1, h, w].

    Raises:
        BoneSAMError: there is no such network.
    """
    if name not in NETWORKS:
        raise BoneSAMError(f"Unknown baseline '{name}': use one of {', '.join(NETWORKS)}.")
    return NETWORKS[name]()


def box_channel(points: Tensor, labels: Tensor, size: int) -> Tensor:
    """Prompts of N slices as BoneSAM gets them -> the inside of the box [N, 1, size, size].

    points [N, P, 3] (x, y, depth from the slice, in pixels of a region of 256), labels [N, P]. 0 where there
    is no box; `BEYOND` on slices before and after it.
    """
    places = (torch.arange(size, device=points.device) + 0.5) * (INPUT_SIZE / size)
    has_box = (labels == BOX_LOW).any(1)
    low = (points * (labels == BOX_LOW)[..., None]).sum(1)
    high = (points * (labels == BOX_HIGH)[..., None]).sum(1)
    inside = [(places[None] >= low[:, axis, None]) & (places[None] <= high[:, axis, None]) for axis in (0, 1)]
    value = torch.where((low[:, 2] <= 0) & (high[:, 2] >= 0), 1.0, BEYOND) * has_box
    return (inside[1][:, :, None] & inside[0][:, None, :])[:, None] * value[:, None, None, None]
