"""A visitor's process whose network is a threshold: for what does not depend on how bones are found."""

from types import SimpleNamespace

from BoneSAMLib.browser import network, visitor_process
from BoneSAMLib.session import Session
from Testing.lib.fake_engine import FakeEngine
from Testing.lib.hand_built_naming import HandBuiltNaming


def open_bright(_device, _weights):
    bundle = SimpleNamespace(digest="bright", manifest={})
    naming = HandBuiltNaming()
    return SimpleNamespace(
        bundle=bundle, open=lambda volume, *_: Session(volume, FakeEngine(), naming=naming)
    )


if __name__ == "__main__":
    network.open_segmenter = open_bright
    visitor_process.main()
