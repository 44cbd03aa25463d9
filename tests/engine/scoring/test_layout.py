"""The parts of a layout together cover every (row, ancestor) pair exactly once."""

import random

import numpy as np
import pytest

from metashot.engine.scoring.layout import LayoutBuilder
from metashot.engine.scoring.request import Request
from metashot.engine.scoring.trie import build_trie

_LENGTHS = (1, 2, 5, 20, 70, 150)


def _random_trie(seed):
    """Sequences that branch off each other at random places, with short, middle and long segments."""
    rng = random.Random(seed)
    sequences = [()]
    for _ in range(40):
        base = rng.choice(sequences)
        base = base[: rng.randint(0, len(base))]
        tail = tuple(rng.randrange(3) for _ in range(rng.choice(_LENGTHS)))
        sequences.append((base + tail)[:500])
    return build_trie([Request((), (*sequence, 0)) for sequence in sequences])


def _coverage(layout, rows, path_length):
    """How often each selected query meets each key of the path [.., :path_length] and of the batch."""
    counts = np.zeros((layout.selected, path_length + rows), dtype=int)
    for block in layout.blocks:
        queries = np.arange(block.queries.start, block.queries.stop)
        keys = np.arange(block.keys.start, block.keys.stop)
        seen = np.ones((len(queries), len(keys)), dtype=int)
        if block.causal:
            seen = np.tril(seen)
        if block.mask is not None:
            seen = (block.mask == 0).numpy().astype(int)
        counts[np.ix_(queries, keys + (0 if block.cached else path_length))] += seen
    for clusters in (*layout.clusters, *layout.rectangles):
        filled = np.zeros(clusters.queries.numel(), dtype=bool)
        filled[clusters.filled.numpy()] = True
        filled = filled.reshape(clusters.queries.shape)
        for cluster, query in zip(*np.nonzero(filled), strict=True):
            keys = clusters.keys[cluster][clusters.mask[cluster, 0, query] == 0].numpy()
            np.add.at(counts[clusters.queries[cluster, query]], keys + path_length, 1)
    return counts


def _expected(trie, start, stop, selected, window):
    path_length = int(trie.depths[start])
    counts = np.zeros((len(selected), path_length + stop - start), dtype=int)
    for index, local in enumerate(selected):
        row, depth = int(local) + start, int(trie.depths[local + start])
        while row >= 0:
            near = window is None or depth - int(trie.depths[row]) < window
            counts[index, row - start + path_length if row >= start else int(trie.depths[row])] = near
            row = int(trie.parents[row])
    return counts


@pytest.mark.parametrize("window", [None, 9, 100])
@pytest.mark.parametrize("seed", range(12))
def test_every_row_meets_each_of_its_ancestors_once(seed, window):
    trie = _random_trie(seed)
    rng = np.random.default_rng(seed)
    start = int(rng.integers(0, trie.rows // 2)) if seed % 3 else 0
    stop = int(rng.integers(start + 1, trie.rows + 1)) if seed % 2 else trie.rows
    builder = LayoutBuilder.of(trie, start, stop)
    rows = stop - start
    for selected in (np.arange(rows), np.flatnonzero(rng.random(rows) < 0.3), np.array([rows - 1])):
        layout = builder.build(selected, window)
        coverage = _coverage(layout, rows, int(trie.depths[start]))
        np.testing.assert_array_equal(coverage, _expected(trie, start, stop, selected, window))


def test_demonstrations_shared_by_all_inputs_are_one_block():
    """600 shared tokens and 32 inputs of 30: one causal block over all rows, and clusters for the inputs."""
    demos = tuple(range(600))
    trie = build_trie([Request(demos, tuple(1000 * (i + 1) + p for p in range(31))) for i in range(32)])
    builder = LayoutBuilder.of(trie, 0, trie.rows)
    layout = builder.build(np.arange(trie.rows), None)
    [block] = layout.blocks
    assert (block.queries, block.keys, block.causal) == (slice(0, 600 + 32 * 30), slice(0, 600), True)
    [clusters] = layout.clusters
    assert clusters.queries.shape == (32, 30)


def test_demonstrations_in_the_cache_are_one_block_over_the_path():
    demos = tuple(range(600))
    trie = build_trie([Request(demos, tuple(1000 * (i + 1) + p for p in range(31))) for i in range(32)])
    builder = LayoutBuilder.of(trie, 600, trie.rows)
    [block] = builder.build(np.arange(32 * 30), None).blocks
    assert (block.queries, block.keys, block.cached, block.mask) == (slice(0, 960), slice(0, 600), True, None)
