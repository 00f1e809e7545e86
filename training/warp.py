"""Where a training sample is taken: a random rigid frame with a smooth warp, from region to voxels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.region import screen_axes

Array = NDArray[np.float32]
OTHER_AXIS = 0.6  # share of frames that look for another stacking than the one in use; a third finds the same
MISORIENTED = 0.12  # share of frames that are not as on the screen: some files tell nothing, or lie
FEWEST_NODES = 17  # along an axis; with 8 on a cube of 64 the sample was up to 0.8 cells off its box


@dataclass(frozen=True)
class Slicing:
    """How a scan is looked at in use.

    Attributes:
        axis: IJK axis along which its slices are stacked.
        thick: whether they are so thick that only they can be looked at.
        orientation: where i, j and k lead, as of `Volume`.
    """

    axis: int
    thick: bool
    orientation: str


@dataclass
class Frame:
    """Maps region coordinates (u, v, w) in mm to voxel coordinates (i, j, k).

    u and v lie in the slice, w runs along the stack; `axes` columns are unit vectors in mm space. The warp is
    a sum of sines: cheap, smooth, and its inverse converges in a few fixed-point steps because it is gentle.
    """

    axes: NDArray[np.float64]
    spacing: NDArray[np.float64]
    scale: NDArray[np.float64]  # stretches the anatomy along u, v, w
    amplitudes: NDArray[np.float64]  # [n, 3] mm
    waves: NDArray[np.float64]  # [n, 3] radians per mm
    phases: NDArray[np.float64]  # [n]

    def to_voxels(self, region: NDArray[np.float64]) -> NDArray[np.float64]:
        """Region points [..., 3] in mm to voxel coordinates [..., 3]."""
        moved = (region + self._displacement(region)) / self.scale
        return (moved @ self.axes.T) / self.spacing

    def from_voxels(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel coordinates [n, 3] to region points [n, 3] in mm."""
        target = ((voxels * self.spacing) @ self.axes) * self.scale
        region = target
        for _ in range(8 if len(self.phases) else 0):
            region = target - self._displacement(region)
        return region

    def _displacement(self, region: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros_like(region)
        for amplitude, wave, phase in zip(self.amplitudes, self.waves, self.phases, strict=True):
            total += np.sin(region @ wave + phase)[..., None] * amplitude
        return total


def lattice(frame: Frame, u: NDArray[np.float64], v: NDArray[np.float64], w: NDArray[np.float64]) -> Array:
    """Voxel coordinates [w, v, u, 3] of a rectangular lattice of region coordinates in mm.

    The warp is evaluated at every 8th node and interpolated: 10 times faster, and its waves are much longer.
    """
    coarse, weights = zip(*(_thinned(axis) for axis in (w, v, u)), strict=True)
    grid = np.stack(np.meshgrid(*coarse, indexing="ij")[::-1], axis=-1)
    voxels = frame.to_voxels(grid).astype(np.float32)
    for axis, matrix in reversed(list(enumerate(weights))):
        voxels = np.moveaxis(np.tensordot(matrix, voxels, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(voxels)


def _thinned(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Array]:
    """Evenly spaced nodes over `values` and the matrix that interpolates back; short axes are kept whole."""
    if len(values) <= FEWEST_NODES:
        return values, np.eye(len(values), dtype=np.float32)
    nodes = np.linspace(values[0], values[-1], max(len(values) // 8 + 1, FEWEST_NODES))
    place = (values - nodes[0]) / (nodes[1] - nodes[0])
    below = np.clip(place.astype(int), 0, len(nodes) - 2)
    matrix = np.zeros((len(values), len(nodes)), np.float32)
    rows = np.arange(len(values))
    matrix[rows, below] = 1 - (place - below)
    matrix[rows, below + 1] = place - below
    return nodes, matrix


def random_frame(
    spacing: NDArray[np.float64],
    slicing: Slicing,
    size_mm: float,
    tilted: float,
    rng: np.random.Generator,
) -> Frame:
    """A frame for an object of about `size_mm`.

    Thick slices are kept, only turned and warped in their plane. Otherwise any direction serves; `tilted` is
    the share that follows no voxel axis.
    """
    across = slicing.axis
    if not slicing.thick and rng.random() < OTHER_AXIS:
        across = int(rng.integers(3))
    screen = screen_axes(slicing.orientation, across)
    backward = [u_or_v for _, u_or_v in screen] + [bool(rng.random() < 0.5)]
    order = [u_or_v for u_or_v, _ in screen] + [across]
    if rng.random() < MISORIENTED:
        order[:2] = rng.permutation(order[:2]).tolist()
        backward[:2] = (rng.random(2) < 0.5).tolist()
    elif rng.random() < 0.5:
        # The body is about symmetric, so its mirror image is another body.
        left_right = next(n for n, axis in enumerate(order) if slicing.orientation[axis] in "LR")
        backward[left_right] = not backward[left_right]
    axes = np.eye(3)[:, order] * np.where(backward, -1.0, 1.0)
    if rng.random() < 0.7:
        turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.1 else rng.normal(0, np.radians(10))
        axes = axes @ rotation([0, 0, 1], turn)
    if not slicing.thick and rng.random() < tilted:
        tilt = rng.uniform(-np.pi, np.pi) if rng.random() < 0.15 else rng.normal(0, np.radians(15))
        axes = axes @ rotation(rng.normal(size=3), tilt)
    scale = np.exp(rng.normal(0, 0.1, 3))
    amplitudes, waves = random_waves(0.5, 0.5 * size_mm, 2.0 * size_mm, rng)
    if slicing.thick:
        scale[2] = 1.0
        waves[:, 2], amplitudes[:, 2] = 0.0, 0.0
    return Frame(axes, spacing, scale, amplitudes, waves, rng.uniform(0, 2 * np.pi, len(waves)))


def random_waves(
    share: float, shortest_mm: float, longest_mm: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amplitudes and waves of a frame's warp: one to three in a `share` of the frames, else none."""
    count = int(rng.integers(1, 4)) if rng.random() < share else 0
    lengths = rng.uniform(shortest_mm, longest_mm, count)
    directions = rng.normal(size=(count, 3))
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-6)
    waves = directions * (2 * np.pi / np.maximum(lengths, 1e-3))[:, None]
    # A displacement above 1/4 of the wave's period over 2 pi would fold space.
    amplitudes = rng.normal(size=(count, 3)) * (lengths * rng.uniform(0.0, 0.03, count))[:, None]
    return amplitudes, waves


def rotation(axis: list[int] | NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Rodrigues' rotation matrix."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
