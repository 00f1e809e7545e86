"""The page: HTML, styles and script of this package, and the components that they use."""

from pathlib import Path
from typing import Any

from trame.widgets import html
from trame_client.ui.core import AbstractLayout
from trame_rca import module as remote_views

__all__ = ["build_page"]

_STATIC = Path(__file__).resolve().parent / "static"
_ICONS = Path(__file__).resolve().parents[2] / "BoneSAM" / "Resources" / "Icons"


def build_page(server: Any) -> None:
    """Make the page of a server. Its state and triggers are the viewer's."""
    server.enable_module(remote_views)
    server.enable_module(
        {
            "serve": {"bonesam": str(_STATIC), "icons": str(_ICONS)},
            "scripts": ["bonesam/page.js"],
            "styles": ["bonesam/page.css"],
        }
    )
    server.state.trame__favicon = "icons/BoneSAM.png"
    root = html.Div(trame_server=server, classes="bonesam", raw_attrs=[":class=\"dark ? 'dark' : 'light'\""])
    layout = AbstractLayout(server, root, template_name="main")
    layout.root.add_child((_STATIC / "page.html").read_text(encoding="utf-8"))
    layout.flush_content()
