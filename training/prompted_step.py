"""One training step's losses: prompts as a user gives them, round by round, and what the network answers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.model.bonesam import BoneSAM
from training.losses import cube_loss, decoder_loss
from training.sampling import ALL_BONES, CUBE_SIZE, UNKNOWN
from training.simulated_prompts import Prompts, click_on, jitter

LOOSE = 0.5  # of the boxes around bones with a name: as the naming network draws them
AGAIN = 0.35  # of the rounds bring no click: in use, what a box gave is looked at once more


def losses_of(
    model: BoneSAM, batch: dict[str, Tensor], most_rounds: int, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch, and Dice by kind of prompt, of the first and the last round.

    The batch is one of `training.sampling` samples: B cases of two slices each. Encoder and decoder are not
    asked where neither learns.
    """
    count = len(batch["mode"])
    slices = batch["slices"].flatten(0, 1).to(device, torch.float32)
    slices = slices.contiguous(memory_format=torch.channels_last)
    target, weight = (_halve(batch[key].flatten(0, 1).to(device)) for key in ("target", "weight"))
    weight = (weight > 0.99).float()
    is_all = batch["mode"] == ALL_BONES
    facts: dict[str, float] = {}
    boxes = jitter(batch["box"], loose=(batch["kind"] > 0) & (torch.rand(count) < LOOSE))
    flat = batch["flat"].bool()
    boxes[:, 2] = torch.where(flat, 0.0, boxes[:, 2])
    boxes[:, 5] = torch.where(flat, 0.0, boxes[:, 5])
    empty = batch["target"][:, 0].flatten(1).sum(1) == 0
    draw = torch.rand(count)
    with_box = ~is_all & ((draw < 0.75) | empty)
    with_click = ~is_all & ~empty & ((draw > 0.62) | ~with_box)

    size = slices.shape[-1] // 4
    total, attention = slices.new_zeros(()), slices.new_zeros(2 * count, 2, size, size)
    use = slices.new_zeros(2 * count)
    if bool(batch["has_cube"].any()):
        total, attention, use = _attend(model, batch, boxes, with_box & ~flat, size, device)
        facts["cube"] = total.item()
    if model.training and not _learns(model.encoder, model.decoder):
        # A batch of radiographs alone teaches a depth attention nothing, but is no error.
        return total + 0.0 * sum(p.sum() for p in model.depth_attention.parameters()), facts

    embedding, skip = model.encoder(slices)
    prompts = Prompts.empty(count)
    prompts.add_boxes(boxes, batch["depths"], with_box)
    places, _ = click_on(target[0::2].cpu())
    prompts.add_clicks(places, torch.zeros(count), torch.ones(count), batch["depths"], with_click)
    # A radiograph's two slices are the same image: its neighbor's truth would be its own.
    apart = batch["depths"][:, 1] != 0
    previous = _neighbor_mask(target, flat & with_box & apart, size)
    rounds = int(torch.randint(1, most_rounds + 1, ())) if model.training else most_rounds
    kinds = batch["kind"].repeat_interleave(2).to(device)
    names = torch.where(is_all, 0, torch.where(with_box, torch.where(flat, 2, 1), 3))
    for turn in range(rounds):
        points, labels = (part.to(device) for part in prompts.flat())
        logits, iou = model.decoder(embedding, skip, attention, use, points, labels, previous, kinds)
        logits = logits.float()
        ambiguous = ((prompts.used <= 1) & ~is_all).repeat_interleave(2).to(device)
        loss, dice = decoder_loss(logits, iou.float(), target, weight, ambiguous)
        total = total + loss / rounds
        for number, name in enumerate(("all", "box", "flat", "click")):
            chosen = (names == number).repeat_interleave(2)
            if chosen.any() and turn in (0, rounds - 1):
                facts[f"{name}_{'first' if turn == 0 else 'last'}"] = float(dice[chosen].mean())
        if turn + 1 == rounds:
            break
        best = logits[:, 0].detach()
        other = logits[torch.arange(len(logits)), 1 + iou[:, 1:].argmax(1)].detach()
        best = torch.where(ambiguous[:, None, None], other, best)
        previous = functional.interpolate(best[:, None], size=previous.shape[-2:], mode="bilinear")
        _correct(prompts, best, target, weight, batch["depths"])
    return total, facts


def _learns(*parts: nn.Module) -> bool:
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def _attend(
    model: BoneSAM,
    batch: dict[str, Tensor],
    boxes: Tensor,
    with_box: Tensor,
    size: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of the depth attention, its maps, detached [2 B, 2, size, size], and whether they hold [2 B]."""
    some = batch["has_cube"].bool()
    with_box = with_box & some
    channel = _box_channel(batch, boxes, with_box)
    cubes = torch.stack([batch["cube"].float(), channel], 1)[some].to(device)
    cubes = cubes.contiguous(memory_format=torch.channels_last_3d)
    logits = model.depth_attention(cubes).float()
    wanted = torch.where(with_box[:, None, None, None], batch["cube_target"], batch["cube_bone"])
    loss = cube_loss(logits, batch["cube_bone"][some].to(device), wanted[some].to(device), UNKNOWN)
    probability = torch.zeros(len(some), *logits.shape[1:], device=device)
    probability[some] = torch.sigmoid(logits.detach())
    return loss, *_planes(probability, batch["cube_plane"].to(device), some.to(device), size)


def _correct(prompts: Prompts, logits: Tensor, target: Tensor, weight: Tensor, depths: Tensor) -> None:
    """Add the click that a user would make next, on either slice of each case; now and then none."""
    error = ((logits > 0).float() - (target > 0.5).float()).abs() * weight
    places, sizes = click_on(error.cpu())
    count = len(depths)
    part = (sizes[1::2] * torch.rand(count) > sizes[0::2] * torch.rand(count)).long()
    index = 2 * torch.arange(count) + part
    places, sizes = places[index], sizes[index]
    columns = (places[:, 0] * target.shape[-1] / 256).long()
    rows = (places[:, 1] * target.shape[-2] / 256).long()
    signs = (target.cpu()[index, rows, columns] > 0.5).long()
    prompts.add_clicks(places, part, signs, depths, (sizes > 4) & (torch.rand(count) >= AGAIN))


def _halve(masks: Tensor) -> Tensor:
    return functional.avg_pool2d(masks[:, None].float(), 2)[:, 0]


def _neighbor_mask(target: Tensor, chosen: Tensor, size: int) -> Tensor:
    """For some 2D boxes, the truth of slice 0, blurred, is the mask prompt of slice 1: propagation."""
    masks = target.new_zeros(len(target), 1, size, size)
    chosen = chosen & (torch.rand(len(chosen)) < 0.5)
    if chosen.any():
        index = torch.nonzero(chosen).flatten().to(target.device)
        truth = functional.interpolate(target[2 * index][:, None], size=(size, size), mode="bilinear")
        soft = functional.avg_pool2d(truth, 3, 1, 1)
        masks[2 * index + 1] = (soft * 2 - 1) * float(torch.empty(()).uniform_(2, 8))
    return masks


def _box_channel(batch: dict[str, Tensor], boxes: Tensor, chosen: Tensor) -> Tensor:
    """Inside-the-box indicator [B, 64, 64, 64] of the cubes; axes are depth, y, x."""
    cell = 256 / CUBE_SIZE
    count = len(boxes)
    centers = (torch.arange(CUBE_SIZE) + 0.5) * cell
    # `cube_plane` is the place of slice 0 in the cube, in cells between cell centers.
    depth = (torch.arange(CUBE_SIZE)[None] - batch["cube_plane"][:, :1]) * cell
    inside = [
        (centers[None] >= boxes[:, a : a + 1]) & (centers[None] <= boxes[:, a + 3 : a + 4]) for a in (0, 1)
    ]
    along = (depth >= boxes[:, 2:3]) & (depth <= boxes[:, 5:6])
    channel = along[:, :, None, None] & inside[1][:, None, :, None] & inside[0][:, None, None, :]
    return (channel & chosen.reshape(count, 1, 1, 1)).float()


def _planes(probability: Tensor, plane: Tensor, some: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The attention map [2 B, 2, size, size] of each slice, and whether the cube reaches it [2 B]."""
    count = len(probability)
    below = plane.floor().clamp(0, CUBE_SIZE - 1).long()
    above = (below + 1).clamp(max=CUBE_SIZE - 1)
    share = (plane - below).clamp(0, 1)[..., None, None, None]
    index = torch.arange(count, device=plane.device)[:, None]
    volume = probability.transpose(1, 2)
    mixed = volume[index, below] * (1 - share) + volume[index, above] * share
    maps = functional.interpolate(
        mixed.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False
    )
    use = (some[:, None] & (plane >= -0.5) & (plane <= CUBE_SIZE - 0.5)).flatten().float()
    return maps * use[:, None, None, None], use
