"""Every class, property, method and signal that the panel uses exists in 3D Slicer, and in Qt 6."""

import ast
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("PySide6", reason="needs PySide6: run make test")

from Testing.panel import pythonqt

MODULE = Path(__file__).resolve().parents[2] / "BoneSAM"
UI = ElementTree.parse(MODULE / "Resources" / "UI" / "BoneSAM.ui").getroot()
WIDGETS = {widget.get("name"): widget.get("class") for widget in UI.iter("widget")}
SOURCES = sorted(MODULE.rglob("*.py"))
# Gone in Qt 6, or in the Python 3.12 that 3D Slicer 5.10 has.
REMOVED = {"QRegExp", "QDesktopWidget", "QTextCodec", "QTime", "exec_", "QSignalMapper", "imp", "distutils"}


def uses():
    """(where, widget, member, how) for everything that the code does with a widget of the .ui file."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)):
                continue
            owner = node.value.value
            is_ui = (isinstance(owner, ast.Name) and owner.id == "ui") or (
                isinstance(owner, ast.Attribute) and owner.attr == "ui"
            )
            if not is_ui:
                continue
            where, how = f"{path.name}:{node.lineno}", "property"
            if id(node) in called:
                how = "method"
                if node.attr == "connect":
                    how = f"signal {called[id(node)].args[0].value}"
            found.append((where, node.value.attr, node.attr, how))
    return found


USES = uses()


def exists(name, member, how):
    if how.startswith("signal "):
        return pythonqt.has_signal(name, how.removeprefix("signal "))
    return (pythonqt.has_method if how == "method" else pythonqt.has_property)(name, member)


def test_the_code_uses_widgets_and_all_of_them():
    used = {widget for _, widget, _, _ in USES}
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    used |= {name for name in WIDGETS if f'"{name}"' in text}
    decoration = {name for name, kind in WIDGETS.items() if kind in ("QLabel", "ctkCollapsibleButton")}
    assert len(USES) > 80
    assert set(WIDGETS) - used - decoration <= {"BoneSAMPanel"}
    assert used <= set(WIDGETS)


@pytest.mark.parametrize(("where", "widget", "member", "how"), USES)
def test_what_the_code_does_with_a_widget_exists(where, widget, member, how):
    assert widget in WIDGETS, where
    assert exists(WIDGETS[widget], member, how), f"{where}: {WIDGETS[widget]}.{member} ({how})"


@pytest.mark.parametrize("widget", list(UI.iter("widget")), ids=lambda widget: widget.get("name"))
def test_what_the_ui_file_sets_exists(widget):
    kind = widget.get("class")
    for entry in widget.findall("property"):
        if entry.get("name") == "buddy":
            continue  # the .ui format's own
        assert pythonqt.has_property(kind, entry.get("name")), f"{kind}.{entry.get('name')}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_code_uses_nothing_that_qt6_or_python312_removed(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr not in REMOVED
            if isinstance(node.value, ast.Name) and node.value.id == "qt":
                assert pythonqt.qt_class(node.attr) is not None, f"qt.{node.attr}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not {alias.name for alias in node.names} & REMOVED


def test_the_check_finds_what_python_cannot_do_in_slicer():
    assert not exists("ctkCollapsibleButton", "setCollapsed", "method")  # only a property
    assert not exists("qMRMLNodeComboBox", "setNodeTypes", "method")  # plain C++
    assert not exists("qMRMLNodeComboBox", "x", "signal currentNodeChanged(int)")
    assert not exists("QLineEdit", "text", "method")  # a property is no method in PythonQt
    assert exists("QLineEdit", "text", "property")
    assert exists("qMRMLSegmentsTableView", "setMRMLScene", "method")  # of qMRMLWidget
    assert exists("qMRMLSegmentationShow3DButton", "x", "signal clicked(bool)")  # of QPushButton


def test_no_icon_is_missing_or_left_over():
    icons = {path.stem for path in (MODULE / "Resources" / "Icons").glob("*.svg")} - {"BoneSAM"}
    text = (MODULE / "BoneSAMPanel" / "panel_view.py").read_text(encoding="utf-8")
    names = {
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(icons) > 10
    assert icons <= names


def test_stand_ins_have_nothing_that_slicer_lacks():
    pytest.importorskip("slicer", reason="needs slicer-core: run make test")
    from PySide6 import QtCore

    from Testing.panel import slicer_widgets

    for stand_in in slicer_widgets.STAND_INS:
        name = stand_in.__name__
        base = pythonqt.ancestry(name)[1]
        for member, value in vars(stand_in).items():
            if member.startswith("_") or hasattr(base, member) or member == "staticMetaObject":
                continue
            if isinstance(value, QtCore.Signal):
                signatures = {entry.split("(")[0] for entry in pythonqt.known(name, "signal")}
                assert member in signatures, f"{name}.{member}"
            elif isinstance(value, QtCore.Property):
                assert pythonqt.has_property(name, member), f"{name}.{member}"
            else:
                assert pythonqt.has_method(name, member), f"{name}.{member}"
