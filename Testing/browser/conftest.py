"""A viewer and a browser for the tests; they are skipped, and say so, where Chromium is not installed."""

import pytest

NEEDS = "make test installs it"


# One for each file of tests: while Playwright is there, its event loop runs, and no test can run another.
@pytest.fixture(scope="module")
def chromium():
    pytest.importorskip("trame_slicer", reason=f"needs the extra web: {NEEDS}")
    pytest.importorskip("playwright", reason=f"needs playwright: {NEEDS}")
    from Testing.browser import site

    if site.CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with site.browser() as one:
        yield one


@pytest.fixture(scope="module")
def address(chromium):
    """Of a viewer without a scan, whose network is a threshold."""
    from Testing.browser.site import serving

    with serving("--upload-limit", "3") as (address, _):
        yield address


@pytest.fixture
def open_page(chromium, address):
    """Makes a `Visit`, which is closed at the end; the page's script must have had no errors."""
    from Testing.browser.site import Visit

    visits = []

    def open_one():
        visits.append(Visit(chromium, address))
        return visits[-1]

    yield open_one
    errors = [error for visit in visits for error in visit.errors]
    for visit in visits:
        visit.close()
    assert errors == []


@pytest.fixture(scope="module")
def shared_page(chromium, address):
    """One visit for a whole file of tests: a process less for each of them."""
    from Testing.browser.site import Visit

    visit = Visit(chromium, address)
    yield visit
    assert visit.errors == []
    visit.close()
