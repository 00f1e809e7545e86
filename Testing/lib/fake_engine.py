"""An engine that finds what is bright: the whole path can be predicted exactly, and needs no weights."""

import numpy as np

from BoneSAMLib.prompt_tokens import BOX_HIGH, BOX_LOW, NEGATIVE, PADDING, POSITIVE

X = np.arange(128) * 2 + 1.0  # centers of logit cells in region pixels
CLICK_RADIUS, CLICK_DEPTH = 14.0, 12.0  # region pixels
DARK, BRIGHT = -250.0, 1250.0  # Hounsfield units that the network sees as 0 and 1


class FakeEngine:
    """Bone is what is brighter than half of the window, near the box if there is one.

    A 3D box ends softly (half a logit a pixel); a 2D box allows more the farther a slice is from it. A click
    adds or removes a disk, less so on neighboring slices. Calls and slices are counted.
    """

    device = "cpu"

    def __init__(self):
        self.encoded, self.attended, self.decoded = [], 0, 0
        self.labels = []  # of every decoded slice
        self.attention, self.kinds = [], []

    def encode(self, slices):
        assert slices.dtype == np.float32
        assert slices.shape[1:] == (3, 256, 256)
        assert slices.min() >= 0
        assert slices.max() <= 1 + 1e-5
        self.encoded.append(len(slices))
        center = slices[:, 1:2]
        return _mean(center, 4), _mean(center, 2)

    def attend(self, cubes):
        assert cubes.dtype == np.float32
        assert cubes.shape[1:] == (2, 64, 64, 64)
        self.attended += 1
        return (cubes > 0.5).astype(np.float32)

    def decode(self, inputs):
        embedding, skip, attention, use_attention, points, labels, masks, kinds = inputs
        count = len(embedding)
        assert embedding.shape[2:] == attention.shape[2:] == masks.shape[2:] == (64, 64)
        assert skip.shape[2:] == (128, 128)
        assert points.shape == (count, 8, 3)
        assert labels.shape == (count, 8)
        assert {array.dtype for array in (embedding, skip, attention, use_attention, points, masks)} == {
            np.dtype(np.float32)
        }
        assert labels.dtype == kinds.dtype == np.int64
        assert kinds.shape == (count,)
        self.decoded += count
        self.labels += labels.tolist()
        self.kinds += kinds.tolist()
        self.attention += list(zip(attention, use_attention, strict=True))
        logits = 12 * (skip[:, 0] - 0.5)
        for n in range(count):
            low, high = points[n][labels[n] == BOX_LOW], points[n][labels[n] == BOX_HIGH]
            if len(low):
                logits[n] -= 0.5 * _outside(low[0], high[0])
            for x, y, depth in points[n][labels[n] == POSITIVE]:
                logits[n] += 30 * _disk(x, y, depth)
            for x, y, depth in points[n][labels[n] == NEGATIVE]:
                logits[n] -= 30 * _disk(x, y, depth)
        iou = np.tile(np.array([0.9, 0.85, 0.8, 0.7], np.float32), (count, 1))
        return np.repeat(logits[:, None], 4, axis=1), iou


class ConstantEngine:
    """Answers of the right shapes at no cost, to measure all the rest."""

    device = "cpu"

    def __init__(self):
        self._embedding = np.full((8, 128, 64, 64), 0.5, np.float32)
        self._skip = np.full((8, 32, 128, 128), 0.5, np.float32)
        self._cube = np.full((1, 2, 64, 64, 64), 0.5, np.float32)
        disk = 40 - np.hypot(X[:, None] - 128, X[None] - 128) / 2
        self._logits = np.tile(disk.astype(np.float32), (8, 4, 1, 1))

    def encode(self, slices):
        return self._embedding[: len(slices)], self._skip[: len(slices)]

    def attend(self, cubes):
        return self._cube

    def decode(self, inputs):
        count = len(inputs.embedding)
        return self._logits[:count], np.full((count, 4), 0.9, np.float32)


def _mean(images, factor):
    count, channels, height, width = images.shape
    return images.reshape(count, channels, height // factor, factor, width // factor, factor).mean((3, 5))


def _outside(low, high):
    """How many pixels each cell lies outside of the box; a box drawn elsewhere widens with the distance."""
    flat = low[2] == high[2]
    slack = 1.5 * abs(low[2]) if flat else 0.0
    x, y = (np.maximum(np.maximum(low[a] - slack - X, X - high[a] - slack), 0) for a in (0, 1))
    depth = 0.0 if flat else max(low[2], -high[2], 0.0)
    return np.maximum(np.maximum(x[None], y[:, None]), depth).astype(np.float32)


def _disk(x, y, depth):
    distance = ((X[None] - x) ** 2 + (X[:, None] - y) ** 2) / CLICK_RADIUS**2 + (depth / CLICK_DEPTH) ** 2
    return np.exp(-distance).astype(np.float32)


class Deaf(FakeEngine):
    """Follows no click."""

    def decode(self, inputs):
        labels = np.where(np.isin(inputs.labels, (POSITIVE, NEGATIVE)), PADDING, inputs.labels)
        return super().decode(inputs._replace(labels=labels))
