"""How fast a configuration trains here: ``python -m training.throughput CONFIG --store DIR``.

Three rates, each in samples (two slices) a second: drawing samples alone, learning from one batch again and
again, and training as it is. Where training is much slower than learning alone, loading holds it up. On a CPU
both share the cores, and training is slower than either.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.utils.data import DataLoader

from BoneSAMLib.errors import BoneSAMError
from training.batches import Samples
from training.configuration import Config, Phase, read_config
from training.train import Trainer

WARM_UP = 3  # steps that are not counted: workers start, convolutions choose their kernels


@dataclass(frozen=True)
class Throughput:
    """Rates of one phase in samples a second."""

    phase: str
    drawing: float  # times the echoes: what the loop could learn from
    learning: float
    training: float

    @property
    def busy(self) -> float:
        """Share of the time that training spends on learning, were the cores not shared."""
        return min(1.0, self.training / self.learning)


def throughput(config: Config, store: Path, device: str, seconds: float) -> Iterator[Throughput]:
    """Measure every phase of a configuration for three times `seconds`.

    Raises:
        BoneSAMError: the store has nothing to learn from, or the network cannot be built.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, store, Path(folder), device)
        for name, phase in config.phases.items():
            trainer.begin_phase(name, phase)
            samples = phase.batch * trainer.accumulate
            groups = (group for _, group in trainer.groups_of(phase))
            batch = next(groups)
            training = _rate(lambda: trainer.train_step(next(groups), phase), seconds, device)  # noqa: B023
            groups.close()  # with its workers, which would go on drawing
            learning = _rate(lambda: trainer.train_step(batch, phase), seconds, device)  # noqa: B023
            drawing = _drawing_rate(config, phase, store, seconds)
            drawn = phase.echoes * phase.batch * drawing
            yield Throughput(name, drawn, samples * learning, samples * training)


def _drawing_rate(config: Config, phase: Phase, store: Path, seconds: float) -> float:
    workers = config.workers
    dataset = Samples(store, "train", phase, config.seed, config)
    batches = iter(DataLoader(dataset, batch_size=None, num_workers=workers))
    return _rate(lambda: next(batches), seconds, "cpu")


def _rate(work: Callable[[], Any], seconds: float, device: str) -> float:
    """Calls of `work` a second."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    for _ in range(WARM_UP):
        work()
    wait()
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < seconds:
        work()
        count += 1
    wait()
    return count / (time.perf_counter() - start)


def main(
    config: Annotated[Path, typer.Argument(help="YAML file, see training/configs.")],
    store: Annotated[Path, typer.Option(help="Training store.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seconds: Annotated[float, typer.Option(min=0.0, help="Of each of the three measurements.")] = 30.0,
) -> None:
    """Measure how fast a configuration trains on this machine."""
    try:
        for found in throughput(read_config(config), store, device, seconds):
            print(json.dumps(asdict(found) | {"busy": round(found.busy, 2)}), flush=True)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
