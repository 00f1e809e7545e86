"""A small made-up anatomy for tests: two balls of bone and one of muscle in a body of fat."""

import json

import numpy as np
from scipy import ndimage

from training.store import DEPTH_UNIT_MM, Subject, Target
from training.warp import Slicing

THIN = Slicing(2, False, "RAS")
FAT, LARGE, SMALL, MUSCLE = 1, 2, 3, 4
TISSUES = {FAT: "fat", LARGE: "bone", SMALL: "bone", MUSCLE: "muscle"}
# Label: center (i, j, k) and radius in voxels of 1 mm.
BALLS = {LARGE: ((26, 30, 32), 13), SMALL: ((46, 34, 30), 5), MUSCLE: ((32, 51, 34), 8)}
SIZE = (64, 70, 66)  # i, j, k


def labels_and_depth():
    """Labels [k, j, i] and depth below the bones' surface in the store's unit."""
    k, j, i = np.indices(SIZE[::-1])
    body = ((i - 32) / 30) ** 2 + ((j - 35) / 32) ** 2 + ((k - 33) / 31) ** 2 < 1
    labels = body.astype(np.uint16) * FAT
    depth = np.zeros(labels.shape)
    for value, ((x, y, z), radius) in BALLS.items():
        ball = (i - x) ** 2 + (j - y) ** 2 + (k - z) ** 2 <= radius**2
        labels[ball] = value
        if TISSUES[value] == "bone":
            depth += ndimage.distance_transform_edt(ball) - 0.5 * ball
    return labels, np.rint(np.clip(depth / DEPTH_UNIT_MM, 0, 255)).astype(np.uint8)


def target(value):
    """The ball as a target."""
    center, radius = BALLS[value]
    low, high = (tuple(c + sign * radius for c in center) for sign in (-1, 1))
    return Target(value, {LARGE: "large", SMALL: "small", MUSCLE: "muscle"}[value], low, high, True)


def anatomy():
    """The balls as an anatomy without an image."""
    labels, depth = labels_and_depth()
    targets = [target(LARGE), target(SMALL)]
    return Subject(
        "spheres", "made up", "train", "labels", "any", np.ones(3), False, THIN, dict(TISSUES), dict(TISSUES),
        targets,
        labels=labels, depth=depth,
    )  # fmt: skip


def partial_scan():
    """An MR of the balls of which only the large one is annotated; slices across k are 3 mm thick."""
    labels, _ = labels_and_depth()
    image = np.array([0, 200, 90, 90, 60], np.uint8)[labels]
    only = np.where(labels == LARGE, 1, 0).astype(np.uint8)
    low, high = target(LARGE).low, target(LARGE).high
    targets = [Target(1, "large", low, high, True)]
    return Subject(
        "partial", "made up", "train", "image", "MR", np.array([1.0, 1.0, 3.0]), True,
        Slicing(2, True, "RAS"), {1: "bone"}, {1: "large"}, targets, image=image, labels=only,
    )  # fmt: skip


def write_anatomy(store):
    """Write the balls as training.synthesis.anatomy does."""
    labels, depth = labels_and_depth()
    np.save(store / "spheres.labels.npy", labels)
    np.save(store / "spheres.depth.npy", depth)
    objects = [
        {"label": t.label, "name": t.name, "low": t.low, "high": t.high, "complete": True}
        for t in (target(LARGE), target(SMALL))
    ]
    facts = {
        "id": "spheres",
        "source": "made up",
        "kind": "labels",
        "spacing": [1.0, 1.0, 1.0],
        "labels": {str(value): {"name": tissue, "tissue": tissue} for value, tissue in TISSUES.items()},
        "objects": objects,
    }
    (store / "spheres.json").write_text(json.dumps(facts))
