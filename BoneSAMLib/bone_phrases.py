"""Which bones a phrase means: "both femurs and L2-L4", "alle Rippen außer der ersten", "osso sacro".

Only text is understood here; whether a scan shows these bones is another question. A phrase is read as items
between words such as "and" and "except". Every word of an item must be part of the name of a bone or group, a
number or a side, after correction of typing errors: what is left over makes the phrase unclear.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from BoneSAMLib.bone_phrase_items import targets_of
from BoneSAMLib.bone_phrase_questions import EXAMPLE, UnclearPhrase, listed
from BoneSAMLib.bone_spelling import corrections, is_known
from BoneSAMLib.bone_table import BoneTarget
from BoneSAMLib.bone_words import Token, tokens

__all__ = ["UnderstoodPhrase", "understand"]

_MOST_READINGS = 12
_LONGEST_PHRASE = 500


@dataclass(frozen=True)
class UnderstoodPhrase:
    """The bones that a phrase means.

    Attributes:
        targets: at least one, each once, in the order of the table; a pair without a side is two.
        corrected: words with typing errors, and as what they were read.
    """

    targets: tuple[BoneTarget, ...]
    corrected: dict[str, str] = field(default_factory=dict)


def understand(phrase: str) -> UnderstoodPhrase:
    """The bones that a phrase means, in English, German, Italian, French, Spanish or Latin.

    Raises:
        UnclearPhrase: unknown words, several meanings, or nothing left after exceptions.
    """
    if len(phrase) > _LONGEST_PHRASE:
        raise UnclearPhrase(f"The text is too long: name the bones in up to {_LONGEST_PHRASE} characters.")
    read = tokens(phrase)
    if not any(token.kind in ("word", "number") for token in read):
        raise UnclearPhrase(f"The text names no bone: write {EXAMPLE}.")
    results: dict[tuple[BoneTarget, ...], UnderstoodPhrase] = {}
    problems: list[UnclearPhrase] = []
    for reading, corrected in _readings(read):
        try:
            found = UnderstoodPhrase(targets_of(reading), corrected)
        except UnclearPhrase as problem:
            problems.append(problem)
        else:
            results.setdefault(found.targets, found)
    if len(results) == 1:
        return next(iter(results.values()))
    if results:
        names = [_described(targets) for targets in results]
        raise UnclearPhrase(f'"{phrase.strip()}" can mean: {listed(names)}. Write which.', names, True)
    raise next((problem for problem in problems if problem.ambiguous), problems[0])


def _described(targets: Sequence[BoneTarget]) -> str:
    names = [target.name for target in targets]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _readings(read: Sequence[Token]) -> list[tuple[list[Token], dict[str, str]]]:
    """The words with typing errors corrected, once for each way to do so."""
    choices: list[list[Token]] = []
    for token in read:
        if token.kind != "word" or is_known(token.text):
            choices.append([token])
            continue
        fixed = [tokens(other)[0] for other in corrections(token.text) if tokens(other)]
        choices.append(fixed or [token])
    readings = []
    for chosen in itertools.islice(itertools.product(*choices), _MOST_READINGS):
        corrected = {
            old.text: new.text for old, new in zip(read, chosen, strict=True) if old.text != new.text
        }
        readings.append((list(chosen), corrected))
    return readings
