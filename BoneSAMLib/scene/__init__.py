"""What a presenter's view shows in a scene: prompts as markups, the mask over the slices.

For the panel in 3D Slicer and the viewer in the browser alike. Everything here runs on the main thread, on
Slicer's own classes, without Qt and without trame.
"""
