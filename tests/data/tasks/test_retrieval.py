"""Retrieved demonstrations equal bm25s itself and a plain loop of MMR."""

from __future__ import annotations

import bm25s
import numpy as np
import pytest

from metashot.base.errors import DataError
from metashot.data.tasks.retrieval import diverse, lexical, voted
from metashot.data.tasks.selection import nearest

WORDS = [
    "red",
    "green",
    "blue",
    "fast",
    "slow",
    "cat",
    "dog",
    "bird",
    "runs",
    "sleeps",
    "eats",
    "near",
    "far",
    "old",
]


def texts(n: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_bm25_is_rank_for_rank_that_of_bm25s(seed):
    pool, queries, k = texts(40, seed), texts(6, seed + 100), 8
    index = bm25s.BM25()
    index.index(bm25s.tokenize(pool, stopwords=None, show_progress=False), show_progress=False)
    asked = bm25s.tokenize(queries, stopwords=None, show_progress=False)
    expected, scores = index.retrieve(asked, k=len(pool), show_progress=False)
    found = lexical(queries, pool, k)[:, ::-1]
    for row in range(len(queries)):
        score = dict(zip(expected[row].tolist(), scores[row].tolist(), strict=True))
        ranked = sorted(score, key=lambda place: (-score[place], place))
        assert found[row].tolist() == ranked[:k]


def test_bm25_without_a_common_word_keeps_the_order_of_the_pool():
    assert lexical(["zebra", ""], ["red cat", "blue dog", "old bird"], 2).tolist() == [[1, 0], [1, 0]]


def mmr(query, pool, k, relevance):
    def cosine(a, b):
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    chosen: list[int] = []
    while len(chosen) < k:
        value = {
            place: relevance * cosine(query, pool[place])
            - (1 - relevance) * max((cosine(pool[one], pool[place]) for one in chosen), default=0.0)
            for place in range(len(pool))
            if place not in chosen
        }
        chosen.append(max(value, key=lambda place: value[place]))
    return chosen


@pytest.mark.parametrize("relevance", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_mmr_is_the_plain_loop(seed, relevance):
    generator = np.random.default_rng(seed)
    pool, queries = generator.normal(size=(30, 5)), generator.normal(size=(4, 5))
    found = diverse(queries, pool, 7, relevance, np.zeros((4, 30), bool))[:, ::-1]
    assert found[:, 0].tolist() == [mmr(q, pool, 1, relevance)[0] for q in queries]
    assert found.tolist() == [mmr(query, pool, 7, relevance) for query in queries]


def test_mmr_of_relevance_one_is_nearest_and_own_rows_come_after_all_others():
    generator = np.random.default_rng(0)
    pool = generator.normal(size=(12, 4))
    queries = pool[:3]
    own = np.eye(3, 12, dtype=bool)
    assert (diverse(queries, pool, 5, 1.0, ~own & own) == nearest(queries, pool, 5)).all()
    everything = diverse(queries, pool, 12, 0.5, own)[:, ::-1]
    assert everything[:, -1].tolist() == [0, 1, 2]
    assert [sorted(row) for row in everything.tolist()] == [list(range(12))] * 3


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(DataError, match="the pool holds 1 examples, k=2 asked"):
        lexical(["a"], ["b"], 2)


def vote_k(pool, budget, reach):
    """Su et al. 2022, section 2.2, word by word: votes of rows that are not chosen, each lessened by who speaks for it."""
    cosine = [[float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in pool] for a in pool]
    near = [
        sorted((v for v in range(len(pool)) if v != u), key=lambda v, u=u: (-cosine[u][v], v))[:reach]
        for u in range(len(pool))
    ]
    chosen: list[int] = []
    while len(chosen) < budget:
        left = [u for u in range(len(pool)) if u not in chosen]
        votes = {u: sum(10.0 ** -len(set(near[v]) & set(chosen)) for v in left if u in near[v]) for u in left}
        chosen.append(max(left, key=lambda u: (round(votes[u], 9), -u)))
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reach", [2, 5])
def test_vote_k_is_the_plain_loop(seed, reach):
    pool = np.random.default_rng(seed).normal(size=(25, 3))
    assert voted(pool, 8, reach).tolist() == vote_k(pool, 8, reach)


def test_vote_k_spreads_over_groups():
    """Three tight groups of four: the first three choices are of three groups."""
    generator = np.random.default_rng(0)
    pool = np.repeat(np.eye(3), 4, axis=0) + 0.01 * generator.normal(size=(12, 3))
    assert {place // 4 for place in voted(pool, 3, 3).tolist()} == {0, 1, 2}
