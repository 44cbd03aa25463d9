"""Generated tasks: reproducible, of any number, disjoint families, and answered by rules that demonstrations show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from metashot.base.errors import ConfigError, DataError
from metashot.data.task import TaskType
from metashot.data.tasks.synthetic import SyntheticSource
from metashot.data.tasks.synthetic_rules import DIFFICULTIES, TARGET_FAMILIES, TRAIN_FAMILIES, vocabulary

SOURCE = SyntheticSource(train_tasks=14, target_tasks=9)


def test_families_of_training_and_target_tasks_are_disjoint() -> None:
    assert not set(TRAIN_FAMILIES) & set(TARGET_FAMILIES)
    assert not set(SOURCE.training_tasks()) & set(SOURCE.testing_tasks())


def test_tasks_are_spread_over_families_and_named_apart() -> None:
    names = SOURCE.training_tasks()
    assert len(set(names)) == 14
    families = Counter(name.split("-")[1] for name in names)
    assert max(families.values()) - min(families.values()) <= 1


@pytest.mark.parametrize("difficulty", list(DIFFICULTIES))
def test_every_example_is_answerable_and_within_the_vocabulary(difficulty: str) -> None:
    source = SyntheticSource(24, 24, seed=3, difficulty=difficulty, test_size=30)
    words = set(vocabulary())
    for task in source.tasks():
        cell = source.load(task, k=8, seed=13)
        assert cell.task_type is TaskType.CLASSIFICATION
        assert (len(cell.demonstrations), len(cell.test)) == (8, 30)
        for example in (*cell.demonstrations, *cell.test):
            assert example.output in example.options
            assert example.options == cell.test[0].options
            assert set(example.input.split()) <= words
            assert not set(example.input.split()) & set(example.options)


def test_the_same_input_of_a_lookup_task_always_has_the_same_label() -> None:
    for task in SyntheticSource(1, 8).testing_tasks():
        if "lookup" not in task and "number" not in task:
            continue
        pool = SOURCE.pool(task, size=64)
        assert len({(example.input, example.output) for example in pool}) == len(
            {example.input for example in pool}
        )


def test_smaller_k_is_the_beginning_of_larger_k_and_pools_of_smaller_size_too() -> None:
    task = SOURCE.testing_tasks()[0]
    assert (
        SOURCE.load(task, k=8, seed=21).demonstrations[:3] == SOURCE.load(task, k=3, seed=21).demonstrations
    )
    assert SOURCE.pool(task, size=9)[:4] == SOURCE.pool(task, size=4)


def test_seeds_change_rules_demonstrations_and_splits() -> None:
    task = SOURCE.testing_tasks()[0]
    first = SOURCE.load(task, k=8, seed=100)
    assert first != SyntheticSource(14, 9, seed=1).load(task, k=8, seed=100)
    assert first.demonstrations != SOURCE.load(task, k=8, seed=13).demonstrations
    assert first.test == SOURCE.load(task, k=8, seed=13).test
    assert first.test != SOURCE.load(task, k=8, seed=100, split="dev").test


def test_tasks_do_not_depend_on_the_hash_seed() -> None:
    pools = "[source.pool(task, size=4) for task in source.training_tasks()]"
    code = f"from metashot.data.tasks.synthetic import *; source = SyntheticSource(3, 1); print({pools})"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    source = SyntheticSource(3, 1)
    assert outputs == {f"{[source.pool(task, size=4) for task in source.training_tasks()]}\n"}


def test_an_unknown_task_difficulty_or_number_is_named() -> None:
    with pytest.raises(DataError, match="no task 'synthetic-lookup' in data=synthetic"):
        SOURCE.pool("synthetic-lookup")
    with pytest.raises(ConfigError, match=r"data\.difficulty: input should be .*, got 'extreme'"):
        SyntheticSource(difficulty="extreme")
    with pytest.raises(DataError, match=r"data\.train_tasks: 0 is not positive"):
        SyntheticSource(train_tasks=0)
