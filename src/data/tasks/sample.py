"""A part of the test rows in place of all: so many, a share, or those that a file lists; the same for every seed and system."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from metashot.base.errors import DataError
from metashot.base.value_kinds import GivenLine, InnerShare, Positive
from metashot.data.recipes.twins import number_of
from metashot.data.sources.tables import numbered_rows, row_place
from metashot.data.task import Example, TaskData, TaskType
from metashot.data.tasks.source import TaskSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKeys:
    """Keys of every choice of `data` that say which test rows are evaluated."""

    limit: Positive | InnerShare | None = None
    """So many test rows of each task, or a share of them below 1, label by label in proportion; null takes all. The
    rows of a smaller limit are among those of a larger one."""
    subset: GivenLine | None = None
    """A file of the test rows to take: a table with columns `task` and `index` (from 0, as in `predictions.jsonl`), or
    a text of one index a line, for every task."""


@dataclass(frozen=True)
class SampledSource:
    """`source` with some of its test rows."""

    source: TaskSource
    keys: SampleKeys

    @property
    def name(self) -> str:
        """Name of the data group."""
        return self.source.name

    def tasks(self) -> list[str]:
        """The source's tasks."""
        return self.source.tasks()

    def pool(self, task: str, *, size: int = 16384, seed: int = 100) -> list[Example]:
        """The source's pool."""
        return self.source.pool(task, size=size, seed=seed)

    def load(self, task: str, *, k: int, seed: int, split: str = "test") -> TaskData:
        """One cell with the chosen test rows, in their order, marked as a sample.

        Raises:
            DataError: a listed row that the task does not have, or a task without a listed row.
        """
        data = self.source.load(task, k=k, seed=seed, split=split)
        places: Sequence[int] = range(len(data.test))
        if self.keys.subset is not None:
            places = self._listed_places(task, len(data.test))
        if self.keys.limit is not None:
            labels = [
                data.test[place].output if data.task_type is TaskType.CLASSIFICATION else ""
                for place in places
            ]
            places = [
                places[chosen] for chosen in stratified(task, labels, _size(self.keys.limit, len(places)))
            ]
        if len(places) == len(data.test):
            return data
        key = "data.limit" if self.keys.limit is not None else "data.subset"
        note = f"task {task!r}: a sample of {len(places)} of {len(data.test)} test rows ({key})"
        return replace(
            data,
            test=tuple(data.test[place] for place in places),
            neighbours=tuple(data.neighbours[place] for place in places) if data.neighbours else (),
            notes=(*data.notes, note),
            sampled_from=len(data.test),
        )

    def _listed_places(self, task: str, n: int) -> list[int]:
        found = self._listed.get(task, self._listed.get("", {}))
        if not found:
            raise DataError(
                "data.subset", f"{self.keys.subset} lists no row of {task!r}", "take it out of data.tasks"
            )
        outside = next((place for place in found if not 0 <= place < n), None)
        if outside is not None:
            raise DataError(found[outside], f"task {task!r} has no test row {outside}", f"rows 0 to {n - 1}")
        return sorted(found)

    @cached_property
    def _listed(self) -> dict[str, dict[int, str]]:
        """Task ("" for every task) -> place of a test row -> where the file says so."""
        assert self.keys.subset is not None
        path = Path(self.keys.subset).expanduser()
        found: dict[str, dict[int, str]] = defaultdict(dict)
        for number, row in numbered_rows(path):
            where = row_place(path, number)
            written = row.get("index", row.get("line"))
            place = number_of(written)
            if place is None or place != int(place):
                raise DataError(where, f"names no test row: {written!r}", "give index, a number from 0")
            found[str(row.get("task", ""))][int(place)] = where
        return found


def stratified(task: str, labels: Sequence[str], size: int) -> list[int]:
    """`size` places of `labels`, ascending: of each label its share, by the largest remainder.

    Within a label rows come in an order that depends on the task and their place alone.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        members[label].append(place)
    exact = {label: size * len(own) / len(labels) for label, own in members.items()}
    counts = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (counts[label] - exact[label], label))
    for label in by_remainder[: size - sum(counts.values())]:
        counts[label] += 1
    return sorted(
        place
        for label, own in members.items()
        for place in sorted(own, key=lambda place: _rank(task, place))[: counts[label]]
    )


def _rank(task: str, place: int) -> bytes:
    return hashlib.sha256(f"{task}\0{place}".encode()).digest()


def _size(limit: float, n: int) -> int:
    """A whole number is a count, a broken one below 1 a share (at least one row)."""
    return min(n, limit) if isinstance(limit, int) else max(1, round(limit * n))
