"""How much of what a row should rest on is there: tasks, seeds and test examples.

A mean over fewer cells is another quantity than the one beside it, so every figure carries its coverage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from metashot.engine.metrics.statistics import TaskOutcomes

MARK = "†"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is there of what was expected.

    Attributes:
        cells: finished (task, seed) cells among the expected ones.
        expected_cells: tasks times seeds.
        tasks: expected tasks with at least one seed.
        expected_tasks: tasks of the setting.
        seeds: the fewest seeds of any task that is there.
        expected_seeds: seeds of the setting; 1 where seeds change nothing.
        examples: test examples of the tasks that are there.
        expected_examples: test examples of all expected tasks, as far as any system shows their number.
        gaps: (task, missing seeds); no seeds means that the whole task is missing.
    """

    cells: int
    expected_cells: int
    tasks: int
    expected_tasks: int
    seeds: int
    expected_seeds: int
    examples: int
    expected_examples: int
    gaps: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.cells >= self.expected_cells and self.examples >= self.expected_examples

    @property
    def same_seeds(self) -> bool:
        """Whether no task has fewer seeds than the others of the setting; only then is a worst seed comparable."""
        return self.seeds >= self.expected_seeds

    @property
    def mark(self) -> str:
        """What follows a figure that is not complete: ` †29/30`, in cells, or else in test examples."""
        if self.complete:
            return ""
        if self.cells < self.expected_cells:
            return f" {MARK}{self.cells}/{self.expected_cells}"
        return f" {MARK}{self.examples}/{self.expected_examples} examples"

    @property
    def gap_text(self) -> str:
        """What is missing, in words: `quiz lacks seed 21; mood is missing`."""
        parts = [
            f"{task} lacks seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else f"{task} is missing"
            for task, seeds in self.gaps[:_SHOWN]
        ]  # fmt: skip
        more = [f"{len(self.gaps) - _SHOWN} more tasks"] if len(self.gaps) > _SHOWN else []
        if self.examples < self.expected_examples and not self.gaps:
            parts.append(f"{self.examples} of {self.expected_examples} test examples")
        return "; ".join([*parts, *more])


NOTE = (
    f"{MARK} a/b: only a of the b cells (task x seed) are there, so the figure is no match for the complete ones and "
    "its worst seed is left out."
)


def coverage_of(
    outcomes: Mapping[str, TaskOutcomes],
    tasks: Sequence[str],
    seeds: Collection[int],
    sizes: Mapping[str, int],
    *,
    seeded: bool,
) -> Coverage:
    """Hold what a system answered against what its setting expects.

    Args:
        outcomes: by task.
        tasks: the expected ones.
        seeds: the expected ones.
        sizes: task -> the most test examples that any system answered.
        seeded: whether seeds change anything; where not, one seed stands for all.
    """
    found = {task: set(outcomes[task].seeds) for task in tasks if task in outcomes}
    wanted = set(seeds) if seeded else set()
    number = max(1, len(wanted))
    per_task = {task: min(number, len(have & wanted)) if seeded else 1 for task, have in found.items()}
    gaps = [(task, ()) for task in tasks if task not in found]
    gaps += [(task, tuple(sorted(wanted - have))) for task, have in found.items() if wanted - have]
    return Coverage(
        cells=sum(per_task.values()),
        expected_cells=len(tasks) * number,
        tasks=len(found),
        expected_tasks=len(tasks),
        seeds=min(per_task.values(), default=0),
        expected_seeds=number,
        examples=sum(outcomes[task].gold.shape[1] for task in found),
        expected_examples=sum(sizes.get(task, 0) for task in tasks),
        gaps=tuple(gaps),
    )
