"""Label volumes of anatomy for the training store, from surface meshes and label maps.

Each subject ``<id>`` of the store is three files:

``<id>.labels.npy``
    uint16 [k, j, i]; i grows to the patient's right, j to anterior, k to superior. 0 is air outside the body,
    1 is fat (inside the body, in no structure), every other value is a structure.
``<id>.depth.npy``
    uint8, same shape: how deep a voxel of a bone or tooth lies below that bone's own surface, in steps of
    0.25 mm, at most 255; 0 elsewhere. Bones that touch each have a surface.
``<id>.json``
    Where the volume came from, its geometry, the name and tissue of each value, and the bones and teeth that
    can be targets.

Run ``python -m training.synthesis.anatomy --meshes DIR --labelmaps DIR --store DIR``.
"""
