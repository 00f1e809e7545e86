"""A presenter whose view is the scene: a real worker thread, and an event loop that a test turns."""

import threading
import time
from collections import deque

import numpy as np
import slicer.util

from BoneSAMLib.panel import Action, State, Tool
from BoneSAMLib.scene.scene_view import SceneView
from BoneSAMLib.segmentation_node import readMask
from BoneSAMLib.session_cache import open_segmenter


class Desk:
    """A volume in the views and everything around it.

    Args:
        views: where the mouse is.
        volume_node: what is segmented.
        open_segmenter: the real network unless given.
    """

    def __init__(self, views, volume_node, open_segmenter=open_segmenter):
        self.views, self.volume_node = views, volume_node
        self.panels, self.messages = [], []
        self._calls, self._posted = deque(), threading.Event()
        self.view = SceneView(
            views.scene, self._post, self.panels.append, self.messages.append, None, open_segmenter
        )
        self.presenter = self.view.presenter
        self.view.choose_volume(volume_node)

    def _post(self, call):
        self._calls.append(call)
        self._posted.set()

    def pump(self):
        """Do what waits for the main thread."""
        self._posted.clear()
        while self._calls:
            self._calls.popleft()()

    def wait(self, timeout=120.0):
        """Turn the event loop until nothing runs any more."""
        end = time.monotonic() + timeout
        self.pump()
        while self.panel.state is State.RUNNING:
            left = end - time.monotonic()
            assert left > 0, "nothing came back"
            self._posted.wait(left)
            self.pump()
        return self

    def wait_for_progress(self, timeout=120.0):
        """Turn the event loop until the network has begun with its slices."""
        end = time.monotonic() + timeout
        while not self.panel.progress or self.panel.progress[0] == 0:
            left = end - time.monotonic()
            assert left > 0, "nothing was begun"
            self._posted.wait(left)
            self.pump()

    def close(self):
        self.view.close()

    # What a user does.

    def draw_box(self, tag, first, second):
        """Click the button, then two corners in a slice view, all in pixels."""
        self.presenter.choose_tool(Tool.BOX)
        self.views.click(tag, first)
        self.views.move(tag, tuple(np.add(first, second) // 2))
        self.views.click(tag, second)
        self.pump()

    def add_points(self, tag, *pixels, positive=True):
        """Click the button, points in a slice view, and the button again."""
        self.presenter.choose_tool(Tool.POSITIVE_POINT if positive else Tool.NEGATIVE_POINT)
        for pixel in pixels:
            self.views.click(tag, pixel)
            self.pump()
        self.presenter.choose_tool(None)

    def drag_face(self, tag, direction, ras):
        """Drag the middle of the box's face in a direction (RAS) to a place, in a view that shows both."""
        node = next(iter(self.views.nodes("vtkMRMLMarkupsROINode")))
        to_world = slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix())
        reach = np.diag(node.GetSize()) / 2
        faces = [(to_world @ [*offset, 1.0])[:3] for offset in (*reach, *-reach)]
        face = max(faces, key=lambda place: float(np.dot(place - to_world[:3, 3], direction)))
        self.views.drag(tag, self.views.pixel(tag, face), self.views.pixel(tag, ras))
        self.pump()

    # What a user sees.

    @property
    def panel(self):
        return self.panels[-1]

    @property
    def texts(self):
        return [message.text for message in self.messages]

    @property
    def preview(self):
        """The shown mask as it lies in the scene, bool [k, j, i] on the volume's grid; None if hidden."""
        node = self.view.preview.segmentation_node
        if node is None:
            return None
        return readMask(node, node.GetSegmentation().GetNthSegmentID(0), self.volume_node)

    @property
    def segments(self):
        """Masks of the accepted segments by name, from the segmentation node."""
        node = self.view.store.segmentationNode
        entries = self.view.store.segments()
        return {entry.name: readMask(node, entry.identifier, self.volume_node) for entry in entries}

    def can(self, action):
        assert isinstance(action, Action)
        return action in self.panel.enabled
