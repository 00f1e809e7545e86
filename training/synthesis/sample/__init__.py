"""The project's sample scans: a CT of the hips, an MR of a knee, a radiograph of a hand, with their bones.

They are rendered from the BodyParts3D anatomies of the training store, with fixed seeds, so that everybody
has scans to try BoneSAM on. Run ``python -m training.synthesis.sample --store DIR --out DIR``.
"""
