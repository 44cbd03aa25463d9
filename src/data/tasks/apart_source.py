"""A task source whose test rows never see themselves: the rule stands here once, behind every data group."""

from __future__ import annotations

from dataclasses import dataclass

from metashot.data.rows.apart import kept_apart
from metashot.data.task import Example, TaskData
from metashot.data.tasks.source import TaskSource


@dataclass(frozen=True, slots=True)
class ApartSource:
    """`source` with each test row left out of its own demonstrations; see `kept_apart`."""

    source: TaskSource

    @property
    def name(self) -> str:
        """Name of the data group."""
        return self.source.name

    def tasks(self) -> list[str]:
        """The source's tasks."""
        return self.source.tasks()

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One cell; a note says how many test rows stood among the demonstrations."""
        data = self.source.load(task, k=k, seed=seed, split=split)
        return kept_apart(data, lambda: self.pool(task, seed=seed))

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The source's pool."""
        return self.source.pool(task, size=size, seed=seed)
