"""Votes and pass@k by hand, and against drawing them."""

from __future__ import annotations

from itertools import combinations

import pytest

from metashot.engine.metrics.samples import pass_at, vote


def equal(one: str, other: str) -> bool:
    return one.lower() == other.lower()


@pytest.mark.parametrize(
    ("answers", "place"),
    [
        (["7"], 0),
        (["7", "8", "8"], 1),
        (["7", "8", "8", "7"], 0),  # two votes each: the one that came first
        ([None, None, "8"], 2),  # no answer, no vote
        (["a", "b", "B", "A", "b"], 1),
        ([None], None),
        ([], None),
    ],
)
def test_the_vote(answers, place):
    assert vote(answers, equal) == place


@pytest.mark.parametrize(
    ("k", "n", "right", "value"),
    [
        (1, 4, 1, 1 / 4),
        (2, 4, 1, 1 / 2),  # 1 - C(3, 2) / C(4, 2) = 1 - 3 / 6
        (2, 5, 2, 7 / 10),  # 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10
        (4, 4, 1, 1.0),
        (3, 4, 2, 1.0),  # three of four cannot miss both
        (2, 4, 0, 0.0),
    ],
)
def test_pass_at_k_by_hand(k, n, right, value):
    assert pass_at(k, n, right) == pytest.approx(value)


def test_pass_at_k_is_the_share_of_draws_without_replacement_that_hold_a_right_one():
    for n in range(1, 8):
        for right in range(n + 1):
            for k in range(1, n + 1):
                draws = list(combinations(range(n), k))
                share = sum(min(draw) < right for draw in draws) / len(draws)
                assert pass_at(k, n, right) == pytest.approx(share)


def test_what_cannot_be_drawn_is_no_estimate():
    with pytest.raises(ValueError, match="no 3 of 2 samples"):
        pass_at(3, 2, 1)
