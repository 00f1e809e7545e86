"""A small scan and a ball in it, for pictures of masks."""

import numpy as np

from BoneSAMLib.volume import Volume


def scan(shape=(30, 60, 50), spacing=(1.0, 1.0, 3.0), modality="MR"):
    k, j, i = np.indices(shape)
    array = (100 + 40 * np.sin(i / 5) + 30 * np.cos(j / 7) + k).astype(np.int16)
    return Volume(array, np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), "knee.nii.gz", modality)


def ball(shape=(30, 60, 50), value=1, first=5, last=25):
    _, j, i = np.indices(shape)
    labels = (np.hypot(j - shape[1] / 2, i - shape[2] / 2) < 9).astype(np.uint8) * value
    labels[:first] = labels[last:] = 0
    return labels
