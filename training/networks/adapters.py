"""Small trainable parts in a frozen network: bottleneck adapters and low-rank updates.

Both begin without effect. Where they go follows Wu et al. ("Medical SAM Adapter", 2023): after attention, and
beside the MLP; in the encoder and in the mask decoder.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.errors import BoneSAMError
from training.configuration import Adapters

BESIDE_MLP = 0.5  # weight of the adapter beside an MLP
PROJECTIONS = ("qkv", "q_proj", "v_proj")  # that get a low-rank update, as by Hu et al. (ICLR 2022, sec. 4.2)
_ATTENTIONS = ("attn", "cross_attn_token_to_image")


class LowRankLinear(nn.Linear):
    """A linear layer whose weight is changed by a product of two thin matrices (LoRA)."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.low_rank_in = nn.Parameter(torch.randn(rank, layer.in_features, **like) / layer.in_features**0.5)
        self.low_rank_out = nn.Parameter(torch.zeros(layer.out_features, rank, **like))

    def forward(self, inputs: Tensor) -> Tensor:
        change = functional.linear(functional.linear(inputs, self.low_rank_in), self.low_rank_out)
        return super().forward(inputs) + change

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """A plain layer that gives the same."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        layer.weight = nn.Parameter(self.weight + self.low_rank_out @ self.low_rank_in)
        layer.bias = self.bias
        return layer


class Adapted(nn.Module):
    """A layer [..., dim] -> [..., dim] with a bottleneck after it, or beside it."""

    def __init__(self, layer: nn.Module, dim: int, factor: int, beside: bool) -> None:
        super().__init__()
        self.layer, self.beside = layer, beside
        last = nn.Linear(max(1, dim // factor), dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.adapter = nn.Sequential(nn.Linear(dim, max(1, dim // factor)), nn.GELU(), last)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = self.layer(*inputs, **named)
        if self.beside:
            return found + BESIDE_MLP * self.adapter(inputs[0])
        if isinstance(found, tuple):  # attention that also gives its weights
            return (found[0] + self.adapter(found[0]), *found[1:])
        return found + self.adapter(found)


def add_adapters(network: nn.Module, adapters: Adapters) -> None:
    """Put adapters into every transformer block of `network`.

    Raises:
        BoneSAMError: bottlenecks are wanted and its encoder has no transformer blocks.
    """
    if adapters.bottleneck:
        encoder = cast(nn.Module, network.encoder)
        if not any(_attention_of(module) for module in encoder.modules()):
            raise BoneSAMError(
                "Bottleneck adapters need an encoder of transformer blocks, which BoneSAM-T's is not: "
                "use 'low_rank', which adapts its decoder, or another network."
            )
        for part in (encoder, cast(nn.Module, network.decoder)):
            for module in list(part.modules()):
                if name := _attention_of(module):
                    attention, mlp = getattr(module, name), module.get_submodule("mlp")
                    setattr(module, name, Adapted(attention, _dim(attention), adapters.bottleneck, False))
                    module.mlp = Adapted(mlp, _dim(mlp), adapters.bottleneck, True)
    if adapters.low_rank:
        for module in list(network.modules()):
            for name, layer in list(module.named_children()):
                if name in PROJECTIONS and isinstance(layer, nn.Linear):
                    setattr(module, name, LowRankLinear(layer, adapters.low_rank))


def fold_low_rank(network: nn.Module) -> None:
    """Replace every low-rank layer by a plain one, for use."""
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, LowRankLinear):
                setattr(module, name, layer.folded())


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is one that the official network does not have."""
    return any(part in f".{name}" for part in (".adapter.", ".adapters.", ".low_rank_", ".far.", ".fusion."))


def _attention_of(module: nn.Module) -> str:
    """Name of the attention of a transformer block, empty if the module is none."""
    children = dict(module.named_children())
    if "mlp" not in children or isinstance(children["mlp"], Adapted):
        return ""
    return next((name for name in _ATTENTIONS if name in children), "")


def _dim(layer: nn.Module) -> int:
    """Width of what a layer gives: that of its last linear layer."""
    named = {"proj", "out_proj", "o_proj"}
    outputs = [module for name, module in layer.named_modules() if name in named]
    linear = outputs or [module for module in layer.modules() if isinstance(module, nn.Linear)]
    return cast(nn.Linear, linear[-1]).out_features
