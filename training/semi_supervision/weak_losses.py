"""Losses for labels that are less than masks."""

import torch
from torch import Tensor
from torch.nn import functional

TOP_SHARE = 0.005  # of a slice's pixels: about the smallest bone that a whole slice shows
FILLED = (0.3, 0.95)  # how much of its box a bone fills; a hip bone little, a vertebra's body most


def image_level_loss(logits: Tensor, shows: Tensor) -> Tensor:
    """Logits [N, h, w] of "bone" in whole slices, and whether each shows bone [N] bool -> loss.

    A slice without bone has no bone pixel. One with bone has some: the most likely pixels stand for it, which
    is between the maximum and the mean, as the pooling of Pinheiro & Collobert (CVPR 2015, sec. 3.2).
    """
    flat = logits.flatten(1)
    top = flat.topk(max(1, int(TOP_SHARE * flat.shape[1])), dim=1).values.mean(1)
    of_positive = functional.softplus(-top)
    of_negative = functional.softplus(flat).mean(1) + functional.softplus(top)
    return torch.where(shows, of_positive, of_negative).mean()


def box_loss(logits: Tensor, box: Tensor) -> Tensor:
    """Logits [N, h, w] of a bone and its filled 2D box [N, h, w] of 0/1 -> loss.

    Nothing lies outside the box, every row and column of the box is reached, and the bone fills a plausible
    share of it: the emptiness, tightness and size constraints of Kervadec et al. (MIDL 2020), as quadratic
    penalties instead of barriers. Boxes that are empty here do not count.
    """
    probability = torch.sigmoid(logits)
    area = box.flatten(1).sum(1)
    some = (area > 0).float()
    outside = (functional.softplus(logits) * (1 - box)).flatten(1).sum(1)
    outside = outside / (1 - box).flatten(1).sum(1).clamp(min=1)
    inside = probability * box
    reached = logits.new_zeros(len(logits))
    for axis in (1, 2):
        wanted = box.amax(axis)
        missing = (1 - inside.amax(axis)).square() * wanted
        reached = reached + missing.sum(1) / wanted.sum(1).clamp(min=1)
    share = inside.flatten(1).sum(1) / area.clamp(min=1)
    size = functional.relu(FILLED[0] - share).square() + functional.relu(share - FILLED[1]).square()
    return ((outside + reached + size) * some).sum() / some.sum().clamp(min=1)
