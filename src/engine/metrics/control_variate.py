"""The figure of all test rows from a sample of them, by a control variate: a system that answered all rows.

Of a task, m(A) is the metric of the sampled system on the sample, m(B) the control's on the same rows, M(B) the control's on
all rows. The estimate is m(A) - b (m(B) - M(B)) with b = cov(m(A), m(B)) / var(m(B)) over resampled rows, which for means has
the variance (1 - r^2) times that of m(A), r their correlation (Glasserman 2003, section 4.1). The interval resamples the
sample's rows, for both systems at once; it is for the figure of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metashot.engine.metrics.prompt_spread import crossed
from metashot.engine.metrics.statistics import (
    Interval,
    TaskOutcomes,
    percentile_interval,
    resampled_seed_values,
    seed_values,
)


@dataclass(frozen=True, slots=True)
class Controlled:
    """A mean over tasks, 0..1.

    Attributes:
        plain: of the sample alone, with its interval.
        controlled: with the control variate, with its interval.
    """

    plain: Interval
    controlled: Interval


def controlled_mean(
    sample: Mapping[str, TaskOutcomes],
    control: Mapping[str, TaskOutcomes],
    whole: Mapping[str, TaskOutcomes],
    draws: int,
    level: float,
    seed: int,
) -> Controlled:
    """The mean over tasks of the sampled system, over seeds that both systems have.

    Args:
        sample: the sampled system's outcomes by task.
        control: the control's on the same rows, in the same order.
        whole: the control's on all rows.
        draws: resamplings.
        level: confidence level.
        seed: of the resampling.

    Raises:
        ValueError: a task without a seed that both have.
    """
    generator = np.random.default_rng(seed)
    values, drawn = np.zeros((2, len(sample))), np.zeros((2, draws))
    for place, task in enumerate(sample):
        together = crossed({"sample": sample, "control": control}, task)
        if together is None:
            raise ValueError(f"{task}: the systems share no seed")
        shared = [one for one in sample[task].seeds if one in control[task].seeds]
        seen = [float(part.mean()) for part in np.split(seed_values(together), 2)]
        true = _mean_of(whole[task], shared)
        ours, theirs = (
            part.mean(axis=1)
            for part in np.split(resampled_seed_values(together, draws, generator), 2, axis=1)
        )
        spread = float(theirs.var())
        slope = float(np.cov(ours, theirs, ddof=0)[0, 1]) / spread if spread > 0 else 0.0
        values[:, place] = seen[0], seen[0] - slope * (seen[1] - true)
        drawn += np.stack([ours, ours - slope * (theirs - true)]) / len(sample)
    plain, controlled = (
        percentile_interval(float(value.mean()), line, level)
        for value, line in zip(values, drawn, strict=True)
    )
    return Controlled(plain, controlled)


def _mean_of(outcomes: TaskOutcomes, seeds: Sequence[int]) -> float:
    """Mean of the metric over some seeds."""
    known = dict(zip(outcomes.seeds, seed_values(outcomes).tolist(), strict=True))
    return float(np.mean([known[one] for one in seeds]))
