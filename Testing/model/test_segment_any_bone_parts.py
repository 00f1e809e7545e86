"""The timing comparison is only fair if the rebuilt parts have the published sizes."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from Testing.bench.segment_any_bone_parts import CUBE_SIZE, IMAGE_SIZE, SegmentAnyBoneParts, WindowAttention


@pytest.fixture(scope="module")
def parts():
    """On the meta device: shapes and operation counts without the work."""
    with torch.device("meta"):
        return SegmentAnyBoneParts()


def millions(network):
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def giga_macs(function, *inputs):
    # Only the unfused attention is counted by every release of torch.
    with (
        FlopCounterMode(display=False) as counter,
        nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    ):
        function(*inputs)
    return counter.get_total_flops() / 2e9


def test_encoder_has_the_size_of_mobile_sam(parts):
    with torch.device("meta"):
        unused_head = nn.Sequential(nn.LayerNorm(320), nn.Linear(320, 1000))
    assert millions(parts.encoder) + millions(unused_head) == pytest.approx(6.07, abs=0.005)


def test_encoder_costs_what_mobile_sam_costs(parts):
    image = torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta")
    assert giga_macs(parts.encode, image) == pytest.approx(38.8, abs=0.05)
    assert parts.encode(image).shape == (1, 256, 64, 64)


def test_decoder_has_the_size_of_sam(parts):
    assert millions(parts.decoder) == pytest.approx(4.06, abs=0.005)


def test_decoder_returns_three_masks(parts):
    embedding = torch.empty(1, 256, 64, 64, device="meta")
    logits = parts.decode(embedding, torch.empty(1, 4, device="meta"))
    assert logits.shape == (1, 3, 256, 256)


def test_depth_attention_has_the_size_and_cost_of_vnet(parts):
    cube = torch.empty(1, 1, CUBE_SIZE, CUBE_SIZE, CUBE_SIZE, device="meta")
    assert millions(parts.depth_attention) == pytest.approx(45.6, abs=0.05)
    assert giga_macs(parts.attend, cube) == pytest.approx(90.4, abs=0.05)
    assert parts.attend(cube).shape == cube.shape


def test_window_attention_bias_depends_on_the_distance_of_two_pixels():
    distance = WindowAttention(dim=8, heads=2, window=3).distance
    assert distance.shape == (9, 9)
    assert (distance == distance.T).all()
    assert distance[0, 4] == distance[4, 8]  # one step down and right, wherever it starts
    assert distance[0, 1] != distance[0, 3]  # one step right is not one step down
