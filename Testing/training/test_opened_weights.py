"""Checkpoints are measured in float32, exactly as they were trained."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from BoneSAMLib.errors import BoneSAMError
from Testing.random_weights import random_model
from training.opened_weights import CheckpointSegmenter, open_weights, weights_digest


def test_a_checkpoint_answers_as_the_network_it_was_saved_from(tmp_path):
    model = random_model()
    path = tmp_path / "ema.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    segmenter = open_weights(path, "cpu")
    assert isinstance(segmenter, CheckpointSegmenter)
    slices = np.random.default_rng(0).random((1, 3, 256, 256), dtype=np.float32)
    embedding, skip = segmenter.engine.encode(slices)
    with torch.inference_mode():
        expected = model.encoder(torch.from_numpy(slices))
    # Float16 would differ by a thousandth.
    assert np.allclose(embedding, expected[0].numpy(), atol=1e-4 * float(expected[0].abs().max()))
    assert np.allclose(skip, expected[1].numpy(), atol=1e-4 * float(expected[1].abs().max()))
    digest = weights_digest(path)
    save_file({"other": torch.zeros(1)}, path)
    assert weights_digest(path) != digest
    with pytest.raises(BoneSAMError, match="no training's checkpoint of bonesam-t"):
        open_weights(path, "cpu")


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(BoneSAMError, match="no weights"):
        open_weights(tmp_path, "cpu")
