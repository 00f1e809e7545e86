"""Losses that ask two answers to the same unlabelled image to agree."""

import math

import torch
from torch import Tensor

from training.losses import mask_loss

TEMPERATURE = 0.1  # MC-Net's


def ramp_up(step: int, ramp_steps: int) -> float:
    """Weight 0..1 of the unlabelled losses, small while little is known (Laine & Aila, ICLR 2017, 2.2)."""
    done = min(1.0, step / max(1, ramp_steps))
    return math.exp(-5 * (1 - done) ** 2)


def mean_teacher_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Logits of the student and of the average of its past -> loss (Tarvainen & Valpola, NeurIPS 2017)."""
    return (torch.sigmoid(student) - torch.sigmoid(teacher.detach())).square().mean()


def mutual_loss(first: Tensor, second: Tensor) -> Tensor:
    """Logits of two decoders -> loss: each learns the other's answer, made surer (MC-Net, Wu et al. 2021)."""
    one, two = torch.sigmoid(first), torch.sigmoid(second)
    return (one - sharpened(two)).square().mean() + (two - sharpened(one)).square().mean()


def sharpened(probability: Tensor) -> Tensor:
    """Closer to 0 or 1; no gradient goes through."""
    with torch.no_grad():
        sure = probability.clamp(1e-4, 1 - 1e-4) ** (1 / TEMPERATURE)
        unsure = (1 - probability).clamp(1e-4, 1 - 1e-4) ** (1 / TEMPERATURE)
        return sure / (sure + unsure)


def pseudo_label_loss(student: Tensor, teacher: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Logits [N, h, w] -> loss and the share of pixels that count.

    The teacher's sure pixels are taken for truth and the others for unknown (FixMatch, Sohn et al. 2020).
    """
    probability = torch.sigmoid(teacher.detach())
    sure = (torch.maximum(probability, 1 - probability) >= confidence).float()
    target = (probability > 0.5).float()
    return mask_loss(student[:, None], target[:, None], sure[:, None]).mean(), sure.mean()
