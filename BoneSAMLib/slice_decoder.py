"""The network on any slices of a region: batches, depth attention, and what is kept between calls."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.companion import Answer, Companion, fused
from BoneSAMLib.engine import DecoderInputs, Engine
from BoneSAMLib.prompt_tokens import SlicePrompts
from BoneSAMLib.region import CUBE, PIXELS, Array, Region

BATCH = 8  # slices a call: larger ones are no faster on two cores and delay cancelling
CACHED_SLICES = 160  # of each volume, at 2 MB each
CACHED_CUBES = 8  # of each volume, at 2 MB each
CUBE_STEP = 0.75  # distance of cubes along the stack, in cubes: no slice lies near a cube's end
NO_MASK = np.zeros((BATCH, 1, CUBE, CUBE), np.float32)

Between = Callable[[float], None]


class SliceDecoder:
    """Runs an engine on slices; slices and cubes that it has seen are not computed again.

    With companions it looks at the same slices of each of them too, and fuses the answers. Every volume has
    its own embeddings, and takes the memory and the time that the first one takes.

    Args:
        engine: what runs the network.
        companions: other volumes of the study.
        fusion: "average" or "maximum" of the logits; see `BoneSAMLib.companion`.
    """

    def __init__(self, engine: Engine, companions: Sequence[Companion] = (), fusion: str = "average") -> None:
        self._engine = engine
        self._companions = companions
        self._fusion = fusion
        self._volumes = 1 + len(companions)
        self._embeddings: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()
        self._attention_maps: OrderedDict[Any, Array] = OrderedDict()
        # Numpy converts to and from half precision on one core, a fifth of the time of a first mask.
        self._beside = ThreadPoolExecutor(1, "BoneSAM half precision")

    def decode(
        self,
        region: Region,
        indices: NDArray[np.int64],
        prompts: SlicePrompts,
        depth_attention: bool,
        between: Between,
        previous: Array | None = None,
    ) -> tuple[Array, Array]:
        """Logits [n, 4, 128, 128] and predicted IoU [n, 4] of slices [n]; arguments as for `batches`.

        No slices are allowed here: a click may be far from all that it could change.
        """
        if not len(indices):
            return np.zeros((0, 4, 2 * CUBE, 2 * CUBE), np.float32), np.zeros((0, 4), np.float32)
        parts = list(self.batches(region, indices, prompts, depth_attention, between, previous))
        return np.concatenate([part[1] for part in parts]), np.concatenate([part[2] for part in parts])

    def batches(
        self,
        region: Region,
        indices: NDArray[np.int64],
        prompts: SlicePrompts,
        depth_attention: bool,
        between: Between,
        previous: Array | None = None,
    ) -> Iterator[tuple[NDArray[np.int64], Array, Array]]:
        """A few slices at a time: their indices, logits [b, 4, 128, 128] and predicted IoU [b, 4].

        Args:
            region: the square that is looked at.
            indices: slices, at least one, in rising or falling order.
            prompts: what is asked of them.
            depth_attention: whether the 3D network helps.
            between: called before each step of the work with the part that is done; may raise to end it.
            previous: earlier logits [n, 1, 64, 64] as mask prompts.
        """
        # Slices of a run that the cache cannot hold would push each other out before they are asked again.
        keep = len(indices) <= CACHED_SLICES
        others = [(one, one.region(region, partial(between, 0.0))) for one in self._companions]
        for begin in range(0, len(indices), BATCH):
            part = indices[begin : begin + BATCH]
            pause = partial(between, begin / len(indices))
            masks = NO_MASK[: len(part)] if previous is None else previous[begin : begin + BATCH]
            ask = partial(self._answer, part, prompts, depth_attention, keep, masks, pause)
            answers: list[Answer] = [(*ask(region), None)]
            for companion, square in others:
                seen = companion.seen(square, part, answers[0][0].shape[-1])
                if seen.any():
                    answers.append((*ask(square), seen))
            logits, iou = fused(answers, self._fusion)
            yield part, logits, iou
        between(1.0)

    def _answer(
        self,
        indices: NDArray[np.int64],
        prompts: SlicePrompts,
        depth_attention: bool,
        keep: bool,
        masks: Array,
        between: Callable[[], None],
        region: Region,
    ) -> tuple[Array, Array]:
        """Logits [b, 4, 128, 128] and predicted IoU [b, 4] of slices of one volume."""
        between()
        if depth_attention and region.frame.size[2] > 1:
            attention, use = self._attention(region, indices, prompts, between)
        else:
            attention = np.zeros((len(indices), 2, CUBE, CUBE), np.float32)
            use = np.zeros(len(indices), np.float32)
        embedding, skip = self._embed(region, indices, keep)
        points, labels = prompts.tokens(region, indices)
        kinds = np.full(len(indices), prompts.kind, np.int64)
        return self._engine.decode(
            DecoderInputs(embedding, skip, attention, use, points, labels, masks, kinds)
        )

    def _embed(self, region: Region, indices: NDArray[np.int64], keep: bool) -> tuple[Array, Array]:
        """Embeddings [n, c, 64, 64] and skip features [n, c, 128, 128], from the cache where it has them."""
        if not keep:
            return self._engine.encode(region.slices(indices))
        cache = self._embeddings
        keys = [(region, int(index)) for index in indices]
        missing = [n for n, key in enumerate(keys) if key not in cache]
        if missing:
            halves = self._each(_halved, *self._engine.encode(region.slices(indices[missing])))
            cache.update(zip((keys[n] for n in missing), zip(*halves, strict=True), strict=True))
        # Fresh ones are rounded like cached ones, so that asking twice gives the same answer.
        parts = [cache[key] for key in keys]
        for key in keys:
            cache.move_to_end(key)
        while len(cache) > CACHED_SLICES * self._volumes:
            cache.popitem(last=False)
        return self._each(_restored, *zip(*parts, strict=True))

    def _each(self, convert: Callable[[Any], Any], embedding: Any, skip: Any) -> tuple[Any, Any]:
        """Both converted, side by side."""
        converted = self._beside.submit(convert, skip)
        return convert(embedding), converted.result()

    def _attention(
        self, region: Region, indices: NDArray[np.int64], prompts: SlicePrompts, between: Callable[[], None]
    ) -> tuple[Array, Array]:
        """Attention maps [n, 2, 64, 64] of slices, and whether there is one [n].

        A cube covers a region's width along the stack; a longer stack takes several. Where they lie depends
        on the prompts only, never on the slices asked for: a correction finds the cubes of the first call.
        """
        spacing = region.frame.spacing[2]
        first, last = prompts.reach(region.frame)
        number = max(1, int(np.ceil((last - first) * spacing / (CUBE_STEP * region.width))))
        centers = np.linspace(first, last, 2 * number + 1)[1::2]
        nearest = np.abs(indices[:, None] - centers[None]).argmin(1)
        maps = np.zeros((len(indices), 2, CUBE, CUBE), np.float32)
        place = (indices - centers[nearest]) * spacing / region.width * CUBE + CUBE / 2 - 0.5
        use = (place >= -0.5) & (place <= CUBE - 0.5)
        for n, center in enumerate(centers):
            chosen = (nearest == n) & use
            if chosen.any():
                between()
                maps[chosen] = _planes(self._cube(region, float(center), prompts), place[chosen])
        return maps, use.astype(np.float32)

    def _cube(self, region: Region, center: float, prompts: SlicePrompts) -> Array:
        """The depth attention's answer [2, 64, 64, 64] (w, v, u) for the cube around slice `center`."""
        cache = self._attention_maps
        box = None if prompts.box is None or prompts.depth is None else np.stack(prompts.box)
        key = (region, center, None if box is None else tuple(box.ravel()))
        if key not in cache:
            channel = np.zeros((CUBE, CUBE, CUBE), np.float32)
            if box is not None:
                low, high = region.to_pixels(box)
                cells = (np.arange(CUBE) + 0.5) * (PIXELS / CUBE)
                depths = cells - PIXELS / 2 + center * region.frame.spacing[2] * region.scale
                u, v, w = (
                    (places >= low[axis]) & (places <= high[axis])
                    for axis, places in enumerate((cells, cells, depths))
                )
                channel = (w[:, None, None] & v[:, None] & u).astype(np.float32)
            cache[key] = self._engine.attend(np.stack([region.cube(center), channel])[None])[0]
        cache.move_to_end(key)
        while len(cache) > CACHED_CUBES * self._volumes:
            cache.popitem(last=False)
        return cache[key]


def _halved(array: Array) -> list[NDArray[np.float16]]:
    """Rows in half precision, which can be kept one by one."""
    return [row.astype(np.float16) for row in array]


def _restored(rows: Sequence[NDArray[np.float16]]) -> Array:
    array = np.empty((len(rows), *rows[0].shape), np.float32)
    for n, row in enumerate(rows):
        array[n] = row
    return array


def _planes(cube: Array, places: NDArray[np.float64]) -> Array:
    """Planes [n, 2, 64, 64] of a cube [2, 64, 64, 64] at fractional depths [n], in cells."""
    below = np.clip(np.floor(places), 0, CUBE - 1).astype(int)
    above = np.minimum(below + 1, CUBE - 1)
    share = np.clip(places - below, 0, 1)[:, None, None, None].astype(np.float32)
    planes = cube.transpose(1, 0, 2, 3)
    mixed: Array = planes[below] * (1 - share) + planes[above] * share
    return mixed
