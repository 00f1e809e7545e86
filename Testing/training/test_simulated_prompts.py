"""Prompts are as sloppy as people are, and each slice hears them at its own distance."""

import pytest
import torch

from BoneSAMLib.model.prompt_encoder import BOX_HIGH, BOX_LOW, INPUT_SIZE, NEGATIVE, PADDING, POSITIVE
from training.simulated_prompts import (
    INWARD,
    LOOSE_INWARD,
    LOOSE_OUTWARD,
    OUTWARD,
    SLOTS,
    Prompts,
    click_on,
    jitter,
)

DEPTHS = torch.tensor([[0.0, 7.0], [0.0, -3.0]])
ALL = torch.tensor([True, True])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_box_sides_move_by_a_share_of_the_box():
    side = 1000.0  # so large that the trembling hand does not matter
    boxes = torch.tensor([[-500.0, -500.0, -500.0, 500.0, 500.0, 500.0]]).repeat(2000, 1)
    moved = jitter(boxes, seeded())
    outward = torch.cat([boxes[:, :3] - moved[:, :3], moved[:, 3:] - boxes[:, 3:]], 1) / side
    assert -INWARD - 0.006 < outward.min() < -INWARD + 0.01
    assert OUTWARD - 0.01 < outward.max() < OUTWARD + 0.006
    assert float(outward.mean()) == pytest.approx((OUTWARD - INWARD) / 2, abs=0.005)
    correlation = torch.corrcoef(outward.T) - torch.eye(6)
    assert correlation.abs().max() < 0.1


def test_some_boxes_are_as_loose_as_those_found_by_name():
    boxes = torch.tensor([[-500.0, -500.0, -500.0, 500.0, 500.0, 500.0]]).repeat(2000, 1)
    loose = torch.arange(2000) % 2 == 0
    moved = jitter(boxes, seeded(), loose)
    outward = torch.cat([boxes[:, :3] - moved[:, :3], moved[:, 3:] - boxes[:, 3:]], 1) / 1000.0
    assert outward[loose].min() == pytest.approx(-LOOSE_INWARD, abs=0.02)
    assert outward[loose].max() == pytest.approx(LOOSE_OUTWARD, abs=0.02)
    assert outward[~loose].min() == pytest.approx(-INWARD, abs=0.02)
    assert outward[~loose].max() == pytest.approx(OUTWARD, abs=0.02)


def test_even_a_small_box_is_drawn_a_pixel_off():
    boxes = torch.tensor([[10.0, 10.0, 10.0, 11.0, 11.0, 11.0]]).repeat(2000, 1)
    assert 0.9 < float((jitter(boxes, seeded()) - boxes).std(0).mean()) < 1.1


def test_a_box_without_depth_keeps_none():
    boxes = torch.tensor([[10.0, 10.0, 0.0, 90.0, 90.0, 0.0]])
    moved = jitter(boxes, seeded())
    assert not moved[:, [2, 5]].any()
    assert moved[:, [0, 1, 3, 4]].ne(boxes[:, [0, 1, 3, 4]]).all()


def test_no_prompt_is_all_padding():
    points, labels = Prompts.empty(3).flat()
    assert points.shape == (6, SLOTS, 3)
    assert labels.shape == (6, SLOTS)
    assert (labels == PADDING).all()


def test_a_box_lies_at_its_distance_from_each_slice():
    prompts = Prompts.empty(2)
    boxes = torch.tensor([[1.0, 2.0, -30.0, 3.0, 4.0, 50.0], [5.0, 6.0, -8.0, 7.0, 8.0, 9.0]])
    prompts.add_boxes(boxes, DEPTHS, torch.tensor([True, False]))
    points, labels = prompts.flat()
    assert labels[:2, :3].tolist() == [[BOX_LOW, BOX_HIGH, PADDING]] * 2
    assert points[0, :2].tolist() == [[1, 2, -30], [3, 4, 50]]
    assert points[1, :2].tolist() == [[1, 2, -37], [3, 4, 43]]
    assert (labels[2:] == PADDING).all()
    assert prompts.used.tolist() == [2, 0]
    prompts.add_boxes(boxes, DEPTHS, torch.tensor([False, True]))
    assert prompts.points[1, 1, :2].tolist() == [[5, 6, -5], [7, 8, 12]]


def test_a_click_lies_at_its_distance_from_each_slice():
    prompts = Prompts.empty(2)
    places = torch.tensor([[11.0, 12.0], [21.0, 22.0]])
    prompts.add_clicks(places, torch.tensor([1, 0]), torch.tensor([1, 0]), DEPTHS, ALL)
    assert prompts.points[0, :, 0].tolist() == [[11, 12, 7], [11, 12, 0]]
    assert prompts.points[1, :, 0].tolist() == [[21, 22, 0], [21, 22, 3]]
    assert prompts.labels[:, 0].tolist() == [POSITIVE, NEGATIVE]


def test_clicks_fill_the_slots_after_the_box_and_then_stop():
    prompts = Prompts.empty(2)
    prompts.add_boxes(torch.zeros(2, 6), DEPTHS, torch.tensor([True, False]))
    for turn in range(SLOTS + 2):
        places = torch.full((2, 2), float(turn))
        prompts.add_clicks(places, torch.zeros(2), torch.ones(2), DEPTHS, ALL)
    assert prompts.used.tolist() == [SLOTS, SLOTS]
    assert prompts.labels[0].tolist() == [BOX_LOW, BOX_HIGH, *[POSITIVE] * (SLOTS - 2)]
    assert prompts.points[0, 0, 2:, 0].tolist() == list(range(SLOTS - 2))
    assert prompts.points[1, 0, :, 0].tolist() == list(range(SLOTS))


def test_only_the_chosen_cases_get_a_click():
    prompts = Prompts.empty(2)
    chosen = torch.tensor([False, True])
    prompts.add_clicks(torch.ones(2, 2), torch.zeros(2), torch.ones(2), DEPTHS, chosen)
    assert prompts.used.tolist() == [0, 1]


@pytest.mark.parametrize("size", [80, 128])
def test_a_click_falls_inside_the_error(size):
    generator = seeded(size)
    error = (torch.rand(20, 1, 8, 8, generator=generator) > 0.6).float()
    error = torch.nn.functional.interpolate(error, size=(size, size))[:, 0]
    places, sizes = click_on(error, generator)
    assert torch.equal(sizes, error.flatten(1).sum(1))
    assert ((places > 0) & (places < INPUT_SIZE)).all()
    columns, rows = (places * size / INPUT_SIZE).long().T
    assert error[torch.arange(20), rows, columns].eq(1).all()


def test_a_click_falls_well_inside_the_largest_error():
    error = torch.zeros(1, 128, 128)
    error[0, 10:12, 10:60] = 1  # long but thin
    error[0, 80:110, 70:100] = 1
    for seed in range(20):
        places, _ = click_on(error, seeded(seed))
        x, y = (places[0] / 2).tolist()
        assert 73 < x < 97
        assert 83 < y < 107


def test_clicks_vary_as_people_do():
    error = torch.zeros(1, 128, 128)
    error[0, 40:90, 40:90] = 1
    places = torch.cat([click_on(error, seeded(seed))[0] for seed in range(20)])
    assert (places.std(0) > 5).all()
