"""BoneSAM in the browser: a second thin view of the presenter, on 3D Slicer's own views.

Needs the extra `web`. A gateway checks the token of the address and gives every visitor a process of its own,
with its own scene, network and folder; nothing is shared between two visitors.
"""
