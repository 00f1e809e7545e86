"""Rates of training are those of the work that is done."""

import time

import pytest
import typer
from typer.testing import CliRunner

from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import write_store
from training import throughput, train
from training.configuration import Config, Phase
from training.throughput import Throughput


@pytest.fixture(autouse=True)
def tiny_network():
    with few_channels():
        yield


def test_every_phase_is_measured_and_slow_steps_lower_the_right_rates(tmp_path, monkeypatch):
    store = write_store(tmp_path / "store")
    phase = Phase(steps=1, size=64, batch=3, rounds=1, attention=0.0, echoes=2)
    config = Config({"a": phase, "b": phase}, dim=16, workers=0, tensorboard=False)

    def step(trainer, group, phase):
        assert len(group[0]["mode"]) == 3
        trainer.step += 1
        time.sleep(0.05)
        return {}

    monkeypatch.setattr(train.Trainer, "train_step", step)
    first, second = throughput.throughput(config, store, "cpu", 0.2)
    assert (first.phase, second.phase) == ("a", "b")
    for found in (first, second):
        assert 30 < found.learning <= 60  # three samples in 0.05 s
        assert 0 < found.training < found.learning
        assert found.drawing > 0
        assert 0 < found.busy < 1


def test_busy():
    assert Throughput("a", 100, 10, 8).busy == 0.8
    assert Throughput("a", 100, 10, 10.3).busy == 1.0


def test_a_store_with_nothing_to_learn_from(tmp_path):
    (tmp_path / "c.yaml").write_text("phases: {a: {steps: 1}}\nworkers: 0\n")
    (tmp_path / "store").mkdir()
    app = typer.Typer()
    app.command()(throughput.main)
    done = CliRunner().invoke(app, [str(tmp_path / "c.yaml"), "--store", str(tmp_path / "store")])
    assert done.exit_code == 2
    assert "store" in done.output
