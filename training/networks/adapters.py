"""Small trainable parts in a frozen network: bottleneck adapters and low-rank updates.

Both begin without effect. Where they go follows Wu et al. ("Medical SAM Adapter", 2023): after attention, and
beside the MLP; in the encoder and in the mask decoder. BoneSAM-T's encoder has convolutions instead: they get
low-rank updates as attention does.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.encoder import ConvNorm
from training.configuration import Adapters

BESIDE_MLP = 0.5  # weight of the adapter beside an MLP
PROJECTIONS = ("qkv", "q_proj", "v_proj")  # that get a low-rank update, as by Hu et al. (ICLR 2022, sec. 4.2)
ADAPTERS = (".adapter.", ".adapters.", ".low_rank_")  # in the names of their parameters
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


class LowRankConvolution(nn.Conv2d):
    """A convolution whose kernel is changed by a product: a kernel of few channels, and their mixture."""

    def __init__(self, layer: nn.Conv2d, rank: int) -> None:
        super().__init__(**_shape_of(layer), device="meta")
        self.weight = layer.weight
        like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        inputs = layer.weight[0].numel()
        self.low_rank_in = nn.Parameter(torch.randn(rank, *layer.weight.shape[1:], **like) / inputs**0.5)
        self.low_rank_out = nn.Parameter(torch.zeros(layer.out_channels, rank, 1, 1, **like))

    def forward(self, inputs: Tensor) -> Tensor:
        few = functional.conv2d(inputs, self.low_rank_in, None, self.stride, self.padding)
        return super().forward(inputs) + functional.conv2d(few, self.low_rank_out)

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """A plain layer that gives the same."""
        layer = nn.Conv2d(**_shape_of(self), device="meta")
        change = torch.einsum("or,rikl->oikl", self.low_rank_out[:, :, 0, 0], self.low_rank_in)
        layer.weight = nn.Parameter(self.weight + change)
        return layer


def _shape_of(layer: nn.Conv2d) -> dict[str, Any]:
    """Of a convolution without bias, as `ConvNorm` has it."""
    return {
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "bias": False,
    }


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
    """Put adapters into every transformer block of `network`; low-rank updates also into BoneSAM-T's encoder.

    Raises:
        BoneSAMError: bottlenecks are wanted and its encoder has no transformer blocks.
    """
    if adapters.bottleneck:
        encoder = cast(nn.Module, network.encoder)
        if not any(_attention_of(module) for module in encoder.modules()):
            raise BoneSAMError(
                "Bottleneck adapters need an encoder of transformer blocks, which BoneSAM-T's is not: "
                "use 'low_rank', which adapts its convolutions, or another network."
            )
        for part in (encoder, cast(nn.Module, network.decoder)):
            for module in list(part.modules()):
                if name := _attention_of(module):
                    attention, mlp = getattr(module, name), module.get_submodule("mlp")
                    setattr(module, name, Adapted(attention, _dim(attention), adapters.bottleneck, False))
                    module.mlp = Adapted(mlp, _dim(mlp), adapters.bottleneck, True)
    if adapters.low_rank:
        blocks = set(cast(nn.Module, network.encoder).modules())
        for module in list(network.modules()):
            for name, layer in list(module.named_children()):
                if name in PROJECTIONS and isinstance(layer, nn.Linear):
                    setattr(module, name, LowRankLinear(layer, adapters.low_rank))
            if isinstance(module, ConvNorm) and module in blocks:
                module[0] = LowRankConvolution(cast(nn.Conv2d, module[0]), adapters.low_rank)


def fold_low_rank(network: nn.Module) -> None:
    """Replace every low-rank layer by a plain one, for use."""
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, LowRankLinear | LowRankConvolution):
                setattr(module, name, layer.folded())


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is one that the official network does not have."""
    return any(part in f".{name}" for part in (*ADAPTERS, ".far.", ".fusion.", ".prior."))


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
