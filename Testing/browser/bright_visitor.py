"""A visitor's process whose network is a threshold: for what does not depend on how bones are found."""

from types import SimpleNamespace

from BoneSAMLib.browser import viewer, visitor_process
from BoneSAMLib.session import Session
from Testing.lib.fake_engine import FakeEngine


def open_bright(_device, _weights):
    bundle = SimpleNamespace(digest="bright", manifest={})
    return SimpleNamespace(bundle=bundle, open=lambda volume, *_: Session(volume, FakeEngine()))


if __name__ == "__main__":
    viewer.open_segmenter = open_bright
    visitor_process.main()
