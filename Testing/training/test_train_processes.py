"""Two processes that train together take the steps that one process would take alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from Testing.training.tiny_stores import write_store

CONFIG = """
dim: 16
workers: 0
accumulate: 2
precision: float32
warmup_steps: 1
log_steps: 1
tensorboard: false
phases:
  only: {steps: 3, size: 64, batch: 1, rounds: 2, attention: 0.0, mixture: {unlabelled: 0.0, synthetic: 0.5}}
"""
# Every process starts here, with the tiny network.
PROGRAM = """
import os
import sys
from pathlib import Path
from safetensors.torch import save_file
from Testing.training.tiny_network import few_channels
from training import train
from training.configuration import read_config
train.VALIDATION_BATCHES = 0
with few_channels():
    trainer = train.Trainer(read_config(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), "cpu")
    trainer.run()
means = {name: mean for name, mean in trainer.model.state_dict().items() if "running_mean" in name}
save_file(means, sys.argv[3] + os.environ.get("RANK", "0"))
"""


def rows_of(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_two_processes_learn_as_one(tmp_path):
    store = write_store(tmp_path / "store")
    (tmp_path / "some.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, launcher in (("one", [sys.executable]), ("two", several)):
        arguments = [tmp_path / "program.py", tmp_path / "some.yaml", store, tmp_path / name]
        done = subprocess.run(
            [*launcher, *map(str, arguments)], cwd=root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [1, 2, 3]
    for alone, shared in zip(one, two, strict=True):
        assert abs(alone["loss"] - shared["loss"]) < 1e-3 * abs(alone["loss"])
        assert abs(alone["norm"] - shared["norm"]) < 1e-2 * alone["norm"]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    learned = [name for name in first if "running" not in name and "tracked" not in name]
    # Where a gradient is nothing but rounding, Adam makes a whole step of it: means are compared.
    assert all((first[name] - second[name]).abs().mean() < 3e-4 for name in learned)
    # What norms have seen is shared too: neither process has its own half of it.
    zero, other = (load_file(tmp_path / f"two{rank}") for rank in (0, 1))
    assert all(torch.equal(zero[name], other[name]) for name in zero)
    # Alone, the two batches of a step move the running mean one after the other, by a tenth each; from two
    # processes their mean moves it once.
    seen = "encoder.stem.0.1.running_mean"
    alone, shared = first[seen] / (1 - 0.9**6), second[seen] / (1 - 0.9**3)
    assert (alone - shared).abs().mean() < 0.1 * alone.abs().mean()
