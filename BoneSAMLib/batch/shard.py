"""A part of a batch, for job arrays: each job takes every n-th case, and they share the folder of masks."""

from collections.abc import Sequence
from dataclasses import dataclass

from BoneSAMLib.batch.case import Case
from BoneSAMLib.errors import BoneSAMError

__all__ = ["Shard", "parse_shard"]


@dataclass(frozen=True)
class Shard:
    """Part `index` (1 or more) of `count`."""

    index: int
    count: int

    def of(self, cases: Sequence[Case]) -> list[Case]:
        """The cases of this part; the parts of the same cases have all of them, each once."""
        return list(cases[self.index - 1 :: self.count])

    @property
    def suffix(self) -> str:
        """What its summary and its lock are called beside those of the other parts."""
        return f"-{self.index}-of-{self.count}"


def parse_shard(text: str) -> Shard:
    """A part from "3/8".

    Raises:
        BoneSAMError: not of this form, or a part that does not exist.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise BoneSAMError(f"Cannot understand the shard '{text}': write 3/8 for the third of eight parts.")
    if not 1 <= int(index) <= int(count):
        raise BoneSAMError(f"There is no shard '{text}': they count from 1/{count} to {count}/{count}.")
    return Shard(int(index), int(count))
