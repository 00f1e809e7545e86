"""Windows, in the radiologist's sense, that suit bone."""

import numpy as np

from BoneSAMLib.volume import Volume

__all__ = ["GrayWindow", "gray_windows"]

GrayWindow = tuple[float, float]  # width and center

_CT: dict[str, GrayWindow] = {
    "Bone": (2000.0, 500.0),
    "Bone, bright": (1200.0, 350.0),
    "Cortical bone": (3000.0, 900.0),
    "Soft tissue": (400.0, 50.0),
}
_SAMPLED = 2_000_000


def gray_windows(volume: Volume) -> dict[str, GrayWindow]:
    """Named windows for a volume's stored values, the best for bone first."""
    step = max(1, int(np.ceil(volume.array.size / _SAMPLED)))
    values = volume.array.ravel()[::step].astype(np.float64)
    lowest, highest = float(values.min()), float(values.max())
    whole = (max(highest - lowest, 1.0), (lowest + highest) / 2)
    if volume.modality_guess == "CT":
        # Some scanners store Hounsfield units plus 1024.
        shift = -volume.intensity_offset
        return {name: (width, center + shift) for name, (width, center) in _CT.items()} | {
            "Whole range": whole
        }
    # Background is most of many images and would decide the window.
    inside = values[values > lowest] if (values > lowest).any() else values
    windows = {}
    for name, low, high in (
        ("Balanced", 1.0, 99.0),
        ("High contrast", 15.0, 95.0),
        ("Bright bone", 1.0, 99.9),
    ):
        dark, bright = np.percentile(inside, [low, high])
        windows[name] = (max(float(bright - dark), 1e-6), float(dark + bright) / 2)
    return windows | {"Whole range": whole}
