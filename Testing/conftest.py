"""A bundle of weights for every test that needs the network but not what it has learned."""

import pytest


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory):
    """Folder of a bundle with random weights; read-only, for exporting takes 15 s."""
    # Tests that need no network should not wait for torch.
    from Testing.random_weights import random_model
    from training.export import export_bundle

    folder = tmp_path_factory.mktemp("bundle") / "weights"
    export_bundle(random_model(), folder, {"name": "random", "dim": 128})
    return folder
