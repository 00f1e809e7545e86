"""A checkpoint to a bundle that the extension and the command line load: `python -m training.export`.

Any network of `training.networks.registry` can be exported; what it was built with is read from the state
beside the checkpoint. A bundle of another network than BoneSAM-T holds the same three graphs, and runs in
ONNX Runtime; the torch backend knows BoneSAM-T alone. Of SAM 2 the memory is left out: the bundle carries a
mask to the next slice as BoneSAM-T does, as a mask prompt.

The graphs refer to tensors inside `weights.safetensors` as ONNX external data, stored as float16 and cast
when the graph is loaded: half the size, no second copy for the torch backend, float32 arithmetic.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from onnx import TensorProto, helper
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor, nn

from BoneSAMLib.bundle import FORMAT, GRAPHS, MANIFEST, WEIGHTS, file_digest
from BoneSAMLib.engine import DecoderInputs, load_graph
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.encoder import count_parameters
from training.checkpoint import read_state
from training.configuration import Adapters, Config
from training.networks.adapters import fold_low_rank
from training.networks.registry import BONESAM_T, build_network

# The dynamic number of prompts per slice; two box corners and any number of clicks.
MOST_PROMPTS = 64
MOST_SLICES = 4096
_DIM_OF = "decoder.fusion.project.1.weight"  # its length is the width of BoneSAM-T's decoder


class _Probability(nn.Module):
    """Depth attention with the sigmoid inside the graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.depth_attention = model.depth_attention

    def forward(self, cubes: Tensor) -> Tensor:
        return torch.sigmoid(self.depth_attention(cubes))


class _Named(nn.Module):
    """Keeps a part's parameter names as in the whole model, so that graphs and weights file agree."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self, self.name)(*inputs)


def export_bundle(model: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the bundle of a trained model, whose batch norms and low-rank parts this fuses.

    `facts` go into the manifest: name, dim, what it was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fold_low_rank(model)
    parameters = {part: count_parameters(getattr(model, part)) for part in GRAPHS}
    model = model.cpu().fuse_norms()
    state = {
        name: np.ascontiguousarray(tensor.detach().numpy().astype(np.float16))
        for name, tensor in model.state_dict().items()
        if name.startswith(GRAPHS)
    }
    save_file(state, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors leaves a file that only its owner can read
    places = places_in(folder / WEIGHTS)
    for part in GRAPHS:
        graph = _graph(model, part)
        externalize(graph, places)
        forget_source(graph)
        onnx.save(graph, folder / f"{part}.onnx")
        # The exporter may give a tensor the name of an input, which nothing but loading the graph finds.
        load_graph(folder / f"{part}.onnx", "cpu")
    files = {name: file_digest(folder / name) for name in (*(f"{part}.onnx" for part in GRAPHS), WEIGHTS)}
    gate = float(model.decoder.fusion.gate)
    manifest = {"format": FORMAT, **facts, "gate": round(gate, 4), "parameters": parameters, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _graph(model: Any, part: str) -> onnx.ModelProto:
    slices = torch.export.Dim("slices", min=1, max=MOST_SLICES)
    prompts = torch.export.Dim("prompts", min=1, max=MOST_PROMPTS)
    n, p = 3, 5
    shapes: tuple[Any, ...]
    module: nn.Module
    if part == "encoder":
        module = _Named(part, model.encoder)
        inputs: tuple[Tensor, ...] = (torch.rand(n, 3, 256, 256),)
        names, outputs = ["slices"], ["embedding", "skip"]
        shapes = ({0: slices},)
    elif part == "depth_attention":
        module = _Probability(model)
        inputs = (torch.rand(n, 2, 64, 64, 64),)
        names, outputs = ["cubes"], ["probability"]
        shapes = ({0: slices},)
    else:
        module = _Named(part, model.decoder)
        embedding, skip = model.encoder(torch.rand(n, 3, 256, 256))
        labels = torch.randint(-1, 4, (n, p))
        inputs = (
            embedding.detach(), skip.detach(), torch.rand(n, 2, 64, 64), torch.ones(n),
            torch.rand(n, p, 3) * 256, labels, torch.zeros(n, 1, 64, 64), torch.arange(n),
        )  # fmt: skip
        names = list(DecoderInputs._fields)
        outputs = ["logits", "iou"]
        shapes = tuple(
            {0: slices, 1: prompts} if name in ("points", "labels") else {0: slices} for name in names
        )
    if part != "depth_attention":  # *inputs of `_Named` count as one argument
        shapes = (shapes,)
    # Unoptimized, its convolutions, which have no bias, are given one that ONNX Runtime refuses.
    optimize = part == "depth_attention"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), inputs, input_names=names, output_names=outputs, dynamic_shapes=shapes,
            dynamo=True, optimize=optimize, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    # Where a network's code takes the number of slices as a plain number, the exporter keeps it silently.
    fixed = [
        tensor.name for tensor in graph.graph.input if not tensor.type.tensor_type.shape.dim[0].dim_param
    ]
    if fixed:
        raise ValueError(f"The {part} was exported for {n} slices only: {', '.join(fixed)}.")
    return graph


def places_in(weights: Path) -> dict[str, tuple[int, int, list[int]]]:
    """Offset, length and shape of every tensor in a safetensors file."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    start = 8 + length
    return {
        name: (start + row["data_offsets"][0], row["data_offsets"][1] - row["data_offsets"][0], row["shape"])
        for name, row in header.items()
        if name != "__metadata__"
    }


def externalize(model: onnx.ModelProto, places: dict[str, tuple[int, int, list[int]]]) -> None:
    """Replace every weight by a float16 reference into the weights file and a cast."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.name not in places:
            continue
        offset, length, shape = places[weight.name]
        if list(weight.dims) != shape:
            raise ValueError(
                f"{weight.name} has shape {list(weight.dims)} in the graph and {shape} in the weights"
            )
        name = weight.name
        weight.Clear()
        weight.name = f"{name}.float16"
        weight.data_type = TensorProto.FLOAT16
        weight.dims.extend(shape)
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
            weight.external_data.add(key=key, value=str(value))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    del graph.value_info[:]


def forget_source(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with the paths of the machine that exported."""
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.input,
        *graph.output,
        *graph.initializer,
        *model.functions,
    ):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.ClearField("doc_string")


def load_trained(checkpoint: Path) -> tuple[Any, Config]:
    """The network of a training's ema.safetensors or model.safetensors, and what it was built with.

    Without a state.json beside the file it is taken for a BoneSAM-T.

    Raises:
        BoneSAMError: the file cannot be read, or is no training's.
    """
    try:
        found = load_file(checkpoint)
    except (OSError, SafetensorError) as error:
        raise BoneSAMError(f"The checkpoint '{checkpoint}' cannot be read: {error}") from error
    built = (read_state(checkpoint.parent) or {}).get("built", {})
    adapters = Adapters(**built.pop("adapters", {}))
    if not built and _DIM_OF in found:
        built = {"dim": found[_DIM_OF].shape[0]}
    config = Config({}, adapters=adapters, **built)
    model = build_network(config)
    try:
        model.load_state_dict(found)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise BoneSAMError(
            f"'{checkpoint}' is no training's checkpoint of {config.network}: {first}"
        ) from error
    return model, config


def main(
    checkpoint: Annotated[Path, typer.Argument(help="ema.safetensors or model.safetensors of a run.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    name: Annotated[str, typer.Option(help="Name of the weights.")] = "BoneSAM-T",
) -> None:
    """Export a checkpoint as a bundle."""
    try:
        model, config = load_trained(checkpoint)
        facts: dict[str, Any] = {"name": name, "dim": config.dim}
        if config.network != BONESAM_T:
            facts |= {"network": config.network, "image_size": config.image_size}
        export_bundle(model, out, facts)
    except (OSError, SafetensorError) as error:
        print(f"The bundle cannot be written to '{out}': {error}.", file=sys.stderr)
        raise typer.Exit(2) from error
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
