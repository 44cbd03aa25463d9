"""Over-long contexts: what each rule keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.metaprompt.truncation import (
    cut_right,
    fit_lengths,
    keep_ending,
    longer_side,
    longest_slot,
    proportional,
)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 200))
def test_fitting_cuts_only_the_longest(lengths: list[int], budget: int):
    kept = fit_lengths(lengths, budget)
    assert sum(kept) == min(budget, sum(lengths))
    assert all(0 <= k <= n for k, n in zip(kept, lengths, strict=True))
    cut = [k for k, n in zip(kept, lengths, strict=True) if k < n]
    if cut:
        assert max(kept) <= min(cut) + 1


@given(st.integers(0, 300), st.integers(0, 300), st.integers(10, 300))
def test_the_template_survives_the_longest_slot_rule(first: int, second: int, limit: int):
    ending = [7, 8, 9]
    parts = longest_slot([[1] * first, [5], [2] * second, ending], [True, False, True, False], limit)
    assert parts[1] == [5]
    assert parts[3] == ending
    assert sum(map(len, parts)) == min(limit, first + second + 4)


def test_a_template_longer_than_the_limit_is_said():
    with pytest.raises(DataError, match="template alone takes 3 of 2 tokens"):
        longest_slot([[1], [2, 3, 4]], [True, False], 2)


def test_proportional_cut_by_the_published_formula():
    """nsp, 600 + 200 tokens, limit 412: p1 = int(600/801*411) - 1 = 306, p2 = int(201/801*411) - 1 = 102."""
    parts = proportional([[1] * 600, [0], [2] * 200], [True, False, True], 412, counted=1)
    assert [len(part) for part in parts] == [306, 1, 102]
    # scsp does not count the mask: p1 = int(0.75 * 411) - 1 = 307, p2 = int(0.25 * 411) - 1 = 101
    parts = proportional([[1] * 600, [0], [2] * 200], [True, False, True], 412, counted=0)
    assert [len(part) for part in parts] == [307, 1, 101]
    # 411 tokens and the mask still fit
    assert sum(map(len, proportional([[1] * 400, [0], [2] * 11], [True, False, True], 412, counted=1))) == 412


def test_right_cut_loses_the_ending_and_keep_ending_does_not():
    parts = [[1] * 10, [2] * 3]
    assert cut_right(parts, 5) == [[1] * 5]
    assert keep_ending(parts, 1, 5) == [[1, 1], [2, 2, 2]]


def test_the_longer_side_loses_tokens_from_its_last_slot():
    """Side one has 6 shortenable tokens in two slots, side two 2: four go from side one's last slot, then ties."""
    parts = [[1] * 3, [0], [2] * 3, [3] * 2]
    free = [True, False, True, True]
    assert [len(p) for p in longer_side(parts, free, 3, 5)] == [2, 1, 0, 2]
    assert [len(p) for p in longer_side(parts, free, 3, 4)] == [
        2,
        1,
        0,
        1,
    ]  # 2 against 2: a tie takes side two
