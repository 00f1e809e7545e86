"""Pictures of the panel in its states: python -m Testing.panel.screenshot FOLDER

Drawn with stand-ins for 3D Slicer's own widgets: layout, texts and icons are the module's, their look is not.
"""

import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from Testing.panel import application, pythonqt
from Testing.panel.desk import PanelDesk
from Testing.presenter.fakes import FakeSegmenter
from Testing.slicer import host


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    app = QtWidgets.QApplication([])
    app.setStyle("Fusion")
    with tempfile.TemporaryDirectory() as files:
        scene = host.start(files)
        window = QtWidgets.QMainWindow()
        logic = application.ApplicationLogic(slicer.modules.application)
        application.start(scene, window, logic)
        desk = PanelDesk(SimpleNamespace(app=app, window=window, logic=logic), scene, FakeSegmenter())

        def picture(name, height=860):
            window.resize(430, height)
            for _ in range(5):
                app.processEvents(QtCore.QEventLoop.AllEvents, 50)
            window.grab().save(str(folder / f"{name}.png"))

        picture("1 no volume")
        desk.open()
        picture("2 ready")
        desk.drawBox((3, 3, 3), (12, 11, 8))
        desk.answer()
        desk.ui.nameEdit.setText("left femur")
        picture("3 preview")
        desk.press("nextBoneButton")
        desk.drawBox((14, 9, 3), (19, 14, 8))
        desk.answer()
        desk.ui.nameEdit.setText("left tibia")
        desk.press("acceptButton")
        desk.press("negativePointButton")
        desk.click(15, 10, 5)
        desk.answer()
        picture("4 correcting")
        desk.press("acceptButton")
        desk.segmenter.delay = 3
        desk.press("allBonesButton")
        application.run_until(lambda: desk.panel.progress is not None and desk.panel.progress[0] > 0)
        picture("5 running")
        desk.press("cancelButton")
        desk.presenter.add_point(desk_point())
        for name in ("handEditingButton", "secondVolumeButton", "advancedButton"):
            pythonqt.unwrap(getattr(desk.ui, name)).click()
        picture("6 message, all sections", 1400)
        dark(app)
        picture("7 dark")
        desk.close()


def desk_point():
    from BoneSAMLib.prompts import Point

    return Point.from_ras((500, 500, 500))


def dark(app):
    palette = QtGui.QPalette()
    for role, color in (
        (QtGui.QPalette.Window, "#333333"),
        (QtGui.QPalette.Base, "#262626"),
        (QtGui.QPalette.Button, "#3c3c3c"),
        (QtGui.QPalette.Mid, "#4a4a4a"),
        (QtGui.QPalette.WindowText, "#e6e6e6"),
        (QtGui.QPalette.Text, "#e6e6e6"),
        (QtGui.QPalette.ButtonText, "#e6e6e6"),
        (QtGui.QPalette.PlaceholderText, "#9a9a9a"),
    ):
        palette.setColor(role, QtGui.QColor(color))
    app.setPalette(palette)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
