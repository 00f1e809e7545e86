"""A trained baseline behind BoneSAM's own session: with the same box, regions and post-processing."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from BoneSAMLib.engine import DecoderInputs
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from training.baselines.networks import box_channel, build

FACTS = "baseline.json"
WEIGHTS = "ema.safetensors"
MASK_SIZE = 128  # of the logits that a session expects

Array = NDArray[np.float32]


class BaselineEngine:
    """Answers the calls of `BoneSAMLib.engine.Engine` with a network that sees a box and nothing else.

    Clicks and earlier masks are ignored, and there is no depth attention: only boxes can be compared.
    """

    def __init__(self, network: nn.Module, device: str = "cpu") -> None:
        self.device = device
        self._network = network.eval().to(device)

    def encode(self, slices: Array) -> tuple[Array, Array]:
        """The slices themselves, kept instead of an embedding: the box enters at the first layer."""
        return slices, np.zeros((len(slices), 1), np.float32)

    def attend(self, cubes: Array) -> Array:
        """Nothing."""
        return np.zeros_like(cubes)

    @torch.inference_mode()
    def decode(self, inputs: DecoderInputs) -> tuple[Array, Array]:
        """Logits, four times the same, and the mean certainty of the pixels found as predicted IoU."""
        slices, points, labels = (
            torch.from_numpy(array).to(self.device)
            for array in (inputs.embedding, inputs.points, inputs.labels)
        )
        channel = box_channel(points, labels, slices.shape[-1])
        logits = self._network(torch.cat([slices, channel], 1)).float()
        small = functional.adaptive_avg_pool2d(logits, MASK_SIZE)
        found = small > 0
        certain = (torch.sigmoid(small) * found).sum((1, 2, 3)) / found.sum((1, 2, 3)).clamp(min=1)
        return small.repeat(1, 4, 1, 1).cpu().numpy(), certain[:, None].repeat(1, 4).cpu().numpy()


class BaselineSegmenter:
    """Opens volumes with a baseline from the folder of its training.

    Raises:
        BoneSAMError: there is no baseline, or its weights are of another network.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.name = str(json.loads((folder / FACTS).read_text(encoding="utf-8"))["network"])
            network = build(self.name)
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise BoneSAMError(f"There is no trained baseline in '{folder}': {first}") from error
        self._engine = BaselineEngine(network, device)

    def open(self, volume: Volume) -> Session:
        """Start working on a volume."""
        return Session(volume, self._engine)
