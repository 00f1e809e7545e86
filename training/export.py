"""A checkpoint to a bundle that the extension and the command line load: `python -m training.export`.

The graphs refer to tensors inside `weights.safetensors` as ONNX external data, stored as float16 and cast
when the graph is loaded: half the size, no second copy for the torch backend, float32 arithmetic.
"""

import json
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from onnx import TensorProto, helper
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor, nn

from BoneSAMLib.bundle import FORMAT, GRAPHS, MANIFEST, WEIGHTS, file_digest
from BoneSAMLib.model.bonesam import BoneSAM
from BoneSAMLib.model.encoder import count_parameters

# The dynamic number of prompts per slice; two box corners and any number of clicks.
MOST_PROMPTS = 64
MOST_SLICES = 4096


class _Probability(nn.Module):
    """Depth attention with the sigmoid inside the graph."""

    def __init__(self, model: BoneSAM) -> None:
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


def export_bundle(model: BoneSAM, folder: Path, facts: dict[str, Any]) -> None:
    """Write the bundle of a trained model, whose batch norms this fuses.

    `facts` go into the manifest: name, dim, what it was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {part: count_parameters(getattr(model, part)) for part in GRAPHS}
    model = model.cpu().fuse_norms()
    state = {
        name: np.ascontiguousarray(tensor.detach().numpy().astype(np.float16))
        for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors leaves a file that only its owner can read
    places = _places(folder / WEIGHTS)
    for part in GRAPHS:
        graph = _graph(model, part)
        _externalize(graph, places)
        _forget_source(graph)
        onnx.save(graph, folder / f"{part}.onnx")
    files = {name: file_digest(folder / name) for name in (*(f"{part}.onnx" for part in GRAPHS), WEIGHTS)}
    gate = float(model.decoder.fusion.gate)
    manifest = {"format": FORMAT, **facts, "gate": round(gate, 4), "parameters": parameters, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _graph(model: BoneSAM, part: str) -> onnx.ModelProto:
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
            torch.rand(n, p, 3) * 256, labels, torch.zeros(n, 1, 64, 64),
        )  # fmt: skip
        names = ["embedding", "skip", "attention", "use_attention", "points", "labels", "masks"]
        outputs = ["logits", "iou"]
        shapes = tuple(
            {0: slices, 1: prompts} if name in ("points", "labels") else {0: slices} for name in names
        )
    if part != "depth_attention":  # *inputs of `_Named` count as one argument
        shapes = (shapes,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), inputs, input_names=names, output_names=outputs, dynamic_shapes=shapes,
            dynamo=True, optimize=False, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def _places(weights: Path) -> dict[str, tuple[int, int, list[int]]]:
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


def _externalize(model: onnx.ModelProto, places: dict[str, tuple[int, int, list[int]]]) -> None:
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


def _forget_source(model: onnx.ModelProto) -> None:
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


def main(
    checkpoint: Annotated[Path, typer.Argument(help="ema.safetensors or model.safetensors of a run.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    name: Annotated[str, typer.Option(help="Name of the weights.")] = "BoneSAM-T",
    dim: Annotated[int, typer.Option(help="Width of the decoder.")] = 128,
) -> None:
    """Export a checkpoint as a bundle."""
    model = BoneSAM(dim)
    model.load_state_dict(load_file(checkpoint))
    export_bundle(model, out, {"name": name, "dim": dim})
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
