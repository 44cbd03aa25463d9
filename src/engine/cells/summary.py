"""Summary of a run's cells: per task, and mean and worst over seeds with confidence intervals, in percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from metashot.base.terminal import printable
from metashot.engine.cells.results import FinishedCell, gold_and_predictions
from metashot.engine.metrics.classification import metric_named
from metashot.engine.metrics.statistics import (
    Interval,
    TaskOutcomes,
    bootstrap_mean,
    is_share,
    seed_values,
    task_outcomes,
)

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One task in percent: `mean` and `worst` over its seeds."""

    task: str
    """Task name."""
    metric: str
    """`macro_f1` or `accuracy`, or how generated answers are graded."""
    mean: Interval
    """Mean over seeds, with the ends of its interval."""
    worst: Interval
    """The worst seed, with the ends of its interval."""
    by_seed: dict[str, float]
    """The value of each seed."""
    n: int
    """Test examples."""
    sampled_from: int = 0
    """Test examples that the task has, where `n` are a sample of them; else 0."""
    unit: str = "percent"
    """`percent`, or `its own` where a task's metric is no share; the run's means leave such tasks out."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in percent: mean over seeds then tasks, and worst seed per task then mean over tasks."""

    setting: str
    """The task setting, or the data group's name."""
    method: str
    """Method name."""
    model: str
    """Model name."""
    k: int
    """Demonstrations in the prompt."""
    mean: Interval
    """Mean over seeds, then tasks."""
    worst: Interval
    """Worst seed of each task, then mean over tasks."""
    tasks: tuple[TaskSummary, ...]
    """One entry a task."""

    def tracked(self) -> dict[str, float]:
        """The figures under the names that dashboards and sweeps know, in percent."""
        per_task = {
            f"eval/{task.task}/{task.metric}{'_percent' if task.unit == 'percent' else ''}": task.mean.value
            for task in self.tasks
        }
        return {**per_task, "eval/mean_percent": self.mean.value, "eval/worst_percent": self.worst.value}

    def to_json(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        content = asdict(self)
        content["unit"] = "percent"
        content["interval"] = "95 % percentile bootstrap over seeds and test examples"
        return content


def outcomes_of(cells: Sequence[FinishedCell]) -> dict[str, TaskOutcomes]:
    """What the cells of one run answered, by task."""
    by_task: dict[str, list[FinishedCell]] = {}
    for cell in cells:
        by_task.setdefault(cell.result.task, []).append(cell)
    return {
        task: task_outcomes(
            task,
            metric_named(rows[0].result.metric),
            {
                row.result.seed: gold_and_predictions(metric_named(row.result.metric), row.predictions)
                for row in rows
            },
            {row.result.seed: row.result.test_digest for row in rows},
        )
        for task, rows in by_task.items()
    }


def summarize(cells: Sequence[FinishedCell]) -> Summary:
    """Summarize the cells of one run (one setting, method, model and k).

    Raises:
        ValueError: no cells.
    """
    outcomes = outcomes_of(cells)
    sizes = {cell.result.task: cell.result for cell in reversed(cells)}
    tasks: list[TaskSummary] = []
    for task, outcome in outcomes.items():
        figures, scale = bootstrap_mean([outcome]), 100 if is_share(outcome) else 1
        values = {
            str(seed): scale * float(value)
            for seed, value in zip(outcome.seeds, seed_values(outcome), strict=True)
        }
        tasks.append(
            TaskSummary(
                task,
                outcome.metric.value,
                percent(figures.mean, scale),
                percent(figures.worst, scale),
                values,
                sizes[task].n,
                sizes[task].sampled_from,
                "percent" if scale == 100 else "its own",
            )
        )
    shares = [outcome for outcome in outcomes.values() if is_share(outcome)]
    overall, scale = bootstrap_mean(shares or list(outcomes.values())), 100 if shares else 1
    first = cells[0].result
    k = max(cell.result.k for cell in cells)
    return Summary(
        first.setting,
        first.method,
        first.model,
        k,
        percent(overall.mean, scale),
        percent(overall.worst, scale),
        tuple(tasks),
    )


def percent(interval: Interval, scale: int = 100) -> Interval:
    """0..1 to percent, or as it is where the scale is 1."""
    return Interval(scale * interval.value, scale * interval.low, scale * interval.high)


def _rows(summary: Summary) -> list[list[str]]:
    rows = [
        [task.task, task.metric if task.unit == "percent" else f"{task.metric} (no percent)", _size(task), f"{task.mean.value:.1f}", f"{task.mean.low:.1f} to {task.mean.high:.1f}", f"{task.worst.value:.1f}"]
        for task in summary.tasks
    ]  # fmt: skip
    mean = summary.mean
    return [
        *rows,
        [
            "mean of tasks",
            "",
            "",
            f"{mean.value:.1f}",
            f"{mean.low:.1f} to {mean.high:.1f}",
            f"{summary.worst.value:.1f}",
        ],
    ]


def _size(task: TaskSummary) -> str:
    return f"{task.n} of {task.sampled_from}" if task.sampled_from else str(task.n)


_COLUMNS = ("task", "metric", "n", "mean", "95 % interval", "worst seed")


def console_table(summary: Summary) -> Table:
    """The table that a run prints."""
    title = f"{summary.method}, {summary.model}, {summary.setting}, k={summary.k} (percent)"
    table = Table(title=Text(printable(title)), title_justify="left")
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if index < 2 else "right", no_wrap=index == 0)
    rows = _rows(summary)
    for row in rows[:-1]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    table.add_section()
    table.add_row(*rows[-1], style="bold")
    return table


def markdown_table(summary: Summary) -> str:
    """The same table as Markdown."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(summary)]
    title = f"{summary.method}, {summary.model}, {summary.setting}, k={summary.k} (percent)"
    return f"{title}\n\n" + "\n".join(lines) + "\n"
