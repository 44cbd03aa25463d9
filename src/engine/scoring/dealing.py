"""Rows of requests in pieces that are scored one by one, so that what all rows share is computed once a piece.

Rows are kept in the order of the trie, so that neighbours in it, which share the most, stay together. A piece is as
small as it may be while the shared prefix stays a small part of it: that is what a kill can cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import build_trie

LEAST_TOKENS = 8192
"""A piece computes at least so many tokens, unless processes wait for work."""
TIMES_SHARED = 16
"""Tokens of a piece's own, as a multiple of those that every piece computes again."""


def deal(rows: Sequence[Sequence[Request]], least: int = 1) -> list[list[int]]:
    """The rows in pieces of about equal cost; a function of its arguments alone.

    Args:
        rows: the requests of each row.
        least: pieces that are wanted whatever they cost; never more than rows.
    """
    first = [row[0].context + row[0].target for row in rows]
    order = sorted(range(len(rows)), key=lambda row: first[row])
    lengths = [sum(request.length for request in row) for row in rows]
    if least == 1 and sum(lengths) < 2 * LEAST_TOKENS:
        return [order]
    ends = [*rows[order[0]], *rows[order[-1]]]
    shared = _tokens(rows[order[0]]) + _tokens(rows[order[-1]]) - _tokens(ends) if len(rows) > 1 else 0
    own = [max(1, _tokens(rows[row]) - shared) for row in order]
    count = min(sum(own) // max(LEAST_TOKENS, TIMES_SHARED * shared), len(rows))
    count = max(count, min(least, len(rows)), 1)
    cost = np.cumsum(own)
    number = np.arange(1, count)
    cuts = np.searchsorted(cost, cost[-1] * number / count) + 1
    cuts = np.maximum.accumulate(cuts - number) + number  # no piece is empty, whatever its rows cost
    cuts = np.minimum(cuts, len(rows) - count + number)
    return [part.tolist() for part in np.split(np.array(order), cuts)]


def _tokens(requests: Sequence[Request]) -> int:
    """Tokens that these requests take when they are scored together."""
    return build_trie(requests).rows
