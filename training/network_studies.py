"""What parts of the network are worth: its gate, and the resolution at which it looks."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.engine import DecoderInputs, Engine
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.region import PIXELS
from BoneSAMLib.session import Session
from training.annotator import OpensVolumes, timed
from training.cases import BoneObject
from training.measure import LoadedCase
from training.protocols import generator, jittered_box
from training.trial import Trial, trial

Array = NDArray[np.float32]

GATES = (0.0, 0.25, 0.5, 0.75, 1.0)
RESOLUTIONS = (64, 96, 128, 192, 256)


class ChangedEngine:
    """An engine with another gate, or with coarser slices, than it was trained with.

    Args:
        engine: the engine.
        gate_factor: what the gate of the depth attention is multiplied by.
        pixels: along a side of the slices; they are averaged down to it and interpolated back.
    """

    def __init__(self, engine: Engine, gate_factor: float = 1.0, pixels: int = PIXELS) -> None:
        self._engine, self.gate_factor, self._pixels = engine, gate_factor, pixels
        self.device = engine.device

    def encode(self, slices: Array) -> tuple[Array, Array]:
        """As in `Engine`."""
        return self._engine.encode(coarser(slices, self._pixels) if self._pixels < PIXELS else slices)

    def attend(self, cubes: Array) -> Array:
        """As in `Engine`."""
        return self._engine.attend(cubes)

    def decode(self, inputs: DecoderInputs) -> tuple[Array, Array]:
        """As in `Engine`."""
        # The network multiplies its gate by this input, which in use is 0 or 1.
        use = inputs.use_attention * np.float32(self.gate_factor)
        return self._engine.decode(inputs._replace(use_attention=use))


def coarser(slices: Array, pixels: int) -> Array:
    """Slices [n, 3, 256, 256] as a camera of fewer pixels would see them."""
    # Torch is slow to import, and only this needs it.
    import torch
    from torch.nn import functional

    small = functional.adaptive_avg_pool2d(torch.from_numpy(slices), pixels)
    size = slices.shape[-2:]
    large = functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return large.numpy()


def engine_of(segmenter: Any) -> Engine:
    """The network behind a segmenter. Raises BoneSAMError where there is none to be changed."""
    engine = getattr(segmenter, "engine", None)
    if engine is None:
        raise BoneSAMError("This study changes the network of a bundle: evaluate a bundle, not a baseline.")
    return engine


class Gate:
    """The 3D box with other values of the gate that mixes the depth attention in; 0 is without it."""

    name = "gate"

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """All values at once; none where the depth attention has no part."""
        return () if loaded.volume.is_projection else ("gate",)

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial a value, and one with the trained value."""
        engine = engine_of(segmenter)
        bundle = getattr(segmenter, "bundle", None)
        trained = float(bundle.manifest.get("gate", 0.0)) if bundle is not None else 0.0
        if trained <= 0:
            raise BoneSAMError("The weights do not tell the value of their gate: export them again.")
        changed = ChangedEngine(engine)
        session = Session(loaded.volume, changed)
        # Bone by bone: what the gate does not change is computed once.
        for bone in loaded.bones:
            for value in sorted({*GATES, trained}):
                changed.gate_factor = value / trained
                yield _boxed(loaded, bone, session, part, value)


class Resolution:
    """The 3D box with slices of fewer pixels."""

    name = "resolution"

    def parts(self, loaded: LoadedCase) -> Sequence[str]:
        """One for each number of pixels."""
        return [f"{pixels} pixels" for pixels in RESOLUTIONS]

    def run(self, loaded: LoadedCase, segmenter: OpensVolumes, part: str) -> Iterator[Trial]:
        """One trial a bone."""
        pixels = int(part.split()[0])
        changed = ChangedEngine(engine_of(segmenter), pixels=pixels)
        session = Session(loaded.volume, changed)
        for bone in loaded.bones:
            yield _boxed(loaded, bone, session, "resolution", pixels)


def _boxed(loaded: LoadedCase, bone: BoneObject, session: Session, condition: str, level: float) -> Trial:
    box = jittered_box(bone.mask, loaded.volume, generator(loaded.case.id, bone.name, "box"))
    result, seconds = timed(lambda: session.segment(box=box))
    return trial(loaded, bone, condition, level, result.mask, seconds)
