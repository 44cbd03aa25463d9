"""Runs that repeat one experiment with another draw: `condition=train_tasks=7,draw=3` is a draw of `train_tasks=7`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from metashot.engine.metrics.statistics import TaskOutcomes, bootstrap_mean, task_outcomes
from metashot.engine.report.coverage import coverage_of
from metashot.engine.report.systems import Answers, System

_DRAW = re.compile(r"(.+),draw=\d+")


def pooled_draws(answers: Sequence[Answers], *, draws: int, level: float, seed: int) -> list[Answers]:
    """One row for all draws of an experiment; each seed of each draw counts as a seed of its own.

    Only tasks that every draw has are kept, so that each draw weighs the same.

    Args:
        answers: all systems.
        draws: bootstrap resamplings.
        level: confidence level.
        seed: of the resampling.
    """
    groups: dict[System, list[Answers]] = {}
    for row in answers:
        if match := _DRAW.fullmatch(row.system.condition):
            groups.setdefault(replace(row.system, condition=match[1], variant=""), []).append(row)
    pooled: list[Answers] = []
    for system, rows in groups.items():
        shared = sorted(set.intersection(*(set(row.outcomes) for row in rows)))
        outcomes = {task: _together([row.outcomes[task] for row in rows]) for task in shared}
        if outcomes:
            figures = bootstrap_mean(list(outcomes.values()), draws, level, seed)
            coverage = coverage_of(
                outcomes,
                rows[0].expected,
                {number for outcome in outcomes.values() for number in outcome.seeds},
                {task: outcome.gold.shape[1] for task, outcome in outcomes.items()},
                seeded=True,
            )
            pooled.append(Answers(system, outcomes, rows[0].expected, figures, coverage))
    return pooled


def _together(parts: Sequence[TaskOutcomes]) -> TaskOutcomes:
    """The seeds of all parts, numbered anew."""
    answers = [
        ([part.labels[code] for code in gold], [part.labels[code] for code in prediction])
        for part in parts
        for gold, prediction in zip(part.gold.tolist(), part.prediction.tolist(), strict=True)
    ]
    tests = dict(enumerate(digest for part in parts for digest in part.tests))
    return task_outcomes(parts[0].task, parts[0].metric, dict(enumerate(answers)), tests)
