"""Which parameters learn in a phase, and what that takes."""

import resource
import sys

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.configuration import PARTS, Phase
from training.networks.adapters import is_adapter


def choose_learning(model: nn.Module, phase: Phase) -> None:
    """Let the phase's parts learn and freeze the others; all learn where none is named."""
    for name, parameter in model.named_parameters():
        learns = not phase.learn or any(_belongs(name, part) for part in phase.learn)
        parameter.requires_grad_(learns)


def set_training(model: nn.Module, freeze_norms: bool) -> None:
    """Training mode, but frozen norms keep their statistics: their layers' inputs must stay as they were."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            learns = any(parameter.requires_grad for parameter in module.parameters())
            module.train(learns and not freeze_norms)


def describe(model: nn.Module) -> str:
    """One line: how many parameters learn, in which part, and the memory that they take."""
    rows = []
    for name, part in model.named_children():
        count, learning = _counts(part)
        rows.append(f"{name} {learning / 1e6:.2f} of {count / 1e6:.2f} M")
    count, learning = _counts(model)
    # The weights and their average; gradients and AdamW's two moments of what learns.
    megabytes = 4 * (2 * count + 3 * learning) / 1e6
    return (
        f"{learning / 1e6:.2f} of {count / 1e6:.2f} M parameters learn ({', '.join(rows)}); weights, their "
        f"average, gradients and moments take {megabytes:.0f} MB."
    )


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has taken, in MB: the device's, or on the CPU all of it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _counts(module: nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def _belongs(name: str, part: str) -> bool:
    return is_adapter(name) if part == "adapters" else name.startswith(PARTS[part])
