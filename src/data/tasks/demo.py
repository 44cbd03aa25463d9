"""The embedded demo tasks: thirteen small tasks written for this project (Apache-2.0), so that a first run needs no data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml

from metashot.base.errors import DataError
from metashot.data.kshot import k_shot_split
from metashot.data.rows.jsonl import read_examples
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.source import unknown_task


@cache
def demo_index() -> Mapping[str, Mapping[str, str]]:
    """Task name -> {type, description}, in display order."""
    return yaml.safe_load((_folder() / "index.yaml").read_text(encoding="utf-8"))


class DemoSource:
    """The demo tasks under the k-shot protocol: demonstrations drawn from the training file by seed."""

    name = "demo"

    def tasks(self) -> list[str]:
        """All demo tasks."""
        return list(demo_index())

    def task_type(self, task: str) -> TaskType:
        """How a demo task is answered."""
        return TaskType(demo_index()[task]["type"])

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One evaluation cell; `dev` is the next k training examples, as in the published protocol.

        Raises:
            DataError: unknown task, or k larger than the training file.
        """
        train = self._examples(task, "train")
        if k > len(train):
            raise DataError(
                "k",
                f"task {task!r} has {len(train)} training examples, k={k} asked",
                f"set k={len(train)} or less",
            )
        chosen = k_shot_split(len(train), k=k, seed=seed)
        demonstrations = tuple(train[index] for index in chosen.train)
        test = [train[index] for index in chosen.dev] if split == "dev" else self._examples(task, split)
        return TaskData(task, seed, self.task_type(task), demonstrations, tuple(test))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The training file in the shuffled order of `seed`."""
        train = self._examples(task, "train")
        return [train[index] for index in k_shot_split(len(train), k=min(size, len(train)), seed=seed).train]

    def _examples(self, task: str, split: str) -> list[Example]:
        if task not in demo_index():
            raise unknown_task(task, list(demo_index()), "data=demo")
        return read_examples(_folder() / task / f"{split}.jsonl")


def _folder() -> Path:
    return Path(str(files("metashot.data.tasks"))) / "demo_tasks"
