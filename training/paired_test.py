"""Whether one of two methods is better on the same bones: the paired test of Wilcoxon."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

# With fewer differences even the clearest result cannot reach 0.05.
FEWEST = 6


def paired(differences: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """Test pairs of a case and a difference against zero; NaN is left out.

    Returns:
        ``p``: two-sided, over the mean difference of each case, for bones of one scan are not independent;
        None with fewer than 6 cases. ``p_bones``: the same over single bones, which makes too much of them.
        ``cases``, ``bones``, ``better`` and ``worse``: how many cases, bones, bones above and below zero.
    """
    found = [(case, value) for case, value in differences if not math.isnan(value)]
    by_case: dict[str, list[float]] = {}
    for case, value in found:
        by_case.setdefault(case, []).append(value)
    values = [value for _, value in found]
    return {
        "p": _p([float(np.mean(of_case)) for of_case in by_case.values()]),
        "p_bones": _p(values),
        "cases": len(by_case),
        "bones": len(values),
        "better": sum(value > 0 for value in values),
        "worse": sum(value < 0 for value in values),
    }


def _p(values: Sequence[float]) -> float | None:
    if len(values) < FEWEST:
        return None
    if not np.any(values):
        return 1.0
    return float(wilcoxon(values, zero_method="zsplit").pvalue)


def holm(p_values: dict[str, float | None]) -> dict[str, float | None]:
    """The same p values corrected for their number by Holm's method; None stays None."""
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[name] = largest
    return corrected
