"""Training steps change the weights, and a run that was stopped anywhere goes on as if it had not been."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from BoneSAMLib.errors import BoneSAMError
from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import write_store
from training import train
from training.batches import ECHO_BUFFER, echoed, first_step_of, grouped
from training.configuration import Config, Phase
from training.train import Samples, Trainer

FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json")
SMALL = Phase(minutes=1e-6, size=64, batch=1, rounds=2, attention=1.0, mixture={"unlabelled": 0.0})
FLAT = {"size": 64, "batch": 1, "rounds": 2, "attention": 0.0, "mixture": {"unlabelled": 0.0}}


@pytest.fixture(autouse=True, scope="module")
def tiny_network():
    with few_channels():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def little_validation(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(train, "VALIDATION_BATCHES", 1)
    scans = {"synthetic": 0.0, "unlabelled": 0.0}
    little = Phase(0, size=SMALL.size, batch=1, attention=1.0, mixture=scans)
    monkeypatch.setattr(train, "_validation_phase", lambda phase: little)
    yield
    torch.set_num_threads(threads)


def trainer(store, out, minutes=1e-6, **changes):
    phase = Phase(**(vars(SMALL) | {"minutes": minutes}))
    settings = {"dim": 32, "workers": 0, "warmup_steps": 1, "tensorboard": False} | changes
    return Trainer(Config({"only": phase}, **settings), store, out, "cpu")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def begun(store, tiny_network, tmp_path_factory):
    """Folder of a run that was saved after two steps."""
    out = tmp_path_factory.mktemp("begun")
    run = trainer(store, out)
    batches = iter(Samples(store, "train", SMALL, 0))
    for _ in range(2):
        run.train_step([next(batches)], SMALL)
    run.elapsed = 1.5
    run.save()
    return out


def test_steps_change_the_weights_and_their_average_follows(store, tmp_path):
    run = trainer(store, tmp_path)
    first = weights(run.model)
    assert same(first, weights(run.ema))
    batches = iter(Samples(store, "train", SMALL, 0))
    for _ in range(2):
        facts = run.train_step([next(batches)], SMALL)
    assert run.step == 2
    assert np.isfinite(facts["loss"])
    assert facts["norm"] > 0
    now, mean = weights(run.model), weights(run.ema)
    learned = [name for name, _ in run.model.named_parameters()]
    assert np.mean([not torch.equal(first[name], now[name]) for name in learned]) > 0.9
    assert all(tensor.isfinite().all() for tensor in now.values())
    for part in ("encoder", "depth_attention", "decoder"):
        distance = [float((mean[n] - now[n]).abs().sum()) for n in learned if n.startswith(part)]
        moved = [float((first[n] - now[n]).abs().sum()) for n in learned if n.startswith(part)]
        assert 0 < sum(distance) < sum(moved)
    assert mean["encoder.stem.0.1.num_batches_tracked"] == now["encoder.stem.0.1.num_batches_tracked"]


def test_names_may_learn_faster_than_the_rest(store, tmp_path, monkeypatch):
    run = trainer(store, tmp_path, kind_rate=30.0)
    prompts, token = (
        run.model.decoder.prompt_encoder.not_a_point_embed.weight,
        run.model.decoder.kind_prompt.token,
    )
    monkeypatch.setattr(train, "losses_of", lambda *_: (prompts.mean() + token.mean(), {}))
    before = prompts.detach().clone(), token.detach().clone()
    run.train_step([{}], SMALL)
    # AdamW's first step is as long as the learning rate, wherever there is a gradient.
    rate = run.config.learning_rate
    assert float((before[0] - prompts).detach().abs().mean()) == pytest.approx(rate, rel=0.1)
    assert float((before[1] - token).detach().abs().mean()) == pytest.approx(30 * rate, rel=0.1)


@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_a_loss_that_is_no_number_does_not_break_the_weights(store, tmp_path, monkeypatch, precision):
    run = trainer(store, tmp_path, precision=precision)
    before = weights(run.model)
    monkeypatch.setattr(
        train, "losses_of", lambda model, *_: (model.decoder.fusion.gate.sum() * torch.nan, {})
    )
    run.train_step([{}], SMALL)
    assert run.step == 1
    assert same(before, weights(run.model))
    assert all(tensor.isfinite().all() for tensor in weights(run.ema).values())


def test_accumulated_batches_step_as_their_mean(store, tmp_path, monkeypatch):
    """Two losses of one weight: their mean decides the gradient, so that neither is seen alone."""
    run = trainer(store, tmp_path, accumulate=2, precision="float32")
    gate = run.model.decoder.fusion.gate_logit
    monkeypatch.setattr(
        train, "losses_of", lambda model, batch, *_: (model.decoder.fusion.gate_logit.sum() * batch["x"], {})
    )
    seen = []
    monkeypatch.setattr(run.optimizer, "step", lambda: seen.append(float(gate.grad)))
    facts = run.train_step([{"x": 0.5}, {"x": 1.5}], SMALL)
    assert seen == [1.0]
    assert facts["norm"] == 1.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_every_precision_learns(store, tmp_path, precision):
    run = trainer(store, tmp_path, precision=precision)
    before = weights(run.model)
    facts = run.train_step([next(iter(Samples(store, "train", Phase(minutes=1, **FLAT), 0)))], Phase(**FLAT))
    assert np.isfinite(facts["norm"])
    assert not torch.equal(before["encoder.neck.weight"], run.model.encoder.neck.weight)


def test_the_loop_stops_in_time_and_counts_on(store, tmp_path):
    first = trainer(store, tmp_path, tensorboard=True)
    first.run()
    assert first.step == 1
    assert first.elapsed > 0
    second = trainer(store, tmp_path, minutes=first.elapsed + 1e-6)
    assert (second.step, second.elapsed) == (1, first.elapsed)
    assert {int(moments["step"]) for moments in second.optimizer.state_dict()["state"].values()} == {1}
    second.run()
    assert second.step == 2
    assert second.elapsed > first.elapsed
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["step"], state["elapsed"], state["facts"]) == (2, second.elapsed, [])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert {"loss", "norm", "rate", "gate", "phase", "memory_mb", "validation_cube"} <= set(rows[0])
    assert rows[0]["memory_mb"] > 50
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([*FILES, "log.jsonl", "tensorboard"])
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"validation_cube" in events.read_bytes()
    done = trainer(store, tmp_path, minutes=first.elapsed)
    done.run()
    assert done.step == 2


def test_a_training_of_before_the_state_knew_phases_goes_on(store, begun, tmp_path):
    for file in FILES[:-1]:
        (tmp_path / file).write_bytes((begun / file).read_bytes())
    (tmp_path / "state.json").write_text('{"step": 2, "elapsed": 1.5}')
    run = trainer(store, tmp_path)
    assert (run.step, run.elapsed, run.begun) == (2, 1.5, 2)
    assert same(weights(run.model), load_file(begun / "model.safetensors"))
    assert same(weights(run.ema), load_file(begun / "ema.safetensors"))
    assert not same(weights(run.ema), weights(run.model))


class Killed(Exception):
    pass


def in_steps(store, out, **changes):
    """Two phases of echoed batches that are counted in steps."""
    phases = {
        "first": Phase(steps=4, echoes=2, **FLAT),
        "second": Phase(steps=3, echoes=2, **(FLAT | {"size": 96})),
    }
    settings = {"dim": 32, "workers": 0, "log_steps": 3, "tensorboard": False} | changes
    return Trainer(Config(phases, **settings), store, out, "cpu")


def rows_of(out):
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("minutes", "rate", "memory_mb")} for row in rows]


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(store, tmp_path, monkeypatch):
    whole = in_steps(store, tmp_path / "whole")
    whole.run()
    assert whole.step == 7
    out, deaths = tmp_path / "killed", [1, 2, 3, 5, 6]  # in this step, after another has done its work
    for death in deaths:
        run = in_steps(store, out, save_minutes=0.0)
        step, save = run.train_step, run.save

        def dying(group, phase, run=run, step=step, death=death):
            facts = step(group, phase)
            if run.step == death + 1:
                raise Killed
            return facts

        def saving(run=run, save=save):
            if run.step != 5:  # so that some work is lost
                save()

        monkeypatch.setattr(run, "train_step", dying)
        monkeypatch.setattr(run, "save", saving)
        with pytest.raises(Killed):
            run.run()
    last = in_steps(store, out)
    assert last.step == 6
    last.run()
    assert same(weights(whole.model), weights(last.model))
    assert same(weights(whole.ema), weights(last.ema))
    assert rows_of(tmp_path / "whole") == rows_of(out)
    moments = [run.optimizer.state_dict()["state"] for run in (whole, last)]
    assert all(same(moments[0][key], moments[1][key]) for key in moments[0])


def test_workers_change_nothing_of_what_is_drawn(store):
    phase = Phase(steps=1, **FLAT)
    alone = iter(Samples(store, "train", phase, 7, places=range(2)))
    expected = [next(alone) for _ in range(6)]
    dataset = Samples(store, "train", phase, 7, places=range(2))
    loader = iter(torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=3))
    found = [next(loader) for _ in range(6)]
    assert all(torch.equal(a["slices"], b["slices"]) for a, b in zip(expected, found, strict=True))
    assert not torch.equal(expected[0]["slices"], expected[1]["slices"])
    later = next(iter(Samples(store, "train", phase, 7, first=2, places=(1,))))
    assert torch.equal(later["slices"], expected[5]["slices"])


def test_every_seed_draws_other_samples(store):
    same = [next(iter(Samples(store, "train", SMALL, 5))) for _ in range(2)]
    other = next(iter(Samples(store, "train", SMALL, 6)))
    assert torch.equal(same[0]["slices"], same[1]["slices"])
    assert not torch.equal(same[0]["slices"], other["slices"])


def test_a_split_without_subjects_is_named(store):
    with pytest.raises(BoneSAMError, match=r"no subjects of the test split in '.*store"):
        next(iter(Samples(store, "test", SMALL, 0)))


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(train.main)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_names_an_unknown_setting(command, store, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("phases: {only: {minutes: 1, mixture: {syntetic: 1.0}}}")
    answer = command(path, "--store", store, "--out", tmp_path / "out")
    assert answer.exit_code == 2
    assert "did you mean 'synthetic'?" in answer.output
    assert "Traceback" not in answer.output
    assert not (tmp_path / "out").exists()


def test_the_command_names_an_empty_store(command, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("{dim: 32, workers: 0, phases: {only: {minutes: 1}}}")
    answer = command(path, "--store", tmp_path, "--out", tmp_path / "out")
    assert answer.exit_code == 2
    assert "There are no subjects of the train split in '" in answer.output


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_a_store_is_one_sentence(command, store, tmp_path, workers):
    path = tmp_path / "some.yaml"
    few = "few_shot: {sources: [feet], volumes: 1}"
    path.write_text(
        f"{{dim: 32, workers: {workers}, tensorboard: false, {few}, phases: {{only: {{steps: 1}}}}}}"
    )
    answer = command(path, "--store", store, "--out", tmp_path / "out")
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output
    assert len(answer.output.strip().splitlines()[-1]) < 200


def test_one_person_is_enough_to_train_without_validation(store, tmp_path, capsys):
    alone = tmp_path / "alone"
    alone.mkdir()
    for path in store.iterdir():
        if not path.name.startswith("validation"):
            shutil.copy(path, alone)
    run = trainer(alone, tmp_path / "run")
    run.run()
    assert run.step == 1
    assert "nothing for validation" in capsys.readouterr().out


def test_all_cores_learn_after_validation_was_drawn(store, tmp_path, monkeypatch):
    threads = []
    monkeypatch.setattr(Trainer, "_log", lambda *_: threads.append(torch.get_num_threads()))
    trainer(store, tmp_path).run()
    assert threads == [max(2, os.cpu_count() or 2)]


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there(command, store, tmp_path, device):
    path = tmp_path / "some.yaml"
    path.write_text("{dim: 32, workers: 0, phases: {only: {minutes: 1}}}")
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("This machine has CUDA.")
    answer = command(path, "--store", store, "--out", tmp_path / "out", "--device", device)
    assert answer.exit_code == 2
    assert f"'{device}'" in answer.output
    assert "Traceback" not in answer.output


def test_the_training_of_a_baseline_is_no_training_of_bonesam(store, tmp_path):
    (tmp_path / "state.json").write_text('{"step": 3, "minutes": 1.0}')
    with pytest.raises(BoneSAMError, match="training of a baseline"):
        trainer(store, tmp_path)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_the_command_says_when_memory_is_short(command, store, tmp_path, monkeypatch, error):
    path = tmp_path / "some.yaml"
    path.write_text("{dim: 32, workers: 0, tensorboard: false, phases: {only: {minutes: 1}}}")

    def fail(*_):
        raise error

    monkeypatch.setattr(Trainer, "run", fail)
    answer = command(path, "--store", store, "--out", tmp_path / "out")
    assert answer.exit_code == 2
    assert "not enough memory for this: lower 'batch'" in answer.output


def test_a_batch_comes_again_later_with_other_prompts():
    drawn = [number for _, number in echoed(range(60), 3, 0, 0)]
    assert len(drawn) == 180
    assert drawn[::3] == list(range(60))
    ages = [drawn[n] - drawn[n + k] for n in range(0, len(drawn), 3) for k in (1, 2)]
    assert min(ages) >= 0
    assert 1 < max(ages) < ECHO_BUFFER
    assert [number for _, number in echoed(range(60), 1, 0, 0)] == list(range(60))


@pytest.mark.parametrize("step", [100, 103, 104, 180, 237])
def test_echoes_after_a_restart_are_those_of_before(step):
    phase = Phase(steps=1, echoes=3)
    whole = dict(echoed(range(50), 3, 5, 100))
    first = first_step_of(phase, 100, step)
    begun = dict(echoed(range((first - 100) // 3, 50), 3, 5, first))
    assert first <= step
    assert [begun[n] for n in range(step, 250)] == [whole[n] for n in range(step, 250)]


def test_a_step_has_as_many_batches_as_its_places():
    assert list(grouped(range(5), 2)) == [[0, 1], [2, 3], [4]]


def test_a_training_begins_with_the_weights_of_another_where_they_fit(store, begun, tmp_path):
    weights_path = begun / "ema.safetensors"
    found = load_file(weights_path)
    run = trainer_from(store, tmp_path / "same", weights_path)
    assert same(weights(run.model), found)
    assert run.step == 0
    config = Config({"only": SMALL}, dim=64, workers=0)
    wider = Trainer(config, store, tmp_path, "cpu", weights_path)
    now = weights(wider.model)
    assert torch.equal(now["encoder.stem.0.0.weight"], found["encoder.stem.0.0.weight"])
    assert now["encoder.neck.weight"].shape != found["encoder.neck.weight"].shape
    assert same(now, weights(wider.ema))


def test_weights_that_cannot_be_begun_with(store, begun, tmp_path):
    with pytest.raises(BoneSAMError, match=r"missing\.safetensors.*cannot be read"):
        trainer_from(store, tmp_path, tmp_path / "missing.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((begun / "ema.safetensors").read_bytes()[:1000])
    with pytest.raises(BoneSAMError, match=r"torn\.safetensors.*cannot be read"):
        trainer_from(store, tmp_path, torn)
    other = tmp_path / "other.safetensors"
    save_file({"image_encoder.pos_embed": torch.zeros(3)}, other)
    with pytest.raises(BoneSAMError, match=r"Nothing in .* fits"):
        trainer_from(store, tmp_path, other)


def trainer_from(store, out, start):
    return Trainer(Config({"only": SMALL}, dim=32, workers=0), store, out, "cpu", start)


def test_a_training_of_other_settings_is_refused(store, begun):
    with pytest.raises(BoneSAMError, match=r"cannot go on with these settings: .*size mismatch"):
        Trainer(Config({"only": SMALL}, dim=64, workers=0), store, begun, "cpu")
    settings = Config({"only": SMALL}, network="mobile-sam", workers=0, image_size=64)
    with pytest.raises(BoneSAMError, match=r"is of the network 'bonesam-t', .* say 'mobile-sam'"):
        Trainer(settings, store, begun, "cpu")
