"""The same calls as `BoneSAMLib.engine.OnnxEngine`, answered by PyTorch; for CUDA and for comparison."""

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from BoneSAMLib.bundle import Bundle
from BoneSAMLib.engine import DecoderInputs, check_device
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.bonesam import BoneSAM

Array = NDArray[np.float32]


class TorchEngine:
    """Runs a bundle's weights in PyTorch, in float32."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        check_device(device)
        if device == "cuda" and not torch.cuda.is_available():
            raise BoneSAMError("No CUDA device can be used: PyTorch finds none. Choose the CPU.")
        self.device = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
        self._model = BoneSAM(int(bundle.manifest["dim"])).fuse_norms().requires_grad_(False)
        state = {name: tensor.float() for name, tensor in load_file(bundle.weights).items()}
        try:
            self._model.load_state_dict(state)
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise BoneSAMError(f"The weights '{bundle.weights}' are of another network: {first}") from error
        self._model.to(self.device)

    @torch.inference_mode()
    def encode(self, slices: Array) -> tuple[Array, Array]:
        embedding, skip = self._model.encoder(self._tensor(slices))
        return embedding.cpu().numpy(), skip.cpu().numpy()

    @torch.inference_mode()
    def attend(self, cubes: Array) -> Array:
        probability: Array = torch.sigmoid(self._model.depth_attention(self._tensor(cubes))).cpu().numpy()
        return probability

    @torch.inference_mode()
    def decode(self, inputs: DecoderInputs) -> tuple[Array, Array]:
        logits, iou = self._model.decoder(*(self._tensor(array) for array in inputs))
        return logits.cpu().numpy(), iou.cpu().numpy()

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
