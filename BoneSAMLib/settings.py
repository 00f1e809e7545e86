"""What the user can set, typed, and as text for where it is stored (a scene, a browser's session)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from BoneSAMLib.companion import check_fusion
from BoneSAMLib.engine import check_device
from BoneSAMLib.errors import BoneSAMError

__all__ = ["LARGEST_SMOOTHING_MM", "Recipe", "Settings"]

LARGEST_SMOOTHING_MM = 5.0


@dataclass(frozen=True)
class Recipe:
    """The settings that decide what mask a prompt gives: `Settings.recipe`."""

    depth_attention: bool
    smoothing_mm: float
    keep_inside: bool
    remove_small_islands: bool
    second_volume: str
    fusion: str

    @property
    def of_network(self) -> tuple[bool, str, str]:
        """The part that decides what the network answers; the rest comes after it."""
        return self.depth_attention, self.second_volume, self.fusion


@dataclass(frozen=True)
class Settings:
    """All settings.

    Attributes:
        device: "auto", "cpu" or "cuda".
        weights: folder of a bundle; "" for the bundled weights.
        depth_attention: False looks at each slice and its neighbors only ("2D only").
        smoothing_mm: standard deviation of the Gaussian that smooths the mask, 0 to 5 mm.
        keep_inside: the mask does not leave the drawn box.
        remove_small_islands: only the largest part of the mask stays, and parts with a positive point.
        live: every finished prompt updates the mask; else only on demand.
        second_volume: identifier of another sequence of the same study, which the network looks at as well;
            "" for none.
        fusion: how the two become one: "average" or "maximum" of the logits.

    Raises:
        BoneSAMError: an unknown device or fusion, or smoothing beyond its range.
    """

    device: str = "auto"
    weights: str = ""
    depth_attention: bool = True
    smoothing_mm: float = 0.0
    keep_inside: bool = False
    remove_small_islands: bool = False
    live: bool = True
    second_volume: str = ""
    fusion: str = "average"

    def __post_init__(self) -> None:
        check_device(self.device)
        check_fusion(self.fusion)
        if not (math.isfinite(self.smoothing_mm) and 0 <= self.smoothing_mm <= LARGEST_SMOOTHING_MM):
            raise BoneSAMError(
                f"Smoothing of {self.smoothing_mm} mm is not possible: "
                f"use 0 (none) to {LARGEST_SMOOTHING_MM:g} mm."
            )

    @property
    def recipe(self) -> Recipe:
        """The part that changes masks."""
        return Recipe(
            self.depth_attention,
            self.smoothing_mm,
            self.keep_inside,
            self.remove_small_islands,
            self.second_volume,
            self.fusion if self.second_volume else "",
        )

    def to_strings(self) -> dict[str, str]:
        """Every setting as text, for a scene's parameter node."""
        return {name: _to_text(value) for name, value in asdict(self).items()}

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> Self:
        """Read what `to_strings` gave.

        What is missing, unknown or unreadable becomes the default: the scene may come from another version.
        """
        read: dict[str, Any] = {}
        for field in fields(cls):
            try:
                value: dict[str, Any] = {field.name: _from_text(values[field.name], field.default)}
                cls(**value)
            except (KeyError, ValueError, BoneSAMError):
                continue
            read |= value
        return cls(**read)


def _to_text(value: bool | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _from_text(text: str, default: Any) -> bool | float | str:
    if isinstance(default, bool):
        return {"true": True, "false": False}[text]
    return float(text) if isinstance(default, float) else text
