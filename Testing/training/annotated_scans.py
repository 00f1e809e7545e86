"""A tiny folder of annotated scans in the layout of the real one, for tests."""

import json

import numpy as np
import SimpleITK
from PIL import Image


def write_annotated_scans(folder):
    """One CT, one MR and one X-ray of split test, one CT of split train; returns the folder."""
    labels = np.zeros((16, 40, 48), dtype=np.uint8)
    labels[3:13, 10:30, 6:18] = 1
    labels[5:11, 12:28, 30:42] = 2
    labels[0, 0, 0] = 2
    ct = np.where(labels > 0, 400, 40).astype(np.int16)
    ct[:, :3] = -1000
    rows = [
        _write(folder, "ct_0", "some-ct", "test", "CT", ct, labels, {"1": "L1", "2": "femur"}),
        _write(folder, "ct_1", "some-ct", "train", "CT", ct, labels, {"1": "L1", "2": "femur"}),
    ]
    both = np.zeros_like(labels)
    both[labels > 0] = 1
    both[4:9, 2:6, 2:20] = 3
    mr = np.where(both > 0, 40, 160).astype(np.uint8)
    names = {"1": "femur", "3": "spine"}
    rows.append(_write(folder, "mr_0", "pelvic-mr", "test", "MRI", mr, both, names))
    rows.append(_write_picture(folder, "xr_0"))
    (folder / "index.json").write_text(json.dumps(rows))
    return folder


def _row(identifier, source, split, modality, ending, names, spacing):
    return {
        "id": identifier,
        "source": source,
        "split": split,
        "image": f"{identifier}_image.{ending}",
        "mask": f"{identifier}_mask.{ending}",
        "modality": modality,
        "labels": names,
        "spacing_mm": spacing,
        "partial_label": True,
        "label_quality": "manual",
        "body_region": "test",
        "license": "none",
    }


def _write(folder, identifier, source, split, modality, array, labels, names):
    row = _row(identifier, source, split, modality, "nii.gz", names, [1.0, 1.0, 2.5])
    for values, path in ((array, row["image"]), (labels, row["mask"])):
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing((1.0, 1.0, 2.5))
        SimpleITK.WriteImage(image, str(folder / path))
    return row


def _write_picture(folder, identifier):
    row = _row(identifier, "some-xray", "test", "X-ray", "png", {"1": "clavicle_left"}, [0.5, 0.25])
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[20:40, 10:60] = 1
    Image.fromarray(labels).save(folder / row["mask"])
    Image.fromarray((80 + 120 * labels).astype(np.uint8)).save(folder / row["image"])
    return row
