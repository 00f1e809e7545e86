"""Train BoneSAM-T: `python -m training.train CONFIG --store DIR --out DIR`.

All three networks learn in one loop. The depth attention learns from cubes; its answer, detached, is what the
2D branch sees, for the same randomly warped region, as in use.
"""

import copy
import itertools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.bonesam import BoneSAM
from training.configuration import Config, Phase, read_config
from training.prompted_step import losses_of
from training.sampling import Mixture, draw_sample
from training.store import load_subjects

VALIDATION_BATCHES = 6
ECHO_BUFFER = 24  # batches; an echo right after its batch teaches nothing new


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
        if not subjects:
            raise BoneSAMError(f"There are no subjects of the {self.split} split in '{self.store}'.")
        mixture = Mixture(**self.phase.mixture)
        while True:
            cubes = bool(rng.random() < self.phase.attention)
            samples = [
                draw_sample(subjects, mixture, self.phase.size, cubes, rng) for _ in range(self.phase.batch)
            ]
            yield {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


class Trainer:
    """The loop, its checkpoints and its log."""

    def __init__(
        self, config: Config, store: Path, out: Path, device: str, start: Path | None = None
    ) -> None:
        self.config, self.store, self.out, self.device = config, store, out, torch.device(device)
        torch.manual_seed(config.seed)
        # Channels-last lets CPU matrix units run convolutions without repacking: 1.6 times faster overall.
        self.model = BoneSAM(config.dim).to(self.device)
        for part, layout in (
            (self.model.encoder, torch.channels_last),
            (self.model.decoder, torch.channels_last),
            (self.model.depth_attention, torch.channels_last_3d),
        ):
            part.to(memory_format=layout)  # type: ignore[call-overload]  # torch's overloads forget it
        if start is not None:
            begin_from(self.model, start)
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
        """Train until the configured minutes are over, then save."""
        self.out.mkdir(parents=True, exist_ok=True)
        while self.elapsed < self.config.minutes:
            self._run_phase(*self.config.phase_at(self.elapsed))
        self.save()

    def _run_phase(self, name: str, phase: Phase) -> None:
        dataset = Samples(self.store, "train", phase, self.config.seed + self.step)
        workers = self.config.workers
        ahead = 4 if workers else None
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=ahead)
        validation = Samples(self.store, "validation", _validation_phase(phase), 0)
        held_out = list(itertools.islice(validation, VALIDATION_BATCHES))
        torch.set_num_threads(max(2, os.cpu_count() or 2))
        start, saved, logged = time.monotonic(), time.monotonic(), time.monotonic()
        begun = self.elapsed
        facts: list[dict[str, float]] = []
        for batch in echoed(loader, phase.echoes, np.random.default_rng(self.step)):
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
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._average()
        return facts | {"loss": loss.item(), "norm": norm.item()}

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
        row: dict[str, Any] = {"step": self.step, "minutes": round(self.elapsed, 2), "phase": name}
        row |= _means(facts)
        row["rate"] = round(rate, 2)
        row["gate"] = round(float(self.model.decoder.fusion.gate), 4)
        if self.step % 500 < 100:
            torch.manual_seed(0)
            checks = [losses_of(self.ema, batch, 2, self.device)[1] for batch in held_out]
            row |= {f"validation_{key}": mean for key, mean in _means(checks).items()}
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
        moments = torch.load(self.out / "optimizer.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(moments)


def echoed(
    batches: Iterable[dict[str, Tensor]], echoes: int, rng: np.random.Generator
) -> Iterator[dict[str, Tensor]]:
    """Every batch once as it comes and `echoes` - 1 times, on average, among later ones."""
    recent: deque[dict[str, Tensor]] = deque(maxlen=ECHO_BUFFER)
    for batch in batches:
        yield batch
        recent.append(batch)
        for _ in range(echoes - 1):
            yield recent[int(rng.integers(len(recent)))]


def _means(facts: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each fact over the batches that have it."""
    keys = sorted({key for fact in facts for key in fact})
    return {key: round(float(np.nanmean([fact[key] for fact in facts if key in fact])), 4) for key in keys}


def begin_from(model: BoneSAM, weights: Path) -> None:
    """Take from an earlier training's weights every tensor that has the same name and shape here.

    Raises:
        BoneSAMError: the file cannot be read, or nothing in it fits.
    """
    try:
        found = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise BoneSAMError(f"The weights '{weights}' to start from cannot be read: {error}") from error
    own = model.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise BoneSAMError(f"Nothing in '{weights}' fits this network: name a training's ema.safetensors.")
    model.load_state_dict(fitting, strict=False)
    print(f"{len(fitting)} of {len(own)} tensors are taken from '{weights}'.", flush=True)


def _contiguous(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def _validation_phase(phase: Phase) -> Phase:
    return Phase(
        minutes=0, size=phase.size, batch=16, attention=1.0, mixture={"synthetic": 0.0, "unlabelled": 0.0}
    )


def main(
    config: Annotated[Path, typer.Argument(help="YAML file, see training/configs.")],
    store: Annotated[
        Path, typer.Option(help="Training store made by training.store and training.synthesis.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and log; a run there is resumed.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    start: Annotated[
        Path | None, typer.Option(help="Weights of another training to begin with, where shapes fit.")
    ] = None,
) -> None:
    """Train, or go on training, BoneSAM-T."""
    try:
        Trainer(read_config(config), store, out, device, start).run()
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
