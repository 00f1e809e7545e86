"""Bodies of two thighs, for the naming network: a few thousand voxels of 4 mm along R, A and S."""

import json

import numpy as np

from training.store import DEPTH_UNIT_MM, Subject, Target
from training.warp import Slicing

FAT, FEMUR_L, FEMUR_R, UNNAMED = 1, 2, 3, 4
TISSUES = {FAT: "fat", FEMUR_L: "bone", FEMUR_R: "bone", UNNAMED: "bone"}
NAMES = {FAT: "fat", FEMUR_L: "left femur", FEMUR_R: "right femur", UNNAMED: "something"}
# First and last voxel (i, j, k); i counts to the right.
BOXES = {
    FEMUR_L: ((7, 10, 6), (13, 18, 33)),
    FEMUR_R: ((26, 10, 6), (32, 18, 33)),
    UNNAMED: ((18, 20, 2), (21, 24, 5)),
}
SHAPE = (40, 30, 40)  # k, j, i
THIN = Slicing(2, False, "RAS")


def labels():
    found = np.full(SHAPE, FAT, np.uint8)
    for value, (low, high) in BOXES.items():
        found[tuple(slice(a, b + 1) for a, b in zip(low[::-1], high[::-1], strict=True))] = value
    return found


def body():
    """An anatomy without an image, whose bones are all labelled."""
    values = labels()
    depth = np.where(np.isin(values, list(BOXES)), round(6 / DEPTH_UNIT_MM), 0).astype(np.uint8)
    targets = [Target(value, NAMES[value], *BOXES[value], True) for value in BOXES]
    return Subject(
        "body", "made up", "train", "labels", "any", np.full(3, 4.0), False, THIN, dict(TISSUES), dict(NAMES),
        targets, labels=values, depth=depth,
    )  # fmt: skip


def partial_scan():
    """A CT of which the left femur alone is annotated."""
    values = labels()
    image = np.array([0, 60, 220, 220, 220], np.uint8)[values]
    only = (values == FEMUR_L).astype(np.uint8)
    return Subject(
        "partial", "made up", "train", "image", "CT", np.full(3, 4.0), True, THIN, {1: "bone"},
        {1: "left femur"}, [Target(1, "left femur", *BOXES[FEMUR_L], True)], image=image, labels=only,
    )  # fmt: skip


def write_bodies(store):
    """The body as a training store."""
    store.mkdir(exist_ok=True)
    one = body()
    np.save(store / "body.labels.npy", one.labels)
    np.save(store / "body.depth.npy", one.depth)
    objects = [{"label": t.label, "name": t.name, "low": t.low, "high": t.high} for t in one.targets]
    facts = {
        "id": "body",
        "source": "made up",
        "kind": "labels",
        "spacing": [4.0, 4.0, 4.0],
        "labels": {str(value): {"name": NAMES[value], "tissue": TISSUES[value]} for value in NAMES},
        "objects": objects,
    }
    (store / "body.json").write_text(json.dumps(facts))
    return store
