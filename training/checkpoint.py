"""Checkpoints that are whole or not there, whenever the process is killed or the disk is full.

All files are first written beside the old ones, the small state file last; then all are renamed. A state file
beside the old one means that the others are complete, so that an interrupted renaming is finished later.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from BoneSAMLib.errors import BoneSAMError

STATE = "state.json"
_KINDS = (".safetensors", ".pt")  # of the other files
_SPARE = 1.2  # of the last checkpoint's size must be free
Write = Callable[[Path], None]


def contiguous(model: nn.Module) -> dict[str, Tensor]:
    """A model's state as safetensors takes it; networks are trained with channels last."""
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def save_checkpoint(out: Path, writers: dict[str, Write], state: dict[str, Any]) -> None:
    """Write all files of a checkpoint, or none of them.

    Raises:
        BoneSAMError: there is no room for it; the earlier checkpoint stays.
    """
    sizes = [path.stat().st_size for name in writers if (path := out / name).exists()]
    needed, free = int(_SPARE * sum(sizes)), shutil.disk_usage(out).free
    if free < needed:
        raise _no_room(out, f"{free / 1e6:.0f} MB are free and {needed / 1e6:.0f} MB are needed")
    try:
        for name, write in writers.items():
            write(out / f"{name}.part")
            _to_disk(out / f"{name}.part")
        whole = out / f"{STATE}.written"
        whole.write_text(json.dumps(state))
        _to_disk(whole)
        whole.replace(out / f"{STATE}.part")
    except (OSError, RuntimeError, SafetensorError) as error:
        for name in (*writers, STATE):
            (out / f"{name}.part").unlink(missing_ok=True)
        raise _no_room(out, str(error)) from error
    finish_saving(out)


def finish_saving(out: Path) -> None:
    """Finish renaming a checkpoint that is whole, or forget one that is not."""
    whole = out / f"{STATE}.part"
    for part in sorted(part for kind in _KINDS for part in out.glob(f"*{kind}.part")):
        if whole.exists():
            part.replace(part.with_suffix(""))
        else:
            part.unlink()
    if whole.exists():
        whole.replace(out / STATE)


def read_state(out: Path) -> dict[str, Any] | None:
    """The state of the last checkpoint in `out`, None where there is none.

    A run that goes on calls `finish_saving` first; who only reads must not touch what a run may be writing.

    Raises:
        BoneSAMError: it cannot be read.
    """
    if not (out / STATE).exists():
        return None
    try:
        return dict(json.loads((out / STATE).read_text()))
    except (OSError, ValueError) as error:
        raise BoneSAMError(f"The state of the training in '{out}' cannot be read: {error}") from error


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _no_room(out: Path, why: str) -> BoneSAMError:
    kept = "The checkpoint before it is whole" if (out / STATE).exists() else "There is none before it"
    return BoneSAMError(
        f"The checkpoint cannot be written to '{out}' ({why}). {kept}: make room and give the same "
        "command again."
    )
