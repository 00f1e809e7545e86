"""Somebody who prompts for a bone, looks at the result and corrects it, imitated; and what is prompted."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.prompts import Box, Point
from BoneSAMLib.volume import Volume
from training.masks import Mask
from training.protocols import corrective_click

Answer = TypeVar("Answer")


class Segmented(Protocol):
    """What a session returns for one bone."""

    @property
    def mask(self) -> Mask:
        """Bool [k, j, i]."""

    @property
    def confidence(self) -> float:
        """Predicted IoU."""


class AllSegmented(Protocol):
    """What a session returns without a prompt."""

    @property
    def labels(self) -> NDArray[Any]:
        """Number of the bone [k, j, i], 0 where there is none."""

    @property
    def confidence(self) -> Mapping[int, float]:
        """Predicted IoU of each number."""


class OpenSession(Protocol):
    """The part of a session that is measured."""

    def segment(
        self,
        box: Box | None = None,
        points: Sequence[Point] = (),
        mask: Any = None,
        depth_attention: bool = True,
    ) -> Segmented:
        """One bone, from a box, from points, or from an earlier result (``mask``) with all points so far."""

    def segment_all(self, depth_attention: bool = True) -> AllSegmented:
        """All bones, without a prompt."""


class OpensVolumes(Protocol):
    """The part of a segmenter that is measured."""

    def open(self, volume: Volume) -> OpenSession:
        """Start working on a volume."""


@dataclass
class Annotator:
    """Somebody who prompts for one bone, looks at the result and corrects it.

    Every call gets the box, all clicks so far and the last result. ``seconds`` is the time of all calls.
    """

    session: OpenSession
    volume: Volume
    truth: Mask
    rng: np.random.Generator
    attention: bool = True
    box: Box | None = None
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0

    def start(self) -> Segmented:
        """The result of the box, or of the first clicks."""
        return self._ask(None)

    def correct(self, result: Segmented, times: int = 1) -> Segmented:
        """The result after so many corrective clicks; one without an error stays as it is."""
        for _ in range(times):
            click = corrective_click(result.mask, self.truth, self.volume, self.rng)
            if click is None:
                break
            self.points.append(click)
            result = self._ask(result)
        return result

    def _ask(self, last: Segmented | None) -> Segmented:
        result, seconds = timed(
            lambda: self.session.segment(
                box=self.box, points=tuple(self.points), mask=last, depth_attention=self.attention
            )
        )
        self.seconds += seconds
        return result


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    """What a call returns, and its wall time in seconds."""
    start = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - start
