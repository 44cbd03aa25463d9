"""How much results depend on the prompt, beside how much they depend on the demonstrations.

Prompts, seeds and test examples are crossed: a seed draws the same demonstrations under every prompt, and all of them
answer the same test examples. An interval resamples all three (Owen 2007, as in `statistics`): prompts once for all
tasks, seeds for each task, examples for each task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metashot.engine.metrics.classification import Floats
from metashot.engine.metrics.statistics import (
    Interval,
    TaskOutcomes,
    percentile_interval,
    resampled_seed_values,
    seed_values,
    task_outcomes,
)


@dataclass(frozen=True, slots=True)
class PromptSpread:
    """Figures over prompts, 0..1.

    Attributes:
        mean: mean over prompts, seeds, then tasks, with its interval over prompts, seeds and examples.
        values: the mean of each prompt over the tasks that all of them have.
        over_prompts: standard deviation over prompts of a task's mean over seeds, averaged over tasks.
        over_seeds: standard deviation over seeds under one prompt, averaged over prompts and tasks; None with one seed.
        ranges: task -> highest less lowest prompt (mean over seeds), widest first.
    """

    mean: Interval
    values: Mapping[str, float]
    over_prompts: float
    over_seeds: float | None
    ranges: Mapping[str, float]


def prompt_spread(
    prompts: Mapping[str, Mapping[str, TaskOutcomes]], draws: int = 1000, level: float = 0.95, seed: int = 0
) -> PromptSpread:
    """Figures over prompts, of the tasks and seeds that all of them have.

    Args:
        prompts: prompt -> task -> its outcomes.
        draws: resamplings.
        level: confidence level.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two prompts, or no task that all have with some seed and the same number of examples.
    """
    if len(prompts) < 2:
        raise ValueError("a spread over prompts needs two")
    together = {task: one for task in _shared(prompts) if (one := crossed(prompts, task)) is not None}
    if not together:
        raise ValueError("the prompts share no task")
    n = len(prompts)
    tables = {task: seed_values(one).reshape(n, -1) for task, one in together.items()}
    by_task = {task: table.mean(axis=1) for task, table in tables.items()}
    generator = np.random.default_rng(seed)
    picked = generator.integers(0, n, size=(draws, n))
    means = np.mean([_resampled(one, picked, generator) for one in together.values()], axis=0)
    ranges = {task: float(values.max() - values.min()) for task, values in by_task.items()}
    several = [table for table in tables.values() if table.shape[1] > 1]
    value = float(np.mean([values.mean() for values in by_task.values()]))
    return PromptSpread(
        percentile_interval(value, means, level),
        {
            name: float(np.mean([values[place] for values in by_task.values()]))
            for place, name in enumerate(prompts)
        },
        float(np.mean([values.std(ddof=1) for values in by_task.values()])),
        float(np.mean([table.std(axis=1, ddof=1).mean() for table in several])) if several else None,
        dict(sorted(ranges.items(), key=lambda pair: -pair[1])),
    )


def _shared(prompts: Mapping[str, Mapping[str, TaskOutcomes]]) -> list[str]:
    first, *others = prompts.values()
    return [task for task in first if all(task in other for other in others)]


def crossed(prompts: Mapping[str, Mapping[str, TaskOutcomes]], task: str) -> TaskOutcomes | None:
    """Rows prompt by prompt, and in each the seeds that all prompts have; None where nothing can be compared."""
    rows = [outcomes[task] for outcomes in prompts.values()]
    seeds = [seed for seed in rows[0].seeds if all(seed in row.seeds for row in rows)]
    if not seeds or len({row.gold.shape[1] for row in rows}) > 1:
        return None
    answers: list[tuple[list[str], list[str]]] = []
    tests: list[str] = []
    for row in rows:
        for place in map(row.seeds.index, seeds):
            pair = row.gold[place].tolist(), row.prediction[place].tolist()
            answers.append(([row.labels[code] for code in pair[0]], [row.labels[code] for code in pair[1]]))
            tests.append(row.tests[place] if row.tests else "")
    return task_outcomes(task, rows[0].metric, dict(enumerate(answers)), dict(enumerate(tests)))


def _resampled(one: TaskOutcomes, picked: NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """A task's mean in each draw [draws], with the prompts that are `picked` [draws, prompts]."""
    draws, n = picked.shape
    values = resampled_seed_values(one, draws, generator).reshape(draws, n, -1)
    seeds = generator.integers(0, values.shape[2], size=(draws, values.shape[2]))
    chosen = np.take_along_axis(values, picked[:, :, None], axis=1)
    return np.take_along_axis(chosen, seeds[:, None, :], axis=2).mean(axis=(1, 2))
