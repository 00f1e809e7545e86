"""Which scans are for training, which for choosing, which for reporting: by subject, always the same."""

import hashlib
from collections.abc import Iterable, Mapping

from BoneSAMLib.errors import BoneSAMError
from training.cases import SPLITS

__all__ = ["assign_splits", "parse_shares"]

# A person's place between 0 and 1.
_PLACES = 2**64


def parse_shares(text: str) -> dict[str, float]:
    """Shares of train, validation and test, such as "0.7,0.15,0.15"; they add up to 1.

    Raises:
        BoneSAMError: something else.
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        raise BoneSAMError(
            f"'{text}' is no division into train, validation and test: give three shares that add up to 1, "
            "such as 0.7,0.15,0.15."
        )
    return dict(zip(SPLITS, shares, strict=True))


def assign_splits(
    given: Iterable[tuple[str, str]], known: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, str]:
    """The split of every subject.

    Args:
        given: subject and split of every case; an empty split is to be chosen.
        known: splits of subjects that are in the store already; they stay there.
        shares: of subjects, for those without a split. Where they go depends on their names alone; but train
            and validation get a subject each where a split of some share would have none.

    Raises:
        BoneSAMError: a subject is in two splits, or there is one subject and several splits want some.
    """
    splits = dict(known)
    subjects: dict[str, None] = {}
    for subject, split in given:
        subjects[subject] = None
        if split and splits.setdefault(subject, split) != split:
            raise BoneSAMError(
                f"The subject '{subject}' is in the {splits[subject]} and in the {split} split: a person "
                "belongs to one, or the results mean nothing."
            )
    free = sorted((subject for subject in subjects if subject not in splits), key=_place)
    for subject in free:
        splits[subject] = _chosen(_place(subject), shares)
    if free:
        _fill(splits, free, shares)
    return {subject: splits[subject] for subject in subjects}


def _fill(splits: dict[str, str], free: list[str], shares: Mapping[str, float]) -> None:
    """Give train and validation a subject of those that were just placed, if they have none."""
    for split in ("train", "validation"):
        if not shares[split] or split in splits.values():
            continue
        if len(splits) == 1:
            raise BoneSAMError(
                f"All scans are of one subject, '{free[0]}': training needs another one to check itself on. "
                "Add scans, tell persons apart with --subject, or take all for training with --shares 1,0,0."
            )
        others = [one for one in free if list(splits.values()).count(splits[one]) > 1] or free
        # The last ones by their place are the ones nearest to where a larger split would reach.
        splits[others[-1]] = split


def _chosen(place: float, shares: Mapping[str, float]) -> str:
    reached = 0.0
    for split in SPLITS:
        reached += shares[split]
        if place < reached:
            return split
    return next(split for split in reversed(SPLITS) if shares[split])


def _place(subject: str) -> float:
    return int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "big") / _PLACES
