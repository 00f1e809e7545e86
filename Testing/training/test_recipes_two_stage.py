"""The committed configs say what their recipes are, and only named parts learn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import training
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.bonesam import BoneSAM
from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import write_store
from training.batches import Samples
from training.configuration import Adapters, Config, Phase, read_config
from training.learning_parts import choose_learning, describe, set_training
from training.networks.adapters import add_adapters, fold_low_rank
from training.starting_weights import begin_from
from training.train import Trainer

CONFIGS = Path(training.__file__).parent / "configs"


@pytest.fixture(autouse=True)
def tiny_network():
    with few_channels():
        yield


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_second_stage_leaves_the_encoder_as_it_is(tmp_path):
    first, second = read_config(CONFIGS / "two-stage.yaml").phases.values()
    model = BoneSAM(16)
    choose_learning(model, first)
    assert first.attention == 0
    assert not any(name.startswith(("depth_attention", "decoder.fusion")) for name in learning(model))
    assert {name.split(".")[0] for name in learning(model)} == {"encoder", "decoder"}
    choose_learning(model, second)
    assert not any(name.startswith(("encoder", "decoder.prompt")) for name in learning(model))
    assert {"depth_attention.head.weight", "decoder.fusion.gate_logit", "decoder.prior.weight"} <= learning(
        model
    )

    store = write_store(tmp_path / "store")
    mixture = {"synthetic": 1.0, "unlabelled": 0.0, "radiograph": 0.0}
    phase = Phase(steps=1, size=64, batch=1, rounds=1, attention=1.0, learn=second.learn, mixture=mixture)
    run = Trainer(Config({"x": phase}, dim=16, workers=0, tensorboard=False), store, tmp_path / "run", "cpu")
    choose_learning(run.model, phase)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.train_step([next(iter(Samples(store, "train", phase, 0)))], phase)
    after = run.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith(("encoder", "decoder.prompt")) for name in changed)
    for part in ("depth_attention.", "decoder.fusion.", "decoder.mask_decoder."):
        assert any(name.startswith(part) for name in changed)


def test_a_phase_of_the_depth_attention_alone_asks_nothing_else(tmp_path):
    (phase,) = read_config(CONFIGS / "attention.yaml").phases.values()
    store = write_store(tmp_path / "store")
    mixture = {"synthetic": 1.0, "unlabelled": 0.0, "radiograph": 0.0}
    phase = Phase(steps=1, size=64, batch=1, rounds=1, attention=1.0, learn=phase.learn, mixture=mixture)
    run = Trainer(Config({"x": phase}, dim=16, workers=0, tensorboard=False), store, tmp_path / "run", "cpu")
    choose_learning(run.model, phase)
    run.model.encoder.forward = run.model.decoder.forward = None  # calling either is an error
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    facts = run.train_step([next(iter(Samples(store, "train", phase, 0)))], phase)
    assert set(facts) == {"cube", "loss", "norm"}
    after = run.model.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"depth_attention"}
    batch = next(iter(Samples(store, "train", phase, 0)))
    batch["has_cube"][:] = 0  # radiographs alone
    assert run.train_step([batch], phase)["loss"] == 0


def test_norms_of_frozen_parts_keep_their_statistics():
    model = BoneSAM(16)
    choose_learning(model, Phase(steps=1, learn=["masks"]))
    set_training(model, freeze_norms=False)
    assert not model.encoder.stem[0][1].training
    assert model.decoder.mask_decoder.bottom[1].training
    set_training(model, freeze_norms=True)
    assert not model.decoder.mask_decoder.bottom[1].training
    assert model.decoder.training


def test_the_pyramid_is_what_follows_the_encoders_stages():
    model = BoneSAM(16)
    choose_learning(model, Phase(steps=1, learn=["pyramid"]))
    parts = {name.split(".")[1] for name in learning(model)}
    assert parts == {"laterals", "smooth16", "smooth8", "narrow", "smooth4", "neck"}


def test_what_learns_is_told_with_its_memory():
    model = torch.nn.Sequential(torch.nn.Linear(999, 1000), torch.nn.Linear(1000, 1, bias=False))
    model[1].requires_grad_(False)
    sentence = describe(model)
    assert "1.00 of 1.00 M parameters learn (0 1.00 of 1.00 M, 1 0.00 of 0.00 M)" in sentence
    # 1,001,000 weights and their average; gradients and two moments of 1,000,000.
    assert "take 20 MB" in sentence


def test_low_rank_parts_begin_without_effect_and_fold_into_their_layers():
    torch.manual_seed(0)
    model = BoneSAM(16).eval()
    generator = torch.Generator().manual_seed(0)
    tokens, image = torch.rand(1, 5, 16, generator=generator), torch.rand(1, 16, 4, 4, generator=generator)
    slices = torch.rand(1, 3, 32, 32, generator=generator)

    def answer():
        with torch.no_grad():
            tokens_after = model.decoder.mask_decoder.transformer(image, image, tokens)[0]
            return torch.cat([tokens_after.flatten(), model.encoder(slices)[0].flatten()])

    before = answer()
    names = set(model.state_dict())
    add_adapters(model, Adapters(low_rank=2))
    assert torch.equal(answer(), before)
    adapted = {name.split(".")[0] for name in set(model.state_dict()) - names}
    assert adapted == {"encoder", "decoder"}
    choose_learning(model, Phase(steps=1, learn=["adapters"]))
    assert any("low_rank_out" in name for name in learning(model))
    assert not any(name.endswith("q_proj.weight") for name in learning(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "low_rank_out" in name:
                parameter.normal_(0, 0.3, generator=generator)
    changed = answer()
    of_tokens = tokens.numel()
    assert not torch.allclose(changed[:of_tokens], before[:of_tokens], atol=1e-3)
    assert not torch.allclose(changed[of_tokens:], before[of_tokens:], atol=1e-3)
    fold_low_rank(model)
    assert set(model.state_dict()) == names
    assert torch.allclose(answer(), changed, atol=1e-4)


def test_bottlenecks_in_a_network_without_transformer_blocks_are_refused():
    with pytest.raises(BoneSAMError, match="use 'low_rank', which adapts its convolutions"):
        add_adapters(BoneSAM(16), Adapters(bottleneck=4))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_names_parts_that_its_network_has(path):
    from training.networks.registry import OFFICIAL

    config = read_config(path)
    assert config.network == "bonesam-t" or config.network in OFFICIAL
    assert np.isfinite(config.length)
    if config.start == "bundle":
        assert config.freeze_norms


def test_an_adapted_run_is_not_begun_from_without_its_adapters(tmp_path):
    adapted, plain = BoneSAM(16), BoneSAM(16)
    add_adapters(adapted, Adapters(low_rank=2))
    path = tmp_path / "ema.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in adapted.state_dict().items()}, path)
    with pytest.raises(BoneSAMError, match=r"low_rank_in', which this network has not: export them"):
        begin_from(plain, path)
    again = BoneSAM(16)
    add_adapters(again, Adapters(low_rank=2))
    assert not begin_from(again, path)  # no bundle
