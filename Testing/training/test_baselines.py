"""Baselines: they see the box, learn from the store, go on where they were, and segment like any weights."""

import json

import numpy as np
import pytest
import torch

from BoneSAMLib.engine import DecoderInputs
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.prompt_encoder import BOX_HIGH, BOX_LOW, NEGATIVE, PADDING
from BoneSAMLib.prompts import Box
from BoneSAMLib.volume import Volume
from Testing.training.spheres import write_anatomy
from training.baselines.networks import BEYOND, CHANNELS, NETWORKS, box_channel, build
from training.baselines.segmenter import BaselineEngine
from training.baselines.train import BaselineTrainer, masks_alone, with_length
from training.configuration import Config, Phase, Supervision
from training.opened_weights import open_weights


def config(steps=2, **settings):
    phase = Phase(steps=steps, size=64, batch=1, mixture={"synthetic": 1.0, "unlabelled": 0.0})
    return Config(phases={"only": phase}, workers=0, warmup_steps=1, log_steps=1, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a store and of a U-Net that learned for two steps."""
    folder = tmp_path_factory.mktemp("baseline")
    (folder / "store").mkdir()
    write_anatomy(folder / "store")
    BaselineTrainer("unet", config(), folder / "store", folder / "run", "cpu").run()
    return folder


def prompts(low, high):
    points = torch.zeros(1, 3, 3)
    points[0, 0], points[0, 1] = torch.tensor(low), torch.tensor(high)
    points[0, 2] = torch.tensor([200.0, 200.0, 0.0])
    return points, torch.tensor([[BOX_LOW, BOX_HIGH, NEGATIVE]])


def test_box_channel_is_the_box_on_this_slice():
    channel = box_channel(*prompts((64.0, 128.0, -10.0), (128.0, 192.0, 10.0)), 64)[0, 0]
    rows, columns = np.nonzero(channel.numpy())
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (16, 31, 32, 47)
    assert channel.max() == 1
    beyond = box_channel(*prompts((64.0, 128.0, 4.0), (128.0, 192.0, 24.0)), 64)
    assert beyond.max() == BEYOND
    nothing = box_channel(torch.zeros(1, 3, 3), torch.full((1, 3), PADDING), 64)
    assert nothing.max() == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_answer_every_pixel_and_learn(name):
    network = build(name)
    logits = network(torch.rand(2, CHANNELS, 64, 64))
    assert logits.shape == (2, 1, 64, 64)
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)


def test_unknown_network():
    with pytest.raises(BoneSAMError, match="unet, deeplabv3plus, swin-unetr"):
        build("u-net")


def test_training_goes_on_where_it_was(trained):
    log = [json.loads(line) for line in (trained / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2]
    again = BaselineTrainer("unet", config(steps=3), trained / "store", trained / "run", "cpu")
    assert again.step == 2
    kept = torch.load(trained / "run" / "optimizer.pt", weights_only=True)
    assert again.optimizer.state_dict()["state"][0]["step"] == kept["state"][0]["step"] == 2
    with pytest.raises(BoneSAMError, match="training of 'unet'"):
        BaselineTrainer("deeplabv3plus", config(), trained / "store", trained / "run", "cpu")


def test_a_training_of_bonesam_is_not_taken_for_a_baseline(trained, tmp_path):
    (tmp_path / "state.json").write_text('{"step": 3, "elapsed": 1.0}')
    with pytest.raises(BoneSAMError, match="training of BoneSAM"):
        BaselineTrainer("unet", config(), trained / "store", tmp_path, "cpu")
    assert not (tmp_path / "baseline.json").exists()


def test_masks_are_all_that_a_baseline_learns_from():
    known = config(supervision=Supervision(0.25, "box", boxes=1.0))
    assert masks_alone(known).supervision == Supervision(0.25, "box")
    assert masks_alone(config()).supervision is None


def test_length_in_minutes():
    longer = with_length(Config(phases={"a": Phase(minutes=1), "b": Phase(minutes=3)}), 60)
    assert [phase.minutes for phase in longer.phases.values()] == [15, 45]


def test_a_trained_baseline_segments_in_a_box(trained):
    segmenter = open_weights(trained / "run", "cpu")
    volume = Volume(np.random.default_rng(0).random((6, 32, 32)), np.diag([1.0, 1.0, 3.0, 1.0]), "v", "MR")
    result = segmenter.open(volume).segment(box=Box.from_ijk((8, 8, 1), (24, 24, 4)))
    assert result.mask.shape == volume.shape
    assert 0 <= result.confidence <= 1
    (trained / "run" / "baseline.json").write_text('{"network": "deeplabv3plus"}')
    with pytest.raises(BoneSAMError, match="no trained baseline"):
        open_weights(trained / "run", "cpu")
    (trained / "run" / "baseline.json").write_text('{"network": "unet"}')


def test_the_answer_is_what_the_network_says_of_slice_and_box():
    class CopiesBox(torch.nn.Module):
        def forward(self, image):
            return image[:, 3:] * 8 - 4 + 0 * image[:, :1]

    engine = BaselineEngine(CopiesBox())
    slices = np.zeros((1, 3, 256, 256), np.float32)
    embedding, skip = engine.encode(slices)
    points, labels = (part.numpy() for part in prompts((64.0, 128.0, -1.0), (128.0, 192.0, 1.0)))
    zero = np.zeros((1, 2, 64, 64), np.float32)
    logits, iou = engine.decode(
        DecoderInputs(embedding, skip, zero, zero[:, 0, 0, 0], points, labels, zero[:, :1], labels[:, 0])
    )
    assert logits.shape == (1, 4, 128, 128)
    assert (logits > 0)[0, 0].sum() == 32 * 32
    assert iou[0, 0] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-3)
