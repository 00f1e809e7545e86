"""What of the 3D Slicer application the module touches, around a real scene: windows, paths, base classes."""

import sys
import types
from pathlib import Path

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from Testing.panel import pythonqt, slicer_widgets

MODULE = Path(__file__).resolve().parents[2] / "BoneSAM"


class ApplicationLogic(QtCore.QObject):
    """The scene's, but `InvokeEventWithDelay` goes through Qt's event loop, as 3D Slicer makes it."""

    _asked = QtCore.Signal(object, int)

    def __init__(self, logic):
        super().__init__()
        self._logic = logic
        self._asked.connect(self._invoke, QtCore.Qt.QueuedConnection)

    def __getattr__(self, name):
        return getattr(self._logic, name)

    def InvokeEventWithDelay(self, delay, caller, event):
        assert delay == 0
        self._asked.emit(caller, event)

    def _invoke(self, caller, event):
        assert QtCore.QThread.currentThread() is QtCore.QCoreApplication.instance().thread()
        caller.InvokeEvent(event)


class Module:
    """Base of the module's class."""

    def __init__(self, parent):
        self.parent = parent

    def resourcePath(self, name):
        return str(MODULE / "Resources" / name)


class Widget(Module):
    """Base of the module's widget."""

    def __init__(self, parent=None):
        super().__init__(parent)
        window = QtWidgets.QWidget()
        window.setLayout(QtWidgets.QVBoxLayout())
        self.window = window
        self.layout = pythonqt.Wrapped(window.layout())

    def setup(self):
        pass

    def onReload(self):
        self.cleanup()


class Logic:
    """Base of the module's logic."""


class Test:
    """Base of the module's test."""


def start(scene, window, logic):
    """Put everything where the module's code looks for it; returns what to undo at the end."""
    before = dict(sys.modules)
    texts = types.ModuleType("slicer.i18n")
    texts.tr = lambda text: text
    texts.translate = lambda context, text: text
    bases = types.ModuleType("slicer.ScriptedLoadableModule")
    bases.ScriptedLoadableModule = Module
    bases.ScriptedLoadableModuleWidget = Widget
    bases.ScriptedLoadableModuleLogic = Logic
    bases.ScriptedLoadableModuleTest = Test
    sys.modules |= {
        "qt": pythonqt.qt_module(),
        "slicer.i18n": texts,
        "slicer.ScriptedLoadableModule": bases,
    }
    slicer.i18n, slicer.ScriptedLoadableModule = texts, bases
    slicer.app = types.SimpleNamespace(
        applicationLogic=lambda: logic,
        layoutManager=lambda: None,
        connect=lambda signal, function: None,
        testingEnabled=lambda: True,
    )
    slicer.util.mainWindow = lambda: pythonqt.Wrapped(window)
    slicer.util.loadUI = lambda path: pythonqt.Wrapped(slicer_widgets.load(path))
    slicer.util.childWidgetVariables = child_widget_variables
    sys.path.insert(0, str(MODULE))

    def stop():
        sys.path.remove(str(MODULE))
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in ("qt", "BoneSAM", "BoneSAMPanel") or name.startswith("slicer."):
                del sys.modules[name]

    return stop


def child_widget_variables(widget):
    """The widgets of a .ui file by name."""
    found = types.SimpleNamespace()
    for child in pythonqt.unwrap(widget).findChildren(QtWidgets.QWidget):
        if child.objectName() and not child.objectName().startswith("qt_"):
            setattr(found, child.objectName(), pythonqt.Wrapped(child))
    return found


def run_until(done, timeout=10.0):
    """Let Qt's event loop turn until `done()`."""
    clock = QtCore.QElapsedTimer()
    clock.start()
    while not done():
        assert clock.elapsed() < 1000 * timeout, "nothing came back"
        QtCore.QCoreApplication.processEvents(QtCore.QEventLoop.WaitForMoreEvents, 50)
