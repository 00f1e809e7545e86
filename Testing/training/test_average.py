"""The mean of checkpoints, and what is refused."""

import json

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from training.average import main


@pytest.fixture
def run(tmp_path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        (tmp_path / name).mkdir()
        tensors = {"weight": torch.full((2, 3), value), "steps": torch.tensor(int(value) * 10)}
        save_file(tensors, tmp_path / name / "ema.safetensors")
        (tmp_path / name / "state.json").write_text(json.dumps({"of": name}))
    app = typer.Typer()
    app.command()(main)
    return lambda *names: CliRunner().invoke(
        app, [*(str(tmp_path / name) for name in names), "--out", str(tmp_path / "m")]
    )


def test_every_tensor_is_the_mean_and_the_state_that_of_the_first(run, tmp_path):
    found = run("a/ema.safetensors", "b/ema.safetensors")
    assert found.exit_code == 0, found.output
    mean = load_file(tmp_path / "m" / "ema.safetensors")
    assert torch.equal(mean["weight"], torch.full((2, 3), 2.0))
    assert (mean["steps"].item(), mean["steps"].dtype) == (20, torch.int64)
    assert json.loads((tmp_path / "m" / "state.json").read_text()) == {"of": "a"}


def test_other_networks_and_missing_files_are_refused(run, tmp_path):
    save_file({"weight": torch.zeros(3, 3)}, tmp_path / "b" / "other.safetensors")
    for name, said in (("b/other.safetensors", "another network"), ("b/none.safetensors", "cannot be read")):
        found = run("a/ema.safetensors", name)
        assert found.exit_code == 2
        assert said in found.output
        assert not (tmp_path / "m").exists()
