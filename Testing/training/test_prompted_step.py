"""A training step asks the network what a user would, and shows it the cube where the slices lie."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from BoneSAMLib.model.prompt_encoder import BOX_HIGH, BOX_LOW, INPUT_SIZE, NEGATIVE, PADDING, POSITIVE
from Testing.training.spheres import anatomy
from training.prompted_step import losses_of
from training.sampling import ALL_BONES, CUBE_SIZE, OBJECT, Mixture, draw_sample

SIZE = 64
CPU = torch.device("cpu")
PLAIN = {"synthetic": 1.0, "unlabelled": 0.0, "radiograph": 0.0, "anything": 0.0}


def batch_of(count, seed=0, with_cube=True, **changes):
    rng = np.random.default_rng(seed)
    mixture = Mixture(**(PLAIN | {"all_bones": 0.0, "two_dimensional_box": 0.0} | changes))
    samples = [draw_sample([anatomy()], mixture, SIZE, with_cube, rng) for _ in range(count)]
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}


@pytest.fixture(scope="module")
def batch():
    """24 cases whose cube shows the target itself."""
    drawn = batch_of(24)
    drawn["cube"] = drawn["cube_target"].half()
    return drawn


class Listener:
    """In place of the network: remembers what it is asked, finds what is bright in a cube, gives one mask."""

    training = False

    def __init__(self, answer):
        self.answer = answer  # [2 B, SIZE / 2, SIZE / 2], 0..1
        self.cubes, self.asked = None, []

    def depth_attention(self, cubes):
        self.cubes = cubes
        return (cubes[:, :1] * 20 - 10).expand(-1, 2, -1, -1, -1)

    def encoder(self, slices):
        count = len(slices)
        return slices.new_zeros(count, 128, SIZE // 4, SIZE // 4), slices.new_zeros(
            count, 32, SIZE // 2, SIZE // 2
        )

    def decoder(self, embedding, skip, attention, use, points, labels, masks, kinds):
        self.asked.append((attention, use, points.clone(), labels.clone(), masks.clone()))
        self.kinds = kinds
        logits = (self.answer * 20 - 10)[:, None].expand(-1, 4, -1, -1)
        return logits, torch.ones(len(logits), 4)


def halved(batch):
    return functional.avg_pool2d(batch["target"].flatten(0, 1)[:, None].float(), 2)[:, 0]


def run(batch, answer, rounds=2, seed=0):
    """What the network was asked, the decoder's loss, and what is logged."""
    torch.manual_seed(seed)
    listener = Listener(answer)
    loss, facts = losses_of(listener, batch, rounds, CPU)
    return listener, float(loss) - facts.get("cube", 0.0), facts


def test_the_attention_map_lies_where_the_slice_does(batch):
    listener, _, _ = run(batch, halved(batch))
    attention, use, *_ = listener.asked[0]
    truth = functional.avg_pool2d(halved(batch)[:, None], 2)[:, 0] > 0.5
    scores = []
    for found, wanted in zip(attention[use > 0, 0] > 0.5, truth[use > 0], strict=True):
        if wanted.sum() > 20:
            scores.append(float(2 * (found & wanted).sum() / (found.sum() + wanted.sum())))
    assert len(scores) > 20
    assert np.mean(scores) > 0.9
    assert not attention[use == 0].any()


def test_attention_is_used_where_the_cube_reaches_the_slice(batch):
    listener, _, _ = run(batch, halved(batch))
    use = listener.asked[0][1].reshape(-1, 2) > 0
    plane = batch["cube_plane"]
    assert torch.equal(use, (plane >= -0.5) & (plane <= CUBE_SIZE - 0.5))


def test_the_cube_is_told_the_box(batch):
    listener, _, _ = run(batch, halved(batch))
    target, inside = batch["cube_target"].bool(), listener.cubes[:, 1] > 0
    told = inside.flatten(1).any(1)
    assert 10 < told.sum() < 24  # the others get a click only
    shares = (target & inside).flatten(1).sum(1) / target.flatten(1).sum(1).clamp(min=1)
    assert shares[told].mean() > 0.9
    volume = inside.flatten(1).sum(1) / target.flatten(1).sum(1).clamp(min=1)
    assert volume[told].median() < 3  # a ball fills half of its box


def test_slices_of_a_bone_with_a_name_are_told_it():
    some = batch_of(3)
    some["kind"] = torch.tensor([0, 4, 9])
    listener, _, _ = run(some, halved(some))
    assert listener.kinds.tolist() == [0, 0, 4, 4, 9, 9]


def test_without_a_cube_there_is_no_attention():
    listener, _, facts = run(some := batch_of(2, with_cube=False), halved(some))
    attention, use, *_ = listener.asked[0]
    assert listener.cubes is None
    assert "cube" not in facts
    assert not use.any()
    assert not attention.any()


def test_right_masks_need_no_correction(batch):
    listener, loss, facts = run(batch, halved(batch))
    (_, _, _, first, before), (_, _, _, second, after) = listener.asked
    assert torch.equal(first, second)
    assert not before.any()
    assert after.abs().max() == pytest.approx(10, abs=0.01)
    assert loss < 1
    assert {"box_first", "box_last", "click_first", "cube"} <= set(facts)
    assert min(facts[name] for name in facts if name != "cube") > 0.95


def test_missing_masks_get_a_click_on_the_bone(batch):
    listener, loss, _ = run(batch, torch.zeros_like(halved(batch)))
    (_, _, _, first, _), (_, _, points, second, _) = listener.asked
    added = (first == PADDING) & (second != PADDING)
    assert (second[added] == POSITIVE).all()
    assert loss > 1
    check_clicks(batch, points, added, inside=True)


@pytest.mark.parametrize(("again", "least", "most"), [(0.0, 0.9, 1.0), (1.0, 0.0, 0.0)])
def test_some_masks_are_looked_at_again_without_a_click(batch, monkeypatch, again, least, most):
    monkeypatch.setattr("training.prompted_step.AGAIN", again)
    listener, _, _ = run(batch, torch.zeros_like(halved(batch)))
    (_, _, _, first, _), (_, _, _, second, after) = listener.asked
    clicked = ((first == PADDING) & (second != PADDING)).any(1).float().mean()
    assert least <= clicked <= most
    assert after.any()  # the first answer, as a prompt


def test_masks_of_everything_get_a_click_beside_the_bone(batch):
    listener, _, _ = run(batch, torch.ones_like(halved(batch)))
    (_, _, _, first, _), (_, _, points, second, _) = listener.asked
    added = (first == PADDING) & (second != PADDING)
    assert (second[added] == NEGATIVE).all()
    check_clicks(batch, points, added, inside=False)


def check_clicks(batch, points, added, inside):
    """A new click lies on the slice that was wrong, at no distance; the other slice knows how far it is."""
    target = halved(batch) > 0.5
    checked = 0
    for case in range(len(batch["mode"])):
        rows = points[2 * case : 2 * case + 2][added[2 * case : 2 * case + 2]]
        if not len(rows):
            continue
        (part,) = torch.nonzero(rows[:, 2] == 0).flatten()[:1].tolist()
        x, y = (rows[part, :2] * (SIZE // 2) / INPUT_SIZE).long().tolist()
        assert bool(target[2 * case + part, y, x]) == inside
        distance = batch["depths"][case, part] - batch["depths"][case, 1 - part]
        assert float(rows[1 - part, 2]) == pytest.approx(float(distance), abs=1e-4)
        checked += 1
    assert checked > 8


def test_first_prompts_are_boxes_clicks_or_both(batch):
    listener, _, _ = run(batch, halved(batch))
    labels = listener.asked[0][3][0::2]
    boxes = (labels == BOX_LOW).any(1)
    clicks = (labels == POSITIVE).any(1)
    assert torch.equal(boxes, (labels == BOX_HIGH).any(1))
    assert (boxes | clicks).all()
    assert 0.5 < boxes.float().mean() < 1
    assert clicks.any()
    assert (batch["mode"] == OBJECT).all()


def test_all_bones_come_without_a_prompt():
    listener, _, facts = run(some := batch_of(2, all_bones=1.0), halved(some), rounds=1)
    assert (some["mode"] == ALL_BONES).all()
    assert (listener.asked[0][3] == PADDING).all()
    assert not listener.cubes[:, 1].any()
    assert {"all_first"} <= set(facts) <= {"all_first", "cube"}


def test_a_box_on_one_slice_has_no_depth():
    some = batch_of(8, with_cube=False, two_dimensional_box=1.0)
    listener, _, _ = run(some, halved(some), rounds=1)
    _, _, points, labels, masks = listener.asked[0]
    boxed = (labels[0::2] == BOX_LOW).any(1)
    assert boxed.any()
    assert not points[0::2][boxed][:, :2, 2].any()
    distance = -some["depths"][boxed, 1]
    assert torch.allclose(points[1::2][boxed][:, :2, 2], distance[:, None].expand(-1, 2))
    # Some are shown the neighbor's mask: a box drawn on one slice is carried to the next.
    assert not masks[0::2].any()
    assert 0 < masks[1::2].flatten(1).any(1).sum() <= boxed.sum()
