import pytest

from Testing.presenter.fakes import Desk


@pytest.fixture
def desk():
    """Live, with a volume."""
    return Desk().open()


@pytest.fixture
def on_demand():
    """With a volume; masks come when Segment is pressed."""
    return Desk(live=False).open()


@pytest.fixture
def threaded():
    """Live, with a volume and the real worker thread."""
    desk = Desk(threaded=True).open()
    yield desk
    desk.presenter.close()
