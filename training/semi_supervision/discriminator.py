"""A network that tells drawn masks from predicted ones, and the losses it gives (Hung et al., BMVC 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (32, 64, 128)


class MaskDiscriminator(nn.Sequential):
    """Image and mask [N, 2, h, w] in 0..1 -> logits of "drawn by a person" [N, 1, h/8, w/8].

    It judges every patch by itself. The image beside the mask keeps it from liking any bone-shaped mask.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        inputs = 2
        for channels in CHANNELS:
            layers += [nn.Conv2d(inputs, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
            inputs = channels
        super().__init__(*layers, nn.Conv2d(inputs, 1, 3, 1, 1))


def fooling_loss(judge: MaskDiscriminator, image: Tensor, predicted: Tensor) -> Tensor:
    """Image and predicted probability [N, h, w]: small where the judge takes it for drawn."""
    judge.requires_grad_(False)  # this is not what the judge learns from
    said = judge(torch.stack([image, predicted], 1))
    judge.requires_grad_(True)
    return functional.softplus(-said).mean()


def judging_loss(
    judge: MaskDiscriminator, drawn: tuple[Tensor, Tensor], predicted: tuple[Tensor, Tensor]
) -> Tensor:
    """Image and mask [N, h, w], drawn and predicted: small where the judge tells them apart."""
    right = functional.softplus(-judge(torch.stack(drawn, 1))).mean()
    wrong = functional.softplus(judge(torch.stack([part.detach() for part in predicted], 1))).mean()
    return right + wrong
