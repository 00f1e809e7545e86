"""Weights of any kind, ready to be measured: a bundle, a checkpoint in float32, a baseline."""

import hashlib
from pathlib import Path

import torch

from BoneSAMLib.bundle import BUNDLED_WEIGHTS
from BoneSAMLib.engine import check_device
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.torch_engine import TorchEngine
from BoneSAMLib.session import Segmenter, Session
from BoneSAMLib.volume import Volume
from training.annotator import OpensVolumes
from training.baselines.segmenter import FACTS, BaselineSegmenter
from training.export import load_trained
from training.networks.adapters import fold_low_rank
from training.networks.registry import BONESAM_T


class CheckpointEngine(TorchEngine):
    """A training's checkpoint in PyTorch, in float32, as it was before its export to float16.

    Raises:
        BoneSAMError: the file cannot be read, or is of another network.
    """

    def __init__(self, checkpoint: Path, device: str = "auto") -> None:
        check_device(device)
        self.device = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
        model, config = load_trained(checkpoint)
        if config.network != BONESAM_T:
            raise BoneSAMError(
                f"'{checkpoint}' is a checkpoint of {config.network}: export it, and measure the bundle."
            )
        fold_low_rank(model)
        self._model = model.fuse_norms().requires_grad_(False).to(self.device)


class CheckpointSegmenter:
    """Opens volumes with a checkpoint."""

    def __init__(self, checkpoint: Path, device: str = "auto") -> None:
        self.engine = CheckpointEngine(checkpoint, device)

    def open(self, volume: Volume) -> Session:
        """Start working on a volume."""
        return Session(volume, self.engine)


def open_weights(weights: Path | None, device: str = "auto") -> OpensVolumes:
    """A segmenter for a bundle's folder, a baseline's folder or a ``.safetensors`` checkpoint; None: bundled.

    Raises:
        BoneSAMError: there is nothing that can be opened.
    """
    if weights is not None and weights.suffix == ".safetensors":
        return CheckpointSegmenter(weights, device)
    if weights is not None and (weights / FACTS).exists():
        return BaselineSegmenter(weights, device)
    return Segmenter(device=device, weights=weights)


def weights_digest(weights: Path | None) -> str:
    """Short SHA-256 over a file or a folder's files: tells one network's results from another's."""
    weights = BUNDLED_WEIGHTS if weights is None else weights
    files = sorted(path for path in weights.rglob("*") if path.is_file()) if weights.is_dir() else [weights]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(weights).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
