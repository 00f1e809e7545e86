"""Training steps change the weights, and a run that was stopped anywhere goes on where it was."""

import json

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from BoneSAMLib.errors import BoneSAMError
from Testing.training.spheres import partial_scan, write_anatomy
from training import train
from training.configuration import Config, Phase
from training.train import Samples, Trainer

FILES = ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json")
# A narrow decoder; the other networks are as large as ever.
SMALL = Phase(minutes=1e-6, size=64, batch=1, rounds=2, attention=1.0, mixture={"unlabelled": 0.0})


def write_scan(store, split):
    """The balls as an annotated scan."""
    scan = partial_scan()
    (target,) = scan.targets
    np.save(store / f"{split}.image.npy", scan.image)
    np.save(store / f"{split}.labels.npy", scan.labels)
    facts = {
        "id": split,
        "source": "made up",
        "split": split,
        "kind": "image",
        "spacing": scan.spacing.tolist(),
        "axis": scan.slicing.axis,
        "thick": scan.slicing.thick,
        "orientation": scan.slicing.orientation,
        "labels": {"1": {"name": "large", "tissue": "bone"}},
        "objects": [{"label": 1, "name": "large", "low": target.low, "high": target.high}],
    }
    (store / f"{split}.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    write_anatomy(folder)
    write_scan(folder, "train")
    write_scan(folder, "validation")
    return folder


@pytest.fixture(autouse=True)
def little_validation(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(train, "VALIDATION_BATCHES", 1)
    scans = {"synthetic": 0.0, "unlabelled": 0.0}
    little = Phase(0, SMALL.size, batch=1, attention=1.0, mixture=scans)
    monkeypatch.setattr(train, "_validation_phase", lambda phase: little)
    yield
    torch.set_num_threads(threads)


def trainer(store, out, minutes=1e-6, **changes):
    phase = Phase(**(vars(SMALL) | {"minutes": minutes}))
    return Trainer(Config({"only": phase}, dim=32, workers=0, warmup_steps=1, **changes), store, out, "cpu")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def begun(store, tmp_path_factory):
    """Folder of a run that was saved after two steps."""
    out = tmp_path_factory.mktemp("begun")
    run = trainer(store, out)
    batches = iter(Samples(store, "train", SMALL, 0))
    for _ in range(2):
        run.train_step(next(batches), SMALL)
    run.elapsed = 1.5
    run.save()
    return out


def test_steps_change_the_weights_and_their_average_follows(store, tmp_path):
    run = trainer(store, tmp_path)
    first = weights(run.model)
    assert same(first, weights(run.ema))
    batches = iter(Samples(store, "train", SMALL, 0))
    for _ in range(2):
        facts = run.train_step(next(batches), SMALL)
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


def test_a_loss_that_is_no_number_does_not_break_the_weights(store, tmp_path, monkeypatch):
    run = trainer(store, tmp_path)
    before = weights(run.model)
    monkeypatch.setattr(
        train, "losses_of", lambda model, *_: (model.decoder.fusion.gate.sum() * torch.nan, {})
    )
    run.train_step({}, SMALL)
    assert run.step == 1
    assert same(before, weights(run.model))
    assert all(tensor.isfinite().all() for tensor in weights(run.ema).values())


def test_a_run_goes_on_where_it_was(store, begun, tmp_path):
    run = trainer(store, begun)
    assert (run.step, run.elapsed) == (2, 1.5)
    assert same(weights(run.model), load_file(begun / "model.safetensors"))
    assert same(weights(run.ema), load_file(begun / "ema.safetensors"))
    assert not same(weights(run.ema), weights(run.model))
    assert {int(moments["step"]) for moments in run.optimizer.state_dict()["state"].values()} == {2}


def test_the_loop_stops_in_time_and_counts_on(store, tmp_path):
    first = trainer(store, tmp_path)
    first.run()
    assert first.step == 1
    assert first.elapsed > 0
    second = trainer(store, tmp_path, minutes=first.elapsed + 1e-6)
    assert (second.step, second.elapsed) == (1, first.elapsed)
    second.run()
    assert second.step == 2
    assert second.elapsed > first.elapsed
    state = json.loads((tmp_path / "state.json").read_text())
    assert state == {"step": 2, "elapsed": second.elapsed}
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert {"loss", "norm", "rate", "gate", "phase", "validation_cube"} <= set(rows[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "log.jsonl"])
    done = trainer(store, tmp_path, minutes=first.elapsed)
    done.run()
    assert done.step == 2


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", FILES)
def test_a_run_killed_while_saving_can_go_on(store, begun, tmp_path, monkeypatch, name):
    for file in FILES:
        (tmp_path / file).write_bytes((begun / file).read_bytes())
    run = trainer(store, tmp_path)
    whole = run._write

    def stop_at(file, write):
        if file == name:
            (tmp_path / f"{file}.part").write_bytes(b"half of it")
            raise Killed
        whole(file, write)

    monkeypatch.setattr(run, "_write", stop_at)
    run.step = 77
    with pytest.raises(Killed):
        run.save()
    again = trainer(store, tmp_path)
    assert (again.step, again.elapsed) == (2, 1.5)
    again.save()
    assert not list(tmp_path.glob("*.part"))


def test_a_run_killed_in_its_first_save_starts_over(store, begun, tmp_path):
    for file in FILES[:-1]:
        (tmp_path / file).write_bytes((begun / file).read_bytes())
    assert trainer(store, tmp_path).step == 0


def test_every_worker_and_every_restart_draws_other_samples(store):
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
    assert answer.output.startswith("There are no subjects of the validation split in '")


def test_a_batch_comes_again_later_with_other_prompts():
    numbers = [{"n": torch.tensor(n)} for n in range(60)]
    drawn = [int(batch["n"]) for batch in train.echoed(numbers, 3, np.random.default_rng(0))]
    assert len(drawn) == 3 * len(numbers)
    assert drawn[::3] == list(range(60))
    assert len(drawn) / len(set(drawn)) == 3
    ages = [drawn[n] - drawn[n + k] for n in range(0, len(drawn), 3) for k in (1, 2)]
    assert min(ages) >= 0
    assert max(ages) < train.ECHO_BUFFER
    assert list(train.echoed(numbers, 1, np.random.default_rng(0))) == numbers


def test_a_training_begins_with_the_weights_of_another_where_they_fit(store, begun, tmp_path):
    weights_path = begun / "ema.safetensors"
    found = load_file(weights_path)
    run = trainer(store, tmp_path / "same")
    train.begin_from(run.model, weights_path)
    assert same(weights(run.model), found)
    assert run.step == 0
    wider = Trainer(Config({"only": SMALL}, dim=64, workers=0), store, tmp_path, "cpu", weights_path)
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
