"""The panel of the module BoneSAM: what needs 3D Slicer's widgets and views.

A view of `BoneSAMLib.presenter.Presenter`, which decides; nothing is decided here.
"""
