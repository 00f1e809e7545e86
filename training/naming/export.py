"""A trained naming network to the bundle that goes with any weights: `python -m training.naming.export`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import torch
import typer
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from BoneSAMLib.bone_kinds import KINDS
from BoneSAMLib.bundle import FORMAT, MANIFEST, WEIGHTS, file_digest
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.naming import NamingNetwork
from BoneSAMLib.naming_engine import GRAPH
from training.export import externalize, forget_source, places_in

MOST_BLOCKS = 64  # of 16 cells along an axis


def export_naming(checkpoint: Path, folder: Path) -> None:
    """Write the bundle of a checkpoint.

    Raises:
        BoneSAMError: the file is not a naming network's.
    """
    model = NamingNetwork().eval()
    try:
        model.load_state_dict(load_file(checkpoint))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise BoneSAMError(f"'{checkpoint}' is no checkpoint of the naming network: {reason}") from error
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: np.ascontiguousarray(tensor.detach().numpy().astype(np.float16))
        for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)
    blocks = [torch.export.Dim(axis, min=1, max=MOST_BLOCKS) for axis in ("depth", "height", "width")]
    program = torch.onnx.export(
        model, (torch.rand(1, 2, 64, 48, 32),), input_names=["scan"], output_names=["outputs"],
        dynamic_shapes=({n: 16 * block for n, block in enumerate(blocks, start=2)},), dynamo=True,
        external_data=False, verbose=False,
    )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    externalize(graph, places_in(folder / WEIGHTS))
    forget_source(graph)
    onnx.save(graph, folder / f"{GRAPH}.onnx")
    files = {name: file_digest(folder / name) for name in (f"{GRAPH}.onnx", WEIGHTS)}
    parameters = {GRAPH: sum(p.numel() for p in model.parameters())}
    facts = {"format": FORMAT, "name": "BoneSAM names", "kinds": KINDS}
    manifest = json.dumps({**facts, "parameters": parameters, "files": files}, indent=1)
    (folder / MANIFEST).write_text(manifest + "\n", encoding="utf-8")


def main(
    checkpoint: Annotated[Path, typer.Argument(help="ema.safetensors of a run of training.naming.train.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
) -> None:
    """Export a naming network."""
    try:
        export_naming(checkpoint, out)
    except (OSError, SafetensorError) as error:
        print(f"The bundle cannot be written to '{out}': {error}.", file=sys.stderr)
        raise typer.Exit(2) from error
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    print(f"{out}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
