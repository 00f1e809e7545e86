"""Regions of a body as subjects of the training store: the box, the body in it, the files."""

import json

import numpy as np
import pytest

from BoneSAMLib.errors import BoneSAMError
from Testing.training.ball_meshes import GRID, sphere
from training.synthesis.anatomy.body_outline import body_outline, close_and_cover
from training.synthesis.anatomy.body_regions import Region, region_grid, region_subject
from training.synthesis.anatomy.subject import make


def test_a_region_of_a_left_limb_mirrors_that_of_the_right():
    region = Region("knee", r"{side} patella", 1.0, 10, 20, 5, 5, 5, 5)
    bones = [sphere((50, 0, 0), 4.0, "right patella"), sphere((-50, 0, 0), 4.0, "left patella")]
    right, left = (region_grid(region, side, bones) for side in ("right", "left"))
    assert right.size == left.size
    assert right.origin[0] == pytest.approx(50 - 4 - 20, abs=0.1)
    assert left.origin[0] == pytest.approx(-50 - 4 - 10, abs=0.1)
    with pytest.raises(BoneSAMError, match="knee"):
        region_grid(region, "right", [])


def test_the_body_closes_gaps_and_covers():
    union = np.zeros((5, 60, 60), bool)
    union[:, 25:35, 20:25] = union[:, 25:35, 33:38] = True
    body = close_and_cover(union, (1.0, 1.0, 1.0), 6.0, 3.0)
    assert body[:, 30, 17:41].all()
    assert not body[:, 30, :16].any()
    assert not body[:, :15].any()


def test_a_written_subject_is_complete_and_kept(tmp_path, capsys):
    def build():
        structures = [sphere((0, 0, 0), 10.0, name="ball"), sphere((0, 0, 20), 8.0, "flesh", "muscle")]
        outline = body_outline(structures)
        return region_subject("two", "test", GRID, structures, outline)

    make("two", tmp_path, build)
    make("two", tmp_path, build)
    assert "two: kept" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.depth.npy", "two.json", "two.labels.npy"]
    header = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))
    labels, depth = np.load(tmp_path / "two.labels.npy"), np.load(tmp_path / "two.depth.npy")
    assert labels.dtype == np.uint16
    assert depth.dtype == np.uint8
    assert labels.shape == depth.shape == (61, 61, 61)
    assert set(header["labels"]) == {"1", "2", "3"}
    assert header["labels"]["2"] == {"name": "ball", "tissue": "bone"}
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert ((depth > 0) == (labels == 2)).all()
    (row,) = header["objects"]
    assert row["label"] == 2
    assert row["complete"]
    assert row["voxels"] == (labels == 2).sum()
