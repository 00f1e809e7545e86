"""A shell script that trains, measures and compares configurations; each step goes on where it was."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from BoneSAMLib.errors import BoneSAMError
from training.configuration import read_config
from training.networks.registry import BONESAM_T

SCRIPT = "commands.sh"


class ExperimentScript:
    """Configurations in the folder `out`, and the commands that answer what they are worth.

    Args:
        out: for all files; what an experiment named NAME leaves lies in `out`/NAME.
        store: training store.
        data: folder of the annotated scans.
        evaluation: options of `training.evaluate` for all of them.

    Raises:
        BoneSAMError: the folder cannot be made.
    """

    def __init__(self, out: Path, store: Path, data: Path, evaluation: str) -> None:
        self.out, self.store, self.data, self.evaluation = out, store, data, evaluation
        self.lines = ["#!/bin/sh", "set -e"]
        self.count = 0
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BoneSAMError(f"The folder '{out}' cannot be made: {error}.") from error

    def train(self, name: str, raw: Mapping[str, Any], start: str = "", measured: bool = True) -> None:
        """Write `raw` as NAME.yaml; train it, begun with the run named `start`, and measure it.

        Raises:
            BoneSAMError: the configuration is wrong, or cannot be written.
        """
        config = self.out / f"{name}.yaml"
        self._write(config, yaml.safe_dump(dict(raw), sort_keys=False))
        network = read_config(config).network
        options = ["--start", str(self._checkpoint(start))] if start else []
        self._add("train", str(config), "--store", str(self.store), "--out", str(self.run(name)), *options)
        self.count += 1
        weights = self._checkpoint(name)
        if measured and network != BONESAM_T:  # a checkpoint is measured as it is if it is a BoneSAM-T
            weights = self.out / name / "weights"
            self._add("export", str(self._checkpoint(name)), "--out", str(weights))
        if measured:
            self._measure(name, weights)

    def train_baseline(self, name: str, config: str) -> None:
        """Train the baseline `name` from the same samples, for the same time, as the experiment `config`."""
        settings, run = str(self.out / f"{config}.yaml"), str(self.run(name))
        self._add("baselines.train", name, settings, "--store", str(self.store), "--out", run)
        self.count += 1
        self._measure(name, self.run(name))

    def compare(self, title: str, names: Mapping[str, str]) -> None:
        """Compare experiments, by what they are called in the table; the others with the first."""
        given = [f"{told}={self.out / name / 'evaluation'}" for told, name in names.items()]
        self._add("compare", *given, "--out", str(self.out / f"comparison-{title}"))

    def run(self, name: str) -> Path:
        """The folder of an experiment's checkpoints."""
        return self.out / name / "run"

    def write(self) -> Path:
        """Write the script; where it is."""
        path = self.out / SCRIPT
        self._write(path, "\n".join(self.lines) + "\n")
        return path

    @staticmethod
    def _write(path: Path, text: str) -> None:
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise BoneSAMError(f"'{path}' cannot be written: {error}.") from error

    def _checkpoint(self, name: str) -> Path:
        return self.run(name) / "ema.safetensors"

    def _measure(self, name: str, weights: Path) -> None:
        where = ["--weights", str(weights), "--out", str(self.out / name / "evaluation")]
        self._add("evaluate", "--data", str(self.data), *self.evaluation.split(), *where)

    def _add(self, module: str, *arguments: str) -> None:
        self.lines.append(f"python -m training.{module} {shlex.join(arguments)}")
