"""From a store to a mask: train a little, export, segment with the bundle through the public interface."""

import json

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from BoneSAMLib import Box, Segmenter, Volume
from BoneSAMLib.bundle import open_bundle
from BoneSAMLib.engine import DecoderInputs, OnnxEngine
from BoneSAMLib.errors import BoneSAMError
from Testing.training.spheres import LARGE, labels_and_depth
from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import BRIGHTNESS, write_store, write_whole_scan
from training import export, train
from training.configuration import Adapters, Config, Phase
from training.export import export_bundle, load_trained
from training.networks import registry
from training.networks.registry import OFFICIAL, build_network
from training.networks.segment_anything_network import VisionTransformer
from training.train import Trainer

STEPS = 30
MIXTURE = {"synthetic": 0.0, "unlabelled": 0.0, "all_bones": 0.0, "cut_out": 0.0}


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    monkeypatch.setattr(train, "VALIDATION_BATCHES", 0)
    monkeypatch.setitem(OFFICIAL, "sam-tiny", registry._sam("SAM tiny", VisionTransformer(32, 2, 2, (1,))))
    with few_channels():
        yield


@pytest.fixture
def command():
    app = typer.Typer()
    app.command()(export.main)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def ball():
    """The scan that was trained on, and the large ball."""
    labels, _ = labels_and_depth()
    image = BRIGHTNESS[labels].astype(np.int16)
    return Volume(image, np.diag([1.0, 1.0, 3.0, 1.0]), "balls", "MR"), labels == LARGE


@pytest.mark.long
def test_what_was_trained_is_exported_and_segments(tmp_path, command):
    store = write_store(tmp_path / "store")
    for number in range(2):
        write_whole_scan(store, f"whole{number}", seed=number)
    phase = Phase(steps=STEPS, size=64, batch=4, rounds=1, attention=0.1, echoes=3, mixture=MIXTURE)
    settings = {"dim": 32, "learning_rate": 3e-3, "warmup_steps": 5, "ema": 0.8, "log_steps": 5}
    config = Config({"only": phase}, workers=0, tensorboard=False, adapters=Adapters(low_rank=2), **settings)
    Trainer(config, store, tmp_path / "run", "cpu").run()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == STEPS
    assert rows[-1]["loss"] < 0.95 * rows[0]["loss"]

    answer = command(tmp_path / "run" / "ema.safetensors", "--out", tmp_path / "bundle", "--name", "trial")
    assert answer.exit_code == 0, answer.output
    assert not list((tmp_path / "run").glob("*.part"))
    manifest = open_bundle(tmp_path / "bundle").manifest
    assert (manifest["name"], manifest["dim"]) == ("trial", 32)

    volume, truth = ball()
    session = Segmenter(device="cpu", weights=tmp_path / "bundle").open(volume)
    k, j, i = (np.flatnonzero(truth.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    low, high = ((int(i[n]), int(j[n]), int(k[n])) for n in (0, -1))
    mask = session.segment(box=Box.from_ijk(low, high)).mask
    assert mask.shape == truth.shape
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert dice > 0.3


@pytest.mark.long
def test_a_bundle_of_an_official_network_answers_as_the_network(tmp_path):
    """The same three graphs; the embedding has another size and width, which no caller looks at."""
    torch.manual_seed(0)
    config = Config({}, network="sam-tiny", image_size=64, adapters=Adapters(4, 2))
    network = build_network(config).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "adapter" in name or "low_rank" in name or "kind_prompt" in name:
            torch.nn.init.normal_(parameter, 0, 0.05)
    slices = torch.rand(2, 3, 256, 256)
    inputs = (
        torch.rand(2, 2, 64, 64), torch.ones(2),
        torch.tensor([[[60.0, 50, -20], [190, 200, 30], [100, 120, 0]]] * 2), torch.tensor([[2, 3, 1]] * 2),
        torch.randn(2, 1, 64, 64), torch.tensor([0, 7]),
    )  # fmt: skip
    features = network.encoder(slices)
    wanted = [features[0], *network.decoder(*features, *inputs)]
    facts = {"name": "SAM", "dim": 256, "network": "sam-tiny", "image_size": 64}
    export_bundle(network, tmp_path / "bundle", facts)
    engine = OnnxEngine(open_bundle(tmp_path / "bundle"), "cpu")
    found = engine.encode(slices.numpy())
    answers = [found[0], *engine.decode(DecoderInputs(*found, *(tensor.numpy() for tensor in inputs)))]
    for answer, truth in zip(answers, wanted, strict=True):
        assert answer.shape == truth.shape
        assert np.abs(answer - truth.numpy()).mean() < 0.02 * np.abs(truth.numpy()).mean()
    volume, truth = ball()
    session = Segmenter(device="cpu", weights=tmp_path / "bundle").open(volume)
    assert session.segment(box=Box.from_ijk((13, 17, 19), (39, 43, 45))).mask.shape == truth.shape


def test_files_that_are_no_checkpoint_are_refused(tmp_path, command):
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(BoneSAMError, match=r"missing.safetensors' cannot be read"):
        load_trained(missing)
    answer = command(missing, "--out", tmp_path / "out")
    assert answer.exit_code == 2
    assert not (tmp_path / "out").exists()
    save_file({"encoder.x": torch.zeros(1)}, missing)
    with pytest.raises(BoneSAMError, match=r"no training's checkpoint of bonesam-t: "):
        load_trained(missing)
