"""Procedural few-shot tasks of any number, answered by arbitrary label words (`data=synthetic`).

A task's labels are drawn at random, so a rule can only be told from its demonstrations. Everything is a pure
function of (seed, task name, split).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from metashot.base.components.values import hold_to_choices
from metashot.base.errors import DataError
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.source import unknown_task
from metashot.data.tasks.synthetic_rules import (
    DIFFICULTIES,
    LABELS,
    TARGET_FAMILIES,
    TRAIN_FAMILIES,
    DifficultyName,
)


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """A data group without files.

    Attributes:
        train_tasks: number of meta-training tasks, spread evenly over the training families.
        target_tasks: number of target tasks, spread evenly over the target families.
        seed: of all rules and examples.
        difficulty: how hard the rules are.
        test_size: test examples per target task.
        train_families: families of the meta-training tasks; empty for all (`TRAIN_FAMILIES`).
        target_families: families of the target tasks; empty for all (`TARGET_FAMILIES`).
        name: of the data group.
    """

    train_tasks: int = 120
    target_tasks: int = 12
    seed: int = 0
    difficulty: DifficultyName = "easy"
    test_size: int = 50
    train_families: tuple[str, ...] = ()
    target_families: tuple[str, ...] = ()
    name: str = "synthetic"

    def __post_init__(self) -> None:
        """Refuse unknown families and empty task lists.

        Raises:
            DataError: naming the value and its rule.
        """
        hold_to_choices(self, "data")
        for key, known in (("train_families", TRAIN_FAMILIES), ("target_families", TARGET_FAMILIES)):
            for family in getattr(self, key):
                if family not in known:
                    raise DataError(f"data.{key}", f"unknown family {family!r}", f"one of {', '.join(known)}")
        for key in ("train_tasks", "target_tasks", "test_size"):
            if getattr(self, key) < 1:
                raise DataError(f"data.{key}", f"{getattr(self, key)} is not positive", "give at least 1")

    def training_tasks(self) -> list[str]:
        """Names of the meta-training tasks, for example `synthetic-same-0003`."""
        return _names(self.train_families or TRAIN_FAMILIES, self.train_tasks)

    def testing_tasks(self) -> list[str]:
        """Names of the target tasks."""
        return _names(self.target_families or TARGET_FAMILIES, self.target_tasks)

    def tasks(self) -> list[str]:
        """All task names."""
        return [*self.training_tasks(), *self.testing_tasks()]

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One cell: the first k of the demonstrations of `seed`, and `test_size` examples of `split`."""
        demonstrations = self._examples(task, f"demonstrations-{seed}", k)
        test = self._examples(task, split, self.test_size)
        return TaskData(task, seed, TaskType.CLASSIFICATION, tuple(demonstrations), tuple(test))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """`size` training examples."""
        return self._examples(task, f"pool-{seed}", size)

    def _examples(self, task: str, split: str, count: int) -> list[Example]:
        family = task.removeprefix("synthetic-").rpartition("-")[0]
        rule = {**TRAIN_FAMILIES, **TARGET_FAMILIES}.get(family)
        if rule is None:
            raise unknown_task(task, self.tasks(), "data=synthetic")
        rules = _generator(self.seed, task, "rule")
        draw, count_labels = rule(rules, DIFFICULTIES[self.difficulty])
        chosen = rules.choice(len(LABELS), size=count_labels, replace=False)
        options = tuple(LABELS[index] for index in chosen)
        rng = _generator(self.seed, task, split)
        drawn = [draw(rng) for _ in range(count)]
        return [Example(task, text, options[label], options) for text, label in drawn]


def _names(families: Iterable[str], count: int) -> list[str]:
    ordered = sorted(families)
    return [f"synthetic-{ordered[i % len(ordered)]}-{i // len(ordered):04d}" for i in range(count)]


def _generator(seed: int, *parts: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(part.encode("utf-8")) for part in parts)])
