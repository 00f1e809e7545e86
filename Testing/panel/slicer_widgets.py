"""Stand-ins for the widgets of 3D Slicer that the panel uses, working on a real scene.

They have no name that Slicer's lack: test_static.py compares them with slicer_widgets.json.
"""

import slicer
from PySide6.QtCore import Property, QSize, Qt, Signal
from PySide6.QtGui import QBrush, QColor, QPainter, QPalette, QPolygonF
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QSlider,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

HEADER = 26


def _value(name, kind, default):
    """A property that is kept and nothing more."""
    attribute = f"_{name}"
    return Property(
        kind,
        lambda self: getattr(self, attribute, default),
        lambda self, value: setattr(self, attribute, value),
    )


class ctkCollapsibleButton(QAbstractButton):
    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._collapsed = False
        self.setCheckable(True)
        self.setContentsMargins(0, HEADER, 0, 0)
        self.clicked.connect(lambda: self._collapse(not self._collapsed))

    def _collapse(self, collapsed):
        changed, self._collapsed = collapsed != self._collapsed, collapsed
        for child in self.children():
            if isinstance(child, QWidget):
                child.setVisible(not collapsed)
        self.setMaximumHeight(HEADER if collapsed else 16777215)
        self.updateGeometry()
        if changed:
            self.contentsCollapsed.emit(collapsed)

    def showEvent(self, event):
        self._collapse(self._collapsed)

    def sizeHint(self):
        return (
            QSize(200, HEADER) if self._collapsed or self.layout() is None else self.layout().totalSizeHint()
        )

    def minimumSizeHint(self):
        return self.sizeHint()

    def hitButton(self, position):
        return position.y() < HEADER

    def paintEvent(self, event):
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        palette = self.palette()
        painter.fillRect(0, 1, self.width(), HEADER - 4, palette.color(QPalette.Mid).lighter(125))
        painter.setBrush(QBrush(palette.color(QPalette.WindowText)))
        painter.setPen(Qt.NoPen)
        corners = [(9, 8), (9, 16), (15, 12)] if self._collapsed else [(8, 9), (16, 9), (12, 15)]
        painter.drawPolygon(QPolygonF([_point(*corner) for corner in corners]))
        painter.setPen(palette.color(QPalette.WindowText))
        painter.drawText(24, 0, self.width() - 24, HEADER - 2, Qt.AlignVCenter, self.text())

    collapsed = Property(bool, lambda self: self._collapsed, _collapse)


def _point(x, y):
    from PySide6.QtCore import QPointF

    return QPointF(x, y)


class qMRMLNodeComboBox(QWidget):
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)

    nodeTypes = _value("nodeTypes", "QStringList", [])
    hideChildNodeTypes = _value("hideChildNodeTypes", "QStringList", [])
    noneEnabled = _value("noneEnabled", bool, False)
    noneDisplay = _value("noneDisplay", str, "None")
    addEnabled = _value("addEnabled", bool, True)
    removeEnabled = _value("removeEnabled", bool, True)
    renameEnabled = _value("renameEnabled", bool, False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._known, self._filling, self._observations = None, "", False, []
        self._box = QComboBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(lambda _index: self._tell())

    def setMRMLScene(self, scene):
        self._release()
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            self._observations.append(scene.AddObserver(event, lambda *_: self._fill()))
        self._fill()

    def _release(self):
        for tag in self._observations:
            self._scene.RemoveObserver(tag)
        self._observations = []

    def setCurrentNode(self, node):
        self.setCurrentNodeID("" if node is None else node.GetID())

    def setCurrentNodeID(self, identifier):
        if identifier and self._box.findData(identifier) < 0:
            self._fill()
        self._box.setCurrentIndex(max(self._box.findData(identifier or ""), -1))

    def currentNode(self):
        return self._scene.GetNodeByID(self._identifier()) if self._identifier() else None

    def _identifier(self):
        return self._box.currentData() or ""

    def _fill(self):
        before, self._filling = self._identifier(), True
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem(self.noneDisplay, "")
        for n in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(n)
            wanted = any(node.IsA(kind) for kind in self.nodeTypes)
            if (
                wanted
                and not node.GetHideFromEditors()
                and node.GetClassName() not in self.hideChildNodeTypes
            ):
                self._box.addItem(node.GetName(), node.GetID())
        self._box.setCurrentIndex(max(self._box.findData(before), 0))
        self._filling = False
        self._tell()

    def _tell(self):
        if not self._filling and self._identifier() != self._known:
            self._known = self._identifier()
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(self._known)

    currentNodeID = Property(str, _identifier, setCurrentNodeID)


class qMRMLSegmentsTableView(QWidget):
    selectionChanged = Signal(object, object)

    opacityColumnVisible = _value("opacityColumnVisible", bool, True)
    statusColumnVisible = _value("statusColumnVisible", bool, True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node, self._observations, self._filling = None, [], False
        self._table = QTableWidget(0, 3, self)
        self._table.setHorizontalHeaderLabels(["", "", "Name"])
        self._table.verticalHeader().hide()
        self._table.setColumnWidth(0, 30)
        self._table.setColumnWidth(1, 30)
        self._table.horizontalHeader().setSectionResizeMode(2, QHeaderView.Stretch)
        self._table.setSelectionBehavior(QAbstractItemView.SelectRows)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.itemSelectionChanged.connect(self._tell)

    def setMRMLScene(self, scene):
        pass

    def setSelectionMode(self, mode):
        self._table.setSelectionMode(mode)

    def segmentationNode(self):
        return self._node

    def _release(self):
        for watched, tag in self._observations:
            watched.RemoveObserver(tag)
        self._observations = []

    def setSegmentationNode(self, node):
        self._release()
        self._node = node
        if node is not None:
            kinds = slicer.vtkSegmentation
            for event in (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified):
                self._observations.append((node, node.AddObserver(event, lambda *_: self._fill())))
        self._fill()

    def selectedSegmentIDs(self):
        return [self._table.item(index.row(), 2).data(Qt.UserRole) for index in self._rows()]

    def setSelectedSegmentIDs(self, identifiers):
        self._table.clearSelection()
        for row in range(self._table.rowCount()):
            if self._table.item(row, 2).data(Qt.UserRole) in identifiers:
                self._table.selectRow(row)

    def _rows(self):
        return self._table.selectionModel().selectedRows()

    def _fill(self):
        self._table.setRowCount(0)  # Slicer's loses its selection as well
        segmentation = None if self._node is None else self._node.GetSegmentation()
        for identifier in () if segmentation is None else segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(identifier)
            row = self._table.rowCount()
            self._table.insertRow(row)
            name = QTableWidgetItem(segment.GetName())
            name.setData(Qt.UserRole, identifier)
            color = QTableWidgetItem()
            color.setBackground(QColor.fromRgbF(*segment.GetColor()))
            for column, item in enumerate((QTableWidgetItem("\N{BLACK CIRCLE}"), color, name)):
                self._table.setItem(row, column, item)

    def _tell(self):
        self.selectionChanged.emit(None, None)


class qMRMLSegmentationShow3DButton(QPushButton):
    def setSegmentationNode(self, node):
        self._node = node

    def segmentationNode(self):
        return getattr(self, "_node", None)


class qMRMLSegmentEditorWidget(QWidget):
    """Remembers what it is set to, and what was asked of it in `calls`."""

    segmentationNodeSelectorVisible = _value("segmentationNodeSelectorVisible", bool, True)
    sourceVolumeNodeSelectorVisible = _value("sourceVolumeNodeSelectorVisible", bool, True)
    switchToSegmentationsButtonVisible = _value("switchToSegmentationsButtonVisible", bool, True)
    autoShowSourceVolumeNode = _value("autoShowSourceVolumeNode", bool, True)
    maximumNumberOfUndoStates = _value("maximumNumberOfUndoStates", int, 0)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._nodes, self._calls = {}, []
        layout = QGridLayout(self)
        for n, name in enumerate(
            ("Paint", "Draw", "Erase", "Level tracing", "Smoothing", "Scissors", "Islands", "Undo")
        ):
            layout.addWidget(QPushButton(name), n // 4, n % 4)

    def setMRMLScene(self, scene):
        pass

    def setMRMLSegmentEditorNode(self, node):
        self._nodes["editor"] = node

    def mrmlSegmentEditorNode(self):
        return self._nodes.get("editor")

    def setSegmentationNode(self, node):
        self._nodes["segmentation"] = node

    def segmentationNode(self):
        return self._nodes.get("segmentation")

    def setSourceVolumeNode(self, node):
        self._nodes["volume"] = node

    def sourceVolumeNode(self):
        return self._nodes.get("volume")

    def setActiveEffect(self, effect):
        self._calls.append(("effect", effect))

    def updateEffectList(self):
        self._calls.append("effects")

    def installKeyboardShortcuts(self):
        self._calls.append("keys")

    def uninstallKeyboardShortcuts(self):
        self._calls.append("no keys")

    def removeViewObservations(self):
        self._calls.append("no views")

    def saveStateForUndo(self):
        segmentation = self._nodes.get("segmentation")
        count = None if segmentation is None else segmentation.GetSegmentation().GetNumberOfSegments()
        self._calls.append(("saved", count))


class ctkSliderWidget(QWidget):
    valueChanged = Signal(float)

    tracking = _value("tracking", bool, True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider, self._spin = QSlider(Qt.Horizontal), QDoubleSpinBox()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.setRange(0, 1000)
        self._slider.valueChanged.connect(
            lambda n: (
                self._spin.setValue(
                    self._spin.minimum() + n / 1000 * (self._spin.maximum() - self._spin.minimum())
                )
                if abs(self._position() - n) > 1
                else None
            )
        )
        self._spin.valueChanged.connect(lambda _value: self._slider.setValue(self._position()))
        self._spin.valueChanged.connect(self.valueChanged)

    def _position(self):
        span = self._spin.maximum() - self._spin.minimum()
        return round(1000 * (self._spin.value() - self._spin.minimum()) / span)

    def setValue(self, value):
        self._spin.setValue(value)

    value = Property(float, lambda self: self._spin.value(), setValue)
    minimum = Property(float, lambda self: self._spin.minimum(), lambda self, v: self._spin.setMinimum(v))
    maximum = Property(float, lambda self: self._spin.maximum(), lambda self, v: self._spin.setMaximum(v))
    decimals = Property(int, lambda self: self._spin.decimals(), lambda self, v: self._spin.setDecimals(v))
    singleStep = Property(
        float, lambda self: self._spin.singleStep(), lambda self, v: self._spin.setSingleStep(v)
    )
    suffix = Property(str, lambda self: self._spin.suffix(), lambda self, v: self._spin.setSuffix(v))


STAND_INS = (
    ctkCollapsibleButton,
    ctkSliderWidget,
    qMRMLNodeComboBox,
    qMRMLSegmentEditorWidget,
    qMRMLSegmentationShow3DButton,
    qMRMLSegmentsTableView,
)


def release(window):
    """Let go of the scene: VTK would go on calling widgets that are deleted."""
    for stand_in in (qMRMLNodeComboBox, qMRMLSegmentsTableView):
        for widget in window.findChildren(stand_in):
            widget._release()


def load(path):
    """Make the widgets of a .ui file."""
    loader = QUiLoader()
    for stand_in in STAND_INS:
        loader.registerCustomWidget(stand_in)
    return loader.load(str(path))
