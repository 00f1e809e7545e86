"""The mean of checkpoints of one training: `python -m training.average A B --out OUT`.

Weights that were trained further from one start can be averaged, and are often better than each of them
(model soups, Wortsman et al. 2022, sec. 3). Whether they are, validation says, as in `training/LOG.md`.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from BoneSAMLib.errors import BoneSAMError
from training.checkpoint import STATE


def average(checkpoints: list[Path]) -> dict[str, Tensor]:
    """The mean of every tensor.

    Raises:
        BoneSAMError: one cannot be read, or is of another network than the first.
    """
    found = []
    for path in checkpoints:
        try:
            found.append(load_file(path))
        except (OSError, SafetensorError) as error:
            raise BoneSAMError(f"The checkpoint '{path}' cannot be read: {error}") from error
    first = {name: tensor.shape for name, tensor in found[0].items()}
    for path, other in zip(checkpoints[1:], found[1:], strict=True):
        if {name: tensor.shape for name, tensor in other.items()} != first:
            raise BoneSAMError(
                f"'{path}' is of another network than '{checkpoints[0]}': nothing is averaged."
            )
    return {
        name: torch.stack([each[name] for each in found]).float().mean(0).to(tensor.dtype)
        for name, tensor in found[0].items()
    }


def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Two or more, such as RUN/ema.safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder for ema.safetensors, as training.export takes it.")],
) -> None:
    """Average checkpoints."""
    try:
        mean = average(checkpoints)
        out.mkdir(parents=True, exist_ok=True)
        save_file(mean, out / "ema.safetensors")
        state = checkpoints[0].parent / STATE
        if state.exists():  # what the network was built with
            shutil.copy(state, out / STATE)
    except (OSError, SafetensorError) as error:
        print(f"The mean cannot be written to '{out}': {error}.", file=sys.stderr)
        raise typer.Exit(2) from error
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
