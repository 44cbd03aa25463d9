"""What a task of lm-evaluation-harness makes of its answers: its filters, its metrics, its aggregations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lm_eval.api.metrics import mean, mean_stderr

_JACKKNIFED = 2000
"""Documents up to which a metric that is no mean is taken apart."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a task makes of a cell's answers.

    Attributes:
        metrics: every metric, by `<metric>,<filter>`; None where it is no number.
        first: (metric, filter) of the one that goes first.
        scores: [n_test] of the first; their mean is its value.
        filtered: [n_test] the first answer of each document after the first metric's filter.
    """

    metrics: Mapping[str, float | None]
    first: tuple[str, str]
    scores: tuple[float, ...]
    filtered: tuple[Any, ...]

    @property
    def value(self) -> float:
        """Of the first metric."""
        found = self.metrics[",".join(self.first)]
        assert found is not None
        return found


def measure(task: Any, rows: Sequence[Sequence[Any]], order: Sequence[str]) -> Measured:
    """The task's metrics of its answered requests."""
    task.apply_filters()
    items: dict[tuple[str, str], list[Any]] = {}
    for name in rows[0][0].filtered_resps:
        for row in rows:
            for metric, value in task.process_results(
                row[0].doc, [one.filtered_resps[name] for one in row]
            ).items():
                items.setdefault((metric, name), []).append(value)
    metrics: dict[str, float | None] = {}
    for (metric, name), values in items.items():
        aggregate = task.aggregation().get(metric, mean)
        metrics[f"{metric},{name}"] = _number(aggregate(values))
        if aggregate is mean and len(values) > 1:
            metrics[f"{metric}_stderr,{name}"] = _number(mean_stderr(values))
    numbers = [key for key in items if metrics[",".join(key)] is not None]
    if not numbers:
        raise ValueError(f"none of its metrics is a number: {', '.join(metrics)}")
    ranks = {metric: place for place, metric in enumerate(order)}
    first = min(numbers, key=lambda key: ranks.get(key[0], len(ranks)))
    scores = _shares(task.aggregation().get(first[0], mean), items[first], len(rows))
    return Measured(metrics, first, scores, tuple(row[0].filtered_resps[first[1]] for row in rows))


def _shares(aggregate: Callable[[list[Any]], Any], values: list[Any], n: int) -> tuple[float, ...]:
    """A score for each document, whose mean is the metric.

    Of a mean these are the values themselves. Of anything else they are the jackknife's: the metric, and what it moves
    by without the document (Efron, The jackknife, 1982), so that intervals over documents mean something.
    """
    whole = float(aggregate(values))
    if aggregate is mean and len(values) == n:
        return tuple(map(float, values))
    if not 2 < len(values) == n <= _JACKKNIFED:
        return (whole,) * n
    try:
        without = [float(aggregate([*values[:place], *values[place + 1 :]])) for place in range(n)]
    except (ValueError, ArithmeticError):
        return (whole,) * n
    middle = fmean(without)
    return tuple(whole + (n - 1) * (middle - one) for one in without)


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
