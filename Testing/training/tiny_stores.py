"""Training stores of a few kilobytes, from the balls of `Testing.training.spheres`."""

import json

import numpy as np

from Testing.training.spheres import LARGE, SMALL, labels_and_depth, partial_scan, target, write_anatomy

BRIGHTNESS = np.array([0, 200, 90, 90, 60], np.uint8)


def write_store(folder):
    """An anatomy, and a scan each for training and validation of which the large ball is annotated."""
    folder.mkdir(exist_ok=True)
    write_anatomy(folder)
    for split in ("train", "validation"):
        write_scan(folder, split, split)
    return folder


def write_scan(store, name, split):
    """The balls as a scan with thick slices of which only the large one is annotated."""
    scan = partial_scan()
    (only,) = scan.targets
    objects = [{"label": 1, "name": "large", "low": only.low, "high": only.high}]
    facts = {"labels": {"1": {"name": "large", "tissue": "bone"}}, "objects": objects, "partial": True}
    _write(store, name, split, scan.image, scan.labels, facts)


def write_whole_scan(store, name, split="train", source="made up", seed=0):
    """The balls as a noisy scan with thick slices; both balls of bone are annotated."""
    labels, _ = labels_and_depth()
    bones = np.where(np.isin(labels, (LARGE, SMALL)), labels, 0).astype(np.uint8)
    noise = np.random.default_rng(seed).integers(0, 20, labels.shape).astype(np.uint8)
    objects = [
        {"label": t.label, "name": t.name, "low": t.low, "high": t.high}
        for t in (target(LARGE), target(SMALL))
    ]
    rows = {str(value): {"name": str(value), "tissue": "bone"} for value in (LARGE, SMALL)}
    facts = {"labels": rows, "objects": objects, "source": source}
    _write(store, name, split, BRIGHTNESS[labels] + noise, bones, facts)


def write_bare_scan(store, name):
    """The balls as a scan without annotation."""
    labels, _ = labels_and_depth()
    _write(store, name, "train", BRIGHTNESS[labels], None, {"kind": "unlabelled"})


def _write(store, name, split, image, labels, facts):
    np.save(store / f"{name}.image.npy", image)
    if labels is not None:
        np.save(store / f"{name}.labels.npy", labels)
    row = {
        "id": name,
        "source": "made up",
        "split": split,
        "kind": "image",
        "modality": "MR",
        "spacing": [1.0, 1.0, 3.0],
        "axis": 2,
        "thick": True,
        "orientation": "RAS",
    }
    (store / f"{name}.json").write_text(json.dumps(row | facts))
