"""Evaluation cells of training tasks, drawn from their pools: for choices that must not look at target tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metashot.base.errors import DataError
from metashot.data.recipes import task_type
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.source import TaskSource


@dataclass(frozen=True, slots=True)
class PoolCells:
    """A source whose cells come from the training pools of another; a cell is a pure function of (seed, k).

    Attributes:
        source: has the pools.
        test_size: test examples of a cell; the same for every seed of demonstrations.
        pool_size: most examples of a pool.
    """

    source: TaskSource
    test_size: int
    pool_size: int = 16384

    @property
    def name(self) -> str:
        """Name of the data group."""
        return self.source.name

    def tasks(self) -> list[str]:
        """Names of the tasks that are here."""
        return self.source.tasks()

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """The first `test_size` examples of a fixed shuffle as the test set, k others as the demonstrations of `seed`.

        Raises:
            DataError: fewer than `test_size` + k examples.
        """
        del split
        pool = self.source.pool(task, size=self.pool_size)
        if len(pool) < self.test_size + k:
            raise DataError(
                task,
                f"its training pool has {len(pool)} examples, {self.test_size} test examples and k={k} asked",
                "ask for fewer test examples, or prepare more",
            )
        shuffled = np.random.default_rng([7]).permutation(len(pool))
        test, rest = shuffled[: self.test_size], shuffled[self.test_size :]
        shown = np.random.default_rng([seed, 8]).choice(rest, size=k, replace=False)
        demonstrations, queries = ([pool[int(place)] for place in places] for places in (shown, test))
        kind = task_type(task) or _judged(pool)
        return TaskData(task, seed, kind, tuple(demonstrations), tuple(queries))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The other source's pool."""
        return self.source.pool(task, size=size, seed=seed)


def _judged(pool: list[Example]) -> TaskType:
    """Classification where all examples share their options."""
    options = {frozenset(example.options) for example in pool}
    if frozenset[str]() in options:
        return TaskType.FREE_FORM
    return TaskType.CLASSIFICATION if len(options) == 1 else TaskType.MULTI_CHOICE
