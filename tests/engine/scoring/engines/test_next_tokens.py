"""Questions about next tokens, and scores put together from their answers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import ModelError
from metashot.engine.scoring.engines.next_tokens import by_cost, checked, put_together, questions, uncached
from metashot.engine.scoring.request import Request

IDS = st.lists(st.integers(0, 3), max_size=5).map(tuple)
REQUESTS = st.lists(st.builds(Request, IDS, IDS), max_size=8)


def test_the_questions_of_two_targets_behind_one_context():
    asked = questions([Request((1, 2), (3, 4)), Request((1, 2), (5,))])
    assert asked == {(1, 2): [3, 5], (1, 2, 3): [4]}
    assert list(asked) == [(1, 2), (1, 2, 3)]


def test_the_first_token_after_an_empty_context_is_not_asked_for():
    assert questions([Request((), (3, 4))]) == {(3,): [4]}


@given(REQUESTS)
def test_answers_to_the_questions_make_the_scores_of_each_request_alone(requests):
    def log_probability(prefix, token):
        return -math.log(2 + token + 3 * len(prefix) + sum(prefix))

    table = {p: {t: log_probability(p, t) for t in tokens} for p, tokens in questions(requests).items()}
    for request in requests:
        ids = request.context + request.target
        first = len(ids) - request.scored
        alone = [log_probability(ids[:i], ids[i]) for i in range(first, len(ids))]
        assert put_together(request, table).tolist() == pytest.approx(alone, abs=1e-6)


@given(REQUESTS)
def test_a_prefix_is_asked_before_its_continuations(requests):
    asked = list(questions(requests))
    assert all(not (len(a) > len(b) and a[: len(b)] == b) for i, a in enumerate(asked) for b in asked[i:])


@given(REQUESTS, st.sampled_from((1, 4, 16)))
def test_every_request_goes_one_way(requests, block):
    stepped, whole = by_cost(requests, block)
    assert sorted(stepped + whole) == list(range(len(requests)))


def test_long_shared_contexts_are_asked_stepwise_and_short_ones_whole():
    # Behind 400 tokens, blocks of 128: whole 8 * 404; stepwise 400 + 24 prefixes that leave 17 to 19 tokens uncached.
    long = [Request(tuple(range(400)), (n, 1, 2, 3)) for n in range(8)]
    short = [Request((9,), tuple(range(n, n + 20))) for n in range(8)]
    assert by_cost(long, 128) == (list(range(8)), [])
    assert by_cost(short, 128) == ([], list(range(8)))


@pytest.mark.parametrize(("length", "left"), [(1, 1), (128, 128), (129, 1), (300, 44)])
def test_what_a_cache_of_blocks_leaves_to_compute(length, left):
    # Of 128 tokens the last is computed even where its block is stored, since its own output is wanted.
    assert uncached(length, 128) == left


@pytest.mark.parametrize("value", [None, float("nan"), 0.5, -9999.0, float("-inf")])
def test_what_is_no_log_probability_is_refused(value):
    with pytest.raises(ModelError, match="as a log-probability"):
        checked([-1.0, value], Request((1,), (2, 3)))


def test_too_few_values_are_refused():
    with pytest.raises(ModelError, match="1 values for 2 tokens"):
        checked([-1.0], Request((1,), (2, 3)))
