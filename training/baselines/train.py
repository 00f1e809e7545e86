"""Train a baseline: `python -m training.baselines.train unet CONFIG --store DIR --out DIR --minutes 60`.

It gets what BoneSAM gets, from the same configuration: the same samples, the same jittered box, the same
schedule and the same minutes. What needs more than a box is left out: any bone without a prompt, boxes drawn
on one slice, cubes, corrections, and scans without masks.
"""

import copy
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader

from BoneSAMLib.errors import BoneSAMError
from training.baselines.networks import box_channel, build
from training.baselines.segmenter import FACTS, WEIGHTS
from training.batches import Samples, echoed
from training.checkpoint import contiguous, finish_saving, read_state, save_checkpoint
from training.configuration import Config, Phase, Supervision, read_config
from training.losses import mask_loss
from training.processes import usable_device
from training.simulated_prompts import Prompts, jitter

MODEL, OPTIMIZER = "model.safetensors", "optimizer.pt"
LEFT_OUT = {"all_bones": 0.0, "two_dimensional_box": 0.0}
LARGEST_GRADIENT = 2.0


class BaselineTrainer:
    """The loop, its checkpoints and its log.

    Args:
        name: of the network.
        config: that of BoneSAM; `LEFT_OUT` of its mixtures is not drawn.
        store, out: folders of the training store and of the checkpoints; a run there is resumed.
        device: "cpu" or "cuda".

    Raises:
        BoneSAMError: unknown network, or `out` holds the training of another one.
    """

    def __init__(self, name: str, config: Config, store: Path, out: Path, device: str) -> None:
        self.config, self.store, self.out = masks_alone(config), store, out
        self.device = usable_device(device)
        torch.manual_seed(config.seed)
        self.model = build(name).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in training.train
        self.mean = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step, self.minutes = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        finish_saving(out)
        state = read_state(out)
        self._claim(name, state)
        if state is not None:
            self.step, self.minutes = int(state["step"]), float(state["minutes"])
            self.model.load_state_dict(load_file(out / MODEL))
            self.mean.load_state_dict(load_file(out / WEIGHTS))
            moments = torch.load(out / OPTIMIZER, map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(moments)

    def _claim(self, name: str, state: dict[str, Any] | None) -> None:
        path = self.out / FACTS
        if state is not None and not path.exists():
            raise BoneSAMError(f"'{self.out}' holds a training of BoneSAM: name another folder.")
        found = json.loads(path.read_text(encoding="utf-8"))["network"] if path.exists() else name
        if found != name:
            raise BoneSAMError(f"'{self.out}' holds a training of '{found}': name another folder.")
        path.write_text(json.dumps({"network": name}) + "\n", encoding="utf-8")

    @property
    def done(self) -> float:
        """How far it is, in the unit of the configuration."""
        return float(self.step) if self.config.counts_steps else self.minutes

    def run(self) -> None:
        """Train until the configured length is over, then save."""
        while self.done < self.config.length:
            self._run_phase(*self.config.phase_at(self.done))
        self.save()

    def _run_phase(self, name: str, phase: Phase) -> None:
        phase = dataclasses.replace(phase, attention=0.0, mixture=phase.mixture | LEFT_OUT)
        dataset = Samples(self.store, "train", phase, self.config.seed, self.config, self.step)
        dataset.check()
        workers = self.config.workers
        loader = DataLoader(
            dataset, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        torch.set_num_threads(max(2, os.cpu_count() or 2))
        start = saved = time.monotonic()
        begun, facts = self.minutes, []
        for _, batch in echoed(loader, phase.echoes, self.config.seed, self.step):
            facts.append(self.train_step(batch, phase.rate))
            self.minutes = begun + (time.monotonic() - start) / 60
            over = self.done >= self.config.length or self.config.phase_at(self.done)[0] != name
            if over or len(facts) == self.config.log_steps:
                self._log(name, facts)
                facts = []
            if over:
                return
            if time.monotonic() - saved > 60 * self.config.save_minutes:
                self.save()
                saved = time.monotonic()

    def train_step(self, batch: dict[str, Tensor], rate: float = 1.0) -> tuple[float, float]:
        """One optimizer step at so much of the learning rate; returns loss and mean Dice."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate() * rate
        self.model.train()
        images, target, weight = baseline_inputs(batch, self.device)
        bfloat = self.device.type == "cuda" or torch.backends.mkldnn.is_available()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat):
            logits = self.model(images.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        loss = mask_loss(logits, target, weight).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._average()
        found = (logits.detach() > 0) * weight
        shared, total = (found * target).sum((1, 2, 3)), (found + target * weight).sum((1, 2, 3))
        return loss.item(), float(((2 * shared + 1) / (total + 1)).mean())

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        cosine = 0.5 * (1 + np.cos(np.pi * min(1.0, self.done / self.config.length)))
        return float(self.config.learning_rate * warm * max(cosine, 0.01))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.mean.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    def _log(self, name: str, facts: list[tuple[float, float]]) -> None:
        loss, dice = np.mean(facts, axis=0).tolist()
        row = {"step": self.step, "minutes": round(self.minutes, 2), "phase": name}
        line = json.dumps(row | {"loss": round(loss, 4), "dice": round(dice, 4)})
        print(line, flush=True)
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def save(self) -> None:
        """Write a checkpoint. Raises BoneSAMError where there is no room for it."""
        save_checkpoint(
            self.out,
            {
                MODEL: lambda path: save_file(contiguous(self.model), path),
                WEIGHTS: lambda path: save_file(contiguous(self.mean), path),
                OPTIMIZER: lambda path: torch.save(self.optimizer.state_dict(), path),
            },
            {"step": self.step, "minutes": self.minutes},
        )


def baseline_inputs(batch: dict[str, Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of B samples -> images [2 B, 4, s, s], targets and weights [2 B, 1, s, s] of their slices."""
    slices = batch["slices"].flatten(0, 1).to(device, torch.float32)
    boxes = jitter(batch["box"])
    flat = batch["flat"].bool()
    boxes[:, 2] = torch.where(flat, 0.0, boxes[:, 2])
    boxes[:, 5] = torch.where(flat, 0.0, boxes[:, 5])
    prompts = Prompts.empty(len(boxes))
    prompts.add_boxes(boxes, batch["depths"], torch.ones(len(boxes), dtype=torch.bool))
    points, labels = (part.to(device) for part in prompts.flat())
    images = torch.cat([slices, box_channel(points, labels, slices.shape[-1])], 1)
    target, weight = (batch[key].flatten(0, 1)[:, None].to(device).float() for key in ("target", "weight"))
    return images, target, weight


def masks_alone(config: Config) -> Config:
    """The configuration without what learns from scans of which less than masks is known."""
    if config.supervision is None:
        return config
    known = Supervision(config.supervision.labelled, config.supervision.rest)
    return dataclasses.replace(config, supervision=known)


def with_length(config: Config, minutes: float) -> Config:
    """The configuration with its phases stretched or shortened to so many minutes together."""
    share = minutes / config.length
    phases = {
        name: dataclasses.replace(phase, minutes=(phase.steps or phase.minutes) * share, steps=0)
        for name, phase in config.phases.items()
    }
    return dataclasses.replace(config, phases=phases)


def main(
    network: Annotated[str, typer.Argument(help="unet, deeplabv3plus or swin-unetr.")],
    config: Annotated[Path, typer.Argument(help="YAML file, see training/configs.")],
    store: Annotated[Path, typer.Option(help="Training store.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log; a run there is resumed.")],
    minutes: Annotated[float | None, typer.Option(help="Instead of the configured length.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train, or go on training, a baseline; `training.evaluate --weights OUT` measures it."""
    try:
        settings = read_config(config)
        if minutes is not None:
            settings = with_length(settings, minutes)
        trainer = BaselineTrainer(network, settings, store, out, device)
        count = sum(parameter.numel() for parameter in trainer.model.parameters())
        print(f"{network}: {count:,} parameters", flush=True)
        trainer.run()
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
