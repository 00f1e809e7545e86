"""What all tests share: a bundle of random weights, and what is left out unless it is asked for."""

import os

import pytest


def pytest_collection_modifyitems(items):
    """Leave out what takes minutes: killed clusters, whole trainings, real browsers."""
    if os.environ.get("BONESAM_LONG"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: set BONESAM_LONG=1"))


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory):
    """Folder of a bundle with random weights; read-only, for exporting takes 15 s."""
    # Tests that need no network should not wait for torch.
    from Testing.random_weights import random_model
    from training.export import export_bundle

    folder = tmp_path_factory.mktemp("bundle") / "weights"
    export_bundle(random_model(), folder, {"name": "random", "dim": 128})
    return folder
