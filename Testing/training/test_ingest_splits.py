"""A person is in one split, the same in every run."""

import pytest

from BoneSAMLib.errors import BoneSAMError
from training.ingest.splits import assign_splits, parse_shares

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def free(*subjects):
    return [(subject, "") for subject in subjects]


def test_given_splits_are_respected():
    given = [("a", "test"), ("b", "train"), ("c", "validation"), ("a", "")]
    assert assign_splits(given, {}, SHARES) == {"a": "test", "b": "train", "c": "validation"}


def test_the_rest_is_divided_by_name_alone():
    names = [f"p{n}" for n in range(2000)]
    splits = assign_splits(free(*names), {}, SHARES)
    for split, share in SHARES.items():
        assert list(splits.values()).count(split) / 2000 == pytest.approx(share, abs=0.03)
    again = assign_splits(free(*reversed(names[:500])), {}, SHARES)
    assert all(splits[name] == split for name, split in again.items())


def test_who_is_in_the_store_stays_there():
    splits = assign_splits(free("a", "b", "c"), {"a": "test", "z": "validation"}, SHARES)
    assert splits["a"] == "test"
    assert set(splits) == {"a", "b", "c"}


@pytest.mark.parametrize("count", range(2, 12))
def test_few_subjects_still_have_train_and_validation(count):
    for letter in "abcdefgh":
        splits = assign_splits(free(*(f"{letter}{n}" for n in range(count))), {}, SHARES)
        assert {"train", "validation"} <= set(splits.values())


def test_one_subject_is_refused_unless_all_is_for_training():
    with pytest.raises(BoneSAMError, match="All scans are of one subject, 'a'"):
        assign_splits(free("a", "a"), {}, SHARES)
    assert assign_splits(free("a", "a"), {}, parse_shares("1,0,0")) == {"a": "train"}
    assert assign_splits([("a", "train")], {}, SHARES) == {"a": "train"}


def test_a_person_in_two_splits_is_refused():
    with pytest.raises(BoneSAMError, match="'a' is in the train and in the test split"):
        assign_splits([("a", "train"), ("a", "test")], {}, SHARES)
    with pytest.raises(BoneSAMError, match="'a' is in the validation and in the train split"):
        assign_splits([("a", "train")], {"a": "validation"}, SHARES)


@pytest.mark.parametrize("text", ["1", "0.5,0.5", "0.5,0.2,0.2", "-1,1,1", "a,b,c", "0,0.5,0.5"])
def test_shares_that_are_none(text):
    with pytest.raises(BoneSAMError, match="no division"):
        parse_shares(text)
