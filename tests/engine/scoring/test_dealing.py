"""Rows in pieces: every row once, neighbours of the trie together, the shared prefix a small part of each."""

from __future__ import annotations

import random

import pytest

from metashot.engine.scoring import dealing
from metashot.engine.scoring.dealing import TIMES_SHARED, deal
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import build_trie


def rows_of(n: int, prefix: int, length: int, seed: int = 0) -> list[list[Request]]:
    """Rows with two options behind a prefix that all of them share; `length` is that of an input."""
    draw = random.Random(seed)
    shared = tuple(draw.randrange(1000) for _ in range(prefix))
    inputs = [tuple(draw.randrange(1000) for _ in range(draw.randint(1, 2 * length))) for _ in range(n)]
    return [[Request((*shared, *text), (option, 5)) for option in (1, 2)] for text in inputs]


def tokens(requests: list[Request]) -> int:
    return build_trie(requests).rows


def cost(rows: list[list[Request]], piece: list[int]) -> int:
    return tokens([request for row in piece for request in rows[row]])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [1, 2, 3, 8])
@pytest.mark.parametrize("prefix", [0, 30, 300])
def test_every_row_once_and_the_prefix_a_small_part(monkeypatch, seed, least, prefix):
    monkeypatch.setattr(dealing, "LEAST_TOKENS", 200)
    rows = rows_of(60, prefix, 20, seed)
    pieces = deal(rows, least)
    assert sorted(row for piece in pieces for row in piece) == list(range(60))
    assert pieces == deal(rows, least)
    assert len(pieces) >= least
    whole, parts = cost(rows, list(range(60))), [cost(rows, piece) for piece in pieces]
    # What is computed again is the prefix, once a piece more, and the first tokens that inputs happen to share.
    assert prefix * (len(pieces) - 1) <= sum(parts) - whole <= (prefix + 4) * (len(pieces) - 1)
    if least == 1:
        assert len(pieces) == 1 or prefix * TIMES_SHARED <= max(parts)
    longest = max(cost(rows, [row]) for row in range(60))
    assert max(parts) - min(parts) <= 2 * longest


def test_a_small_cell_is_one_piece_and_processes_that_wait_get_one_each():
    rows = rows_of(20, 300, 20)
    assert [len(piece) for piece in deal(rows)] == [20]
    assert len(deal(rows, 4)) == 4
    assert len(deal(rows[:3], 4)) == 3
    assert deal(rows[:1], 4) == [[0]]


def test_inputs_that_begin_alike_stay_together(monkeypatch):
    """Two passages with questions, in turn: a passage is computed once."""
    monkeypatch.setattr(dealing, "LEAST_TOKENS", 50)
    rows = [[Request(((7, 9)[row % 2],) * 100 + (row,) * 30, (1,))] for row in range(10)]
    pieces = deal(rows, 2)
    assert {frozenset(row % 2 for row in piece) for piece in pieces} == {frozenset({0}), frozenset({1})}
