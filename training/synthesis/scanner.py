"""What a scanner and a camera do to an image: blur, bias field, gamma, noise, remapping, erased patches."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]


def degrade(
    slices: Array, cube: Array | None, synthetic: bool, is_ct: bool, rng: np.random.Generator
) -> None:
    """Change `slices` [n, h, w] and the `cube` [d, h, w] of the same region in place, alike.

    Real images get a milder share: they come with a scanner's marks already. CT keeps its brightness, which
    is calibrated, most of the time.
    """
    images = [slices] if cube is None else [slices, cube]
    remap = rng.random() < (0.2 if is_ct else 0.6)
    gamma = float(np.exp(rng.normal(0, 0.3))) if remap else 1.0
    gain, shift = (float(rng.uniform(0.75, 1.25)), float(rng.normal(0, 0.05))) if remap else (1.0, 0.0)
    invert = not is_ct and rng.random() < (0.08 if synthetic else 0.03)
    bias = rng.normal(0, 0.25, (2, 2, 2)) if not is_ct and rng.random() < 0.5 else None
    blur = float(rng.uniform(0.5, 2.2)) if rng.random() < (0.75 if synthetic else 0.2) else 0.0
    noise = float(abs(rng.normal(0, 0.05))) if rng.random() < (0.7 if synthetic else 0.3) else 0.0
    grain = float(rng.choice([0.0, 0.7, 1.2]))
    for image in images:
        if blur:
            # The cube has a quarter of the pixels across, so its blur is a quarter as wide.
            sigma = blur * image.shape[-1] / 256 if image is slices else blur / 4
            for plane in image:
                ndimage.gaussian_filter(plane, sigma, output=plane)
        if bias is not None:
            image *= np.exp(_field(bias, image.shape))
        np.clip(image, 0, None, out=image)
        if remap:
            np.power(image, gamma, out=image)
            image *= gain
            image += shift
        if noise:
            speckle = rng.standard_normal(image.shape, dtype=np.float32)
            if grain and image is slices:
                speckle = ndimage.gaussian_filter(speckle, (0, grain, grain)) * (1 + 2 * grain)
            image += speckle * noise
        if invert:
            np.subtract(1.0, image, out=image)
        np.clip(image, 0, 1, out=image)


def _field(corners: NDArray[np.float64], shape: tuple[int, ...]) -> Array:
    """A smooth field over `shape`, the product of the corner values' trilinear interpolation."""
    grids = [np.linspace(0, 1, n, dtype=np.float32) for n in shape]
    depth = 0.5 * np.ones(1, np.float32) if shape[0] <= 6 else grids[0]
    z, y, x = depth[:, None, None], grids[1][None, :, None], grids[2][None, None, :]
    field = np.zeros((len(depth), *shape[1:]), np.float32)
    for index in np.ndindex(2, 2, 2):
        weight = [(1 - axis) if bit == 0 else axis for bit, axis in zip(index, (z, y, x), strict=True)]
        field += np.float32(corners[index]) * weight[0] * weight[1] * weight[2]
    return field


def cut_out(slices: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Blank the image beyond a random line or circle, as fields of view and collimators do.

    Returns what was blanked, [h, w].
    """
    height, width = slices.shape[-2:]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        distance = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)
        outside = distance > rng.uniform(0.25, 0.5) * width
    else:
        outside = np.hypot(x - width / 2, y - height / 2) > rng.uniform(0.45, 0.6) * width
    slices[:, outside] = 0.0
    return np.asarray(outside)
