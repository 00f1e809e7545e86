"""The three samples: a CT of the hips, an MR of a knee, a radiograph of a hand."""

from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from BoneSAMLib.intensity import CT_HIGH_HU, CT_LOW_HU
from BoneSAMLib.volume import Volume
from training.synthesis.contrast import MEANS
from training.synthesis.radiograph import ATTENUATION
from training.synthesis.sample.acquisition import Scan, affine_around, rotation
from training.synthesis.sample.body import read_anatomy
from training.synthesis.sample.missing_tissues import add_skin, between_bones, complete_knee
from training.synthesis.sample.painting import Look, paint_body
from training.synthesis.tissues import AIR

AIR_HU = -1000.0
HIP_CT = Look(
    means={
        **MEANS["CT"],
        "air": (AIR_HU - CT_LOW_HU) / (CT_HIGH_HU - CT_LOW_HU),
        "fat": 0.095,
        "organ": 0.195,
        "vessel": 0.198,
        "skin": 0.19,
        "cartilage": 0.225,
        "marrow": 0.29,
    },
    named={"urinary bladder": 0.175, "sacrum|vertebra": 0.27},
    variation={"fat": 0.007, "muscle": 0.012, "organ": 0.012, "bone": 0.05},
    shaft_marrow=0.15,
    spread=0.004,
)
KNEE_T1 = Look(
    means={
        **MEANS["T1"],
        "air": 0.0,
        "muscle": 0.27,
        "vessel": 0.12,
        "ligament": 0.08,
        "skin": 0.45,
        "marrow": 0.74,
        "cortex": 0.06,
    },
    named={},
    variation={"fat": 0.05, "muscle": 0.03, "bone": 0.05, "cartilage": 0.03},
    shaft_marrow=0.80,
    spread=0.012,
)
# Attenuation in 1/cm; radiograph.ATTENUATION has one value for bone, here it has a dense shell.
HAND_XRAY = Look(
    means={**ATTENUATION, "marrow": 0.34, "cortex": 0.75},
    named={},
    variation={"bone": 0.14, "muscle": 0.01, "fat": 0.01},
    shaft_marrow=0.20,
    spread=0.002,
)


@dataclass
class Sample:
    """A rendered sample: the scan, the truth [k, j, i] and the name of each of its values."""

    volume: Volume
    truth: NDArray[np.uint8]
    bones: dict[int, str]


def hip_ct(store: Path) -> Sample:
    """CT of pelvis and hips, 1.5 x 1.5 x 3 mm; the patient lies turned by a few degrees."""
    rng = np.random.default_rng(1)
    anatomy = read_anatomy(store, "bp3d_v4_pelvis", low=0.06, high=0.92)
    # Fingers beside the thighs.
    body = cc3d.largest_k(anatomy.labels != AIR, k=1, connectivity=6) > 0
    anatomy.labels[~body] = AIR
    add_skin(anatomy)
    anatomy.add(between_bones(anatomy, anatomy.bones, 3.0), "articular cartilage", "cartilage")
    extent = np.array(anatomy.labels.shape[::-1]) * anatomy.spacing
    spacing = (1.5, 1.5, 3.0)
    size = (int(extent[0] / 1.5), int(extent[1] / 1.5), int((extent[2] - 12) / 3.0))
    directions = np.diag([-1.0, -1.0, 1.0])
    turned = rotation([0.3, 0.4, 1.0], 2.5) @ directions
    scan = Scan(affine_around(turned, spacing, size, anatomy.center), size, 0.75)
    image = scan.acquire(paint_body(anatomy, HIP_CT, rng), anatomy.spacing, anatomy.origin)
    hounsfield = image * (CT_HIGH_HU - CT_LOW_HU) + CT_LOW_HU
    body = ndimage.gaussian_filter((hounsfield > -500).astype(np.float32), (0, 12, 12))
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), (0, 0.6, 0.6))
    hounsfield += noise / noise.std() * (3.0 + 8.0 * body)
    # Steps well below the noise, and no noise in air: the file becomes half as large.
    array = (np.rint(np.clip(hounsfield, AIR_HU, 3000) / 8) * 8).astype(np.int16)
    array[hounsfield < -960] = int(AIR_HU)
    affine = affine_around(directions, spacing, size, anatomy.center)
    return Sample(Volume(array, affine, "hip_ct", "CT"), scan.truth(anatomy), anatomy.numbered_bones)


def knee_mr(store: Path) -> Sample:
    """T1-weighted MR of a right knee: sagittal slices 4 mm thick, turned to follow the joint."""
    rng = np.random.default_rng(2)
    anatomy = read_anatomy(store, "bp3d_v4_knee_right")
    add_skin(anatomy)
    complete_knee(anatomy)
    spacing, size = (0.6, 0.6, 4.0), (240, 256, 25)
    # i to posterior, j to inferior, k to the left.
    directions = rotation([0.5, 0.2, 1.0], 9.0) @ np.array([[0.0, 0, -1], [-1, 0, 0], [0, -1, 0]])
    scan = Scan(affine_around(directions, spacing, size, anatomy.center), size, 0.35)
    image = scan.acquire(paint_body(anatomy, KNEE_T1, rng), anatomy.spacing, anatomy.origin)
    along = (np.arange(size[1]) - 0.5 * size[1]) * spacing[1]
    image *= np.exp(-0.5 * (along / 95.0) ** 2).astype(np.float32)[None, :, None]  # the coil's reach
    real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(1.2)
    array = np.rint(np.hypot(95 * image + real, imaginary)).astype(np.int16)
    return Sample(
        Volume(array, scan.ijk_to_ras, "knee_mr", "MR"), scan.truth(anatomy), anatomy.numbered_bones
    )


def hand_xray(store: Path) -> Sample:
    """Radiograph of a right hand, fingers up, pixels of 0.3 mm."""
    rng = np.random.default_rng(3)
    anatomy = read_anatomy(store, "bp3d_v4_hand_right")
    anatomy.labels[:, 0] = AIR  # the anatomy ends inside the back of the forearm; what lies beyond is air
    add_skin(anatomy)
    attenuation = np.clip(paint_body(anatomy, HAND_XRAY, rng), 0, None)
    # Columns run to the left, rows to superior, rays to anterior; all turned to the plane of the bent hand.
    directions = rotation([1.0, 0.0, 0.0], 24.0) @ np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    spacing, size = (0.3, 0.3, 0.45), (410, 670, 220)
    # Up by this much, rays leave the forearm before its end.
    center = anatomy.center - 5.8 * directions[:, 1]
    scan = Scan(affine_around(directions, spacing, size, center), size, 0.2)
    rays = scan.acquire(attenuation, anatomy.spacing, anatomy.origin)
    path = rays.sum(axis=0) * np.float32(spacing[2] / 10)
    path += 0.12 * ndimage.gaussian_filter(path, 40)  # scattered light veils the picture
    path += rng.standard_normal(path.shape, dtype=np.float32) * 0.012 * np.exp(path / 2)
    path = ndimage.gaussian_filter(path, 0.6)
    path += 0.7 * (path - ndimage.gaussian_filter(path, 12))  # as the makers' software sharpens
    brightness = 255 * (1 - np.exp(-0.8 * path)) / (1 - np.exp(-0.8 * np.percentile(path, 99.8)))
    array = np.clip(np.rint(brightness), 0, 255).astype(np.uint8)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # what a picture without a pixel size is read as
    volume = Volume(array[np.newaxis], affine, "hand_xray", "X-ray")
    return Sample(volume, scan.projected_truth(anatomy), anatomy.numbered_bones)
