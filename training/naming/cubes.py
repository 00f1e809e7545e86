"""One training cube of the naming network: a part of a body, and which bone each of its voxels belongs to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from BoneSAMLib.bone_scan import spacing_channel
from BoneSAMLib.region import screen_axes
from training.label_places import NO_SIDE, UNKNOWN
from training.lookup import brightness_at, labels_at
from training.store import Subject, Target
from training.synthesis.contrast import random_contrast, render
from training.synthesis.scanner import degrade
from training.warp import Frame, lattice, random_waves, rotation

SIZE = 64
NARROWEST_MM, WIDEST_MM = 70.0, 560.0
# A scan ends somewhere: the share of cubes of anatomy that lack a part, and that of each of their sides.
CUT, CUT_SIDE = 0.7, 0.35
# Whole bodies are seen by CT rather than by MR.
REGIME_SHARES = (0.45, 0.2, 0.1, 0.1, 0.15)


def draw_cube(
    subjects: dict[str, list[Subject]], synthetic: float, rng: np.random.Generator
) -> dict[str, Any]:
    """A random cube; the share `synthetic` is anatomy with a drawn contrast, the rest are real scans.

    `subjects` are grouped by source.

    Holds `cube` float16 [2, 64, 64, 64] as `NamingNetwork` takes it, `kind`, `side` uint8 and `number` uint8
    [64, 64, 64] (UNKNOWN: nobody knows; number 0 likewise), and `complete` bool [26] as in `LabelPlaces`.
    """
    wanted = "labels" if rng.random() < synthetic else "image"
    sources = [source for source, own in subjects.items() if own[0].kind == wanted] or list(subjects)
    pool = subjects[sources[int(rng.integers(len(sources)))]]
    while True:
        subject = pool[int(rng.integers(len(pool)))]
        sample = _draw(subject, rng)
        if sample is not None:
            return sample


def nameable(subject: Subject) -> list[Target]:
    """The bones of a subject that the network has a kind for."""
    kind = subject.places.kind
    return [target for target in subject.targets if kind[target.label] not in (0, UNKNOWN)]


def _draw(subject: Subject, rng: np.random.Generator) -> dict[str, Any] | None:
    places, named = subject.places, nameable(subject)
    # One kind, then one bone of it: a body has 24 ribs and one sternum.
    kinds = sorted({int(places.kind[t.label]) for t in named})
    chosen = kinds[int(rng.integers(len(kinds)))]
    targets = [t for t in named if places.kind[t.label] == chosen]
    target = targets[int(rng.integers(len(targets)))]
    mirrored = bool(rng.random() < 0.5)
    frame = anatomical_frame(subject, mirrored, rng)
    center, extent = _middle(target, frame)
    longest = float((subject.size * subject.spacing).max())
    width = extent * float(np.exp(rng.uniform(np.log(1.1), np.log(6.0))))
    width = float(np.clip(width, NARROWEST_MM, min(WIDEST_MM, max(1.3 * longest, NARROWEST_MM))))
    center = center + rng.uniform(-0.3, 0.3, 3) * width * (rng.random() < 0.8)
    offsets = ((np.arange(SIZE) + 0.5) / SIZE - 0.5) * width
    grid = lattice(frame, center[0] + offsets, center[1] + offsets, center[2] + offsets)
    labels, depth = labels_at(subject, grid)
    cell = width / SIZE
    if subject.kind == "labels":
        contrast = random_contrast(subject.tissues, rng, REGIME_SHARES)
        image = render(labels, depth, cell, contrast, rng)
        is_ct = contrast.regime == "CT"
    else:
        image = brightness_at(subject, grid, cell)
        is_ct = subject.modality == "CT"
    degrade(np.zeros((1, 8, 8), np.float32), image, subject.kind == "labels", is_ct, rng)
    kind, number, side = places.kind[labels], places.number[labels], places.side[labels]
    beyond = _beyond(subject, grid)
    if subject.kind == "labels" and rng.random() < CUT:
        beyond |= _cut(rng)
    image[beyond] = 0.0
    kind[beyond], number[beyond], side[beyond] = 0, 0, NO_SIDE
    if not (kind == chosen).any():
        return None
    if mirrored:
        side = np.where(side == NO_SIDE, side, 1 - side)
    return {
        "cube": np.stack([image, np.full_like(image, spacing_channel(cell))]).astype(np.float16),
        "kind": kind,
        "number": number,
        "side": side,
        "complete": places.complete,
    }


def anatomical_frame(subject: Subject, mirrored: bool, rng: np.random.Generator) -> Frame:
    """u to the left (to the right if `mirrored`), v to posterior, w to superior; turned and warped a bit."""
    orientation = subject.slicing.orientation
    (u, u_back), (v, v_back) = screen_axes(orientation, next(n for n in range(3) if orientation[n] in "SI"))
    w = 3 - u - v
    signs = [-1.0 if u_back else 1.0, -1.0 if v_back else 1.0, 1.0 if orientation[w] == "S" else -1.0]
    if mirrored:
        signs[0] = -signs[0]
    axes = np.eye(3)[:, [u, v, w]] * np.array(signs)
    # A body lies turned by some degrees; hands, feet and knees in any way.
    turn = rng.normal(0, np.radians(10 if rng.random() < 0.8 else 40))
    axes = axes @ rotation(rng.normal(size=3), turn)
    scale = np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.08, 3))
    amplitudes, waves = random_waves(0.6, 80.0, 400.0, rng)
    return Frame(axes, subject.spacing, scale, amplitudes, waves, rng.uniform(0, 2 * np.pi, len(waves)))


def _middle(target: Target, frame: Frame) -> tuple[NDArray[np.float64], float]:
    """Middle of a bone in the frame and its longest side, in mm."""
    corners = np.array([target.low, target.high], float)
    ends = frame.from_voxels(np.array(np.meshgrid(*corners.T)).reshape(3, -1).T)
    return ends.mean(0), float(np.ptp(ends, axis=0).max()) + 1.0


def _beyond(subject: Subject, grid: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.asarray(((grid < -0.5) | (grid > subject.size - 0.5)).any(-1))


def _cut(rng: np.random.Generator) -> NDArray[np.bool_]:
    """What lies beyond the ends of a scan that has been drawn [64, 64, 64]."""
    inside = np.ones((SIZE,) * 3, bool)
    for axis in range(3):
        line = np.ones(SIZE, bool)
        if rng.random() < CUT_SIDE:
            line[: int(rng.integers(1, int(0.4 * SIZE)))] = False
        if rng.random() < CUT_SIDE:
            line[-int(rng.integers(1, int(0.4 * SIZE))) :] = False
        inside &= line.reshape([-1 if n == axis else 1 for n in range(3)])
    return ~inside
