"""A token trie over all requests: every prefix that several requests share is one path of rows.

The rows of the trie, in depth-first order, are the flat rows that the engine computes. Row `r` holds one
token; its ancestors are the tokens before it, so its depth is its position, and its descendants are the rows
`r + 1 .. ends[r] - 1`. The last token of a sequence predicts nothing and has no row.

Example. Two test inputs (Q, R) after one demonstration (D E), with the options `a` and `b c` each, are four
requests of 4 or 5 tokens; target tokens are behind the bar:

    D E Q | a        row    token  depth  parent  ends   predicts
    D E Q | b c       0     D        0     -1      6
    D E R | a         1     └ E      1      0      6
    D E R | b c       2       ├ Q    2      1      4     a (request 0), b (request 1)
                      3       │ └ b  3      2      4     c (request 1)
                      4       └ R    2      1      6     a (request 2), b (request 3)
                      5         └ b  3      4      6     c (request 3)

Six rows are computed instead of 14. Row 2 predicts for two requests, so it stands in two *pairs*:
`pair_rows = [2, 2, 3, 4, 4, 5]`, `pair_tokens = [a, b, c, a, b, c]`, `offsets = [0, 1, 3, 4, 6]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metashot.engine.scoring.request import Request

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenTrie:
    """The shared prefixes of a list of requests.

    Attributes:
        tokens: [rows] token of each row.
        depths: [rows] position of each row in its sequences.
        parents: [rows] row of the token before, -1 at position 0.
        ends: [rows] one past the last descendant.
        pair_rows: [pairs] the row that predicts each scored target token, request after request.
        pair_tokens: [pairs] that target token.
        offsets: [requests + 1] the pairs of request i are `offsets[i] .. offsets[i + 1] - 1`.
    """

    tokens: Ints
    depths: Ints
    parents: Ints
    ends: Ints
    pair_rows: Ints
    pair_tokens: Ints
    offsets: Ints

    @property
    def rows(self) -> int:
        """Number of distinct (prefix, token) pairs, the tokens to compute."""
        return len(self.tokens)


def build_trie(requests: Sequence[Request], known: Ints | None = None) -> TokenTrie:
    """The trie of all requests that have a scored token; what they share with the tokens `known` are its first rows.

    Sorted sequences that share a prefix are neighbours, so each one adds the rows after its longest common
    prefix with the one before.
    """
    offsets = np.zeros(len(requests) + 1, dtype=np.int64)
    np.cumsum([request.scored for request in requests], out=offsets[1:])
    sequences = [read_tokens(request) for request in requests]
    # Big-endian bytes compare like the tokens do, at memcmp speed.
    keys = [sequence.astype(">u4").tobytes() for sequence in sequences]
    shared_with = [0 if known is None else common_prefix(known, sequence) for sequence in sequences]
    scored = (i for i, request in enumerate(requests) if request.scored)
    order = sorted(scored, key=lambda i: (-shared_with[i], keys[i]))

    path = np.zeros(max((len(s) for s in sequences), default=0), dtype=np.int64)
    pair_rows, pair_tokens = np.zeros((2, int(offsets[-1])), dtype=np.int64)
    runs: list[tuple[Ints, int]] = []
    starts: list[int] = []
    rows, previous = 0, np.zeros(0, dtype=np.int64)
    for index in order:
        sequence, request = sequences[index], requests[index]
        shared = common_prefix(previous, sequence)
        if shared < len(sequence):
            path[shared : len(sequence)] = np.arange(rows, rows + len(sequence) - shared)
            runs.append((sequence, shared))
            starts.append(int(path[shared - 1]) if shared else -1)
            rows += len(sequence) - shared
        pairs = slice(offsets[index], offsets[index + 1])
        pair_rows[pairs] = path[len(sequence) - request.scored : len(sequence)]
        pair_tokens[pairs] = request.target[len(request.target) - request.scored :]
        previous = sequence
    return _assemble(runs, starts, rows, pair_rows, pair_tokens, offsets)


def read_tokens(request: Request) -> Ints:
    """Context and target without the last token, which predicts nothing."""
    return np.array((request.context + request.target)[:-1], dtype=np.int64)


def common_prefix(one: Ints, other: Ints) -> int:
    """Number of leading tokens that are the same."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def _assemble(
    runs: list[tuple[Ints, int]],
    starts: list[int],
    rows: int,
    pair_rows: Ints,
    pair_tokens: Ints,
    offsets: Ints,
) -> TokenTrie:
    """Lay runs (sequence, shared prefix length) out as rows; `starts` are the parents of their first rows."""
    tokens = np.concatenate([s[shared:] for s, shared in runs] or [np.zeros(0, dtype=np.int64)])
    depths = np.concatenate(
        [np.arange(shared, len(s)) for s, shared in runs] or [np.zeros(0, dtype=np.int64)]
    )
    parents = np.arange(-1, rows - 1)
    ends = np.zeros(rows, dtype=np.int64)
    first_later = np.full(max((len(s) for s, _ in runs), default=0), rows, dtype=np.int64)
    begin = rows
    for (sequence, shared), parent in zip(reversed(runs), reversed(starts), strict=True):
        stop, begin = begin, begin - (len(sequence) - shared)
        parents[begin] = parent
        # A row at depth p ends where the first later row at depth <= p begins.
        ends[begin:stop] = first_later[shared : len(sequence)]
        first_later[shared:] = begin
    return TokenTrie(tokens, depths, parents, ends, pair_rows, pair_tokens, offsets)
