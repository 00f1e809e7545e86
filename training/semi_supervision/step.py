"""What a training step learns from the batch without masks, by whichever methods are switched on."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.configuration import Supervision
from training.prompted_step import _box_channel, _planes, losses_of
from training.sampling import ALL_BONES
from training.semi_supervision.consistency import mean_teacher_loss, mutual_loss, pseudo_label_loss, ramp_up
from training.semi_supervision.discriminator import MaskDiscriminator, fooling_loss, judging_loss
from training.semi_supervision.weak_losses import box_loss, image_level_loss
from training.simulated_prompts import Prompts, jitter

NOISE = 0.05  # of what the student sees, in units of full brightness
GAMMA = 0.3  # spread of the logarithm
WEIGHT_NOISE = 0.1  # how far the second decoder begins from the first, in spreads of its weights


class Assistants(nn.Module):
    """Networks that only training needs: the second decoder and the judge of masks."""

    def __init__(self, model: Any, supervision: Supervision) -> None:
        super().__init__()
        self.decoder = copy.deepcopy(model.decoder) if supervision.two_decoders else None
        if self.decoder is not None:
            with torch.no_grad():
                for parameter in self.decoder.parameters():
                    if parameter.numel() > 1:
                        parameter += WEIGHT_NOISE * parameter.std() * torch.randn_like(parameter)
        self.judge = MaskDiscriminator() if supervision.adversarial else None


@dataclass
class View:
    """A batch as asked about: which bone, if any, and where the slices lie in their cube."""

    slices: Tensor  # [N, 3, s, s]
    points: Tensor
    labels: Tensor
    cubes: Tensor | None  # [B, 2, 64, 64, 64]
    batch: dict[str, Tensor]


class Twin:
    """The network with its second decoder in place of the first."""

    def __init__(self, model: Any, decoder: nn.Module) -> None:
        self.encoder, self.training = model.encoder, model.training
        self.decoder = decoder
        self._attention = model.depth_attention

    def depth_attention(self, cubes: Tensor) -> Tensor:
        """What the network's says, which has learned from this batch already."""
        answer: Tensor = self._attention(cubes)
        return answer.detach()


def rest_losses(
    networks: tuple[Any, Any, Assistants],
    batch: dict[str, Any],
    supervision: Supervision,
    step: int,
    rounds: int,
    device: torch.device,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of `batch["rest"]`, of the second decoder and of the judge, and what to log.

    `networks` are the student, the average of its past as a teacher, and the assistants. Prompts are the
    known boxes; without boxes, "all bones".
    """
    model, teacher, assistants = networks
    rest, boxed = batch["rest"], supervision.rest == "box"
    view = _view(rest, boxed, device)
    weight = ramp_up(step, supervision.ramp_steps)
    seen, cubes = _disturbed(view.slices), view.cubes
    logits, cube_logits = _answer(model, model.decoder, view, seen, cubes)
    first = torch.arange(0, len(logits), 2, device=device)
    total, facts = logits.sum() * 0, {"ramp": weight}

    known = functional.avg_pool2d(rest["target"].flatten(0, 1)[:, None].float(), 2)[:, 0].to(device)
    if supervision.image_labels:
        loss = image_level_loss(logits, known.flatten(1).amax(1) > 0)
        total, facts["image_labels"] = total + supervision.image_labels * loss, loss.item()
    if supervision.boxes:
        # The box is drawn on the first slice of a case.
        loss = box_loss(logits[first], (known[first] > 0.5).float() * rest["flat"].to(device)[:, None, None])
        total, facts["boxes"] = total + supervision.boxes * loss, loss.item()
    if supervision.mean_teacher or supervision.self_training:
        with torch.no_grad():
            wanted, wanted_cubes = _answer(teacher, teacher.decoder, view, view.slices, view.cubes)
        if supervision.mean_teacher:
            loss = mean_teacher_loss(logits, wanted)
            if cube_logits is not None and wanted_cubes is not None:
                loss = loss + mean_teacher_loss(cube_logits, wanted_cubes)
            total, facts["mean_teacher"] = total + weight * supervision.mean_teacher * loss, loss.item()
        if supervision.self_training:
            loss, share = pseudo_label_loss(logits, wanted, supervision.confidence)
            total = total + weight * supervision.self_training * loss
            facts |= {"self_training": loss.item(), "sure": share.item()}
    if assistants.decoder is not None:
        labelled, _ = losses_of(Twin(model, assistants.decoder), batch, rounds, device)  # type: ignore[arg-type]
        other, _ = _answer(model, assistants.decoder, view, seen, cubes)
        loss = mutual_loss(logits, other)
        total = total + labelled + weight * supervision.two_decoders * loss
        facts["two_decoders"] = loss.item()
    if assistants.judge is not None:
        loss, judged = _adversarial(assistants.judge, batch, view, logits, boxed, device)
        total = total + weight * supervision.adversarial * loss + judged
        facts |= {"adversarial": loss.item(), "judge": judged.item()}
    return total, facts


def _view(rest: dict[str, Tensor], boxed: bool, device: torch.device) -> View:
    count = len(rest["mode"])
    slices = rest["slices"].flatten(0, 1).to(device, torch.float32)
    prompts = Prompts.empty(count)
    flat = rest["flat"].bool()
    boxes = jitter(rest["box"])
    if boxed:
        boxes[:, [2, 5]] = torch.where(flat[:, None], 0.0, boxes[:, [2, 5]])
        prompts.add_boxes(boxes, rest["depths"], torch.ones(count, dtype=torch.bool))
    points, labels = prompts.flat()
    cubes = None
    if bool(rest["has_cube"].any()):
        channel = _box_channel(rest, boxes, ~flat & boxed)
        cubes = torch.stack([rest["cube"].float(), channel], 1).to(device)
    return View(slices, points.to(device), labels.to(device), cubes, rest)


def _answer(
    model: Any, decoder: nn.Module, view: View, slices: Tensor, cubes: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Logits of the clear mask [N, h, w], and of the cubes."""
    size, device = slices.shape[-1] // 4, slices.device
    attention, use = slices.new_zeros(len(slices), 2, size, size), slices.new_zeros(len(slices))
    cube_logits = None
    if cubes is not None:
        cube_logits = model.depth_attention(cubes).float()
        some = view.batch["has_cube"].bool().to(device)
        plane = view.batch["cube_plane"].to(device)
        attention, use = _planes(torch.sigmoid(cube_logits.detach()), plane, some, size)
    embedding, skip = model.encoder(slices)
    masks = slices.new_zeros(len(slices), 1, size, size)
    kinds = torch.zeros(len(slices), dtype=torch.long, device=device)
    logits, _ = decoder(embedding, skip, attention, use, view.points, view.labels, masks, kinds)
    return logits[:, 0].float(), cube_logits


def _disturbed(slices: Tensor) -> Tensor:
    """Another brightness curve and noise for every slice: nothing that moves a mask."""
    power = torch.exp(GAMMA * torch.randn(len(slices), 1, 1, 1)).to(slices.device)
    noise = NOISE * torch.randn(slices.shape).to(slices.device)
    return (slices.clamp(0, 1) ** power + noise).clamp(0, 1)


def _adversarial(
    judge: MaskDiscriminator,
    batch: dict[str, Any],
    view: View,
    logits: Tensor,
    boxed: bool,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    predicted = torch.sigmoid(logits)
    image = functional.avg_pool2d(view.slices[:, 1:2], 2)[:, 0]
    fooling = fooling_loss(judge, image, predicted)
    # Drawn masks of the same kind: one bone where a bone was asked for, else all bones.
    alike = ((batch["mode"] != ALL_BONES) if boxed else (batch["mode"] == ALL_BONES)).repeat_interleave(2)
    if not alike.any():
        return fooling, fooling.detach() * 0
    drawn = functional.avg_pool2d(batch["target"].flatten(0, 1)[alike][:, None].float(), 2)[:, 0].to(device)
    theirs = batch["slices"].flatten(0, 1)[alike][:, 1:2].to(device, torch.float32)
    theirs = functional.avg_pool2d(theirs, 2)[:, 0]
    return fooling, judging_loss(judge, (theirs, drawn), (image, predicted))
