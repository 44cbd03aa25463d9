"""The trie holds every distinct prefix once, in depth-first order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import build_trie

_tokens = st.lists(st.integers(0, 2), max_size=6).map(tuple)
_requests = st.lists(st.builds(Request, _tokens, _tokens), max_size=12)


def _prefix_of(trie, row):
    tokens = []
    while row >= 0:
        tokens.append(int(trie.tokens[row]))
        row = int(trie.parents[row])
    return tuple(reversed(tokens))


@settings(max_examples=200)
@given(_requests)
def test_rows_are_the_distinct_prefixes_that_predict_something(requests):
    trie = build_trie(requests)
    sequences = [(r.context + r.target)[:-1] for r in requests if r.scored]
    prefixes = {sequence[: end + 1] for sequence in sequences for end in range(len(sequence))}
    rows = [_prefix_of(trie, row) for row in range(trie.rows)]
    assert len(rows) == len(set(rows))
    assert set(rows) == prefixes
    assert trie.depths.tolist() == [len(prefix) - 1 for prefix in rows]


@settings(max_examples=200)
@given(_requests)
def test_descendants_follow_their_ancestor_directly(requests):
    trie = build_trie(requests)
    rows = [_prefix_of(trie, row) for row in range(trie.rows)]
    for row, prefix in enumerate(rows):
        descendants = [r for r, other in enumerate(rows) if other[: len(prefix)] == prefix]
        assert descendants == list(range(row, int(trie.ends[row])))


@settings(max_examples=200)
@given(_requests)
def test_each_scored_token_is_paired_with_the_row_of_all_tokens_before_it(requests):
    trie = build_trie(requests)
    for index, request in enumerate(requests):
        sequence = request.context + request.target
        pairs = range(int(trie.offsets[index]), int(trie.offsets[index + 1]))
        ends = range(len(sequence) - request.scored, len(sequence))
        assert [_prefix_of(trie, trie.pair_rows[pair]) for pair in pairs] == [sequence[:end] for end in ends]
        assert [int(trie.pair_tokens[pair]) for pair in pairs] == [sequence[end] for end in ends]


def test_nothing_to_score_is_an_empty_trie():
    for requests in ([], [Request((), ()), Request((1, 2), ()), Request((), (3,))]):
        trie = build_trie(requests)
        assert trie.rows == 0
        assert trie.offsets.tolist() == [0] * (len(requests) + 1)


def test_order_of_requests_changes_no_row():
    requests = [
        Request((1, 2, 3), (4, 5)),
        Request((1, 2), (6, 7)),
        Request((), (1, 9)),
        Request((1, 2, 3), (4, 5)),
    ]
    forward, backward = build_trie(requests), build_trie(requests[::-1])
    np.testing.assert_array_equal(forward.tokens, backward.tokens)
    np.testing.assert_array_equal(forward.parents, backward.parents)
