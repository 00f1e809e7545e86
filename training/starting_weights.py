"""Weights to begin a training with: an earlier training's, or a bundle's."""

from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from BoneSAMLib.bundle import BUNDLED_WEIGHTS, MANIFEST, open_bundle
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.encoder import ConvNorm
from training.networks.adapters import ADAPTERS

BUNDLED = "bundle"
# What the depth attention had with batch norms, folded or not: its other tensors would fit and mean nothing.
OLD_ATTENTION = {"depth_attention.stem.0.0.bias", "depth_attention.stem.0.1.running_mean"}


def weights_file(start: str | Path) -> Path:
    """The weights that `start` means: "bundle", a bundle's folder, or a file.

    Raises:
        BoneSAMError: the bundle is damaged.
    """
    folder = BUNDLED_WEIGHTS if str(start) == BUNDLED else Path(start)
    return open_bundle(folder).weights if (folder / MANIFEST).exists() else folder


def is_folded(tensors: dict[str, Tensor]) -> bool:
    """Whether these are a bundle's weights, whose batch norms are part of the convolutions."""
    return "encoder.stem.0.0.bias" in tensors


def begin_from(model: nn.Module, weights: Path) -> bool:
    """Take from weights every tensor that has the same name and shape here; whether they were a bundle's.

    A bundle's norms are folded into their convolutions. The network gets norms that add what was folded, and
    whose statistics change nothing: they must stay so, see `freeze_norms` of the configuration.

    Raises:
        BoneSAMError: the file cannot be read, is of an earlier network, or nothing in it fits.
    """
    try:
        found = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise BoneSAMError(f"The weights '{weights}' to start from cannot be read: {error}") from error
    if OLD_ATTENTION & set(found):
        raise BoneSAMError(
            f"The depth attention of '{weights}' is an earlier one, with batch norms: begin with weights "
            "that this version made."
        )
    own = model.state_dict()
    lost = [name for name in found if name not in own and any(part in name for part in ADAPTERS)]
    if lost:
        raise BoneSAMError(
            f"The weights '{weights}' have '{lost[0]}', which this network has not: export them, and "
            "begin with the bundle."
        )
    folded = is_folded(found)
    if folded:
        found = {name: tensor.float() for name, tensor in found.items()}
        found |= _unfolded(model, found)
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise BoneSAMError(f"Nothing in '{weights}' fits this network: name a training's ema.safetensors.")
    model.load_state_dict(fitting, strict=False)
    print(f"{len(fitting)} of {len(own)} tensors are taken from '{weights}'.", flush=True)
    return folded


def _unfolded(model: nn.Module, folded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of norms that do what the convolutions' biases did."""
    norms = {}
    for name, module in model.named_modules():
        bias = folded.get(f"{name}.0.bias")
        if not isinstance(module, ConvNorm) or bias is None:
            continue
        norm = cast("nn.BatchNorm2d", module[1])
        norms[f"{name}.1.weight"] = torch.full_like(bias, (1.0 + norm.eps) ** 0.5)
        norms[f"{name}.1.bias"] = bias
        norms[f"{name}.1.running_mean"] = torch.zeros_like(bias)
        norms[f"{name}.1.running_var"] = torch.ones_like(bias)
        norms[f"{name}.1.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    return norms
