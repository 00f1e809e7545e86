"""Official checkpoints: read without running code from them, refused unless every tensor is as expected."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.errors import BoneSAMError

_WRAPPERS = ("model", "state_dict")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .pth or .pt file.

    Raises:
        BoneSAMError: it cannot be read, or is no set of named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BoneSAMError(f"The checkpoint '{path}' cannot be read: {reason}") from error
    for name in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BoneSAMError(f"The checkpoint '{path}' cannot be read: it is no set of named tensors.")
    return found


def load_official(
    network: nn.Module,
    found: dict[str, Tensor],
    names: dict[str, str | None],
    unused: tuple[str, ...],
    title: str,
) -> None:
    """Fill `network` from a checkpoint.

    `names` maps the beginnings of the network's names to those of the checkpoint, None: not in it. Tensors of
    the checkpoint whose names begin with one of `unused` may be there. Position codes of another image size
    are resized.

    Raises:
        BoneSAMError: names the first tensor that is missing, has another shape, or is not known.
    """
    own = network.state_dict()
    wanted = {}
    for name in own:
        for ours, theirs in names.items():
            if name.startswith(ours):
                if theirs is not None:
                    wanted[theirs + name.removeprefix(ours)] = name
                break
    chosen = {}
    for theirs, ours in wanted.items():
        if theirs not in found:
            raise BoneSAMError(f"This is no {title} checkpoint: '{theirs}' is missing.")
        chosen[ours] = _fitted(theirs, found[theirs], own[ours])
        if chosen[ours].shape != own[ours].shape:
            raise BoneSAMError(
                f"This is no {title} checkpoint: '{theirs}' has shape {list(found[theirs].shape)}, "
                f"{list(own[ours].shape)} is expected."
            )
    for theirs in sorted(found):
        if theirs not in wanted and not theirs.startswith(unused):
            raise BoneSAMError(f"This is no {title} checkpoint: '{theirs}' is not known.")
    network.load_state_dict(chosen, strict=False)


def _fitted(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """A position code for another image size, resized as by SAMed and SAM-Med2D; anything else as it is."""
    if tensor.shape == like.shape or tensor.ndim != like.ndim:
        return tensor
    if name.endswith("pos_embed") and tensor.ndim == 4 and tensor.shape[-1] == like.shape[-1]:
        rows, columns = like.shape[1:3]
        code = functional.interpolate(tensor.float().permute(0, 3, 1, 2), (rows, columns), mode="bicubic")
        return code.permute(0, 2, 3, 1)
    if name.endswith(("rel_pos_h", "rel_pos_w")) and tensor.shape[-1] == like.shape[-1]:
        code = functional.interpolate(tensor.float().T[None], like.shape[0], mode="linear")
        return code[0].T
    return tensor
