"""Demonstrations found for each test row: by words (BM25), and by nearness and difference (MMR).

Both give places with the best last, next to the test input, as `selection.nearest` does. Sources: Robertson and
Zaragoza 2009 (BM25; the variant of Lucene, k1 = 1.5, b = 0.75, as bm25s has it), Carbonell and Goldstein 1998 (MMR), Su et al. 2022 (vote-k).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metashot.base.errors import DataError
from metashot.base.extras import import_extra
from metashot.data.tasks.selection import Floats, unit

_ROWS = 1024
"""Rows of a block of similarities."""
_DECIMALS = 9
"""Of sums of votes, which come out otherwise in another order."""


def lexical(queries: Sequence[str], pool: Sequence[str], k: int) -> NDArray[np.int64]:
    """Places of the `k` pool texts of the highest BM25 score, the best last; equal scores go to the lower place.

    Texts are cut into words in lower case; no stop words, no stemming. Without a word in common every score is 0.

    Returns:
        [n, k] places.

    Raises:
        ConfigError: the package bm25s is not installed.
        DataError: fewer than `k` pool texts.
    """
    _check(k, len(pool))
    bm25s = import_extra("bm25s", "selection")
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    words = bm25s.tokenize(list(pool), stopwords=None, return_ids=False, show_progress=False)
    asked = bm25s.tokenize(list(queries), stopwords=None, return_ids=False, show_progress=False)
    known = {word for row in words for word in row}
    scores = np.zeros((len(queries), len(pool)), np.float32)
    if known:
        index = bm25s.BM25()
        index.index(words, show_progress=False)
        for row, query in enumerate(asked):
            if shared := [word for word in query if word in known]:
                scores[row] = index.get_scores(shared)
    best_first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return best_first[:, ::-1].astype(np.int64)


def diverse(
    queries: Floats, pool: Floats, k: int, relevance: float, own: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Places of `k` pool vectors by maximal marginal relevance, the first chosen last.

    Chosen next is the place of the highest relevance cos(query, d) - (1 - relevance) max over chosen c of cos(c, d);
    equal values go to the lower place. A row's own places are chosen after all others, so that they push none away.

    Args:
        queries: [n, d] embeddings of the test inputs.
        pool: [m, d] embeddings of the pool.
        k: how many.
        relevance: 0 to 1.
        own: [n, m], which pool rows are the test row itself.

    Returns:
        [n, k] places.

    Raises:
        DataError: fewer than `k` pool vectors.
    """
    _check(k, len(pool))
    near, between = unit(queries) @ unit(pool).T, unit(pool)
    rows = np.arange(len(queries))
    gain = np.where(own, -np.inf, relevance * near)
    closest = np.full(near.shape, -np.inf)
    taken = np.zeros(near.shape, bool)
    chosen = np.zeros((len(queries), k), np.int64)
    for step in range(k):
        value = gain - (1 - relevance) * closest if step else gain
        value = np.where(taken, -np.inf, value)
        best = np.argmax(value, axis=1)
        spent = np.isneginf(value[rows, best])
        best = np.where(spent, np.argmin(taken, axis=1), best)
        chosen[:, k - 1 - step] = best
        taken[rows, best] = True
        closest = np.maximum(closest, between[best] @ between.T)
    return chosen


def voted(pool: Floats, budget: int, reach: int = 150, base: float = 10.0) -> NDArray[np.int64]:
    """Places of `budget` pool vectors worth annotating, in the order of choice: vote-k without a model (Su et al. 2022).

    Each row votes for its `reach` nearest other rows by cosine. A vote counts base^-c, c how many of the voter's own
    nearest rows are chosen already; chosen next is the row of the highest sum over voters that are not chosen; of
    sums that are equal to nine decimals the lower place.

    Args:
        pool: [m, d] embeddings.
        budget: how many, at most m.
        reach: nearest rows of each.
        base: how much a voter that is represented already loses.

    Raises:
        DataError: fewer than `budget` pool vectors.
    """
    _check(budget, len(pool))
    reach = min(reach, len(pool) - 1)
    vectors = unit(pool)
    near = np.empty((len(pool), reach), np.int64)
    for start in range(0, len(pool), _ROWS):
        similar = vectors[start : start + _ROWS] @ vectors.T
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = -np.inf
        near[start : start + _ROWS] = np.argsort(-similar, axis=1, kind="stable")[:, :reach]
    weight = np.ones(len(pool))
    left = np.ones(len(pool), bool)
    chosen = np.empty(budget, np.int64)
    for step in range(budget):
        votes = np.zeros(len(pool))
        np.add.at(votes, near, np.where(left, weight, 0.0)[:, None])
        best = int(np.argmax(np.where(left, votes.round(_DECIMALS), -1.0)))
        chosen[step], left[best] = best, False
        weight[(near == best).any(axis=1)] /= base
    return chosen


def _check(k: int, size: int) -> None:
    if k > size:
        raise DataError("k", f"the pool holds {size} examples, k={k} asked", f"set k={size} or less")
