"""A segmenter without a network: it marks what differs from the background."""

from types import SimpleNamespace

import cc3d
import numpy as np


class ThresholdSession:
    """Marks whatever differs from the background inside a box, and is corrected by small balls at the clicks.

    Without depth attention it misses the lower half, so that the two can be told apart.
    """

    def __init__(self, volume):
        self.volume = volume
        self.calls = []
        values, counts = np.unique(volume.array, return_counts=True)
        self.bone = (volume.array != values[counts.argmax()]) & (volume.array > -500)

    def segment(self, box=None, points=(), mask=None, depth_attention=True):
        self.calls.append((box, tuple(points), mask, depth_attention))
        answer = np.zeros(self.volume.shape, dtype=bool)
        if mask is not None:
            answer |= mask.mask
        elif box is not None:
            (i0, j0, k0), (i1, j1, k1) = box.to_ijk(self.volume)
            inside = (slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1))
            answer[inside] = self.bone[inside]
            if not depth_attention:
                answer[:, answer.shape[1] // 2 :] = False
        for point in points:
            i, j, k = (round(value) for value in point.to_ijk(self.volume))
            around = (slice(max(0, k - 2), k + 3), slice(max(0, j - 4), j + 5), slice(max(0, i - 4), i + 5))
            answer[around] = self.bone[around] if point.positive else False
        return SimpleNamespace(mask=answer, confidence=0.75)

    def segment_all(self, depth_attention=True):
        labels = cc3d.connected_components(self.bone)
        return SimpleNamespace(labels=labels, confidence=dict.fromkeys(range(1, labels.max() + 1), 0.5))


class ThresholdSegmenter:
    def __init__(self):
        self.sessions = []

    def open(self, volume):
        self.sessions.append(ThresholdSession(volume))
        return self.sessions[-1]
