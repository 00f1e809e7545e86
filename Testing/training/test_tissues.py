"""Which tissue the name of a structure tells."""

import pytest

from BoneSAMLib.errors import BoneSAMError
from training.synthesis.tissues import label_tissue, mesh_tissue


def test_names_decide_tissues():
    assert mesh_tissue("intervertebral disk of axis", "cartilage") == "disc"
    assert mesh_tissue("right optic tract", "muscle") == "neural"
    assert mesh_tissue("ascending part of left trapezius", "organ") == "muscle"
    assert mesh_tissue("thalamogeniculate artery", "vessel") == "vessel"
    assert mesh_tissue("left hip bone", "bone") == "bone"
    assert label_tissue("costal_cartilages") == "cartilage"
    assert label_tissue("L5-L4-IntervertebralDisc") == "disc"
    assert label_tissue("right_renal_pelvis") == "organ"
    assert label_tissue("Pelvis") == "bone"
    assert label_tissue("3") == "fat"
    with pytest.raises(BoneSAMError, match="'gizzard' has no tissue"):
        label_tissue("gizzard")
