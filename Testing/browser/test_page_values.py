"""What the page is told, without a browser."""

import ast
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BoneSAMLib.browser.found_scans import find_scans, read_found_scan, without_paths
from BoneSAMLib.browser.gray_windows import gray_windows
from BoneSAMLib.browser.page_values import page_values
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.panel import Action, Panel, ReviewSlice, SegmentEntry, State, Tool, Work
from BoneSAMLib.settings import Settings
from BoneSAMLib.volume import Volume
from Testing.lib.batch_scans import write_scan, write_series

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "BoneSAMLib" / "browser" / "static"
PANEL = Panel(
    state=State.PREVIEW,
    work=None,
    progress=None,
    enabled=frozenset({Action.BOX, Action.NEXT_BONE}),
    tool=Tool.BOX,
    volume_name="hip",
    box=None,
    points=(),
    segments=(SegmentEntry("a", "left femur", (1.0, 0.5, 0.0), False),),
    active_segment="a",
    correcting=True,
    bone_count=1,
    confidence=0.876,
    seconds=1.25,
    review_axis=2,
    review=(ReviewSlice(12, 0.5),),
    settings=Settings(),
)


def test_a_panel_as_the_page_is_told_it():
    values = page_values(PANEL, flat=True)
    assert json.loads(json.dumps(values)) == values
    assert values["enabled"] == {"box": True, "next_bone": True}
    assert values["tool"] == "slice_box"
    assert values["percent_sure"] == 88
    assert values["review"] == [{"index": 12, "percent": 50}]
    assert values["segments"] == [{"id": "a", "name": "left femur", "color": "#ff8000", "visible": False}]
    assert values["result"] == "Correction of 'left femur', 1.2 s"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("work", [None, *Work])
@pytest.mark.parametrize("tool", [None, *Tool])
def test_there_is_always_a_hint(state, work, tool):
    assert page_values(replace(PANEL, state=state, work=work, tool=tool), flat=False)["hint"].endswith(
        (".", "...")
    )


def test_the_page_asks_for_nothing_that_it_is_not_told():
    page = (STATIC / "page.html").read_text(encoding="utf-8")
    values = page_values(PANEL, flat=False)
    assert set(re.findall(r"\bpanel\.(\w+)", page)) <= set(values)
    actions = {action.name.lower() for action in Action}
    assert set(re.findall(r"\bpanel\.enabled\.(\w+)", page)) <= actions


def test_every_trigger_and_icon_of_the_page_exists():
    page = (STATIC / "page.html").read_text(encoding="utf-8")
    script = (STATIC / "page.js").read_text(encoding="utf-8")
    viewer = ast.parse((ROOT / "BoneSAMLib" / "browser" / "viewer.py").read_text(encoding="utf-8"))
    acts = next(
        node for node in ast.walk(viewer) if isinstance(node, ast.FunctionDef) and node.name == "_acts"
    )
    table = next(node.value for node in ast.walk(acts) if isinstance(node, ast.Return))
    known = {key.value for key in table.keys}
    used = set(re.findall(r"trigger\(['\"](\w+)['\"]", page + script))
    assert used == known
    sprites = set(re.findall(r'symbol id="(\w+)"', (STATIC / "icons.svg").read_text()))
    assert set(re.findall(r"icons\.svg#(\w+)", page)) <= sprites
    icons = {path.name for path in (ROOT / "BoneSAM" / "Resources" / "Icons").iterdir()}
    assert set(re.findall(r'"icons/([\w.]+)"', page)) <= icons


def test_the_keys_are_those_of_the_panel_in_slicer():
    tree = ast.parse((ROOT / "BoneSAM" / "BoneSAMPanel" / "shortcuts.py").read_text(encoding="utf-8"))
    keys = next(node.value for node in tree.body if isinstance(node, ast.AnnAssign))
    panel = {key.lower() for keys in ast.literal_eval(keys).values() for key in keys}
    page = (STATIC / "page.js").read_text(encoding="utf-8")
    block = page[page.index("const KEYS = {") : page.index("function isTyping")]
    assert panel <= set(re.findall(r'^    "?([\w+]+)"?: ', block, re.MULTILINE))


def test_scans_among_files(tmp_path):
    write_series(tmp_path / "study" / "a", number=1, count=3)
    write_series(tmp_path / "study" / "b", number=2, count=4, SeriesDescription="Bone")
    write_scan(tmp_path / "study" / "c.nii.gz")
    (tmp_path / "study" / "notes.txt").write_text("nothing")
    found = {one.title: one.details for one in find_scans(tmp_path / "study")}
    assert found == {"Series 1": "CT, 3 images", "Bone": "series 2, CT, 4 images", "c.nii.gz": "NIfTI"}
    sizes = {one.title: read_found_scan(one).shape[0] for one in find_scans(tmp_path / "study")}
    assert sizes == {"Series 1": 3, "Bone": 4, "c.nii.gz": 6}


def test_no_scan_among_files(tmp_path):
    with pytest.raises(BoneSAMError, match="There is no file"):
        find_scans(tmp_path / "nowhere")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("no scan")
    with pytest.raises(BoneSAMError, match="no scan among these 2 files"):
        find_scans(tmp_path)
    with pytest.raises(BoneSAMError, match="no scan that BoneSAM knows"):
        find_scans(tmp_path / "a.txt")


def test_messages_do_not_say_where_files_lie():
    folder, upload = Path("/srv/bonesam-1"), Path("/srv/bonesam-1/ab12")
    text = "The file '/srv/bonesam-1/ab12/scan.nii' is empty; '/srv/bonesam-1/ab12' holds 2 series."
    assert without_paths(text, [folder, upload]) == "The file 'scan.nii' is empty; 'ab12' holds 2 series."


def test_windows_that_suit_bone():
    generator = np.random.default_rng(0)
    body = generator.normal(40, 20, (8, 30, 30))
    body[:, :8] = -1024
    body[:, 20:24] = 900
    volume = Volume(body.astype(np.int16), np.eye(4), modality="CT")
    windows = gray_windows(volume)
    assert next(iter(windows.items())) == ("Bone", (2000.0, 500.0))
    # Stored with an offset, the same tissue looks the same.
    shifted = gray_windows(Volume((body + 1024).clip(0).round().astype(np.int16), np.eye(4), modality="CT"))
    assert shifted["Bone"] == (2000.0, 1524.0)
    resonance = gray_windows(Volume(generator.gamma(2, 100, (8, 30, 30)), np.eye(4), modality="MR"))
    width, center = resonance["Balanced"]
    assert 0 < center - width / 2 < center + width / 2 < 3000
    flat = gray_windows(Volume(np.full((2, 4, 4), 7.0), np.eye(4), modality="MR"))
    assert all(width > 0 for width, _ in flat.values())
