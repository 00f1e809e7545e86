"""Two visitors at once: neither sees anything of the other."""

import pytest

pytest.importorskip("trame_slicer", reason="needs the extra web: run make test")

from Testing.browser.block_scans import write_block
from Testing.browser.site import Scan

pytestmark = pytest.mark.long


def test_two_visitors_share_nothing(open_page, tmp_path):
    one, other = open_page(), open_page()
    assert one.page.url.split("/")[4] != other.page.url.split("/")[4]
    scans = {}
    for name, geometry in (("alpha", "straight"), ("beta", "oblique")):
        path = tmp_path / f"{name}.nrrd"
        scans[name] = Scan(path, write_block(path, geometry))
    one.send(scans["alpha"].path).wait_for_scan("alpha.nrrd")
    assert other.value("scan") is None
    assert other.page.query_selector(".welcome") is not None
    other.send(scans["beta"].path).wait_for_scan("beta.nrrd")
    assert one.value("scan")["name"] == "alpha.nrrd"

    low, high, middle = scans["alpha"].corners()
    one.go_to("Red", middle).draw_box("Red", low, high).wait_for_mask()
    assert other.panel["bones"] == 0
    one.act("accept").wait_for(lambda: one.panel["segments"], "a segment")
    one.page.click('[data-test="theme"]')
    other.settle(1)
    assert other.panel["segments"] == []
    assert other.value("dark") is True
    assert "alpha" not in other.page.content()

    # The page is loaded again: the same session, as it was.
    one.page.reload()
    one.page.wait_for_selector(".side")
    one.wait_for_scan("alpha.nrrd")
    assert len(one.panel["segments"]) == 1
    # The printed address leads to a new one, with nothing in it.
    third = open_page()
    assert third.value("scan") is None
