"""The published numbers of the MetaICL paper beside ours, with a verdict for every cell.

Source: `published.json`, this project's own transcription of the paper's tables and figures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib.resources import files

from metashot.engine.metrics.statistics import MeanAndWorst, TaskOutcomes, bootstrap_mean, task_outcomes
from metashot.engine.report.reading.coverage import coverage_of
from metashot.engine.report.systems.results import System, SystemResults

_ROUNDING = 0.05
_FIGURE_ACCURACY = 1.0
_DRAW = re.compile(r"(.+),draw=\d+")
"""Runs that repeat one experiment with another draw: `condition=train_tasks=7,draw=3` is a draw of `train_tasks=7`."""


class Verdict(StrEnum):
    """How our number stands to the published one."""

    AGREES = "agrees"
    """The published mean lies in our interval (up to the rounding it was printed with)."""
    HIGHER = "higher"
    """Our interval lies above it."""
    LOWER = "lower"
    """Our interval lies below it."""
    INCOMPLETE = "incomplete"
    """Some target tasks or seeds are missing, so the two means are over different cells."""
    OTHER_MODEL = "other model"
    """We have the row only with a model that the paper did not use."""
    NOT_RUN = "not run"
    """We have no such row."""


@dataclass(frozen=True, slots=True)
class Published:
    """One printed cell, in percent; field meanings as in `System`.

    Attributes:
        table: the paper's table or figure.
        scope: `all` target tasks or `unseen_domain` ones.
        setting: task setting.
        method: our name of the method.
        model: our name of the model.
        k: demonstrations.
        condition: what the table changes.
        mean: mean over seeds and tasks.
        worst: worst seed per task, then mean; None for rows that have no seeds.
        approximate: read off a figure, to about one point.
    """

    table: str
    scope: str
    setting: str
    method: str
    model: str
    k: int
    condition: str
    mean: float
    worst: float | None
    approximate: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """A published cell beside ours.

    Attributes:
        published: the printed cell.
        verdict: how ours stands to it.
        model: the model of our row, or empty.
        ours: our figures in 0..1 over the tasks that are there, or None.
        found: target tasks that ours covers.
        expected: target tasks of the cell.
    """

    published: Published
    verdict: Verdict
    model: str
    ours: MeanAndWorst | None
    found: int
    expected: int

    @property
    def difference(self) -> float | None:
        """Our mean minus the published one, in points."""
        return None if self.ours is None else 100 * self.ours.mean.value - self.published.mean


ScopeTasks = Callable[[str, str], Sequence[str]]


@cache
def published_cells() -> tuple[Published, ...]:
    """Every number of the paper's tables and figures that could be read."""
    content = json.loads(
        (files("metashot.engine.report.systems") / "published.json").read_text(encoding="utf-8")
    )
    return tuple(Published(**dict(zip(content["columns"], row, strict=True))) for row in content["cells"])


@cache
def published_source() -> tuple[str, dict[str, str]]:
    """Where the numbers are from, and a note per table."""
    content = json.loads(
        (files("metashot.engine.report.systems") / "published.json").read_text(encoding="utf-8")
    )
    return content["source"], content["notes"]


def compare_with_published(
    answers: Sequence[SystemResults], scope_tasks: ScopeTasks, *, draws: int, level: float, seed: int
) -> list[Compared]:
    """Our figure and a verdict for every published cell, in the paper's order.

    Args:
        answers: our systems.
        scope_tasks: (setting, scope) -> its target tasks.
        draws: bootstrap resamplings of the unseen-domain subsets.
        level: confidence level.
        seed: of the resampling.
    """
    answers = [*answers, *pooled_draws(answers, draws=draws, level=level, seed=seed)]
    compared: list[Compared] = []
    printed_models = {cell.model for cell in published_cells()}
    for cell in published_cells():
        candidates = [row for row in answers if _same_row(row, cell)]
        exact = [row for row in candidates if row.system.model == cell.model]
        others = [row for row in candidates if row.system.model not in printed_models]
        ours = (exact or others or [None])[0]
        if ours is None:
            compared.append(Compared(cell, Verdict.NOT_RUN, "", None, 0, 0))
            continue
        tasks = scope_tasks(cell.setting, cell.scope) or ours.expected
        present = [outcome for task, outcome in ours.outcomes.items() if task in set(tasks)]
        if not present:
            compared.append(Compared(cell, Verdict.NOT_RUN, "", None, 0, len(tasks)))
            continue
        figures = (
            ours.figures
            if len(present) == len(ours.outcomes)
            else bootstrap_mean(present, draws, level, seed)
        )
        complete = len(present) == len(tasks) and _has_all_seeds(ours, tasks)
        verdict = _verdict(cell, figures, complete=complete, same_model=bool(exact))
        compared.append(Compared(cell, verdict, ours.system.model, figures, len(present), len(tasks)))
    return compared


def _has_all_seeds(row: SystemResults, tasks: Sequence[str]) -> bool:
    lacking = {task for task, _ in row.coverage.gaps}
    return not lacking & set(tasks)


def _same_row(row: SystemResults, cell: Published) -> bool:
    system = row.system
    return (
        (system.setting, system.method, system.condition) == (cell.setting, cell.method, cell.condition)
        and system.k == cell.k
        and not system.variant
    )


def _verdict(cell: Published, figures: MeanAndWorst, *, complete: bool, same_model: bool) -> Verdict:
    if not same_model:
        return Verdict.OTHER_MODEL
    if not complete:
        return Verdict.INCOMPLETE
    slack = _FIGURE_ACCURACY if cell.approximate else _ROUNDING
    if 100 * figures.mean.low > cell.mean + slack:
        return Verdict.HIGHER
    if 100 * figures.mean.high < cell.mean - slack:
        return Verdict.LOWER
    return Verdict.AGREES


def pooled_draws(
    answers: Sequence[SystemResults], *, draws: int, level: float, seed: int
) -> list[SystemResults]:
    """One row for all draws of an experiment; each seed of each draw counts as a seed of its own.

    Only tasks that every draw has are kept, so that each draw weighs the same.

    Args:
        answers: all systems.
        draws: bootstrap resamplings.
        level: confidence level.
        seed: of the resampling.
    """
    groups: dict[System, list[SystemResults]] = {}
    for row in answers:
        if match := _DRAW.fullmatch(row.system.condition):
            groups.setdefault(replace(row.system, condition=match[1], variant=""), []).append(row)
    pooled: list[SystemResults] = []
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
            pooled.append(SystemResults(system, outcomes, rows[0].expected, figures, coverage))
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
