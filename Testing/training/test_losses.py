"""The losses are small for right answers, and deaf to what is not annotated."""

import pytest
import torch

from training.losses import cube_loss, decoder_loss, mask_loss

SURE = 15.0
SIZE = 32


def disk(radius=9.0, x=16.0, y=16.0):
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).float()


def logits_of(mask):
    return (mask * 2 - 1) * SURE


@pytest.fixture
def target():
    return disk()[None, None]


def everywhere(target):
    return torch.ones_like(target)


def test_a_perfect_mask_costs_nothing(target):
    assert float(mask_loss(logits_of(target), target, everywhere(target))) < 1e-3


def test_a_worse_mask_costs_more(target):
    weight = everywhere(target)
    masks = [disk(9), disk(8), disk(5), disk(3), 1 - disk(9)]
    losses = [float(mask_loss(logits_of(mask)[None, None], target, weight)) for mask in masks]
    assert losses == sorted(losses)
    assert losses[-1] > 10


def test_an_empty_target_is_learned_too(target):
    empty = torch.zeros_like(target)
    weight = everywhere(target)
    assert float(mask_loss(logits_of(empty), empty, weight)) < 1e-3
    assert float(mask_loss(logits_of(target), empty, weight)) > 1


def test_ignored_pixels_do_not_count(target):
    weight = everywhere(target)
    weight[..., :10] = 0
    wrong = target.clone()
    wrong[..., :10] = 1 - wrong[..., :10]
    logits = (0.3 * logits_of(target)).requires_grad_()
    loss = mask_loss(logits, target, weight)
    value = loss.item()
    assert value == pytest.approx(mask_loss(logits, wrong, weight).item(), rel=1e-6)
    other = logits.detach().clone()
    other[..., :10] = torch.randn(SIZE, 10)
    assert value == pytest.approx(mask_loss(other, target, weight).item(), rel=1e-6)
    loss.backward()
    assert not logits.grad[..., :10].any()
    assert logits.grad[..., 10:].any()


def test_nothing_annotated_costs_nothing(target):
    loss = mask_loss(torch.randn_like(target), target, torch.zeros_like(target))
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def four(*masks):
    return torch.stack([logits_of(mask) for mask in masks])[None]


def decoder(logits, ambiguous, iou=None):
    target = disk()[None]
    perfect = ((logits > 0) == (target > 0.5)).flatten(2).all(2).float()
    iou = perfect if iou is None else iou
    loss, dice = decoder_loss(logits, iou, target, torch.ones_like(target), torch.tensor([ambiguous]))
    return float(loss), float(dice)


def test_of_the_ambiguous_masks_only_the_best_counts():
    right, wrong, worse = disk(), disk(4, 8, 8), 1 - disk()
    once, dice = decoder(four(right, wrong, right, worse), True, torch.zeros(1, 4))
    same, _ = decoder(four(right, worse, worse, right), True, torch.zeros(1, 4))
    thrice, _ = decoder(four(right, right, right, right), True, torch.zeros(1, 4))
    none, _ = decoder(four(right, wrong, worse, worse), True, torch.zeros(1, 4))
    assert dice == 1
    # What the predicted IoU costs differs, by less than 1.
    assert max(once, same, thrice) < 1.01
    assert none > 3


def test_ambiguity_weighs_less_for_clear_prompts():
    logits = four(disk(), 1 - disk(), 1 - disk(), 1 - disk())
    clear, _ = decoder(logits, False)
    ambiguous, _ = decoder(logits, True)
    assert clear == pytest.approx(0.2 * ambiguous, rel=0.05)


def test_the_first_mask_counts_for_every_prompt():
    logits = four(1 - disk(), disk(), disk(), disk())
    for ambiguous in (False, True):
        loss, dice = decoder(logits, ambiguous)
        assert loss > 10
        assert dice < 0.01


def test_all_right_costs_nothing_and_a_wrong_iou_does():
    logits = four(disk(), disk(), disk(), disk())
    assert decoder(logits, True)[0] < 1e-2
    loss, _ = decoder(logits, True, torch.full((1, 4), 0.5))
    assert loss == pytest.approx(0.25, abs=1e-2)


def test_dice_is_that_of_the_known_pixels():
    target = disk()[None]
    half = target.clone()
    half[..., 16:] = 0
    known = torch.zeros_like(target)
    known[..., :16] = 1
    logits = logits_of(half)[:, None].expand(-1, 4, -1, -1)
    _, everything = decoder_loss(
        logits, torch.zeros(1, 4), target, torch.ones_like(target), torch.tensor([False])
    )
    _, part = decoder_loss(logits, torch.zeros(1, 4), target, known, torch.tensor([False]))
    assert float(everything) == pytest.approx(2 / 3, abs=0.05)
    assert float(part) == 1


def test_unknown_voxels_do_not_count():
    bone = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    bone[:, 2:5] = 1
    target = bone.clone()
    target[:, 3:] = 0
    logits = torch.stack([logits_of(bone.float()), logits_of(target.float())], 1)
    assert float(cube_loss(logits, bone, target, 255)) < 1e-3
    partly = bone.clone()
    partly[:, 6:] = 255
    wrong = logits.clone()
    wrong[:, 0, 6:] = SURE
    assert float(cube_loss(wrong, partly, target, 255)) < 1e-3
    assert float(cube_loss(wrong, bone, target, 255)) > 1
    wrong[:, 1, 6:] = SURE  # unknown as bone, but known not to be the bone that is meant
    assert float(cube_loss(wrong, partly, target, 255)) > 1
