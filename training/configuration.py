"""What decides a training run, read from a YAML file such as those in training/configs."""

import difflib
from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from BoneSAMLib.errors import BoneSAMError
from training.sampling import Mixture

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
LEVELS = ("unlabelled", "image", "box", "partial")
# What can be told to learn, and how its parameters' names begin.
PARTS: dict[str, str | tuple[str, ...]] = {
    "encoder": "encoder.",
    "pyramid": ("encoder.laterals.", "encoder.smooth", "encoder.narrow.", "encoder.neck."),
    "depth_attention": "depth_attention.",
    "decoder": "decoder.",
    "fusion": ("decoder.fusion.", "decoder.prior."),
    "prompts": "decoder.prompt_encoder.",
    "kinds": "decoder.kind_prompt.",
    "masks": "decoder.mask_decoder.",
    "memory": "memory.",
    "adapters": "",
}


@dataclass
class Phase:
    """A stretch of training with one mixture of samples and one resolution."""

    minutes: float = 0.0  # how long; or
    steps: int = 0  # how many optimizer steps: only then can a run be repeated exactly
    size: int = 192  # pixels of the region; 256 in use
    batch: int = 12  # cases of two slices
    rounds: int = 3  # most decoder rounds per sample; most of those after the first add a click
    attention: float = 0.6  # share of batches that run the depth attention
    echoes: int = 1  # times that each batch is used, with other prompts (data echoing, Choi et al. 2019)
    rate: float = 1.0  # of the learning rate
    learn: list[str] = field(default_factory=list)  # parts of the network; none named: all
    remap: float = 0.0  # share of samples shown as another sequence might show them
    mixture: dict[str, Any] = field(default_factory=dict)


@dataclass
class FewShot:
    """Train on a few annotations of one place in the body. One of `volumes` and `slices` is given."""

    sources: list[str]  # as the store calls them; none named: all
    volumes: int = 0
    slices: int = 0


@dataclass
class Adapters:
    """Small trainable parts in frozen networks; 0 leaves a kind out."""

    bottleneck: int = 0  # a bottleneck is this many times narrower than what it adapts
    low_rank: int = 0  # rank of what is added to attention's projections and BoneSAM-T's convolutions


@dataclass
class Supervision:
    """What is done with training scans of which less is known than masks. Weights of 0 leave a loss out."""

    labelled: float = 1.0  # share of the annotated scans whose masks are used
    rest: str = "unlabelled"  # what is known of the others, see `LEVELS`
    image_labels: float = 0.0
    boxes: float = 0.0
    mean_teacher: float = 0.0
    two_decoders: float = 0.0
    adversarial: float = 0.0
    self_training: float = 0.0
    confidence: float = 0.9  # of a pixel, for self-training
    ramp_steps: int = 400  # until these losses count fully

    @property
    def learns_from_rest(self) -> bool:
        """Whether any loss asks something of scans without masks."""
        pixels = self.mean_teacher or self.two_decoders or self.adversarial or self.self_training
        return bool(self.image_labels or self.boxes or pixels)


@dataclass
class Config:
    """Everything that decides a training run."""

    phases: dict[str, Phase]
    network: str = "bonesam-t"  # see training.networks.registry
    start: str = ""  # "bundle", or weights to begin with
    learning_rate: float = 1e-3
    kind_rate: float = 1.0  # of the learning rate, for what the names of bones mean; few samples show each
    weight_decay: float = 0.05
    warmup_steps: int = 300
    ema: float = 0.9985
    dim: int = 128
    image_size: int = 1024  # pixels that an official encoder is shown
    seed: int = 0
    workers: int = 2
    accumulate: int = 1  # batches per step, over all processes
    precision: str = "auto"
    freeze_norms: bool = False  # batch norms keep their statistics: for small data, and from a bundle
    save_minutes: float = 3.0
    log_steps: int = 100
    tensorboard: bool = True
    adapters: Adapters = field(default_factory=Adapters)
    few_shot: FewShot | None = None
    supervision: Supervision | None = None

    @property
    def counts_steps(self) -> bool:
        """Whether phases are measured in steps, not minutes."""
        return any(phase.steps for phase in self.phases.values())

    @property
    def length(self) -> float:
        """Of all phases together, in steps or minutes."""
        return sum(phase.steps or phase.minutes for phase in self.phases.values())

    def phase_at(self, done: float) -> tuple[str, Phase]:
        """Name and settings of the phase after so many steps or minutes; at the end the last one."""
        for name, phase in self.phases.items():
            length = phase.steps or phase.minutes
            if done < length:
                return name, phase
            done -= length
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
        phases[name] = _phase(facts, f"phase '{name}' of '{path}'")
    if not phases:
        raise BoneSAMError(f"There is no phase in '{path}': give at least one.")
    for name, kind in (("adapters", Adapters), ("few_shot", FewShot), ("supervision", Supervision)):
        if name in settings:
            where = f"'{name}' of '{path}'"
            settings[name] = kind(**_checked(kind, settings[name], where))
    config = Config(phases=phases, **settings)
    _check_together(config, f"'{path}'")
    return config


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def _phase(facts: Any, where: str) -> Phase:
    phase = Phase(**_checked(Phase, facts, where))
    _checked(Mixture, phase.mixture, f"the mixture of {where}")
    if (phase.minutes > 0) == (phase.steps > 0):
        raise BoneSAMError(f"Give either 'minutes' or 'steps' in {where}.")
    for part in phase.learn:
        _one_of(part, PARTS, "part to learn", where)
    return phase


def _check_together(config: Config, where: str) -> None:
    _one_of(config.precision, PRECISIONS, "precision", where)
    if len({phase.steps > 0 for phase in config.phases.values()}) > 1:
        raise BoneSAMError(f"Some phases in {where} have 'minutes' and some 'steps': give all the same.")
    if config.accumulate < 1 or config.log_steps < 1:
        raise BoneSAMError(f"'accumulate' and 'log_steps' in {where} must be at least 1.")
    if config.few_shot and (config.few_shot.volumes > 0) == (config.few_shot.slices > 0):
        raise BoneSAMError(f"Give either 'volumes' or 'slices' in 'few_shot' of {where}.")
    if config.supervision:
        _one_of(config.supervision.rest, LEVELS, "kind of annotation", where)
        if not 0 < config.supervision.labelled <= 1:
            raise BoneSAMError(f"'labelled' in 'supervision' of {where} must be above 0 and at most 1.")
        for name, level in (("boxes", "box"), ("image_labels", "image")):
            if getattr(config.supervision, name) and config.supervision.rest != level:
                raise BoneSAMError(f"'{name}' in 'supervision' of {where} needs 'rest: {level}' beside it.")


def _one_of(name: str, known: Collection[str], kind: str, where: str) -> None:
    if name not in known:
        raise BoneSAMError(f"Unknown {kind} '{name}' in {where}: did you mean '{nearest(str(name), known)}'?")


_WANTED = {
    float: ("a number", (int, float)),
    int: ("a whole number", (int,)),
    bool: ("yes or no", (bool,)),
    str: ("a word", (str,)),
    list[str]: ("a list of words", (list,)),
}


def _checked(kind: type, raw: Any, where: str) -> dict[str, Any]:
    """The settings of a dataclass, or BoneSAMError saying what is wrong with them."""
    settings = dict(_mapping(raw, where))
    known = {entry.name: entry for entry in fields(kind)}
    for name, value in settings.items():
        if name not in known:
            raise BoneSAMError(
                f"Unknown setting '{name}' in {where}: did you mean '{nearest(str(name), known)}'?"
            )
        # YAML takes 1e-3 for a word; it wants 1.0e-3.
        wanted, types = _WANTED.get(known[name].type, ("", ()))  # type: ignore[arg-type]
        if types and type(value) not in types:
            raise BoneSAMError(f"'{name}' in {where} must be {wanted}, not {value!r}.")
    for name, entry in known.items():
        if name not in settings and entry.default is MISSING and entry.default_factory is MISSING:
            raise BoneSAMError(f"'{name}' is missing in {where}.")
    return settings


def _mapping(raw: Any, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BoneSAMError(f"Settings by name are expected in {where}, not {raw!r}.")
    return raw
