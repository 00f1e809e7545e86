"""BoneSAM-T with few channels: the same code, a hundredth of the work."""

import contextlib

import pytest

from BoneSAMLib.model import depth_attention, encoder


@contextlib.contextmanager
def few_channels():
    """Within this, every new network is tiny; use a small `dim` as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "STAGES", ((8, 1), (8, 1), (16, 1), (16, 1)))
        patch.setattr(depth_attention, "CHANNELS", (8, 8, 8, 8))
        yield
