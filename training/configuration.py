"""What decides a training run, read from a YAML file such as those in training/configs."""

import difflib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from BoneSAMLib.errors import BoneSAMError
from training.sampling import Mixture


@dataclass
class Phase:
    """A stretch of training with one mixture of samples and one resolution."""

    minutes: float
    size: int = 192  # pixels of the region; 256 in use
    batch: int = 12  # cases of two slices
    rounds: int = 3  # most decoder rounds per sample; each round after the first adds a click
    attention: float = 0.6  # share of batches that run the depth attention
    echoes: int = 1  # times that each batch is used, with other prompts (data echoing, Choi et al. 2019)
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
        """Length of all phases together."""
        return sum(phase.minutes for phase in self.phases.values())

    def phase_at(self, minutes: float) -> tuple[str, Phase]:
        """Name and settings of the phase after so many minutes of training; at the end the last one."""
        for name, phase in self.phases.items():
            if minutes < phase.minutes:
                return name, phase
            minutes -= phase.minutes
        return name, phase


def read_config(path: Path) -> Config:
    """Read a YAML file.

    Raises:
        BoneSAMError: it cannot be read, has an unknown key, lacks one, or has a word in place of a number.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BoneSAMError(f"The training settings '{path}' cannot be read: {error}") from error
    settings = _checked(Config, raw, f"'{path}'")
    phases = {}
    for name, facts in _mapping(settings.pop("phases"), f"'phases' of '{path}'").items():
        phases[name] = Phase(**_checked(Phase, facts, f"phase '{name}' of '{path}'"))
        _checked(Mixture, phases[name].mixture, f"the mixture of phase '{name}' of '{path}'")
    if not phases:
        raise BoneSAMError(f"There is no phase in '{path}': give at least one.")
    return Config(phases=phases, **settings)


def _checked(kind: type, raw: Any, where: str) -> dict[str, Any]:
    """The settings of a dataclass, or BoneSAMError saying what is wrong with them."""
    settings = dict(_mapping(raw, where))
    known = {entry.name: entry for entry in fields(kind)}
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            raise BoneSAMError(f"Unknown setting '{name}' in {where}: did you mean '{near[0]}'?")
        # YAML takes 1e-3 for a word; it wants 1.0e-3.
        if known[name].type is float and type(value) not in (int, float):
            raise BoneSAMError(f"'{name}' in {where} must be a number, not {value!r}.")
        if known[name].type is int and type(value) is not int:
            raise BoneSAMError(f"'{name}' in {where} must be a whole number, not {value!r}.")
    for name, entry in known.items():
        if name not in settings and entry.default is MISSING and entry.default_factory is MISSING:
            raise BoneSAMError(f"'{name}' is missing in {where}.")
    return settings


def _mapping(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BoneSAMError(f"Settings by name are expected in {where}, not {raw!r}.")
    return raw
