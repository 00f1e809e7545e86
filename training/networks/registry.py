"""Every network that the loop trains, by the name that a config gives it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.bonesam import BoneSAM
from training.configuration import Adapters, Config, nearest
from training.networks.adapters import add_adapters
from training.networks.official_checkpoint import load_official, read_tensors
from training.networks.segment_anything_network import (
    MEDSAM,
    VIT_B,
    VIT_H,
    VIT_L,
    VIT_T,
    SegmentAnythingNetwork,
    VisionTransformer,
)

BONESAM_T = "bonesam-t"


@dataclass(frozen=True)
class Official:
    """An official network: how it is built, and how its checkpoint names its parts."""

    title: str
    build: Callable[[int], nn.Module]
    names: dict[str, str | None]  # None: not in it
    unused: tuple[str, ...]

    def load(self, network: nn.Module, start: Path) -> None:
        """Fill a network from a checkpoint; BoneSAMError names the first tensor that does not fit."""
        try:
            load_official(network, read_tensors(start), self.names, self.unused, self.title)
        except BoneSAMError as error:
            raise BoneSAMError(f"The training cannot begin with '{start}'. {error}") from error
        print(f"{self.title} is taken from '{start}'.", flush=True)


def _sam(title: str, shape: VisionTransformer) -> Official:
    names: dict[str, str | None] = {
        "encoder.network.": "image_encoder.",
        "decoder.prompt_encoder.far.": None,
        "decoder.prompt_encoder.": "prompt_encoder.",
        "decoder.mask_decoder.": "mask_decoder.",
    }
    # The classifier that TinyViT was first trained with is still in mobile_sam.pt.
    unused = ("image_encoder.norm_head.", "image_encoder.head.", "pixel_mean", "pixel_std")
    return Official(title, lambda size: SegmentAnythingNetwork(shape, size), names, unused)


def _sam2(title: str, size_name: str) -> Official:
    def build(size: int) -> nn.Module:
        from training.networks.sam2_network import build_sam2

        return build_sam2(size_name, size)

    names: dict[str, str | None] = {
        "encoder.vision.": "vision_encoder.",
        "encoder.conv_s": "mask_decoder.conv_s",
        "decoder.no_memory": "no_memory_embedding",
        "decoder.prompt_encoder.official.": "prompt_encoder.",
        "decoder.prompt_encoder.shared.": "shared_image_embedding.",
        "decoder.mask_decoder.": "mask_decoder.",
        "memory.attention.": "memory_attention.",
        "memory.encoder.": "memory_encoder.",
        "memory.time": "memory_temporal_positional_encoding",
    }
    unused = (
        "no_memory_positional_encoding", "no_object_pointer", "object_pointer_proj.", "mask_downsample.",
        "temporal_positional_encoding_projection_layer.", "occlusion_spatial_embedding_parameter",
    )  # fmt: skip
    return Official(title, build, names, unused)


OFFICIAL = {
    "sam-vit-b": _sam("SAM ViT-B", VIT_B),
    "sam-vit-l": _sam("SAM ViT-L", VIT_L),
    "sam-vit-h": _sam("SAM ViT-H", VIT_H),
    "medsam": _sam("MedSAM", MEDSAM),
    "mobile-sam": _sam("MobileSAM", VIT_T),
    "sam2-tiny": _sam2("SAM 2 tiny", "tiny"),
    "sam2-small": _sam2("SAM 2 small", "small"),
    "sam2-base-plus": _sam2("SAM 2 base-plus", "base-plus"),
    "sam2-large": _sam2("SAM 2 large", "large"),
}


def build_network(config: Config, start: Path | None = None) -> Any:
    """The configured network, with an official checkpoint's weights if `start` names one, and adapters.

    Raises:
        BoneSAMError: there is no such network, or the checkpoint is of another.
    """
    names = (BONESAM_T, *OFFICIAL)
    if config.network not in names:
        raise BoneSAMError(
            f"Unknown network '{config.network}': did you mean '{nearest(config.network, names)}'?"
        )
    if config.network == BONESAM_T:
        network: nn.Module = BoneSAM(config.dim)
    else:
        official = OFFICIAL[config.network]
        network = official.build(config.image_size)
        if start is not None:
            official.load(network, start)
    if config.adapters != Adapters():
        add_adapters(network, config.adapters)
    return network
