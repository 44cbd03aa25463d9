"""Episodes are a pure function of (seed, index), draw as stated, and batch without losing any."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import DataError
from metashot.data.rows.episodes import (
    EpisodeSampler,
    TaskSampling,
    bucketed_batches,
    check_disjoint,
    check_pools,
    split_over_ranks,
)

_sizes = st.lists(st.integers(6, 30), min_size=1, max_size=5).map(tuple)


@given(sizes=_sizes, k=st.integers(0, 5), seed=st.integers(0, 99), index=st.integers(0, 500),
       sampling=st.sampled_from(list(TaskSampling)))  # fmt: skip
def test_demonstrations_are_distinct_and_never_the_query(
    sizes: tuple[int, ...], k: int, seed: int, index: int, sampling: TaskSampling
) -> None:
    episode = EpisodeSampler(sizes, k, seed, sampling).episode(index)
    assert EpisodeSampler(sizes, k, seed, sampling).episode(index) == episode
    chosen = {*episode.demonstrations, episode.query}
    assert len(chosen) == k + 1
    assert chosen <= set(range(sizes[episode.task]))


@given(sizes=_sizes, seed=st.integers(0, 99), epoch=st.integers(0, 2))
def test_proportional_sampling_makes_every_example_the_query_once_an_epoch(
    sizes: tuple[int, ...], seed: int, epoch: int
) -> None:
    sampler = EpisodeSampler(sizes, 2, seed)
    length = sampler.epoch_length
    seen = [(e.task, e.query) for e in map(sampler.episode, range(epoch * length, (epoch + 1) * length))]
    assert sorted(seen) == [(task, query) for task, size in enumerate(sizes) for query in range(size)]


def test_epochs_have_different_orders_and_draws() -> None:
    sampler = EpisodeSampler((20,), 3, seed=0)
    first, second = ([sampler.episode(20 * epoch + i) for i in range(20)] for epoch in (0, 1))
    assert [e.query for e in first] != [e.query for e in second]


def test_uniform_sampling_draws_small_and_large_tasks_alike() -> None:
    sampler = EpisodeSampler((10, 1000), 2, 0, TaskSampling.UNIFORM)
    counts = Counter(sampler.episode(index).task for index in range(2000))
    # Standard deviation of a fair coin over 2000 throws: 22.
    assert abs(counts[0] - 1000) < 5 * 22


def test_every_other_example_is_equally_likely_to_be_a_demonstration() -> None:
    sampler = EpisodeSampler((5,), 2, seed=3)
    counts = Counter(d for i in range(5000) for d in sampler.episode(i).demonstrations)
    # 10,000 draws over 5 examples: 2000 each, standard deviation below 40.
    assert max(abs(count - 2000) for count in counts.values()) < 5 * 40


@given(
    lengths=st.lists(st.integers(1, 1024), min_size=12, max_size=12),
    seed=st.integers(0, 9),
    window=st.integers(0, 9),
)
def test_bucketed_batches_are_a_partition_into_neighbours_in_length(
    lengths: list[int], seed: int, window: int
) -> None:
    batches = bucketed_batches(lengths, 4, seed, window)
    assert sorted(place for batch in batches for place in batch) == list(range(12))
    ranges = sorted((min(lengths[p] for p in batch), max(lengths[p] for p in batch)) for batch in batches)
    assert all(low[1] <= high[0] for low, high in itertools.pairwise(ranges))
    assert batches == bucketed_batches(lengths, 4, seed, window)


@given(world=st.integers(1, 4), share=st.integers(1, 5), micro=st.integers(1, 6))
def test_ranks_partition_a_batch_into_equally_many_micro_batches(world: int, share: int, micro: int) -> None:
    places = list(range(world * share))
    parts = [split_over_ranks(places, world, rank, micro) for rank in range(world)]
    assert sorted(p for rank in parts for batch in rank for p in batch) == places
    assert len({len(rank) for rank in parts}) == 1
    assert max(len(batch) for rank in parts for batch in rank) <= micro


def test_a_small_pool_and_no_pools_are_named() -> None:
    check_pools({"a": 17}, 16)
    with pytest.raises(DataError, match="b: its training pool has 16 examples, k=16 needs at least 17"):
        check_pools({"a": 17, "b": 16}, 16)
    with pytest.raises(DataError, match="no training tasks"):
        check_pools({}, 0)


def test_a_task_on_both_sides_is_named_unless_the_published_setting_has_it() -> None:
    check_disjoint(["a", "sick"], ["b", "sick"], allowed=["sick"])
    with pytest.raises(DataError, match="sick is both a training and a target task"):
        check_disjoint(["a", "sick"], ["b", "sick"])
