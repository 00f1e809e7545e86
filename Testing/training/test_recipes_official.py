"""Official networks load official files, refuse others, and at first answer as the official ones do."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.segment_anything_modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import write_store
from training.batches import Samples
from training.configuration import Adapters, Config, Phase
from training.export import load_trained
from training.learning_parts import choose_learning
from training.networks import registry
from training.networks.adapters import add_adapters, is_adapter
from training.networks.registry import OFFICIAL, build_network
from training.networks.segment_anything_network import VIT_T, VisionTransformer
from training.train import Trainer

TINY = VisionTransformer(32, 2, 2, (1,))
SIZE = 64


@pytest.fixture(autouse=True)
def tiny_official(monkeypatch):
    """A SAM whose encoder is tiny; decoder and names are the official ones."""
    monkeypatch.setitem(OFFICIAL, "sam-tiny", registry._sam("SAM tiny", TINY))
    with few_channels():
        yield


def config(network="sam-tiny", **settings):
    return Config({}, network=network, image_size=SIZE, workers=0, tensorboard=False, **settings)


def official_file(network, name="sam-tiny"):
    """A network's tensors under their official names."""
    official = OFFICIAL[name]
    tensors = {}
    for own, tensor in network.state_dict().items():
        for ours, theirs in official.names.items():
            if own.startswith(ours):
                if theirs is not None:
                    tensors[theirs + own.removeprefix(ours)] = tensor.clone().contiguous()
                break
    return tensors


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_an_official_file_is_loaded(tmp_path, suffix):
    tensors = official_file(build_network(config()))
    path = tmp_path / f"sam.{suffix}"
    if suffix == "pth":
        torch.save({"model": tensors | {"image_encoder.norm_head.weight": torch.zeros(3)}}, path)
    else:
        save_file(tensors, path)
    network = build_network(config(), path)
    assert same(official_file(network), tensors)


def changed(tensors, kind):
    first = "image_encoder.pos_embed"
    if kind == "missing":
        del tensors[first]
    elif kind == "shape":
        tensors[first] = torch.zeros(1, 4, 4, 33)
    else:
        tensors["image_encoder.extra"] = torch.zeros(1)
    return tensors


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", r"no SAM tiny checkpoint: 'image_encoder.pos_embed' is missing\."),
        ("shape", r"'image_encoder.pos_embed' has shape \[1, 4, 4, 33\], \[1, 4, 4, 32\] is expected\."),
        ("extra", r"'image_encoder.extra' is not known\."),
    ],
)
def test_another_file_is_refused_with_the_first_difference(tmp_path, kind, sentence):
    path = tmp_path / "sam.pth"
    torch.save(changed(official_file(build_network(config())), kind), path)
    with pytest.raises(BoneSAMError, match=rf"cannot begin with '.*sam.pth'.*{sentence}"):
        build_network(config(), path)


class Bad:
    def __reduce__(self):
        return (pytest.fail, ("a checkpoint's code ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "sam.pth"
    torch.save({"model": Bad()}, path)
    with pytest.raises(BoneSAMError, match=r"sam.pth' cannot be read"):
        build_network(config(), path)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(BoneSAMError, match=r"sam.pth' cannot be read"):
        build_network(config(), path)
    torch.save([1, 2], path)
    with pytest.raises(BoneSAMError, match="no set of named tensors"):
        build_network(config(), path)


def test_an_unknown_network_is_named():
    with pytest.raises(BoneSAMError, match=r"Unknown network 'sam-vitb': did you mean 'sam-vit-b'\?"):
        build_network(config("sam-vitb"))


# Counts of the published checkpoints, in millions (Kirillov et al. 2023; Zhang et al. 2023).
@pytest.mark.parametrize(
    ("name", "millions"), [("sam-vit-b", 93.7), ("sam-vit-l", 312.3), ("sam-vit-h", 641.1), ("medsam", 93.7)]
)
def test_the_large_networks_have_the_official_shapes(name, millions):
    """On the meta device: shapes without weights."""
    with torch.device("meta"):
        network = OFFICIAL[name].build(1024)
    tensors = official_file(network, name)
    buffers = [key for key in tensors if "gaussian" in key]
    count = sum(tensor.numel() for key, tensor in tensors.items() if key not in buffers)
    assert count / 1e6 == pytest.approx(millions, abs=0.1)
    assert tensors["image_encoder.pos_embed"].shape[:3] == (1, 64, 64)
    assert "image_encoder.blocks.11.attn.rel_pos_h" in tensors
    assert "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight" in tensors
    assert "prompt_encoder.no_mask_embed.weight" in tensors


def test_mobile_sam_has_the_official_shapes():
    with torch.device("meta"):
        network = OFFICIAL["mobile-sam"].build(1024)
    tensors = official_file(network, "mobile-sam")
    encoder = sum(t.numel() for k, t in tensors.items() if k.startswith("image_") and "running" not in k)
    assert encoder / 1e6 == pytest.approx(5.744, abs=0.001)
    assert tensors["image_encoder.layers.2.blocks.5.attn.attention_biases"].shape == (5, 196)
    assert tensors["image_encoder.layers.0.blocks.1.conv2.c.weight"].shape == (256, 1, 3, 3)


def test_position_codes_of_another_image_size_are_resized(tmp_path):
    larger = OFFICIAL["sam-tiny"].build(2 * SIZE)
    with torch.no_grad():
        larger.encoder.network.pos_embed.fill_(0.3)
    path = tmp_path / "sam.pth"
    torch.save(official_file(larger), path)
    network = build_network(config(), path)
    assert network.encoder.network.pos_embed.shape == (1, 4, 4, 32)
    assert torch.allclose(network.encoder.network.pos_embed, torch.tensor(0.3))


def prompts(count=1, size=16):
    points = torch.tensor([[[40.0, 60, 0], [200, 180, 0]]]).expand(count, -1, -1)
    labels = torch.tensor([[2, 3]]).expand(count, -1)
    return points, labels, torch.zeros(count, 1, size, size), torch.arange(3, 3 + count)


def test_the_first_answer_is_the_official_one():
    """The package's own prompt encoder and decoder, given the same embedding and box."""
    network = build_network(config()).eval()
    embedding, skip = network.encoder(torch.rand(1, 3, 256, 256))
    attention = torch.rand(1, 2, 8, 8)
    points, labels, masks, kinds = prompts(size=8)
    found, iou = network.decoder(embedding, skip, attention, torch.ones(1), points, labels, masks, kinds)

    theirs = PromptEncoder(256, (4, 4), (SIZE, SIZE), 16).eval()
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer).eval()
    tensors = official_file(network)
    for module, begin in ((theirs, "prompt_encoder."), (decoder, "mask_decoder.")):
        own = {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}
        module.load_state_dict(own)
    corners = points[0, :, :2].reshape(1, 4) * SIZE / 256 - 0.5  # they add half a pixel
    sparse, dense = theirs(None, corners, None)
    wanted, quality = decoder.predict_masks(embedding, theirs.get_dense_pe(), sparse, dense)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=1e-4)
    assert torch.allclose(iou, quality, atol=1e-4)


def test_slices_of_a_batch_have_prompts_of_their_own():
    network = build_network(config()).eval()
    embedding, skip = network.encoder(torch.rand(2, 3, 64, 64))
    points, labels, masks, kinds = prompts(2)
    points = points.clone()
    points[1, :, :2] /= 2
    masks[1] = torch.randn(16, 16)
    attention, use = torch.zeros(2, 2, 16, 16), torch.zeros(2)
    torch.nn.init.normal_(network.decoder.kind_prompt.token)
    inputs = (embedding, skip, attention, use, points, labels, masks, kinds)
    both, _ = network.decoder(*inputs)
    for n in (0, 1):
        parts = (part[n : n + 1] for part in inputs)
        assert torch.allclose(both[n], network.decoder(*parts)[0][0], atol=1e-5)


@pytest.mark.parametrize("shape", [TINY, VIT_T], ids=["ViT", "TinyViT"])
def test_adapters_begin_without_effect_and_learn_alone(monkeypatch, shape):
    monkeypatch.setitem(OFFICIAL, "sam-tiny", registry._sam("SAM tiny", shape))
    network = build_network(config()).eval()
    slices = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network.encoder(slices)[0]
        add_adapters(network, Adapters(bottleneck=4, low_rank=2))
        network.eval()
        assert torch.equal(network.encoder(slices)[0], before)
    choose_learning(network, Phase(steps=1, learn=["adapters"]))
    learned = {name for name, p in network.named_parameters() if p.requires_grad}
    assert all(is_adapter(name) for name in learned)
    for part in ("encoder.", "decoder.mask_decoder."):
        assert any(name.startswith(part) and ".adapter." in name for name in learned)
        assert any(name.startswith(part) and ".low_rank_" in name for name in learned)
    count = sum(p.numel() for name, p in network.named_parameters() if ".adapter." in name or "rank" in name)
    assert count < 0.2 * sum(p.numel() for p in network.parameters())


def test_an_adapted_network_trains_goes_on_and_is_rebuilt_for_export(tmp_path):
    store = write_store(tmp_path / "store")
    path = tmp_path / "sam.pth"
    torch.save(official_file(build_network(config())), path)
    mixture = {"unlabelled": 0.0, "synthetic": 0.0}
    phase = Phase(steps=1, size=64, batch=1, rounds=1, attention=0.0, mixture=mixture, learn=["adapters"])
    settings = config(adapters=Adapters(4, 2), freeze_norms=True)
    settings = dataclasses.replace(settings, phases={"only": phase}, warmup_steps=1, learning_rate=1e-2)
    run = Trainer(settings, store, tmp_path / "run", "cpu", path)
    choose_learning(run.model, phase)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.train_step([next(iter(Samples(store, "train", phase, 0, settings)))], phase)
    after = run.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(is_adapter(name) for name in moved)
    run.save()
    assert same(Trainer(settings, store, tmp_path / "run", "cpu", path).model.state_dict(), after)
    rebuilt, built = load_trained(tmp_path / "run" / "model.safetensors")
    assert built.network == "sam-tiny"
    assert same(rebuilt.state_dict(), after)
