"""One training shared by several processes: `torchrun --nproc-per-node=N -m training.train ...`.

Every process computes some of a step's batches; their gradients are averaged, so that all take the same step.
Which batches a step has does not depend on the number of processes.
"""

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from BoneSAMLib.errors import BoneSAMError


@dataclass(frozen=True)
class Processes:
    """This process among the `count` that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The one that logs and saves."""
        return self.rank == 0

    def places(self, accumulate: int) -> range:
        """Which of a step's batches this process computes."""
        return range(self.rank, accumulate, self.count)

    def total_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over all processes."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.count == 1 or not parameters:
            return
        # Where no process has a gradient there must stay none, or momentum and decay would move the weight.
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        distributed.all_reduce(has)
        chosen = [p for p, some in zip(parameters, has.tolist(), strict=True) if some]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum([parameter.grad for parameter in chosen if parameter.grad is not None])

    def average_statistics(self, model: nn.Module) -> None:
        """Replace what norms have seen by its mean over all processes."""
        if self.count > 1:
            seen = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
            self._sum(seen)
            for buffer in seen:
                buffer /= self.count

    def average(self, number: float) -> float:
        """Mean of a number over all processes."""
        if self.count == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64)
        total = total.cuda() if distributed.get_backend() == "nccl" else total
        distributed.all_reduce(total)
        return float(total) / self.count

    def of_the_first(self, number: float) -> float:
        """What the first process says."""
        return self.average(number * self.count if self.is_first else 0.0)

    @staticmethod
    def _sum(tensors: list[Tensor]) -> None:
        """One exchange for all: each has its own delay."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))


def usable_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        BoneSAMError: there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BoneSAMError(f"Unknown device '{name}': use cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BoneSAMError(f"No device '{name}' can be used here: install a PyTorch for it, or use cpu.")
    return device


def join_processes(device: str) -> tuple[Processes, torch.device]:
    """This process as torchrun started it, and its device; a process of its own without torchrun.

    Raises:
        BoneSAMError: there is no such device.
    """
    found = usable_device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(), found
    local = int(os.environ["LOCAL_RANK"])
    if device == "cuda":
        torch.cuda.set_device(local)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    where = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    return Processes(int(os.environ["RANK"]), count), where
