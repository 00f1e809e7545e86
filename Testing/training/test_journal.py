"""Results in a file that survives kills and refuses to mix."""

import math

import pytest

from BoneSAMLib.errors import BoneSAMError
from training.journal import Journal, read_journal


def test_finished_parts_are_found_again(tmp_path):
    path = tmp_path / "sub" / "study.jsonl"
    journal = Journal(path, {"seed": 1})
    journal.append(("a", "noise 1"), [{"dice": 0.5, "iou": math.nan}])
    journal.append(("a", "noise 2"), [])
    again = Journal(path, {"seed": 1})
    assert ("a", "noise 1") in again
    assert ("a", "noise 2") in again
    assert ("b", "noise 1") not in again
    assert list(again.rows()) == list(journal.rows()) == [{"dice": 0.5, "iou": None}]
    assert read_journal(path).settings == {"seed": 1}
    assert read_journal(tmp_path / "none.jsonl") is None


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_short_is_done_again(tmp_path, cut):
    path = tmp_path / "study.jsonl"
    journal = Journal(path, {})
    journal.append(("a",), [{"dice": 0.5}])
    journal.append(("b",), [{"dice": 0.6}])
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, {})
    assert ("a",) in again
    assert ("b",) not in again
    again.append(("b",), [{"dice": 0.7}])
    assert [row["dice"] for row in Journal(path, {}).rows()] == [0.5, 0.7]


def test_settings_do_not_mix(tmp_path):
    path = tmp_path / "study.jsonl"
    Journal(path, {"weights": "one"}).append(("a",), [{"dice": 0.5}])
    with pytest.raises(BoneSAMError, match=r"other settings.*--fresh"):
        Journal(path, {"weights": "two"})
    assert ("a",) not in Journal(path, {"weights": "two"}, fresh=True)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "study.jsonl"
    path.write_text("something else\n")
    for read in (read_journal, lambda path: Journal(path, {})):
        with pytest.raises(BoneSAMError, match="not a file of results"):
            read(path)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "study.jsonl", {})
    monkeypatch.setattr(journal, "path", tmp_path)  # a folder cannot be appended to
    with pytest.raises(BoneSAMError, match="cannot be written"):
        journal.append(("a",), [])
