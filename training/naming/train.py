"""Train the naming network: `python -m training.naming.train STORE OUT --minutes 40`.

Kinds are learned by cross-entropy over voxels whose bone is known; where only some bones of a scan are
annotated, the others are asked only not to be of an annotated kind (marginal loss, Shi et al. 2021). Numbers
and sides are learned where there is bone.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from BoneSAMLib.bone_kinds import KINDS, LEFT, NUMBER
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.folded_unet import fold
from BoneSAMLib.model.naming import NamingNetwork, joined
from training.checkpoint import contiguous, finish_saving, read_state, save_checkpoint
from training.label_places import LEFT as LEFT_SIDE
from training.label_places import NO_SIDE, UNKNOWN
from training.naming.cubes import draw_cube, nameable
from training.store import Subject, load_subjects

# In 130 s on the same cubes: kinds right in 33 % of bone, with batches of 8 in 30 %.
BATCH = 2
BACKGROUND_WEIGHT = 0.3
REST_SHARE = 0.15  # of the voxels without a known bone: with all of them the loss took half of a step
EMA = 0.999
LOG_STEPS = 200
# Of the parts of the loss: which bone it is comes before which of a row.
SHARES = {"number": 0.3, "side": 0.3}
ECHOES = 2  # steps with each batch: drawing cubes takes as long as learning from them


class Cubes(IterableDataset[dict[str, Tensor]]):
    """Endless batches; the one for a step depends on the seed and that step only."""

    def __init__(self, store: Path, synthetic: float, held_out: Sequence[str] = (), first: int = 0) -> None:
        self.store, self.synthetic, self.held_out, self.first = store, synthetic, held_out, first

    def __iter__(self) -> Any:
        info = torch.utils.data.get_worker_info()
        if info:
            torch.set_num_threads(1)
            os.nice(10)
        subjects = usable_subjects(self.store, "train", self.held_out)
        step, start = (info.num_workers, info.id) if info else (1, 0)
        number = self.first + start
        while True:
            rng = np.random.default_rng([number, 7])
            cubes = [draw_cube(subjects, self.synthetic, rng) for _ in range(BATCH)]
            yield {key: torch.from_numpy(np.stack([cube[key] for cube in cubes])) for key in cubes[0]}
            number += step


def usable_subjects(store: Path, split: str, held_out: Sequence[str] = ()) -> dict[str, list[Subject]]:
    """Volumes of a split with bones that the network has names for, by source; without those `held_out`.

    Raises:
        BoneSAMError: there are none.
    """
    found: dict[str, list[Subject]] = {}
    for subject in load_subjects(store, split):
        flat = 1 in subject.size
        if subject.id in held_out or subject.labels is None or flat:
            continue
        if nameable(subject):
            found.setdefault(subject.source, []).append(subject)
    if not found:
        raise BoneSAMError(f"The store '{store}' has no volume with named bones for '{split}'.")
    return found


def draw_cells(batch: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """What the loss is taken of: every 2x2x2 of voxels with bone, a share of the rest.

    Holds `cells` [M] as `NamingNetwork.at_cells` takes them, `kinds` [M, 8] of their voxels, `kind`, `number`
    and `side` [M] of one of these, bone if there is any, `scan` [M], the cube that they are in, and
    `stands_for` [M], how many each is one of. `complete` stays.
    """
    kinds, numbers, sides = (fold(batch[key][:, None]) for key in ("kind", "number", "side"))
    scans, _, *shape = kinds.shape
    kinds, numbers, sides = (
        each.flatten(2).transpose(1, 2).flatten(0, 1) for each in (kinds, numbers, sides)
    )
    bone = (kinds > 0) & (kinds != UNKNOWN)
    lucky = torch.from_numpy(rng.random(len(kinds), np.float32) < REST_SHARE)
    cells = (bone.any(1) | lucky).nonzero()[:, 0]
    kinds, numbers, sides, bone = (each[cells] for each in (kinds, numbers, sides, bone))
    corner = bone.int().argmax(1, keepdim=True)
    scan = torch.arange(scans).repeat_interleave(int(np.prod(shape)))[cells]
    return {
        "cells": cells,
        "kinds": kinds,
        "kind": kinds.gather(1, corner)[:, 0],
        "number": numbers.gather(1, corner)[:, 0],
        "side": sides.gather(1, corner)[:, 0],
        "scan": scan,
        "stands_for": torch.where(bone.any(1), 1.0, 1 / REST_SHARE),
        "complete": batch["complete"],
    }


def losses(bone_logits: Tensor, which: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Loss of what `at_cells` answers at the cells of `draw_cells`, and its parts."""
    bone_logits, which = bone_logits.float(), which.float()
    kinds, kind = drawn["kinds"].long(), drawn["kind"].long()
    known, bone = kinds != UNKNOWN, (kinds > 0) & (kinds != UNKNOWN)
    stands_for = drawn["stands_for"][:, None] * known
    weight = torch.where(bone, 1.0, BACKGROUND_WEIGHT) * stands_for
    surprise = functional.binary_cross_entropy_with_logits(bone_logits, bone.float(), reduction="none")
    parts = {
        "bone": (surprise * weight).sum() / weight.sum().clamp(min=1e-6),
        "dice": _dice_loss(bone_logits.sigmoid(), bone, stands_for),
    }
    named, unknown = bone.any(1), ~known.any(1)
    if named.any():
        parts["kind"] = _kind_loss(which[named, : len(KINDS)], kind[named] - 1)
    complete = drawn["complete"].clone()
    complete[:, 0] = False
    if unknown.any() and complete.any():
        outputs = joined(bone_logits[unknown, :1], which[unknown])
        log_probability = functional.log_softmax(outputs[:, :NUMBER], 1)
        excluded = complete[drawn["scan"][unknown]]
        parts["excluded"] = -log_probability.masked_fill(excluded, -torch.inf).logsumexp(1).mean()
    number = drawn["number"].float() / 10
    numbered = number > 0
    if numbered.any():
        parts["number"] = functional.l1_loss(which[numbered, NUMBER - 1], number[numbered])
    sided = drawn["side"] != NO_SIDE
    left, is_left = which[sided, LEFT - 1], drawn["side"][sided] == LEFT_SIDE
    if sided.any():
        parts["side"] = functional.binary_cross_entropy_with_logits(left, is_left.float())
    facts = {key: float(value.detach()) for key, value in parts.items()}
    with torch.no_grad():
        found = bone_logits > 0
        facts["right"] = float((which[:, : len(KINDS)].argmax(1) + 1 == kind)[named].float().mean())
        facts["found"] = float(found[bone].float().mean())
        facts["precise"] = float((stands_for * (found & bone)).sum() / (stands_for * found).sum())
        if sided.any():
            facts["side_right"] = float(((left > 0) == is_left).float().mean())
    total = sum((SHARES.get(key, 1.0) * part for key, part in parts.items()), torch.zeros(()))
    return total, facts


def _dice_loss(probability: Tensor, bone: Tensor, weight: Tensor) -> Tensor:
    """1 minus the Dice of bone."""
    overlap = (probability * weight * bone).sum()
    return 1 - 2 * overlap / ((probability + bone.float()) * weight).sum().clamp(min=1e-6)


def _kind_loss(logits: Tensor, kind: Tensor) -> Tensor:
    """Cross-entropy in bone. Kinds count by the root of their size, or femurs would drown wrists."""
    weight = torch.bincount(kind, minlength=len(KINDS)).clamp(min=1).float().rsqrt()
    return functional.cross_entropy(logits, kind, weight)


def train(
    store: Path,
    out: Path,
    minutes: float,
    rate: float,
    synthetic: float,
    workers: int,
    held_out: Sequence[str] = (),
    start: Path | None = None,
) -> None:
    """Train for `minutes`, or go on with the run in `out`.

    Raises:
        BoneSAMError: the store has nothing to learn from, or a checkpoint cannot be read or written.
    """
    torch.manual_seed(0)
    model = NamingNetwork()
    model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if start is not None:
        try:
            parts = load_file(start)
        except (OSError, SafetensorError) as error:
            raise BoneSAMError(f"The weights '{start}' to start from cannot be read: {error}") from error
        prefix = "depth_attention."
        model.start_from({name[len(prefix) :]: t for name, t in parts.items() if name.startswith(prefix)})
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    out.mkdir(parents=True, exist_ok=True)
    finish_saving(out)
    step, elapsed = 0, 0.0
    state = read_state(out)
    if state is not None:
        step, elapsed = state["step"], state["elapsed"]
        model.load_state_dict(load_file(out / "model.safetensors"))
        mean.module.load_state_dict(load_file(out / "ema.safetensors"))
        mean.n_averaged += 1
        moments = torch.load(out / "optimizer.pt", map_location="cpu", weights_only=True)
        optimizer.load_state_dict(moments)
    usable_subjects(store, "train", held_out)
    data = Cubes(store, synthetic, held_out, step // ECHOES)
    loader = DataLoader(data, None, num_workers=workers, prefetch_factor=3 if workers else None)
    rows: list[dict[str, float]] = []
    last, saved = time.monotonic(), time.monotonic()
    for batch in (each for new in loader for each in _echoes(new)):
        share = min(elapsed / minutes, 1.0)
        now = rate * min(1.0, (step + 1) / 30) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = float(now)
        model.train()
        drawn = draw_cells(batch, np.random.default_rng([step, 13]))
        with torch.autocast("cpu", torch.bfloat16):
            cubes = batch["cube"].float().contiguous(memory_format=torch.channels_last_3d)
            bone, which = model.at_cells(cubes, drawn["cells"])
        loss, facts = losses(bone, which, drawn)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        optimizer.step()
        mean.update_parameters(model)
        step += 1
        moment = time.monotonic()
        elapsed, last = elapsed + (moment - last) / 60, moment
        rows.append(facts)
        over = elapsed >= minutes
        if step % LOG_STEPS == 0 or over:
            _log(out, step, elapsed, rows)
            rows = []
        if moment - saved > 60 or over:
            writers = {
                "model.safetensors": lambda path: save_file(contiguous(model), path),
                "ema.safetensors": lambda path: save_file(contiguous(mean.module), path),
                "optimizer.pt": lambda path: torch.save(optimizer.state_dict(), path),
            }
            save_checkpoint(out, writers, {"step": step, "elapsed": elapsed})
            saved = moment
        if over:
            return


def _echoes(batch: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """A batch, then its mirror images."""
    yield batch
    for _ in range(1, ECHOES):
        batch = batch | {key: batch[key].flip(-1) for key in ("cube", "kind", "number", "side")}
        batch["side"] = torch.where(batch["side"] == NO_SIDE, batch["side"], 1 - batch["side"])
        yield batch


def _log(out: Path, step: int, elapsed: float, rows: list[dict[str, float]]) -> None:
    row = {"step": step, "minutes": round(elapsed, 2)}
    for key in sorted({key for one in rows for key in one}):
        row[key] = round(float(np.nanmean([one.get(key, np.nan) for one in rows])), 4)
    print(json.dumps(row), flush=True)
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(row) + "\n")


def main(
    store: Annotated[Path, typer.Argument(help="Training store; anatomy and scans with named bones.")],
    out: Annotated[Path, typer.Argument(help="Folder for checkpoints and log; a run there is resumed.")],
    minutes: Annotated[
        float, typer.Option(min=0.01, help="How long, with earlier runs in the folder.")
    ] = 40.0,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    synthetic: Annotated[float, typer.Option(help="Share of cubes that are anatomy, not scans.")] = 0.7,
    workers: Annotated[int, typer.Option(help="Processes that draw cubes.")] = 2,
    start: Annotated[
        Path | None, typer.Option(help="model.safetensors of a BoneSAM-T: begin with its depth attention.")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="A subject to keep for training.naming.evaluate; repeatable."),
    ] = None,
) -> None:
    """Train the naming network, or go on training it."""
    try:
        train(store, out, minutes, rate, synthetic, workers, held_out or (), start)
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
