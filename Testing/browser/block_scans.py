"""Small scans of one bright block, in several geometries."""

import numpy as np
import SimpleITK as sitk

SHAPE = (30, 36, 40)
BLOCK = (slice(8, 22), slice(10, 26), slice(12, 28))
DIRECTIONS = {
    "straight": np.eye(3),
    # Turned about all three axes.
    "oblique": np.array([[0.93, -0.27, 0.25], [0.33, 0.91, -0.25], [-0.16, 0.32, 0.935]]),
}


def block():
    """Voxels [k, j, i], and which are bright."""
    array = np.random.default_rng(0).integers(-40, 60, SHAPE).astype(np.int16)
    array[:2] = -1000
    mask = np.zeros(SHAPE, bool)
    mask[BLOCK] = True
    array[mask] = 1200
    return array, mask


def write_block(path, geometry="straight"):
    """A CT as NIfTI or NRRD; returns which voxels are bright."""
    array, mask = block()
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 2.0))
    image.SetOrigin((-20.0, 12.0, 30.0))
    left, _, right = np.linalg.svd(DIRECTIONS[geometry])
    image.SetDirection((left @ right).ravel())
    sitk.WriteImage(image, str(path))
    return mask


def write_picture(path):
    """A radiograph of one bright bar; returns which pixels are bright."""
    array = np.random.default_rng(0).integers(0, 40, (120, 90)).astype(np.uint8)
    mask = np.zeros(array.shape, bool)
    mask[30:90, 35:55] = True
    array[mask] = 220
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return mask[np.newaxis]
