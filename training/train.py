"""Train BoneSAM-T or fine-tune an official network: `python -m training.train CONFIG --store DIR --out DIR`.

All recipes share this loop; a config says which network, which parts of it learn, and from what. The depth
attention learns from cubes; its answer, detached, is what the 2D branch sees, for the same randomly warped
region, as in use.
"""

import copy
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from BoneSAMLib.errors import BoneSAMError
from training.batches import Batch, Samples, echoed, first_step_of, grouped
from training.checkpoint import contiguous, finish_saving, read_state, save_checkpoint
from training.configuration import PARTS, Config, Phase, read_config
from training.learning_parts import choose_learning, describe, peak_memory, set_training
from training.networks.registry import BONESAM_T, OFFICIAL, build_network
from training.processes import join_processes
from training.prompted_step import losses_of
from training.semi_supervision.step import Assistants, rest_losses
from training.starting_weights import begin_from, weights_file
from training.store import load_subjects

VALIDATION_BATCHES = 6
VALIDATION_LOGS = 5  # every so many rows of the log have validation in them
MOST_NORM = 2.0  # of the gradient
_NO_MEMORY = "allocate memory"  # what PyTorch says on the CPU, as a plain RuntimeError


class Trainer:
    """The loop, its checkpoints and its log."""

    def __init__(
        self, config: Config, store: Path, out: Path, device: str, start: str | Path | None = None
    ) -> None:
        self.config, self.store, self.out = config, store, out
        self.processes, self.device = join_processes(device)
        # At least one batch for every process.
        self.accumulate = -(-config.accumulate // self.processes.count) * self.processes.count
        if self.accumulate != config.accumulate:
            self._say(f"A step takes {self.accumulate} batches, one or more for each process.")
        torch.manual_seed(config.seed)
        if self.processes.is_first:
            finish_saving(out)
        self.processes.of_the_first(0.0)  # the others wait until a half-written checkpoint is put right
        state = read_state(out)
        self.model = self._network(None if state else (start or config.start or None))
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98))
        self.assistants: Assistants | None = None
        if config.supervision:
            self.assistants = Assistants(self.model, config.supervision).to(self.device)
            parameters = list(self.assistants.parameters())
            self.assisting = torch.optim.AdamW(parameters, lr=config.learning_rate) if parameters else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.step, self.elapsed = 0, 0.0  # steps and minutes done, over all restarts
        self.begun, self.phase_name = 0, ""  # first step of the phase
        self.facts: list[dict[str, float]] = []  # of the steps since the last row of the log
        if state:
            self._resume(state)

    def _network(self, start: str | Path | None) -> Any:
        weights = weights_file(start) if start else None
        own = weights is not None and (weights.parent / "state.json").exists()
        official = self.config.network in OFFICIAL
        model = build_network(self.config, weights if official and not own else None).to(self.device)
        # Channels-last lets CPU matrix units run convolutions without repacking: 1.6 times faster overall.
        for part, layout in (
            (model.encoder, torch.channels_last),
            (model.decoder, torch.channels_last),
            (model.depth_attention, torch.channels_last_3d),
        ):
            part.to(memory_format=layout)
        if weights and (own or not official) and begin_from(model, weights) and not self.config.freeze_norms:
            raise BoneSAMError(
                "A bundle's batch norms are folded and know no statistics to go on from: "
                "set 'freeze_norms: true' to begin with a bundle."
            )
        return model

    def _groups(self) -> list[dict[str, Any]]:
        kinds: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if name.startswith(PARTS["kinds"]):
                kinds.append(parameter)
            else:
                (decayed if parameter.ndim > 1 else plain).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.config.weight_decay, "rate": 1.0},
            {"params": plain, "weight_decay": 0.0, "rate": 1.0},
            {"params": kinds, "weight_decay": 0.0, "rate": self.config.kind_rate},
        ]
        return [group for group in groups if group["params"]]

    @property
    def done(self) -> float:
        """Steps or minutes done, as the phases are measured."""
        return self.step if self.config.counts_steps else self.elapsed

    def run(self) -> None:
        """Train until the configured minutes or steps are over, then save."""
        self.out.mkdir(parents=True, exist_ok=True)
        writer = self._writer()
        while self.done < self.config.length:
            self._run_phase(*self.config.phase_at(self.done), writer)
        self.save()
        if writer:
            writer.close()

    def begin_phase(self, name: str, phase: Phase) -> None:
        """Let the parts learn that the phase names."""
        if name != self.phase_name:
            self.phase_name, self.begun = name, self.step
        choose_learning(self.model, phase)
        torch.set_num_threads(max(2, os.cpu_count() or 2) if self.processes.count == 1 else 1)

    def _run_phase(self, name: str, phase: Phase, writer: Any) -> None:
        self.begin_phase(name, phase)
        self._say(f"Phase '{name}': {describe(self.model)}")
        # Drawn when first looked at: 96 samples with cubes take as long as a dozen steps.
        held_out = functools.cache(lambda: self._held_out(phase))
        saved, logged = time.monotonic(), time.monotonic()
        begun = time.monotonic() - 60 * self.elapsed
        for step, group in self.groups_of(phase):
            if step < self.step:  # drawn again for later echoes only
                continue
            self.facts.append(self.train_step(group, phase))
            now = time.monotonic()
            self.elapsed = self.processes.of_the_first((now - begun) / 60)
            over = self.done >= self.config.length or self.config.phase_at(self.done)[0] != name
            if self.step % self.config.log_steps == 0 or over:
                rate = 2 * phase.batch * self.accumulate * len(self.facts) / max(now - logged, 1e-6)
                self._log(name, rate, held_out, writer)
                self.facts, logged = [], time.monotonic()
            if now - saved > 60 * self.config.save_minutes or over:
                self.save()
                saved = now
            if over:
                return

    def groups_of(self, phase: Phase) -> Any:
        """(step, batches) from the first that a later step may ask for."""
        places = self.processes.places(self.accumulate)
        first = first_step_of(phase, self.begun, self.step)
        config, workers = self.config, self.config.workers
        dataset = Samples(self.store, "train", phase, config.seed, config, first, phase.echoes, places)
        dataset.check()
        loader = DataLoader(
            dataset, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None
        )
        return echoed(grouped(loader, len(places)), phase.echoes, config.seed, first)

    def _held_out(self, phase: Phase) -> list[Batch]:
        if not load_subjects(self.store, "validation"):
            self._say("The store has nothing for validation: the log will not tell how well new scans do.")
            return []
        validation = Samples(self.store, "validation", _validation_phase(phase), 0)
        return list(itertools.islice(validation, VALIDATION_BATCHES))

    def train_step(self, group: list[Batch], phase: Phase) -> dict[str, float]:
        """One optimizer step on one or more batches; returns what to log."""
        optimizers: list[torch.optim.Optimizer] = [
            self.optimizer,
            *([self.assisting] if self.assistants and self.assisting else []),
        ]
        for optimizer in optimizers:
            for settings in optimizer.param_groups:
                settings["lr"] = self._learning_rate() * phase.rate * settings.get("rate", 1.0)
            optimizer.zero_grad(set_to_none=True)
        set_training(self.model, self.config.freeze_norms)
        if self.assistants:
            set_training(self.assistants, self.config.freeze_norms)
        facts: list[dict[str, float]] = []
        for place, batch in zip(self.processes.places(self.accumulate), group, strict=True):
            torch.manual_seed(_seed(self.config.seed, self.step, place))
            with torch.autocast(self.device.type, **self._precision()):
                loss, found = self._losses(batch, phase)
            self.scaler.scale(loss / self.accumulate).backward()
            facts.append(found | {"loss": loss.item()})
        norm = self._take_step(optimizers)
        self.step += 1
        self._average()
        mean = float(np.mean([fact["loss"] for fact in facts]))
        return _means(facts, digits=9) | {"loss": self.processes.average(mean), "norm": norm}

    def _losses(self, batch: Batch, phase: Phase) -> tuple[Tensor, dict[str, float]]:
        loss, facts = losses_of(self.model, batch, phase.rounds, self.device)
        if hasattr(self.model, "carrying_loss"):
            carrying = self.model.carrying_loss(batch, self.device)
            loss, facts = loss + carrying, facts | {"carrying": float(carrying)}
        if "rest" in batch:
            assert self.assistants is not None
            assert self.config.supervision is not None
            networks = (self.model, self.ema, self.assistants)
            more, also = rest_losses(
                networks, batch, self.config.supervision, self.step, phase.rounds, self.device
            )
            loss, facts = loss + more, facts | also
        return loss, facts

    def _take_step(self, optimizers: list[torch.optim.Optimizer]) -> float:
        """Apply the gradients of all processes, unless they are no numbers; their norm."""
        parts: list[nn.Module] = [self.model, *([self.assistants] if self.assistants else [])]
        for part in parts:
            self.processes.total_gradients(part)
        for optimizer in optimizers:
            if any(p.grad is not None for settings in optimizer.param_groups for p in settings["params"]):
                self.scaler.unscale_(optimizer)
        norms = [nn.utils.clip_grad_norm_(list(part.parameters()), MOST_NORM) for part in parts]
        norm = norms[0]
        is_finite = all(bool(torch.isfinite(one)) for one in norms)
        if is_finite:
            for optimizer in optimizers:
                optimizer.step()
        self.scaler.update(None if is_finite else self.scaler.get_scale() / 2)
        self.processes.average_statistics(self.model)
        return norm.item()

    def _precision(self) -> dict[str, Any]:
        """For autocast."""
        if self.config.precision == "auto":
            enabled = self.device.type == "cuda" or torch.backends.mkldnn.is_available()
            return {"dtype": torch.bfloat16, "enabled": enabled}
        kind = torch.float16 if self.config.precision == "float16" else torch.bfloat16
        return {"dtype": kind, "enabled": self.config.precision != "float32"}

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warmup_steps)
        done = min(1.0, self.done / self.config.length)
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
    def _log(self, name: str, rate: float, held_out: Callable[[], list[Batch]], writer: Any) -> None:
        if not self.processes.is_first:
            return
        row: dict[str, Any] = {"step": self.step, "minutes": round(self.elapsed, 2), "phase": name}
        row |= _means(self.facts)
        row["rate"] = round(rate, 2)
        row["gate"] = round(float(self.model.decoder.fusion.gate), 4)
        row["memory_mb"] = round(peak_memory(self.device))
        if self.step % (VALIDATION_LOGS * self.config.log_steps) < self.config.log_steps:
            torch.manual_seed(0)
            checks = [losses_of(self.ema, batch, 2, self.device)[1] for batch in held_out()]
            row |= {f"validation_{key}": mean for key, mean in _means(checks).items()}
        print(json.dumps(row), flush=True)
        with (self.out / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        for key, value in row.items():
            if writer and isinstance(value, float | int) and key != "step":
                writer.add_scalar(key, value, self.step)

    def _writer(self) -> Any:
        if not (self.config.tensorboard and self.processes.is_first):
            return None
        from torch.utils.tensorboard import SummaryWriter

        # What a run that was killed had noted after its checkpoint is noted again.
        return SummaryWriter(str(self.out / "tensorboard"), purge_step=self.step + 1)

    def save(self) -> None:
        """Write weights and state; BoneSAMError and the earlier ones stay where there is no room."""
        if not self.processes.is_first:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        writers = {
            "model.safetensors": lambda path: save_file(contiguous(self.model), path),
            "ema.safetensors": lambda path: save_file(contiguous(self.ema), path),
            "optimizer.pt": lambda path: torch.save(self.optimizer.state_dict(), path),
        }
        if self.assistants and self.assisting:
            both = {"networks": self.assistants.state_dict(), "optimizer": self.assisting.state_dict()}
            writers["assistants.pt"] = lambda path: torch.save(both, path)
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "begun": self.begun,
            "phase": self.phase_name,
            "facts": self.facts,
            "scaler": self.scaler.state_dict(),
            "network": self.config.network,
            "built": {
                "network": self.config.network,
                "dim": self.config.dim,
                "image_size": self.config.image_size,
                "adapters": vars(self.config.adapters),
            },
        }
        save_checkpoint(self.out, writers, state)

    def _resume(self, state: dict[str, Any]) -> None:
        if "elapsed" not in state:
            raise BoneSAMError(f"'{self.out}' holds the training of a baseline: name another folder.")
        if state.get("network", BONESAM_T) != self.config.network:
            raise BoneSAMError(
                f"The training in '{self.out}' is of the network '{state.get('network', BONESAM_T)}', "
                f"the settings say '{self.config.network}': name another folder."
            )
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.begun, self.phase_name = state.get("begun", self.step), state.get("phase", "")
        self.facts = state.get("facts", [])
        self.scaler.load_state_dict(state.get("scaler", {}))
        try:
            self.model.load_state_dict(load_file(self.out / "model.safetensors"))
            self.ema.load_state_dict(load_file(self.out / "ema.safetensors"))
            moments = torch.load(self.out / "optimizer.pt", map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(moments)
            if self.assistants and self.assisting:
                both = torch.load(self.out / "assistants.pt", map_location="cpu", weights_only=True)
                self.assistants.load_state_dict(both["networks"])
                self.assisting.load_state_dict(both["optimizer"])
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).splitlines()[:2])
            raise BoneSAMError(
                f"The training in '{self.out}' cannot go on with these settings: {reason}"
            ) from error
        if self.processes.is_first:
            _forget_rows(self.out / "log.jsonl", self.step)

    def _say(self, sentence: str) -> None:
        if self.processes.is_first:
            print(sentence, flush=True)


def _seed(seed: int, step: int, place: int) -> int:
    """What decides the prompts of one batch of one step."""
    return int(np.random.SeedSequence([seed, step, place]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _means(facts: list[dict[str, float]], digits: int = 4) -> dict[str, float]:
    """Mean of each fact over the batches that have it, and have a number."""
    found: dict[str, float] = {}
    for key in sorted({key for fact in facts for key in fact}):
        known = [fact[key] for fact in facts if np.isfinite(fact.get(key, np.nan))]
        if known:
            found[key] = round(float(np.mean(known)), digits)
    return found


def _forget_rows(log: Path, step: int) -> None:
    """Drop what a killed run logged after its last checkpoint: it is done again."""
    if log.exists():
        rows = log.read_text().splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        if kept != rows:
            log.write_text("".join(kept))


def _validation_phase(phase: Phase) -> Phase:
    mixture = {"synthetic": 0.0, "unlabelled": 0.0}
    return Phase(size=phase.size, batch=16, attention=1.0, mixture=mixture)


def main(
    config: Annotated[Path, typer.Argument(help="YAML file, see training/configs.")],
    store: Annotated[
        Path, typer.Option(help="Training store made by training.ingest and training.synthesis.anatomy.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log; a run there is resumed.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    start: Annotated[
        str | None,
        typer.Option(
            help='Weights to begin with: "bundle", a folder made by training.export, a training\'s '
            "ema.safetensors, or an official checkpoint of the config's network."
        ),
    ] = None,
) -> None:
    """Train, or go on training."""
    try:
        try:
            Trainer(read_config(config), store, out, device, start).run()
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError | torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
            raise BoneSAMError(
                "There is not enough memory for this: lower 'batch' and raise 'accumulate' as much. "
                f"Nothing that was saved in '{out}' is lost."
            ) from error
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
