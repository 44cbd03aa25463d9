"""Several answers to one question: self-consistency by vote, and pass@k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import comb


def vote(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> int | None:
    """The place of the answer that most samples agree on (self-consistency, Wang et al. 2022).

    Args:
        answers: one of each sample; None, where none was found, has no vote.
        same: whether two answers mean the same.

    Returns:
        Its first occurrence; of equally many votes the answer that came first. None without any answer.
    """
    votes: dict[int, int] = {}
    for place, answer in enumerate(answers):
        if answer is not None:
            first = next((one for one in votes if same(str(answers[one]), answer)), place)
            votes[first] = votes.get(first, 0) + 1
    return max(votes, key=lambda place: (votes[place], -place), default=None)


def pass_at(k: int, n: int, right: int) -> float:
    """The probability that `k` of `n` samples, of which `right` are right, hold a right one, 0..1.

    Unbiased where the samples are independent: 1 - C(n - right, k) / C(n, k) (Chen et al. 2021, equation 1).

    Raises:
        ValueError: k above n, or no samples.
    """
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"no {k} of {n} samples, {right} right")
    return 1 - comb(n - right, k) / comb(n, k)
