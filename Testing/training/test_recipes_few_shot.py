"""Fine-tuning from a bundle on a few annotations begins exactly where the bundle is."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.bonesam import BoneSAM
from Testing.training.spheres import LARGE, SMALL
from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import write_store, write_whole_scan
from training.batches import Samples
from training.configuration import Config, FewShot, Phase
from training.few_shot import annotated_slices, choose_few
from training.sequence_remap import random_curve, remap_sample
from training.starting_weights import begin_from, is_folded
from training.store import load_subjects
from training.train import Trainer

PHASE = Phase(
    steps=1, size=64, batch=1, rounds=1, attention=0.0, mixture={"synthetic": 0.0, "unlabelled": 0.0}
)


@pytest.fixture(autouse=True)
def tiny_network():
    with few_channels():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = write_store(tmp_path_factory.mktemp("few") / "store")
    for number in range(3):
        write_whole_scan(folder, f"whole{number}", source="knees", seed=number)
    return folder


@pytest.fixture
def folded(tmp_path):
    """Weights of a tiny network as a bundle has them, and the network."""
    torch.manual_seed(0)
    with torch.no_grad():
        model = BoneSAM(16)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.8, 1.2)
                torch.nn.init.normal_(module.bias, 0, 0.1)
                torch.nn.init.normal_(module.running_mean, 0, 0.1)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        model.fuse_norms()
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous().half() for name, tensor in model.state_dict().items()}, path)
    for tensor in model.state_dict().values():
        tensor.copy_(tensor.half().float())
    return path, model


def answers(model):
    generator = torch.Generator().manual_seed(1)
    cubes = torch.rand(1, 2, 32, 32, 32, generator=generator)
    with torch.no_grad():
        embedding, skip = model.encoder(torch.rand(1, 3, 64, 64, generator=generator))
        labels = torch.tensor([[2, 3]])
        points = torch.tensor([[[40.0, 50, -9], [200, 180, 9]]])
        attention = torch.rand(1, 2, 16, 16, generator=generator)
        none = torch.zeros(1, 1, 16, 16)
        inputs = (attention, torch.ones(1), points, labels, none, torch.tensor([3]))
        logits, iou = model.decoder(embedding, skip, *inputs)
        return [logits, iou, model.depth_attention(cubes)]


def test_a_network_begun_from_a_bundle_says_what_the_bundle_says(folded):
    path, bundle = folded
    assert is_folded(load_file(path))
    model = BoneSAM(16).eval()
    assert begin_from(model, path)
    for found, wanted in zip(answers(model), answers(bundle), strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)
    # And folded again after training it is the same still.
    for found, wanted in zip(answers(model.fuse_norms()), answers(bundle), strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)


def test_frozen_norms_keep_their_statistics_and_learn_the_rest(folded, store, tmp_path):
    path, _ = folded
    config = Config({"only": PHASE}, dim=16, workers=0, freeze_norms=True, tensorboard=False)
    run = Trainer(config, store, tmp_path / "run", "cpu", path)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.train_step([next(iter(Samples(store, "train", PHASE, 0, config)))], PHASE)
    after = run.model.state_dict()
    statistics = [name for name in before if "running" in name or "tracked" in name]
    assert len(statistics) > 20
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    for name in ("encoder.stem.0.0.weight", "encoder.stem.0.1.bias"):
        assert not torch.equal(before[name], after[name])


def test_a_bundle_without_frozen_norms_is_refused(folded, store, tmp_path):
    config = Config({"only": PHASE}, dim=16, workers=0, tensorboard=False)
    with pytest.raises(BoneSAMError, match="set 'freeze_norms: true' to begin with a bundle"):
        Trainer(config, store, tmp_path / "run", "cpu", folded[0])


@pytest.mark.parametrize("name", ["stem.0.0.bias", "stem.0.1.running_mean"])
def test_an_earlier_depth_attention_is_refused(folded, name):
    path, _ = folded
    earlier = load_file(path) | {f"depth_attention.{name}": torch.zeros(2)}
    save_file(earlier, path)
    with pytest.raises(BoneSAMError, match="an earlier one, with batch norms"):
        begin_from(BoneSAM(16), path)


def test_volumes_are_chosen_from_the_sources(store):
    subjects = load_subjects(store, "train")
    chosen = choose_few(subjects, FewShot(["knees"], volumes=2), 0)
    assert [subject.source for subject in chosen] == ["knees"] * 2
    again = choose_few(subjects, FewShot(["knees"], volumes=2), 0)
    assert [subject.id for subject in again] == [subject.id for subject in chosen]
    others = {tuple(s.id for s in choose_few(subjects, FewShot(["knees"], volumes=2), n)) for n in range(9)}
    assert len(others) > 2
    with pytest.raises(BoneSAMError, match=r"4 volumes are wanted and the store has 3\."):
        choose_few(subjects, FewShot(["knees"], volumes=4), 0)
    with pytest.raises(BoneSAMError, match="no annotated training scans of feet"):
        choose_few(subjects, FewShot(["feet"], volumes=1), 0)


def test_slices_are_images_of_their_own_with_their_own_labels(store):
    subjects = {subject.id: subject for subject in load_subjects(store, "train")}
    chosen = choose_few(list(subjects.values()), FewShot(["knees"], slices=5), 0)
    assert len({subject.id for subject in chosen}) == 5
    assert {subject.id.split()[0] for subject in chosen} == {"whole0", "whole1", "whole2"}
    for subject in chosen:
        name, _, index = subject.id.split()
        labels = subjects[name].labels[int(index)]
        assert subject.size.tolist() == [64, 70, 1]
        assert np.array_equal(subject.labels[0], labels)
        assert np.array_equal(subject.image[0], subjects[name].image[int(index)])
        assert {target.label for target in subject.targets} <= {LARGE, SMALL} & set(
            np.unique(labels).tolist()
        )
        for target in subject.targets:
            assert (subject.labels == target.label).sum() >= 16
            assert target.low[2] == target.high[2] == 0
    with pytest.raises(BoneSAMError, match=r"999 slices are wanted and the store has \d+ with a bone\."):
        choose_few(list(subjects.values()), FewShot(["knees"], slices=999), 0)


def test_a_few_slices_can_be_drawn_from(store):
    config = Config({"only": PHASE}, few_shot=FewShot(["knees"], slices=2), workers=0)
    batch = next(iter(Samples(store, "train", PHASE, 0, config)))
    assert batch["flat"].all()
    assert torch.equal(batch["slices"][:, :, 0], batch["slices"][:, :, 1])
    assert batch["target"].any()


def test_slices_with_a_sliver_of_bone_are_no_slices_to_learn_from(store):
    whole = next(subject for subject in load_subjects(store, "train") if subject.source == "knees")
    counts = (whole.labels == LARGE).sum((1, 2))
    wanted = {
        n for value in (LARGE, SMALL) for n in np.flatnonzero((whole.labels == value).sum((1, 2)) >= 16)
    }
    assert annotated_slices(whole) == sorted(wanted)
    assert 0 < len(wanted) < len(counts)


def test_a_curve_keeps_black_and_changes_what_is_bright():
    curves = [random_curve(np.random.default_rng(seed)) for seed in range(50)]
    assert all(curve[0] == 0 and curve.min() >= 0 and 0.7 < curve.max() <= 1 for curve in curves)
    falling = sum(bool((np.diff(curve) < 0).any()) for curve in curves)
    assert 10 < falling < 40


def test_slices_and_cube_are_shown_through_the_same_curve():
    steps = np.linspace(0, 1, 64).astype(np.float16)
    sample = {"slices": np.tile(steps, (2, 3, 64, 1)), "cube": np.tile(steps, (64, 64, 1)), "target": 1}
    remap_sample(sample, np.random.default_rng(3))
    assert np.array_equal(sample["slices"][1, 2, 5], sample["cube"][7, 9])
    assert not np.allclose(sample["cube"][7, 9], steps, atol=0.05)
    assert sample["slices"].dtype == np.float16
    assert sample["target"] == 1
