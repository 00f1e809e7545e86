"""What `bench.py` measures: `python -m Testing.bench.cases NAME` runs one case and prints figures as JSON.

A process of its own gives every case its own peak memory, and no case the warm caches of another.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib import Box, Point, Segmenter, Volume
from BoneSAMLib.engine import DecoderInputs

NETWORK_RUNS = 15
VOLUME_RUNS = 3
PARTS_RUNS = 3
REGION_SLICES = 30


def median_seconds(work: Callable[[], object], runs: int, warm_up: bool = True) -> float:
    """Median time of `work()`; the first run, which may still load or allocate, is not counted."""
    if warm_up:
        work()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


# The only calls below the public API: the engine's networks, each alone.


def encode(segmenter: Segmenter, slices: NDArray[np.float32]) -> Any:
    """Image features of slices [N, 3, 256, 256] in 0..1."""
    return segmenter.engine.encode(slices)


def decode_click(segmenter: Segmenter, features: Any, depth_attention: NDArray[np.float32]) -> Any:
    """Logits of one slice for one positive click in its middle."""
    embedding, skip = features
    inputs = DecoderInputs(
        embedding,
        skip,
        depth_attention,
        np.ones(1, np.float32),
        np.array([[[128, 128, 0]]], np.float32),
        np.ones((1, 1), np.int64),
        np.zeros((1, 1, 64, 64), np.float32),
        np.zeros(1, np.int64),
    )
    return segmenter.engine.decode(inputs)


def attend(segmenter: Segmenter, cube: NDArray[np.float32]) -> Any:
    """Bone probability in a cube [1, 2, 64, 64, 64] of intensity and box, once per region."""
    return segmenter.engine.attend(cube)


def networks() -> dict[str, float]:
    """Encoder and decoder on one slice, depth attention on one region."""
    segmenter = Segmenter(device="cpu")
    random = np.random.default_rng(0)
    slices = random.random((1, 3, 256, 256), dtype=np.float32)
    cube = random.random((1, 2, 64, 64, 64), dtype=np.float32)
    depth_attention = np.full((1, 2, 64, 64), 0.5, np.float32)
    features = encode(segmenter, slices)
    return {
        "encode": median_seconds(lambda: encode(segmenter, slices), NETWORK_RUNS),
        "click": median_seconds(lambda: decode_click(segmenter, features, depth_attention), NETWORK_RUNS),
        "attend": median_seconds(lambda: attend(segmenter, cube), NETWORK_RUNS),
    }


def region() -> dict[str, float]:
    """A 30-slice MR with one box around one bone in a new session each time, then one correcting click."""
    volume, box = mr_with_one_bone()
    segmenter = Segmenter(device="cpu")
    session = segmenter.open(volume)
    first = session.segment(box=box)
    low, high = box.to_ijk(volume)
    middle = Point.from_ijk([(a + b) / 2 for a, b in zip(low, high, strict=True)])

    return {
        "region": median_seconds(lambda: segmenter.open(volume).segment(box=box), VOLUME_RUNS),
        "region_click": median_seconds(
            lambda: session.segment(box=box, points=[middle], mask=first), VOLUME_RUNS
        ),
        "slices": REGION_SLICES,
    }


def everything() -> dict[str, float]:
    """Every bone of a large CT, without names and with them."""
    volume = large_ct()
    segmenter = Segmenter(device="cpu")
    found = {}

    def segment_all(named: bool) -> None:
        found[named] = segmenter.open(volume).segment_all(named=named).count

    seconds, named = (
        median_seconds(partial(segment_all, named), VOLUME_RUNS, warm_up=False) for named in (False, True)
    )
    return {"everything": seconds, "bones": found[False], "named": named}


def start() -> dict[str, float]:
    """All that comes before the first prompt; `bench.py` times the whole process from outside."""
    Segmenter(device="cpu").open(Volume(np.zeros((8, 64, 64), np.int16), np.eye(4)))
    return {}


def imports() -> dict[str, float]:
    """The imports alone; timed from outside like `start`."""
    return {}


def parts() -> dict[str, float]:
    """The three networks that SegmentAnyBone runs for every slice, in eager PyTorch as it does."""
    import torch

    from Testing.bench.segment_any_bone_parts import CUBE_SIZE, IMAGE_SIZE, SegmentAnyBoneParts

    network = SegmentAnyBoneParts()
    image = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    cube = torch.rand(1, 1, CUBE_SIZE, CUBE_SIZE, CUBE_SIZE)
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * IMAGE_SIZE
    embedding = network.encode(image)
    return {
        "parts_encode": median_seconds(lambda: network.encode(image), PARTS_RUNS),
        "parts_decode": median_seconds(lambda: network.decode(embedding, box), PARTS_RUNS),
        "parts_attend": median_seconds(lambda: network.attend(cube), PARTS_RUNS),
        "parts_slice": median_seconds(lambda: network.segment_slice(image, cube, box), PARTS_RUNS),
    }


def mr_with_one_bone() -> tuple[Volume, Box]:
    """T1-like stack of 30 slices of 320 x 320, 0.6 x 0.6 x 4 mm, and the box of a slanted long bone in it."""
    noise = np.random.default_rng(1)
    y, x = np.mgrid[:320, :320].astype(np.float32)
    array = np.empty((REGION_SLICES, 320, 320), np.int16)
    for k in range(REGION_SLICES):
        radius = np.hypot(x - 140 - k, y - 160)
        slice_ = np.where(np.hypot(x - 160, y - 160) < 140, 300.0, 10.0)
        slice_[radius < 32] = 40
        slice_[radius < 25] = 600
        array[k] = slice_ + noise.normal(0, 20, slice_.shape)
    volume = Volume(array, np.diag([0.6, 0.6, 4.0, 1.0]), modality="MR")
    return volume, Box.from_ijk([108, 128, 0], [201, 192, REGION_SLICES - 1])


def large_ct() -> Volume:
    """CT of 512 x 512 x 300 voxels, 0.8 x 0.8 x 1.5 mm: a trunk with a spine and two long bones."""
    noise = np.random.default_rng(2).normal(0, 15, (512, 512)).astype(np.int16)
    y, x = np.mgrid[:512, :512].astype(np.float32)
    trunk = np.hypot((x - 256) / 220, (y - 256) / 150) < 1
    array = np.empty((300, 512, 512), np.int16)
    for k in range(300):
        array[k] = np.where(trunk, 40, -1000)
        # Vertebrae of 27 mm with discs of 9 mm between, and two shafts.
        bones = [(256, 330, 30 if k % 24 < 18 else 0), (120, 260, 18), (392, 260, 18)]
        for center_x, center_y, radius in bones:
            distance = np.hypot(x - center_x, y - center_y)
            array[k][distance < radius] = 900
            array[k][distance < radius - 4] = 250
        array[k] += np.roll(noise, (17 * k, 31 * k), axis=(0, 1))
    return Volume(array, np.diag([0.8, 0.8, 1.5, 1.0]), modality="CT")


CASES = {case.__name__: case for case in (networks, region, everything, start, imports, parts)}


def peak_memory() -> float:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else 1024 * peak)


if __name__ == "__main__":
    figures = CASES[sys.argv[1]]()
    print(json.dumps({**figures, "peak_memory": peak_memory()}))
