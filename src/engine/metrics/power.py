"""The smallest difference of two methods that a planned comparison on the same test examples would find.

McNemar's test (Connett, Smith and McHugh 1987): with a share d of examples on which exactly one of the two is right, a
difference delta of accuracies is found at level alpha with chance 1 - beta from n examples on, where
n delta^2 = (z(1 - alpha/2) sqrt(d) + z(1 - beta) sqrt(d - delta^2))^2. A mean over tasks of n_1 .. n_T examples counts as
T^2 / sum(1 / n_t) examples of one task. Seeds share test examples, so they are not counted as more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

_HALVINGS = 60


def effective_examples(sizes: Sequence[int]) -> float:
    """How many examples of one task a mean over tasks of these sizes is worth."""
    return len(sizes) ** 2 / sum(1 / n for n in sizes)


def smallest_difference(
    sizes: Sequence[int], disagreement: float, level: float = 0.05, power: float = 0.8
) -> float | None:
    """The difference of mean accuracies, 0..1, that is found with chance `power`; None where no possible one is.

    Args:
        sizes: test examples of each task, at least one each.
        disagreement: share of examples on which exactly one of the two methods is right, 0..1; no difference exceeds it.
        level: of the two-sided test.
        power: wanted chance.
    """
    n = effective_examples(sizes)
    quantile = NormalDist().inv_cdf
    surprise, chance = quantile(1 - level / 2), quantile(power)

    def lacking(delta: float) -> float:
        rest = math.sqrt(max(0.0, disagreement - delta**2))
        return surprise * math.sqrt(disagreement) + chance * rest - math.sqrt(n) * delta

    if lacking(disagreement) > 0:
        return None
    low, high = 0.0, disagreement
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if lacking(middle) > 0 else (low, middle)
    return high
