"""Less than masks: what is not known stays hidden, and each loss asks for what its name says."""

import numpy as np
import pytest
import torch

from Testing.training.spheres import LARGE, SMALL
from Testing.training.tiny_network import few_channels
from Testing.training.tiny_stores import write_bare_scan, write_store, write_whole_scan
from training.batches import Samples
from training.configuration import Config, Phase, Supervision
from training.sampling import Mixture
from training.semi_supervision.annotation_levels import (
    boxes_only,
    one_bone,
    slices_with_bone,
    split_by_annotation,
    without_annotation,
)
from training.semi_supervision.consistency import (
    mean_teacher_loss,
    mutual_loss,
    pseudo_label_loss,
    ramp_up,
    sharpened,
)
from training.semi_supervision.discriminator import MaskDiscriminator, fooling_loss, judging_loss
from training.semi_supervision.weak_losses import box_loss, image_level_loss
from training.store import load_subjects
from training.train import Trainer

MIXTURE = {"synthetic": 0.0, "unlabelled": 0.0, "all_bones": 0.5}


@pytest.fixture(autouse=True)
def tiny_network():
    with few_channels():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = write_store(tmp_path_factory.mktemp("weak") / "store")
    for number in range(4):
        write_whole_scan(folder, f"whole{number}", source="knees", seed=number)
    write_bare_scan(folder, "bare")
    return folder


@pytest.fixture
def whole(store):
    return next(subject for subject in load_subjects(store, "train") if subject.source == "knees")


@pytest.mark.parametrize(("labelled", "kept"), [(0.1, 1), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_share_of_each_source_keeps_its_masks(store, labelled, kept):
    subjects = load_subjects(store, "train")
    first, rest = split_by_annotation(subjects, Supervision(labelled=labelled), 0)
    assert sum(subject.source == "knees" for subject in first) == kept
    assert sum(subject.kind == "labels" for subject in first) == 1
    assert sorted(subject.id for subject in [*first, *rest]) == sorted(subject.id for subject in subjects)
    assert all(not subject.labels.any() for subject in rest)
    assert {subject.id for subject in rest} >= {"bare"}


def test_boxes_hold_nothing_but_boxes(whole):
    boxed = boxes_only(whole)
    for index in range(whole.labels.shape[0]):
        for value in (LARGE, SMALL):
            mask = whole.labels[index] == value
            if mask.any():
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                window = boxed.labels[index, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                assert (window == value).mean() > 0.6  # a smaller bone's box may lie over it
    assert (boxed.labels > 0).sum() > 1.2 * (whole.labels > 0).sum()
    again = boxes_only(boxed)
    assert np.array_equal(again.labels == SMALL, boxed.labels == SMALL)  # nothing of a mask is left in it


def test_image_labels_hold_nothing_but_whole_slices(whole):
    slices = slices_with_bone(whole)
    shows = (whole.labels > 0).any((1, 2))
    assert np.array_equal(slices.labels, np.broadcast_to(shows[:, None, None], slices.labels.shape))
    assert 0 < shows.sum() < len(shows)


def test_scans_without_annotation_hold_none(whole):
    bare = without_annotation(whole)
    assert not bare.labels.any()
    assert len({target.low for target in bare.targets}) > 1
    assert np.array_equal(bare.image, whole.image)


def test_one_bone_is_known_and_the_others_are_not_background(whole):
    partial = one_bone(whole, 0)
    (target,) = partial.targets
    assert partial.partial
    assert target.label == 1
    known = next(t for t in whole.targets if t.name == target.name)
    assert np.array_equal(partial.labels == 1, whole.labels == known.label)


def test_a_partial_scan_never_says_that_the_rest_is_no_bone(store):
    config = Config({}, supervision=Supervision(labelled=0.25, rest="partial"))
    phase = Phase(steps=1, size=64, batch=6, attention=1.0, mixture=MIXTURE | {"all_bones": 1.0})
    subjects, _ = Samples(store, "train", phase, 0, config)._subjects()
    partial = [subject for subject in subjects if subject.partial]
    assert len(partial) == 3 + 1
    rng = np.random.default_rng(0)
    samples = Samples(store, "train", phase, 0, config)._draw(partial, Mixture(**phase.mixture), rng)
    assert (samples["mode"] == 0).all()
    assert (samples["cube_bone"][samples["has_cube"].bool()] == 255).all()


def test_supervision_alone_draws_no_other_scans(store):
    phase = Phase(steps=1, size=64, batch=1, attention=0.0, mixture=MIXTURE)
    for settings, draws in ((Supervision(labelled=0.25), False), (Supervision(0.25, mean_teacher=1.0), True)):
        batch = next(iter(Samples(store, "train", phase, 0, Config({}, supervision=settings))))
        assert ("rest" in batch) is draws


def test_the_depth_attention_learns_once_from_a_batch_of_two_decoders(store, tmp_path):
    """Its gradient is that of supervision alone, whatever the second decoder asks."""
    mixture = MIXTURE | {"all_bones": 0.0}
    phase = Phase(steps=1, size=64, batch=2, rounds=1, attention=1.0, mixture=mixture)
    gradients = []
    for settings in (Supervision(0.25), Supervision(0.25, two_decoders=1e-9)):
        config = Config(
            {"a": phase}, dim=32, workers=0, tensorboard=False, supervision=settings, precision="float32"
        )
        run = Trainer(config, store, tmp_path / str(len(gradients)), "cpu")
        batch = next(iter(Samples(store, "train", phase, 0, config)))
        torch.manual_seed(0)
        run._losses(batch, phase)[0].backward()
        gradients.append(run.model.depth_attention.head.weight.grad.clone())
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, atol=1e-6)


def logits_of(mask, sure=6.0):
    return (torch.as_tensor(mask).float() * 2 - 1) * sure


def test_the_image_level_loss_wants_some_bone_where_bone_is_and_none_elsewhere():
    nothing, some = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    some[:, 4:8, 4:8] = 1
    yes, no = torch.tensor([True]), torch.tensor([False])
    assert image_level_loss(logits_of(some), yes) < 0.1 < image_level_loss(logits_of(nothing), yes)
    assert image_level_loss(logits_of(nothing), no) < 0.1 < image_level_loss(logits_of(some), no)


def test_the_box_loss_wants_what_fills_its_box():
    box, disk = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    box[:, 8:24, 8:24] = 1
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    disk[0] = (x**2 + y**2 < 64).float()
    good = box_loss(logits_of(disk), box)
    for wrong in (torch.zeros_like(box), disk.roll(6, 2), disk * (x < 0), torch.ones_like(box)):
        assert box_loss(logits_of(wrong), box) > 5 * good
    assert box_loss(logits_of(disk), torch.zeros_like(box)) == 0


def test_agreeing_answers_cost_less():
    first, second = logits_of(torch.eye(16))[None], logits_of(1 - torch.eye(16))[None]
    for loss in (mean_teacher_loss, mutual_loss):
        assert loss(first, first) < 0.01 < loss(first, second)
    assert sharpened(torch.tensor([0.3, 0.5, 0.7])).tolist() == pytest.approx([0, 0.5, 1], abs=0.01)


def test_the_teacher_is_not_taught():
    student, teacher = (torch.randn(1, 8, 8, requires_grad=True) for _ in range(2))
    (mean_teacher_loss(student, teacher) + pseudo_label_loss(student, teacher, 0.6)[0]).backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_unsure_pixels_are_no_truth():
    teacher = torch.zeros(1, 8, 8)
    teacher[:, :2], teacher[:, 6:] = 6.0, -6.0
    right = torch.randn(1, 8, 8)
    right[:, :2], right[:, 6:] = 9.0, -9.0
    loss, share = pseudo_label_loss(right, teacher, 0.9)
    assert share == 0.5
    assert loss < 0.05
    assert pseudo_label_loss(-right, teacher, 0.9)[0] > 1


def test_the_weight_rises_to_one():
    weights = [ramp_up(step, 100) for step in (0, 50, 100, 500)]
    assert weights[0] < 0.01 < weights[1] < weights[2] == weights[3] == 1


def test_the_judge_learns_to_tell_and_fooling_it_does_not_teach_it():
    torch.manual_seed(0)
    judge = MaskDiscriminator()
    image, drawn, predicted = torch.rand(4, 32, 32), torch.ones(4, 32, 32), torch.zeros(4, 32, 32)
    predicted.requires_grad_(True)
    fooling_loss(judge, image, predicted).backward()
    assert predicted.grad.any()
    assert all(parameter.grad is None for parameter in judge.parameters())
    predicted.grad = None
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = judging_loss(judge, (image, drawn), (image, predicted))
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert predicted.grad is None
    assert losses[-1] < 0.5 * losses[0]
    assert fooling_loss(judge, image, predicted) > fooling_loss(judge, image, drawn)


@pytest.mark.parametrize(
    "methods",
    [
        {"mean_teacher": 1.0, "self_training": 0.5},
        {"two_decoders": 1.0},
        {"adversarial": 0.1},
        {"rest": "image", "image_labels": 0.5},
        {"rest": "box", "boxes": 1.0},
    ],
    ids=lambda methods: "-".join(methods),
)
def test_every_method_trains_and_goes_on_after_a_restart(store, tmp_path, methods):
    # An untrained network is sure of nothing.
    supervision = Supervision(labelled=0.5, ramp_steps=1, confidence=0.5, **methods)
    phase = Phase(steps=2, size=64, batch=2, rounds=1, attention=0.0, mixture=MIXTURE)
    settings = {"dim": 16, "workers": 0, "tensorboard": False, "supervision": supervision}
    config = Config({"only": phase}, **settings)
    run = Trainer(config, store, tmp_path, "cpu")
    batch = next(iter(Samples(store, "train", phase, 0, config)))
    facts = run.train_step([batch], phase)
    for name in set(methods) - {"rest"}:
        assert np.isfinite(facts[name])
        assert facts[name] > 0
    run.save()
    again = Trainer(config, store, tmp_path, "cpu")
    assert again.step == 1
    mine, theirs = run.assistants.state_dict(), again.assistants.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert bool(mine) == bool({"two_decoders", "adversarial"} & set(methods))
