"""Batches of a phase, each decided by the seed and by the step that it is drawn for, and by nothing else.

So a training that was interrupted goes on with the batches that it would have had, whatever the number of
workers and processes.
"""

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from BoneSAMLib.errors import BoneSAMError
from training.configuration import Config, Phase
from training.few_shot import choose_few
from training.sampling import Mixture, draw_sample
from training.semi_supervision.annotation_levels import mixture_of_rest, split_by_annotation
from training.sequence_remap import remap_sample
from training.store import Subject, load_subjects

ECHO_BUFFER = 24  # batches; an echo right after its batch teaches nothing new
Batch = dict[str, Any]


class Samples(IterableDataset[Batch]):
    """Endless batches from the store.

    The first is drawn for step `first`, the following ones for every `stride`-th step after it. A step has
    one batch for each number in `places`. With `config`, its choices of subjects count; a batch then holds
    under "rest" another one of scans without masks, if there are any and a loss asks for them.
    """

    def __init__(
        self,
        store: Path,
        split: str,
        phase: Phase,
        seed: int,
        config: Config | None = None,
        first: int = 0,
        stride: int = 1,
        places: Sequence[int] = (0,),
    ) -> None:
        self.store, self.split, self.phase, self.seed, self.config = store, split, phase, seed, config
        self.first, self.stride, self.places = first, stride, places

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        if info:
            torch.set_num_threads(1)
            # Sharing a core with one compute thread makes all compute threads wait for it.
            os.nice(10)
        subjects, rest = self._subjects()
        step, start = (info.num_workers, info.id) if info else (1, 0)
        for number in itertools.count(start, step):
            turn, place = divmod(number, len(self.places))
            rng = np.random.default_rng([self.seed, self.first + turn * self.stride, self.places[place]])
            batch: Batch = self._draw(subjects, Mixture(**self.phase.mixture), rng)
            if rest:
                assert self.config is not None
                batch["rest"] = self._draw(rest, mixture_of_rest(self.config.supervision), rng)
            yield batch

    def check(self) -> None:
        """Raise here what a worker would raise with its traceback: BoneSAMError, nothing can be drawn."""
        self._chosen()

    def _chosen(self) -> list[Subject]:
        subjects = load_subjects(self.store, self.split)
        if not subjects:
            raise BoneSAMError(f"There are no subjects of the {self.split} split in '{self.store}'.")
        if self.config and self.config.few_shot:
            subjects = choose_few(subjects, self.config.few_shot, self.config.seed)
        return subjects

    def _subjects(self) -> tuple[list[Subject], list[Subject]]:
        subjects = self._chosen()
        if self.config and self.config.supervision:
            known, rest = split_by_annotation(subjects, self.config.supervision, self.config.seed)
            return known, rest if self.config.supervision.learns_from_rest else []
        return subjects, []

    def _draw(self, subjects: list[Subject], mixture: Mixture, rng: np.random.Generator) -> dict[str, Tensor]:
        phase = self.phase
        cubes = bool(rng.random() < phase.attention)
        samples = [draw_sample(subjects, mixture, phase.size, cubes, rng) for _ in range(phase.batch)]
        for sample in samples:
            if rng.random() < phase.remap:
                remap_sample(sample, rng)
        return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


def first_step_of(phase: Phase, begun: int, step: int) -> int:
    """The step from which batches must be drawn again, for `echoed` to know at `step` what it knew then."""
    drawn = (step - begun) // phase.echoes
    remembered = ECHO_BUFFER if phase.echoes > 1 else 0
    return begun + max(0, drawn - remembered) * phase.echoes


def grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    """The batches of one step after those of the other."""
    one_by_one = iter(batches)
    while group := list(itertools.islice(one_by_one, count)):
        yield group


def echoed(groups: Iterable[Any], echoes: int, seed: int, first: int) -> Iterator[tuple[int, Any]]:
    """(step, group) from step `first` on: every group as it comes, later `echoes` - 1 times on average."""
    recent: deque[Any] = deque(maxlen=ECHO_BUFFER)
    step = first
    for group in groups:
        yield step, group
        step += 1
        recent.append(group)
        for _ in range(echoes - 1):
            yield step, recent[int(np.random.default_rng([seed, step]).integers(len(recent)))]
            step += 1
