"""Train BoneSAM-T: `python -m training.train CONFIG --store DIR --out DIR`.

All three networks learn in one loop. The depth attention learns from cubes; its answer, detached, is what the
2D branch sees, for the same randomly warped region, as in use.
"""

import copy
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from BoneSAMLib.model.bonesam import BoneSAM
from training.losses import cube_loss, decoder_loss
from training.sampling import ALL_BONES, CUBE_SIZE, UNKNOWN, Mixture, draw_sample
from training.simulated_prompts import Prompts, click_on, jitter
from training.store import load_subjects


@dataclass
class Phase:
    """A stretch of training with one mixture of samples and one resolution."""

    minutes: float
    size: int = 192  # pixels of the region; 256 in use
    batch: int = 12  # cases of two slices
    rounds: int = 3  # most decoder rounds per sample; each round after the first adds a click
    attention: float = 0.6  # share of batches that run the depth attention
    mixture: dict[str, Any] = field(default_factory=dict)


@dataclass
class Config:
    """Everything that decides a training run."""

    phases: dict[str, Phase]
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 300
    ema: float = 0.9985
    dim: int = 128
    seed: int = 0
    workers: int = 2

    @property
    def minutes(self) -> float:
        return sum(phase.minutes for phase in self.phases.values())

    def phase_at(self, minutes: float) -> tuple[str, Phase]:
        for name, phase in self.phases.items():
            if minutes < phase.minutes:
                return name, phase
            minutes -= phase.minutes
        return name, phase


def read_config(path: Path) -> Config:
    """Read a YAML file. Raises ValueError for unknown keys."""
    raw = yaml.safe_load(path.read_text())
    try:
        phases = {name: Phase(**facts) for name, facts in raw.pop("phases").items()}
        for phase in phases.values():
            Mixture(**phase.mixture)
        return Config(phases=phases, **raw)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


class Samples(IterableDataset[dict[str, Tensor]]):
    """Endless batches from the store, different in every worker and after every restart."""

    def __init__(self, store: Path, split: str, phase: Phase, seed: int) -> None:
        self.store, self.split, self.phase, self.seed = store, split, phase, seed

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        torch.set_num_threads(1)
        if info:
            # Sharing a core with one compute thread makes all compute threads wait for it.
            os.nice(10)
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        subjects = load_subjects(self.store, self.split)
        mixture = Mixture(**self.phase.mixture)
        while True:
            cubes = bool(rng.random() < self.phase.attention)
            samples = [
                draw_sample(subjects, mixture, self.phase.size, cubes, rng) for _ in range(self.phase.batch)
            ]
            yield {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


class Trainer:
    """The loop, its checkpoints and its log."""

    def __init__(self, config: Config, store: Path, out: Path, device: str) -> None:
        self.config, self.store, self.out, self.device = config, store, out, torch.device(device)
        torch.manual_seed(config.seed)
        # Channels-last lets CPU matrix units run convolutions without repacking: 1.6 times faster overall.
        self.model = BoneSAM(config.dim).to(self.device)
        for part in (self.model.encoder, self.model.decoder):
            part.to(memory_format=torch.channels_last)
        self.model.depth_attention.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        self.step, self.elapsed = 0, 0.0  # steps and minutes done, over all restarts
        if (out / "state.json").exists():
            self._resume()

    def _groups(self) -> list[dict[str, Any]]:
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        return [
            {"params": decayed, "weight_decay": self.config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]

    def run(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        while self.elapsed < self.config.minutes:
            self._run_phase(*self.config.phase_at(self.elapsed))
        self.save()

    def _run_phase(self, name: str, phase: Phase) -> None:
        dataset = Samples(self.store, "train", phase, self.config.seed + self.step)
        loader = DataLoader(dataset, batch_size=None, num_workers=self.config.workers, prefetch_factor=4)
        validation = Samples(self.store, "validation", _validation_phase(phase), 0)
        held_out = [batch for batch, _ in zip(validation, range(6), strict=False)]
        torch.set_num_threads(max(2, os.cpu_count() or 2))
        start, saved, logged = time.monotonic(), time.monotonic(), time.monotonic()
        begun = self.elapsed
        facts: list[dict[str, float]] = []
        for batch in loader:
            facts.append(self.train_step(batch, phase))
            now = time.monotonic()
            self.elapsed = begun + (now - start) / 60
            over = self.config.phase_at(self.elapsed)[0] != name or self.elapsed >= self.config.minutes
            if len(facts) == 100 or over:
                rate = 2 * phase.batch * len(facts) / (now - logged)
                self._log(name, facts, rate, held_out)
                facts, logged = [], time.monotonic()
            if now - saved > 180 or over:
                self.save()
                saved = now
            if over:
                return

    def train_step(self, batch: dict[str, Tensor], phase: Phase) -> dict[str, float]:
        """One optimizer step; returns what to log."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.model.train()
        bfloat = self.device.type == "cuda" or torch.backends.mkldnn.is_available()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat):
            loss, facts = losses_of(self.model, batch, phase.rounds, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._average()
        return facts | {"loss": float(loss), "norm": float(norm)}

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        done = min(1.0, self.elapsed / self.config.minutes)
        cosine = 0.5 * (1 + np.cos(np.pi * done))
        return float(self.config.learning_rate * warm * max(cosine, 0.01))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.ema.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    @torch.no_grad()
    def _log(
        self, name: str, facts: list[dict[str, float]], rate: float, held_out: list[dict[str, Tensor]]
    ) -> None:
        keys = sorted({key for fact in facts for key in fact})
        row: dict[str, Any] = {"step": self.step, "minutes": round(self.elapsed, 2), "phase": name}
        row |= {k: round(float(np.nanmean([f.get(k, np.nan) for f in facts])), 4) for k in keys}
        row["rate"] = round(rate, 2)
        row["gate"] = round(float(self.model.decoder.fusion.gate), 4)
        if self.step % 500 < 100:
            torch.manual_seed(0)
            checks = [losses_of(self.ema, batch, 2, self.device)[1] for batch in held_out]
            for key in checks[0]:
                row[f"validation_{key}"] = round(float(np.nanmean([c.get(key, np.nan) for c in checks])), 4)
            torch.manual_seed(self.config.seed + self.step)
        print(json.dumps(row), flush=True)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    def save(self) -> None:
        """Write weights and state under temporary names and rename, the small state file last."""
        self._write("model.safetensors", lambda path: save_file(_contiguous(self.model), path))
        self._write("ema.safetensors", lambda path: save_file(_contiguous(self.ema), path))
        self._write("optimizer.pt", lambda path: torch.save(self.optimizer.state_dict(), path))
        state = {"step": self.step, "elapsed": self.elapsed}
        self._write("state.json", lambda path: Path(path).write_text(json.dumps(state)))

    def _write(self, name: str, write: Any) -> None:
        temporary = self.out / f"{name}.part"
        write(str(temporary))
        temporary.replace(self.out / name)

    def _resume(self) -> None:
        state = json.loads((self.out / "state.json").read_text())
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.model.load_state_dict(load_file(self.out / "model.safetensors"))
        self.ema.load_state_dict(load_file(self.out / "ema.safetensors"))
        self.optimizer.load_state_dict(torch.load(self.out / "optimizer.pt", weights_only=True))


def _contiguous(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def _validation_phase(phase: Phase) -> Phase:
    return Phase(
        minutes=0, size=phase.size, batch=16, attention=1.0, mixture={"synthetic": 0.0, "unlabelled": 0.0}
    )


def losses_of(
    model: BoneSAM, batch: dict[str, Tensor], most_rounds: int, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch, and Dice by kind of prompt."""
    count = len(batch["mode"])
    slices = batch["slices"].flatten(0, 1).to(device, torch.float32)
    slices = slices.contiguous(memory_format=torch.channels_last)
    target, weight = (_halve(batch[key].flatten(0, 1).to(device)) for key in ("target", "weight"))
    weight = (weight > 0.99).float()
    is_all = batch["mode"] == ALL_BONES
    facts: dict[str, float] = {}
    boxes = jitter(batch["box"])
    flat = batch["flat"].bool()
    boxes[:, 2] = torch.where(flat, 0.0, boxes[:, 2])
    boxes[:, 5] = torch.where(flat, 0.0, boxes[:, 5])
    empty = batch["target"][:, 0].flatten(1).sum(1) == 0
    draw = torch.rand(count)
    with_box = ~is_all & ((draw < 0.75) | empty)
    with_click = ~is_all & ~empty & ((draw > 0.62) | ~with_box)

    total = slices.new_zeros(())
    attention = slices.new_zeros(2 * count, 2, slices.shape[-2] // 4, slices.shape[-1] // 4)
    use = slices.new_zeros(2 * count)
    if bool(batch["has_cube"].any()):
        some = batch["has_cube"].bool()
        with_cube_box = with_box & ~flat & some
        channel = _box_channel(batch, boxes, with_cube_box)
        cubes = torch.stack([batch["cube"].float(), channel], 1)[some].to(device)
        cubes = cubes.contiguous(memory_format=torch.channels_last_3d)
        logits = model.depth_attention(cubes)
        wanted = torch.where(with_cube_box[:, None, None, None], batch["cube_target"], batch["cube_bone"])
        known = cube_loss(
            logits.float(), batch["cube_bone"][some].to(device), wanted[some].to(device), UNKNOWN
        )
        total = total + known
        facts["cube"] = float(known)
        probability = torch.zeros(count, *logits.shape[1:], device=device)
        probability[some] = torch.sigmoid(logits.detach().float())
        attention, use = _planes(
            probability, batch["cube_plane"].to(device), some.to(device), attention.shape[-1]
        )

    embedding, skip = model.encoder(slices)
    prompts = Prompts.empty(count)
    prompts.add_boxes(boxes, batch["depths"], with_box)
    places, _ = click_on(target[0::2])
    prompts.add_clicks(places, torch.zeros(count), torch.ones(count), batch["depths"], with_click)
    previous = _neighbor_mask(target, flat & with_box, attention.shape[-1])
    rounds = int(torch.randint(1, most_rounds + 1, ())) if model.training else most_rounds
    names = torch.where(is_all, 0, torch.where(with_box, torch.where(flat, 2, 1), 3))
    for turn in range(rounds):
        points, labels = (part.to(device) for part in prompts.flat())
        logits, iou = model.decoder(embedding, skip, attention, use, points, labels, previous)
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


def _correct(prompts: Prompts, logits: Tensor, target: Tensor, weight: Tensor, depths: Tensor) -> None:
    """Add the click that a user would make next, on either slice of each case."""
    error = ((logits > 0).float() - (target > 0.5).float()).abs() * weight
    places, sizes = click_on(error.cpu())
    count = len(depths)
    part = (sizes[1::2] * torch.rand(count) > sizes[0::2] * torch.rand(count)).long()
    index = 2 * torch.arange(count) + part
    places, sizes = places[index], sizes[index]
    columns = (places[:, 0] * target.shape[-1] / 256).long()
    rows = (places[:, 1] * target.shape[-2] / 256).long()
    signs = (target.cpu()[index, rows, columns] > 0.5).long()
    prompts.add_clicks(places, part, signs, depths, sizes > 4)


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
    count, channels = probability.shape[:2]
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


def main(
    config: Annotated[Path, typer.Argument(help="YAML file, see training/configs.")],
    store: Annotated[
        Path, typer.Option(help="Training store made by training.store and training.synthesis.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log; a run there is resumed.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train, or go on training, BoneSAM-T."""
    Trainer(read_config(config), store, out, device).run()


if __name__ == "__main__":
    typer.run(main)
