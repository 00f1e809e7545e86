"""The network as three calls, run by ONNX Runtime; the torch backend answers the same calls."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bundle import Bundle
from BoneSAMLib.errors import BoneSAMError

Array = NDArray[np.float32]
DEVICES = ("auto", "cpu", "cuda")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_NO_CUDA = "No CUDA device can be used: install onnxruntime-gpu and an NVIDIA driver, or choose the CPU."


class DecoderInputs(NamedTuple):
    """What the decoder is asked of N slices; named as the inputs of its graph. float32, labels int64.

    Attributes:
        embedding, skip: as `Engine.encode` gives them.
        attention: [N, 2, 64, 64], probability of bone and of the bone meant.
        use_attention: [N], 0 or 1.
        points: [N, P, 3], x, y and depth in region pixels.
        labels: [N, P], -1 padding, 0 negative, 1 positive, 2 and 3 box corners.
        masks: [N, 1, 64, 64], earlier logits or zeros.
        kinds: [N] int64, what the bone is: 1 + its place in `bone_kinds.KINDS`, 0 for no name.
    """

    embedding: Array
    skip: Array
    attention: Array
    use_attention: Array
    points: Array
    labels: NDArray[np.int64]
    masks: Array
    kinds: NDArray[np.int64]


class Engine(Protocol):
    """What runs the network. All arrays are float32; N is the number of slices of a batch."""

    @property
    def device(self) -> str:
        """Either "cpu" or "cuda"."""

    def encode(self, slices: Array) -> tuple[Array, Array]:
        """Slices [N, 3, 256, 256] in 0..1 -> embedding [N, 128, 64, 64], skip features [N, 32, 128, 128]."""

    def attend(self, cubes: Array) -> Array:
        """Cubes [N, 2, 64, 64, 64] (intensity, inside the box) -> probabilities of the same shape."""

    def decode(self, inputs: DecoderInputs) -> tuple[Array, Array]:
        """Prompts to masks: logits [N, 4, 128, 128] and predicted IoU [N, 4]."""


class OnnxEngine:
    """ONNX Runtime on `threads` cores, or on a CUDA device when onnxruntime-gpu finds one.

    `threads`: None for all cores that the process may use.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None) -> None:
        check_device(device)
        import onnxruntime

        has_cuda = CUDA in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise BoneSAMError(_NO_CUDA)
        self.device = "cuda" if has_cuda and device != "cpu" else "cpu"
        self._asked = device
        self._bundle = bundle
        self._threads = threads

    def encode(self, slices: Array) -> tuple[Array, Array]:
        """As in `Engine`."""
        embedding, skip = self._encoder.run(None, {"slices": slices})
        return embedding, skip

    def attend(self, cubes: Array) -> Array:
        """As in `Engine`."""
        probability: Array = self._depth_attention.run(None, {"cubes": cubes})[0]
        return probability

    def decode(self, inputs: DecoderInputs) -> tuple[Array, Array]:
        """As in `Engine`."""
        logits, iou = self._decoder.run(None, inputs._asdict())
        return logits, iou

    # Each graph is loaded at its first use: a first click needs no whole start-up.
    @cached_property
    def _encoder(self) -> Any:
        return self._load("encoder")

    @cached_property
    def _depth_attention(self) -> Any:
        return self._load("depth_attention")

    @cached_property
    def _decoder(self) -> Any:
        return self._load("decoder")

    def _load(self, part: str) -> Any:
        # Once a graph has fallen back, the others follow it.
        asked = self.device if self.device == "cpu" else self._asked
        session, self.device = load_graph(self._bundle.graph(part), asked, self._threads)
        return session


def load_graph(path: Path, device: str = "auto", threads: int | None = None) -> tuple[Any, str]:
    """An ONNX Runtime session for a graph, and the device that it runs on: "cpu" or "cuda".

    "auto" falls back to the CPU. Raises BoneSAMError: the file cannot be loaded, or "cuda" cannot be used.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3
    wanted = device != "cpu" and CUDA in onnxruntime.get_available_providers()
    providers: Sequence[str] = [CUDA, CPU] if wanted else [CPU]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BoneSAMError(f"The network '{path}' cannot be loaded: {str(error).splitlines()[0]}") from error
    # onnxruntime-gpu offers CUDA wherever it is installed, and uses the CPU where there is no device.
    on_cuda = CUDA in session.get_providers()
    if device == "cuda" and not on_cuda:
        raise BoneSAMError(_NO_CUDA)
    return session, "cuda" if on_cuda else "cpu"


def available_cores() -> int:
    """The cores that this process may use; on a shared machine they may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_device(device: str) -> None:
    """Raises BoneSAMError for a name that is no device."""
    if device not in DEVICES:
        raise BoneSAMError(f"Unknown device '{device}': use one of {', '.join(DEVICES)}.")
