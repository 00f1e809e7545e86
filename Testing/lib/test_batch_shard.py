"""Parts of a batch for job arrays: each case once, beside each other in one folder."""

import pytest

from BoneSAMLib.batch import BatchPrompts, Shard, find_cases, parse_shard, run_batch
from BoneSAMLib.batch.output_lock import only_run_in
from BoneSAMLib.errors import BoneSAMError
from Testing.lib.batch_scans import write_scan
from Testing.lib.bright_segmenter import BrightSegmenter


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", "3/8"),
        ("a/8", "3/8"),
        ("-1/8", "3/8"),
        ("1/", "3/8"),
        ("0/8", "from 1/8"),
        ("9/8", "from 1/8"),
        ("1/0", "There is no shard"),
    ],
)
def test_what_is_no_shard(text, words):
    with pytest.raises(BoneSAMError, match=words):
        parse_shard(text)


def test_shards_have_all_cases_once():
    cases = list(range(11))
    parts = [parse_shard(f"{n}/4").of(cases) for n in range(1, 5)]
    assert sorted(one for part in parts for one in part) == cases
    assert max(map(len, parts)) - min(map(len, parts)) == 1


def test_shards_and_then_the_whole(tmp_path):
    for number in range(3):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", seed=number)
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    endings = {}
    for index in (1, 2):
        outcome = run_batch(
            cases, tmp_path / "out", workers=0, shard=Shard(index, 2), make_segmenter=BrightSegmenter
        )
        assert outcome.summary.name == f"summary-{index}-of-2.html"
        assert outcome.summary.exists()
        endings |= {one.case.name: one.ending for one in outcome.outcomes}
    assert endings == dict.fromkeys(["scan0", "scan1", "scan2"], "done")
    whole = run_batch(cases, tmp_path / "out", workers=0, resume=True, make_segmenter=BrightSegmenter)
    assert {one.ending for one in whole.outcomes} == {"kept"}
    assert whole.summary.name == "summary.html"


def test_empty_shard_is_no_failure(tmp_path):
    write_scan(tmp_path / "in" / "scan.nii.gz")
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    outcome = run_batch(cases, tmp_path / "out", shard=Shard(2, 2), make_segmenter=BrightSegmenter)
    assert outcome.exit_code == 0
    assert outcome.total == 0


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("-1-of-4", "-2-of-4", True),
        ("-1-of-4", "-1-of-4", False),
        ("-1-of-4", "-1-of-2", False),  # they have cases in common
        ("", "-1-of-2", False),
        ("-1-of-2", "", False),
    ],
)
def test_who_may_work_beside_whom(tmp_path, one, other, together):
    with only_run_in(tmp_path, one):
        if together:
            with only_run_in(tmp_path, other):
                pass
        else:
            with pytest.raises(BoneSAMError, match="Another batch"), only_run_in(tmp_path, other):
                pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_have_left_is_removed(tmp_path):
    for name in (".bonesam-batch-3-of-4.lock", ".bonesam-batch.lock", ".bonesam-0123.part"):
        (tmp_path / name).touch()
    with only_run_in(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
