"""The chosen volume: where it lives, and what was read of it."""

import numpy as np

from BoneSAMLib.interfaces import VolumeSource
from BoneSAMLib.session_cache import VolumeKey

__all__ = ["OpenVolume"]


class OpenVolume:
    """A volume as it was when it was read.

    Args:
        source: where it lives.

    Raises:
        BoneSAMError: as `VolumeSource.read`.
    """

    def __init__(self, source: VolumeSource) -> None:
        self.source = source
        # Before reading: a change in between then counts as one.
        self.key = key_of(source)
        self.volume = source.read()

    @property
    def is_outdated(self) -> bool:
        """Whether the volume has changed since: voxels, geometry or transform."""
        return key_of(self.source) != self.key

    def has_grid_of(self, other: "OpenVolume") -> bool:
        """Whether both have the same voxels in the same places."""
        one, two = self.volume, other.volume
        return one.shape == two.shape and np.allclose(one.ijk_to_ras, two.ijk_to_ras, rtol=0, atol=1e-6)


def key_of(source: VolumeSource) -> VolumeKey:
    """The present state of a volume."""
    return VolumeKey(source.identifier, source.modified_time)
