"""Which examples form each training sequence: a pure function of (seed, position), with nothing materialized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np

from metashot.base.errors import DataError


class TaskSampling(StrEnum):
    """How often a task is drawn."""

    PROPORTIONAL = "proportional"
    """Released code: every pool example is the query once per epoch, so tasks weigh as their pools."""
    UNIFORM = "uniform"
    """Paper: a task uniformly, then k+1 of its examples."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One training sequence: k demonstrations and a query of one task.

    Attributes:
        index: its place in the run's endless sequence.
        task: number of the task.
        demonstrations: example numbers within the task's pool, in prompt order.
        query: example number of the query.
    """

    index: int
    task: int
    demonstrations: tuple[int, ...]
    query: int


@dataclass(frozen=True, slots=True)
class EpisodeSampler:
    """Draws episode number `index`; two samplers with equal fields always agree.

    Attributes:
        pool_sizes: examples of each task.
        k: demonstrations.
        seed: of the data order.
        sampling: how often a task is drawn.
        labels: per task the label number of each example, to draw every label of a task equally often; an empty
            tuple leaves the task's examples as they come. Empty for all tasks as they come.
    """

    pool_sizes: tuple[int, ...]
    k: int
    seed: int
    sampling: TaskSampling = TaskSampling.PROPORTIONAL
    labels: tuple[tuple[int, ...], ...] = ()

    @property
    def epoch_length(self) -> int:
        """Episodes after which every pool example was the query once (proportional sampling)."""
        return sum(self.pool_sizes)

    def episode(self, index: int) -> Episode:
        """Episode `index`, 0-based and without end."""
        rng = np.random.default_rng([self.seed, 1, index])
        if self.sampling is TaskSampling.UNIFORM:
            task = int(rng.integers(len(self.pool_sizes)))
            query = int(rng.integers(self.pool_sizes[task]))
        else:
            epoch, place = divmod(index, self.epoch_length)
            chosen = int(_epoch_order(self.seed, epoch, self.epoch_length)[place])
            ends = _pool_ends(self.pool_sizes)
            task = int(np.searchsorted(ends, chosen, side="right"))
            query = chosen - int(ends[task] - self.pool_sizes[task])
        if self.labels and self.labels[task]:
            *shown, query = _balanced(self.labels[task], self.k + 1, rng)
            return Episode(index, task, tuple(shown), query)
        # Drawn from the pool without the query: numbers from the query on move up by one.
        drawn = rng.choice(self.pool_sizes[task] - 1, size=self.k, replace=False) if self.k else ()
        demonstrations = tuple(int(number) + (int(number) >= query) for number in drawn)
        return Episode(index, task, demonstrations, query)


def _balanced(labels: tuple[int, ...], count: int, rng: np.random.Generator) -> list[int]:
    """`count` different examples; each is of a label drawn uniformly, whatever the labels before it.

    Equal counts within a sequence would give the answer away: the label that the demonstrations lack would be right.
    """
    groups = [rng.permutation(group).tolist() for group in _by_label(labels)]
    chosen: list[int] = []
    while len(chosen) < count:
        filled = [group for group in groups if group]
        chosen.append(filled[int(rng.integers(len(filled)))].pop())
    return chosen


@lru_cache(maxsize=1024)
def _by_label(labels: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    numbers = np.asarray(labels)
    return tuple(np.flatnonzero(numbers == label) for label in np.unique(numbers))


@lru_cache(maxsize=2)
def _pool_ends(pool_sizes: tuple[int, ...]) -> np.ndarray:
    return np.cumsum(pool_sizes)


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, epoch]).permutation(length)


def check_pools(pool_sizes: dict[str, int], k: int) -> None:
    """Raise DataError when a task cannot give k demonstrations and a query."""
    if not pool_sizes:
        raise DataError("setting.train", "no training tasks", "choose a setting, or data.tasks, with some")
    for task, size in pool_sizes.items():
        if size < k + 1:
            raise DataError(
                task,
                f"its training pool has {size} examples, k={k} needs at least {k + 1}",
                f"set k={max(0, size - 1)} or less, prepare more examples, or leave the task out",
            )


def check_disjoint(train: Sequence[str], targets: Sequence[str], allowed: Sequence[str] = ()) -> None:
    """Raise DataError, naming the task, when one is both trained on and a target.

    Args:
        train: meta-training tasks.
        targets: target tasks.
        allowed: overlaps of a published setting (`data.settings.published_overlap`).
    """
    both = sorted(set(train) & set(targets) - set(allowed))
    if both:
        raise DataError(
            "setting", f"{', '.join(both)} is both a training and a target task", "remove it from one of them"
        )


def bucketed_batches(lengths: Sequence[int], batch_size: int, seed: int, window: int) -> list[list[int]]:
    """Cut one window of episodes into batches of similar length, in an order that hides the lengths.

    Args:
        lengths: tokens of each episode of the window.
        batch_size: episodes of a batch; divides the window.
        seed: of the data order.
        window: number of the window.

    Returns:
        Per batch the places of its episodes in the window, longest first.
    """
    rng = np.random.default_rng([seed, 2, window])
    order = sorted(rng.permutation(len(lengths)).tolist(), key=lambda place: -lengths[place])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def split_over_ranks(places: Sequence[int], world_size: int, rank: int, micro_batch: int) -> list[list[int]]:
    """This rank's micro-batches of one batch whose places are sorted by length.

    Neighbours in length go to different ranks, so that all ranks have like work, and every rank has as many
    micro-batches as the others (FSDP gathers weights in step).
    """
    mine = list(places[rank::world_size])
    return [mine[start : start + micro_batch] for start in range(0, len(mine), micro_batch)]
