"""An exported network is small, says the same as before, and segments."""

import json

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from BoneSAMLib import Box, Segmenter, Volume
from BoneSAMLib.bundle import GRAPHS, MANIFEST, WEIGHTS, open_bundle
from BoneSAMLib.engine import DecoderInputs, OnnxEngine
from Testing.random_weights import random_model
from training import export


@pytest.fixture(scope="module")
def volume():
    """A bright ball in a dark block, 2 mm between slices."""
    k, j, i = np.mgrid[:12, :40, :40]
    ball = (2.0 * (k - 6)) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 < 100
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return Volume(np.where(ball, 900, 20).astype(np.int16), affine, "ball", "CT")


def test_a_bundle_is_small(random_bundle):
    sizes = {path.name: path.stat().st_size for path in random_bundle.iterdir()}
    assert set(sizes) == {MANIFEST, WEIGHTS, *(f"{part}.onnx" for part in GRAPHS)}
    assert sum(sizes.values()) <= 25e6
    assert sizes[WEIGHTS] > 0.9 * sum(sizes.values())  # the graphs hold no weights of their own


def test_the_manifest_tells_what_is_in_the_bundle(random_bundle):
    manifest = json.loads((random_bundle / MANIFEST).read_text())
    assert (manifest["name"], manifest["dim"]) == ("random", 128)
    assert manifest["gate"] == 0.5
    model = random_model()
    for part in GRAPHS:
        count = sum(parameter.numel() for parameter in getattr(model, part).parameters())
        assert manifest["parameters"][part] == count


def test_the_bundle_says_what_the_network_said(random_bundle):
    """Fused, rounded to float16 and run by ONNX Runtime."""
    engine, model = OnnxEngine(open_bundle(random_bundle), "cpu"), random_model()
    generator = torch.Generator().manual_seed(0)
    slices = torch.rand(1, 3, 256, 256, generator=generator)
    cubes = torch.rand(1, 2, 64, 64, 64, generator=generator)
    inputs = (
        torch.rand(1, 2, 64, 64, generator=generator), torch.ones(1),
        torch.tensor([[[60.0, 50, -20], [190, 200, 30], [100, 120, 0]]]), torch.tensor([[2, 3, 1]]),
        torch.zeros(1, 1, 64, 64), torch.tensor([4]),
    )  # fmt: skip
    with torch.inference_mode():
        features = model.encoder(slices)
        wanted = [*features, torch.sigmoid(model.depth_attention(cubes)), *model.decoder(*features, *inputs)]
    features = engine.encode(slices.numpy())
    found = [*features, engine.attend(cubes.numpy())]
    found += engine.decode(DecoderInputs(*features, *(tensor.numpy() for tensor in inputs)))
    for answer, truth in zip(found, wanted, strict=True):
        difference = np.abs(answer - truth.numpy())
        assert difference.mean() < 0.01 * np.abs(truth.numpy()).mean()
    masks, true_masks = found[3] > 0, wanted[3].numpy() > 0
    assert (masks == true_masks).mean() > 0.995


def test_the_bundle_segments(random_bundle, volume):
    session = Segmenter(device="cpu", weights=random_bundle).open(volume)
    result = session.segment(box=Box.from_ijk((9, 9, 4), (31, 31, 8)))
    assert result.mask.shape == volume.shape
    assert result.mask.dtype == bool
    assert 0 <= result.confidence <= 1


@pytest.mark.parametrize("name", [None, "trial"])
def test_the_command_exports_a_checkpoint(tmp_path, monkeypatch, name):
    model, exported = random_model(), []
    checkpoint = tmp_path / "ema.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, checkpoint)

    def note(model, folder, facts):
        folder.mkdir()
        exported.append((model, facts))

    monkeypatch.setattr(export, "export_bundle", note)
    app = typer.Typer()
    app.command()(export.main)
    arguments = [str(checkpoint), "--out", str(tmp_path / "out"), *(["--name", name] if name else [])]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0
    ((found, facts),) = exported
    assert facts == {"name": name or "BoneSAM-T", "dim": 128}
    state = model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.state_dict().items())
