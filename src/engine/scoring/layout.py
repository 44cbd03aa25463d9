"""Which rows of a batch attend to which: a few dense blocks over contiguous rows, and small masked clusters.

A batch is a range of trie rows in depth-first order. The ancestors of its first row that lie before the batch
are the *path*, kept in a cache; every row of the batch attends to a prefix of that path, and to its ancestors
inside the batch. Because the descendants of a segment (a chain of rows without a branch) follow it directly,
"all descendants attend to the whole segment" is one dense block over contiguous rows, and a causal block
whose queries run on past its keys does segment and descendants at once. Small subtrees become clusters.

Example: two demonstrations (rows 0-199) and two queries of three rows each.

    0 ── 1 ── ... ── 199 ─┬─ 200 ─ 201 ─ 202
                          └─ 203 ─ 204 ─ 205

* Block 1: queries 0-205 over keys 0-199, causal. Row 5 sees keys 0-5; rows 200-205 come after all 200 keys and see
  every one of them. `own=200`: the first 200 queries meet their own row here and start from this part's result,
  the last six merge it into what they have.
* Clusters: rows 200-202 over themselves, and 203-205 over themselves, each under a 3 x 3 triangle of a mask. They are
  stacked into one product, padded to a common shape.

If memory ends the batch after row 202, the next one starts at row 203 with the path 0-199 in the cache: one block with
`cached=True` replaces block 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from metashot.engine.scoring.trie import Ints, TokenTrie

MASKED = -1e30
"""Added to a score that must not count. Finite, so that a fully masked row has weight 0 instead of NaN."""

CLUSTER_ROWS = 128
"""Subtrees of at most this many rows become one masked cluster."""

_CHAIN_ROWS = 64
"""A chain this long without a branch is a causal block of its own instead of a cluster."""

_GATHERED_ROWS = 16
"""Shared segments shorter than this are gathered into the clusters below them instead of being a block."""

_GATHERED_TOTAL = 64
"""Most rows of short ancestors that a cluster gathers."""


@dataclass(frozen=True, slots=True)
class Block:
    """Contiguous queries over contiguous keys.

    Attributes:
        queries: range in the batch's selected rows.
        keys: range in the batch's rows, or in the path if `cached`.
        cached: whether the keys are those of the path.
        causal: query i sees keys 0..i (all of them from the last key on).
        own: that many leading queries have their own row among the keys.
        mask: None, or [queries, keys] to add to the scores.
    """

    queries: slice
    keys: slice
    cached: bool = False
    causal: bool = False
    own: int = 0
    mask: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups of rows that attend to a gathered set of rows, padded to a common shape.

    Attributes:
        queries: [clusters, most queries] indices into the selected rows.
        keys: [clusters, most keys] indices into the batch's rows.
        mask: [clusters, 1, most queries, most keys] to add to the scores.
        filled: [rows] positions in the flattened `queries` that are no padding.
        rows: [rows] the selected rows at those positions.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor
    filled: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """All attention of one batch, in an order in which every row's own key comes first.

    Attributes:
        selected: number of query rows.
        clusters: small subtrees, with their short shared ancestors.
        blocks: dense parts.
        rectangles: rows of heavy segments over their short shared ancestors.
    """

    selected: int
    clusters: tuple[Clusters, ...]
    blocks: tuple[Block, ...]
    rectangles: tuple[Clusters, ...]


@dataclass(slots=True)
class _Parts:
    """Parts of a layout as found: row ranges and gathered ancestors of clusters, blocks deepest first."""

    clusters: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    rectangles: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LayoutBuilder:
    """The tree structure of one batch, from which layouts for any window and row selection are built.

    Attributes:
        depths: [rows] position of each row of the batch.
        parents: [rows] parent inside the batch, negative where it lies on the path.
        ends: [rows] one past the last descendant inside the batch.
        device: where index tensors and masks go.
        dtype: of the masks.
    """

    depths: Ints
    parents: Ints
    ends: Ints
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, trie: TokenTrie, start: int, stop: int, *, lone_row: bool = False) -> LayoutBuilder:
        """The batch of trie rows `start .. stop - 1`; `lone_row` adds one that only attends to itself."""
        depths, parents = trie.depths[start:stop], trie.parents[start:stop] - start
        ends = np.minimum(trie.ends[start:stop], stop) - start
        if lone_row:
            depths, parents = np.append(depths, 0), np.append(parents, -1)
            ends = np.append(ends, len(ends) + 1)
        return cls(depths, parents, ends, torch.device("cpu"), torch.float32)

    def on(self, device: torch.device, dtype: torch.dtype) -> LayoutBuilder:
        """The same for queries of another device and dtype."""
        # float16 cannot hold the masking value; float32 masks suit the kernels that take float16.
        return replace(self, device=device, dtype=torch.float32 if dtype == torch.float16 else dtype)

    def build(self, selected: Ints, window: int | None) -> BatchLayout:
        """The layout for the query rows `selected` (sorted), with a sliding window if there is one."""
        parts = self._parts()
        clusters = self._clusters(parts.clusters, selected, window, own=True)
        rectangles = self._clusters(parts.rectangles, selected, window, own=False)
        blocks = [
            block for part in reversed(parts.segments) for block in self._segment(*part, selected, window)
        ]
        blocks += self._path_blocks(selected, window)
        return BatchLayout(len(selected), tuple(clusters), tuple(blocks), tuple(rectangles))

    def _parts(self) -> _Parts:
        """Cut the batch's forest into clusters and heavy segments."""
        parts = _Parts()
        stops = self._segment_stops()
        todo: list[tuple[int, tuple[int, ...]]] = [(root, ()) for root in reversed(self._roots())]
        while todo:
            start, gathered = todo.pop()
            # Rows start .. stop - 1 are a chain, each the only child of the one before; end closes the subtree.
            stop, end = int(stops[start]), int(self.ends[start])
            is_leaf = stop == end
            if end - start <= CLUSTER_ROWS and not (is_leaf and not gathered and end - start >= _CHAIN_ROWS):
                parts.clusters.append((start, end, gathered))  # the whole subtree at once
                continue
            short = stop - start < _GATHERED_ROWS and len(gathered) + stop - start <= _GATHERED_TOTAL
            if short and not is_leaf:
                # Few keys for many descendants: the subtrees below take the chain's keys with them.
                parts.clusters.append((start, stop, gathered))
                gathered = (*gathered, *range(start, stop))
            else:
                parts.segments.append((start, stop, end))
                if gathered:
                    parts.rectangles.append((start, stop, gathered))
            todo += [(child, gathered) for child in reversed(list(self._children(stop, end)))]
        return parts

    def _segment_stops(self) -> Ints:
        """[rows] one past the last row of the chain that starts at each row."""
        rows = len(self.depths)
        # A chain begins where a row is not the child of the row before it, and ends behind a row with several children,
        # which is the parent of such a beginning.
        starts = np.flatnonzero(self.parents != np.arange(-1, rows - 1))
        branches = self.parents[starts[self.parents[starts] >= 0]] + 1
        boundaries = np.unique(np.concatenate([starts, branches, [rows]]))
        return boundaries[np.searchsorted(boundaries, np.arange(rows), side="right")]

    def _roots(self) -> list[int]:
        return list(self._children(0, len(self.depths)))

    def _children(self, start: int, end: int) -> Iterator[int]:
        """The subtrees that follow each other in rows `start .. end - 1`."""
        while start < end:
            yield start
            start = int(self.ends[start])

    def _segment(self, start: int, stop: int, end: int, selected: Ints, window: int | None) -> list[Block]:
        """Rows `start .. stop - 1` as keys of themselves and of all descendants, up to row `end - 1`."""
        # Places among the selected queries: first .. middle - 1 lie on the segment, middle .. last - 1 below it.
        first, middle, last = (int(i) for i in np.searchsorted(selected, [start, stop, end]))
        own = middle - first
        if first == last:
            return []
        if own == 0:
            return [self._block(selected, middle, last, start, stop, window)]
        begin = int(selected[first])
        # The segment's rows from `begin` on are all queries: a square causal block and a full one of earlier keys.
        if selected[middle - 1] == stop - 1 and stop - begin == own:
            blocks = [self._block(selected, first, last, begin, stop, window, own=own)]
            if begin > start:
                blocks.append(self._block(selected, first, last, start, begin, window))
            return blocks
        # Queries with gaps between them: a mask for those on the segment, a full block for those below it.
        mask = self._mask(selected[first:middle], np.arange(start, stop), window)
        blocks = [Block(slice(first, middle), slice(start, stop), own=own, mask=mask)]
        if middle < last:
            blocks.append(self._block(selected, middle, last, start, stop, window))
        return blocks

    def _block(
        self, selected: Ints, first: int, last: int, start: int, stop: int, window: int | None, own: int = 0
    ) -> Block:
        queries, keys = slice(first, last), slice(start, stop)
        rows = selected[queries]
        if window is not None and self.depths[rows].max() - self.depths[start] >= window:
            return Block(queries, keys, own=own, mask=self._mask(rows, np.arange(start, stop), window))
        return Block(queries, keys, causal=own > 0, own=own)

    def _path_blocks(self, selected: Ints, window: int | None) -> Iterator[Block]:
        """Rows over the part of the path that they descend from; that part shrinks from root to root."""
        # A root at depth p descends from the first p tokens of the path; neighbours with equal p share a block.
        roots = np.array(self._roots())
        prefixes = self.depths[roots]
        changes = np.flatnonzero(np.diff(prefixes, prepend=-1))
        bounds = np.searchsorted(selected, [*roots[changes], len(self.depths)])
        for index, change in enumerate(changes):
            first, last, prefix = int(bounds[index]), int(bounds[index + 1]), int(prefixes[change])
            if first == last or prefix == 0:
                continue
            positions = self.depths[selected[first:last]]
            # Keys before the window of the first query are seen by none; a mask only if the last sees fewer.
            start = 0 if window is None else max(0, int(positions.min()) - window + 1)
            if start >= prefix:
                continue
            mask = None
            if window is not None and int(positions.max()) - start >= window:
                near = positions[:, None] - np.arange(start, prefix)[None] < window
                mask = self._additive(near)
            yield Block(slice(first, last), slice(start, prefix), cached=True, mask=mask)

    def _clusters(
        self, parts: list[tuple[int, int, tuple[int, ...]]], selected: Ints, window: int | None, *, own: bool
    ) -> Iterator[Clusters]:
        """Clusters of similar size, padded to multiples of eight and stacked."""
        buckets: dict[tuple[int, int], list[tuple[Ints, Ints]]] = {}
        for start, stop, gathered in parts:
            first, last = np.searchsorted(selected, [start, stop])
            if first == last:
                continue
            own_keys = range(start, stop) if own else ()
            keys = np.array([*gathered, *own_keys], dtype=np.int64)
            queries = np.arange(first, last)
            # -(-n // 8) is n / 8, rounded up.
            buckets.setdefault((-(-len(queries) // 8), -(-len(keys) // 8)), []).append((queries, keys))
        for members in buckets.values():
            yield self._stack(members, selected, window)

    def _stack(self, members: list[tuple[Ints, Ints]], selected: Ints, window: int | None) -> Clusters:
        most_queries = max(len(queries) for queries, _ in members)
        most_keys = max(len(keys) for _, keys in members)
        # A padded query repeats the first one; a padded key lies behind every query and is masked.
        queries = np.stack([_pad(q, most_queries, int(q[0])) for q, _ in members])
        padded_keys = np.stack([_pad(k, most_keys, len(self.depths)) for _, k in members])
        filled = np.flatnonzero(np.stack([np.arange(most_queries) < len(q) for q, _ in members]).ravel())
        keys = np.minimum(padded_keys, len(self.depths) - 1)
        mask = self._mask(selected[queries], keys, window, padded_keys == len(self.depths))
        return Clusters(
            queries=self._index(queries),
            keys=self._index(keys),
            mask=mask[:, None],
            filled=self._index(filled),
            rows=self._index(queries.ravel()[filled]),
        )

    def _mask(self, rows: Ints, keys: Ints, window: int | None, padding: np.ndarray | None = None) -> Tensor:
        """[..., rows, keys]: 0 where the key is an ancestor of the row (or itself) and near enough."""
        queries, targets = rows[..., :, None], keys[..., None, :]
        # Rows are in depth-first order, so the descendants of a key are the rows from it to its end.
        allowed = (targets <= queries) & (self.ends[targets] > queries)
        if window is not None:
            allowed &= self.depths[queries] - self.depths[targets] < window
        if padding is not None:
            allowed &= ~padding[..., None, :]
        return self._additive(allowed)

    def _additive(self, allowed: np.ndarray) -> Tensor:
        mask = torch.zeros(allowed.shape, dtype=self.dtype)
        return mask.masked_fill_(torch.from_numpy(~allowed), MASKED).to(self.device)

    def _index(self, values: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def _pad(values: Ints, length: int, fill: int) -> Ints:
    return np.concatenate([values, np.full(length - len(values), fill, dtype=np.int64)])
