"""SAM 2 through transformers' classes: official names, official answers, and a mask that is carried on."""

import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers", reason="SAM 2 needs the extra sam2")

from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel

from BoneSAMLib.errors import BoneSAMError
from Testing.training.tiny_network import few_channels
from training.configuration import Config
from training.networks import registry, sam2_network
from training.networks.registry import OFFICIAL, build_network
from training.sampling import OBJECT

SIZE = 64


@pytest.fixture(autouse=True)
def tiny_official(monkeypatch):
    monkeypatch.setitem(sam2_network.SIZES, "micro", (16, 1, [1, 1, 2, 1], [3], [4, 4, 4, 4], [4, 4]))
    monkeypatch.setitem(OFFICIAL, "sam2-micro", registry._sam2("SAM 2 micro", "micro"))
    with few_channels():
        yield


@pytest.fixture
def official(monkeypatch):
    """Tensors of transformers' own model, and the model."""
    kept = []
    build = Sam2VideoModel.__init__

    def remembering(self, config):
        build(self, config)
        kept.append(config)

    with monkeypatch.context() as patch:
        patch.setattr(Sam2VideoModel, "__init__", remembering)
        sam2_network.build_sam2("micro", SIZE)
    torch.manual_seed(0)
    model = Sam2VideoModel(kept[0]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "memory_embedding" in name or "temporal" in name or ".scale" in name:
                parameter.normal_(0, 0.3)
    return {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}, model


def network_of(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return build_network(Config({}, network="sam2-micro", image_size=SIZE), path).eval()


def test_transformers_files_are_loaded_and_others_refused(official, tmp_path):
    tensors, _ = official
    network = network_of(tensors, tmp_path)
    memory = network.memory.state_dict()
    assert torch.equal(memory["time"], tensors["memory_temporal_positional_encoding"])
    assert torch.equal(network.encoder.conv_s0.weight, tensors["mask_decoder.conv_s0.weight"])
    name = "memory_attention.layer_norm.weight"
    with pytest.raises(BoneSAMError, match=f"no SAM 2 micro checkpoint: '{name}' is missing"):
        network_of({k: v for k, v in tensors.items() if k != name}, tmp_path)


def test_the_first_answer_is_the_official_one(official, tmp_path):
    tensors, model = official
    network = network_of(tensors, tmp_path)
    slices = torch.rand(1, 3, SIZE, SIZE)
    box = torch.tensor([[[40.0, 60, 0], [200, 180, 0]]])
    with torch.no_grad():
        embedding, skip = network.encoder(slices)
        blank = torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8)
        found, iou = network.decoder(
            embedding, skip, blank[1], torch.ones(1), box, torch.tensor([[2, 3]]), blank[0], torch.tensor([5])
        )
        corners = box[0, :, :2].reshape(1, 1, 4) * SIZE / 256 - 0.5
        pixels = network.encoder.brightness(slices)
        answer = model._single_frame_forward(pixel_values=pixels, input_boxes=corners, multimask_output=True)
    best = int(answer.iou_scores[0, 0].argmax())
    assert torch.allclose(iou[:, 1:], answer.iou_scores[:, 0], atol=1e-4)
    if bool((answer.object_score_logits > 0).all()):
        assert torch.allclose(found[:, 1 + best], answer.pred_masks[:, 0], atol=1e-3)


def test_a_conditioned_embedding_is_the_official_one(official, tmp_path):
    """One remembered slice: the package's memory encoder and attention, called as it calls them."""
    tensors, model = official
    network = network_of(tensors, tmp_path)
    before, onto = torch.randn(1, 256, 4, 4), torch.randn(1, 256, 4, 4)
    logits = torch.randn(1, 32, 32)
    sequence = before.flatten(2).permute(2, 0, 1)
    mask = torch.nn.functional.interpolate(logits[:, None], size=(SIZE, SIZE), mode="bilinear")
    with torch.no_grad():
        found = network.carried(before, logits, onto)
        model.train()  # else it makes the mask hard where it comes from points
        memory, position = model._encode_new_memory(sequence, mask, torch.ones(1, 1), False)
        model.eval()
        position = position + model.memory_temporal_positional_encoding[-1]
        own = model.vision_encoder.neck.position_encoding(onto.shape, onto.device, onto.dtype)
        wanted = model.memory_attention(
            current_vision_features=onto.flatten(2).permute(2, 0, 1),
            memory=memory.float(),
            current_vision_position_embeddings=own.flatten(2).permute(2, 0, 1),
            memory_posision_embeddings=position,
        )
    wanted = wanted.reshape(-1, 256)  # positions one after the other
    # The package rounds memories to bfloat16.
    assert torch.allclose(found[0].flatten(1).T, wanted, atol=0.05)
    assert not torch.allclose(found, onto, atol=0.5)


def test_masks_of_a_batch_are_carried_one_by_one(official, tmp_path):
    network = network_of(official[0], tmp_path)
    before, onto, logits = torch.randn(2, 256, 4, 4), torch.randn(2, 256, 4, 4), torch.randn(2, 32, 32)
    with torch.no_grad():
        both = network.carried(before, logits, onto)
        for n in (0, 1):
            alone = network.carried(before[n : n + 1], logits[n : n + 1], onto[n : n + 1])
            assert torch.allclose(both[n], alone[0], atol=1e-4)


def test_a_mask_is_carried_through_a_stack(official, tmp_path):
    network = network_of(official[0], tmp_path)
    slices, mask = torch.rand(4, 3, SIZE, SIZE), torch.randn(32, 32)
    found = network.carry_through(slices, mask, 1)
    assert torch.equal(found[1], mask)
    assert all(found[n].abs().any() for n in (0, 2, 3))
    other = network.carry_through(slices, -mask, 1)
    assert not torch.allclose(found[3], other[3])


def test_carrying_is_learned_by_the_memory(official, tmp_path):
    network = network_of(official[0], tmp_path)
    target = torch.zeros(2, 2, SIZE, SIZE, dtype=torch.uint8)
    target[:, :, 20:40, 20:40] = 1
    batch = {
        "slices": torch.rand(2, 2, 3, SIZE, SIZE),
        "target": target,
        "weight": torch.ones_like(target),
        "mode": torch.tensor([OBJECT, OBJECT]),
        "depths": torch.tensor([[0.0, 5.0], [0.0, 0.0]]),  # the second case has one slice only
    }
    loss = network.carrying_loss(batch, torch.device("cpu"))
    loss.backward()
    assert loss > 0
    assert all(p.grad is not None for p in network.memory.attention.parameters())
    batch["depths"][:] = 0
    assert network.carrying_loss(batch, torch.device("cpu")) == 0
