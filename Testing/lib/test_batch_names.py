"""Batches whose table names bones and draws no boxes."""

import json

from BoneSAMLib.batch import find_cases, run_batch
from BoneSAMLib.reading import read_volume
from BoneSAMLib.session import Session
from Testing.lib.batch_scans import bright_block, write_scan
from Testing.lib.bright_segmenter import BrightSegmenter
from Testing.lib.hand_built_naming import Block, HandBuiltNaming

# The bright block of `write_scan`, which ITK places from the origin to the left and to the back.
FEMUR = Block("femur", (-30, -36, 2), (-10, -12, 18), "left")


class NamingSegmenter(BrightSegmenter):
    naming = HandBuiltNaming(FEMUR)

    def open(self, volume):
        super().open(volume)
        return Session(volume, self.engine, naming=self.naming)


def run(folder, rows):
    scans = folder / "in"
    for row in rows:
        if not (scans / row.split(",")[0]).exists():
            write_scan(scans / row.split(",")[0])
    (scans / "list.csv").write_text("volume,bone\n" + "\n".join(rows) + "\n")
    cases = find_cases(scans / "list.csv", folder / "out", None)
    return run_batch(cases, folder / "out", workers=0, make_segmenter=NamingSegmenter, resume=True)


def test_bones_are_found_and_missing_ones_are_recorded(tmp_path):
    outcome = run(tmp_path, ["a.nii.gz,both femurs", "b.nii.gz,sacrum"])
    femur, sacrum = outcome.outcomes
    assert femur.error == ""
    assert "does not show the sacrum" in sacrum.error
    record = json.loads((tmp_path / "out" / "a.bonesam.json").read_text(encoding="utf-8"))
    assert [bone["name"] for bone in record["bones"]] == ["left femur"]
    assert record["not found"] == ["right femur"]
    mask = read_volume(tmp_path / "out" / "a.seg.nrrd").array > 0
    bone = bright_block() > 100
    assert (mask & bone).sum() > 0.7 * bone.sum()
    assert not (tmp_path / "out" / "b.seg.nrrd").exists()


def test_another_naming_network_asks_again_for_names_only(tmp_path, monkeypatch):
    rows = ["a.nii.gz,left femur"]
    assert [one.ending for one in run(tmp_path, rows).outcomes] == ["done"]
    assert [one.ending for one in run(tmp_path, rows).outcomes] == ["kept"]
    monkeypatch.setattr(NamingSegmenter.naming, "digest", "another", raising=False)
    assert [one.ending for one in run(tmp_path, rows).outcomes] == ["done"]
    record = json.loads((tmp_path / "out" / "a.bonesam.json").read_text(encoding="utf-8"))
    assert record["digests"]["naming"] == "another"
