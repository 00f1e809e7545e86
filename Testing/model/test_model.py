"""The network: its sizes and costs, and which of its inputs matter when."""

import copy

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from BoneSAMLib.model.bonesam import BoneSAM
from BoneSAMLib.model.encoder import count_parameters
from BoneSAMLib.model.kind_prompt import KindPrompt
from BoneSAMLib.model.prompt_encoder import BOX_HIGH, BOX_LOW, INPUT_SIZE, NEGATIVE, PADDING, POSITIVE
from Testing.random_weights import random_model


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def shapes():
    """The network on the meta device: shapes and costs without the work."""
    with torch.device("meta"):
        return BoneSAM().eval()


@pytest.fixture(scope="module")
def features(model):
    """Embedding and skip features of two slices of 64 pixels, a quarter of their usual size."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        return model.encoder(torch.rand(2, 3, 64, 64, generator=generator))


def decode(model, features, points, labels, attention=None, use=0.0, masks=None, kind=0):
    """Logits and IoU of the same prompts in both slices."""
    embedding, skip = features
    count, size = embedding.shape[0], embedding.shape[-1]
    with torch.inference_mode():
        return model.decoder(
            embedding,
            skip,
            torch.zeros(count, 2, size, size) if attention is None else attention,
            torch.full((count,), use),
            torch.tensor(points, dtype=torch.float32).expand(count, -1, -1),
            torch.tensor(labels).expand(count, -1),
            torch.zeros(count, 1, size, size) if masks is None else masks,
            torch.full((count,), kind),
        )


BOX = [[60.0, 50.0, -20.0], [190.0, 200.0, 30.0]]
BOX_LABELS = [BOX_LOW, BOX_HIGH]
CLICK = [[100.0, 120.0, 0.0]]


def giga_macs(function, *inputs):
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops() / 2e9


def test_the_encoder_is_small_and_cheap(shapes):
    assert 5.2e6 < count_parameters(shapes.encoder) < 5.6e6
    assert giga_macs(shapes.encoder, torch.empty(1, 3, INPUT_SIZE, INPUT_SIZE, device="meta")) <= 2.5


def test_the_depth_attention_is_small(shapes):
    assert 2e6 < count_parameters(shapes.depth_attention) < 6e6


def test_the_encoder_gives_embedding_and_skip_features(shapes):
    embedding, skip = shapes.encoder(torch.empty(3, 3, 256, 256, device="meta"))
    assert embedding.shape == (3, 128, 64, 64)
    assert skip.shape == (3, 32, 128, 128)


def test_the_depth_attention_answers_every_voxel_twice(shapes):
    assert shapes.depth_attention(torch.empty(2, 2, 64, 64, 64, device="meta")).shape == (2, 2, 64, 64, 64)
    assert shapes.depth_attention(torch.empty(1, 2, 32, 48, 16, device="meta")).shape == (1, 2, 32, 48, 16)


def test_the_depth_attention_keeps_voxels_in_their_place():
    model = random_model().depth_attention
    cube = torch.rand(1, 2, 64, 64, 64, generator=torch.Generator().manual_seed(3))
    other = cube.clone()
    other[0, 0, 12, 40, 54] += 5.0
    with torch.inference_mode():
        change = (model(other) - model(cube)).abs()[0].sum(0)
    middle = [int(change.sum([a for a in range(3) if a != axis]).argmax()) for axis in range(3)]
    assert middle == pytest.approx([12, 40, 54], abs=2)


@pytest.mark.parametrize("prompts", [1, 3, 12])
def test_the_decoder_takes_any_number_of_prompts(shapes, prompts):
    def meta(*shape, **options):
        return torch.empty(*shape, device="meta", **options)

    logits, iou = shapes.decoder(
        meta(3, 128, 64, 64), meta(3, 32, 128, 128), meta(3, 2, 64, 64), meta(3), meta(3, prompts, 3),
        meta(3, prompts, dtype=torch.long), meta(3, 1, 64, 64), meta(3, dtype=torch.long),
    )  # fmt: skip
    assert logits.shape == (3, 4, 128, 128)
    assert iou.shape == (3, 4)


def test_a_name_changes_the_answer_of_its_slice_alone(model, features):
    learned = copy.deepcopy(model)
    learned.decoder.kind_prompt = KindPrompt(128).requires_grad_(False)
    nothing = decode(learned, features, BOX, BOX_LABELS)[0]
    for kind in (0, 5):
        assert torch.equal(decode(learned, features, BOX, BOX_LABELS, kind=kind)[0], nothing)
    for part in (learned.decoder.kind_prompt.token, learned.decoder.kind_prompt.everywhere):
        before = decode(learned, features, BOX, BOX_LABELS, kind=5)[0]
        with torch.no_grad():
            torch.nn.init.normal_(part[4])
        named = decode(learned, features, BOX, BOX_LABELS, kind=5)[0]
        assert (named - before).abs().mean() > 1e-3
        for kind in (0, 6):
            assert torch.equal(decode(learned, features, BOX, BOX_LABELS, kind=kind)[0], nothing)


def test_no_name_is_never_learned():
    prompt = KindPrompt(8)
    sparse, dense = prompt(torch.tensor([0, 3]), torch.randn(2, 4, 8), torch.randn(2, 8, 2, 2))
    (sparse.sum() + dense.sum()).backward()
    for part in (prompt.token, prompt.everywhere):
        assert part.grad[[0, 1, 3, 4]].eq(0).all()
        assert part.grad[2].ne(0).all()


def test_the_predicted_iou_and_the_gate_are_shares(model, features):
    _, iou = decode(model, features, BOX, BOX_LABELS)
    assert ((iou >= 0) & (iou <= 1)).all()
    gated = copy.deepcopy(model.decoder.fusion)
    for logit in (-50.0, 0.0, 50.0):
        gated.gate_logit.fill_(logit)
        assert 0 <= float(gated.gate) <= 1


def test_attention_counts_only_where_it_is_used(model, features):
    attention = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(1))
    without, _ = decode(model, features, BOX, BOX_LABELS)
    unused, _ = decode(model, features, BOX, BOX_LABELS, attention)
    used, _ = decode(model, features, BOX, BOX_LABELS, attention, use=1.0)
    assert torch.equal(without, unused)
    assert not torch.allclose(without, used, atol=1e-3)


def test_padding_says_nothing_wherever_it_lies(model, features):
    labels = [*BOX_LABELS, PADDING]
    first, _ = decode(model, features, [*BOX, [0.0, 0.0, 0.0]], labels)
    second, _ = decode(model, features, [*BOX, [99.0, 120.0, 3.0]], labels)
    assert torch.equal(first, second)


def test_the_order_of_prompts_does_not_matter(model, features):
    first, _ = decode(model, features, BOX + CLICK, [*BOX_LABELS, POSITIVE])
    second, _ = decode(model, features, CLICK + BOX, [POSITIVE, *BOX_LABELS])
    assert torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize(("points", "labels"), [(BOX, BOX_LABELS), (CLICK, [POSITIVE]), (CLICK, [NEGATIVE])])
def test_the_same_prompt_at_another_depth_means_something_else(model, features, points, labels):
    here, _ = decode(model, features, points, labels)
    moved, _ = decode(model, features, [[x, y, depth + 12] for x, y, depth in points], labels)
    assert float((here - moved).abs().max()) > 1e-3


def test_a_click_on_is_not_a_click_off_and_a_mask_counts(model, features):
    on, _ = decode(model, features, CLICK, [POSITIVE])
    off, _ = decode(model, features, CLICK, [NEGATIVE])
    masked, _ = decode(model, features, CLICK, [POSITIVE], masks=torch.full((2, 1, 16, 16), 5.0))
    assert not torch.allclose(on, off, atol=1e-3)
    assert not torch.allclose(on, masked, atol=1e-3)


def test_slices_of_a_batch_do_not_mix(model, features):
    both, _ = decode(model, features, BOX, BOX_LABELS)
    alone, _ = decode(model, [part[1:] for part in features], BOX, BOX_LABELS)
    assert torch.allclose(both[1:], alone, atol=1e-3)


def test_fused_norms_give_the_same_output(model):
    generator = torch.Generator().manual_seed(2)
    slices = torch.rand(1, 3, 64, 64, generator=generator)
    cube = torch.rand(1, 2, 32, 32, 32, generator=generator)
    fused = copy.deepcopy(model).fuse_norms()
    assert not any(isinstance(module, _BatchNorm) for module in fused.modules())
    with torch.inference_mode():
        for before, after in zip(model.encoder(slices), fused.encoder(slices), strict=True):
            assert torch.allclose(before, after, rtol=1e-3, atol=1e-3)
        before, after = (network.depth_attention(cube) for network in (model, fused))
        assert torch.allclose(before, after, rtol=1e-3, atol=1e-3)
        features = model.encoder(slices)
        before, _ = decode(model, features, BOX, BOX_LABELS, torch.ones(1, 2, 16, 16), 1.0)
        after, _ = decode(fused, features, BOX, BOX_LABELS, torch.ones(1, 2, 16, 16), 1.0)
        assert torch.allclose(before, after, rtol=1e-3, atol=1e-3)
