"""How sure a number is: bootstrap intervals over seeds and examples, and Holm's correction.

Where the test examples of a task are the same for every demonstration seed, seeds and examples are
crossed: examples are resampled once per draw and shared by the seeds. Where seeds have test examples of
their own, these are resampled per seed. Seeds are resampled independently per task (their demonstrations
are drawn per task). Tasks are fixed, not resampled.
Source: A. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metashot.engine.metrics.classification import AnyMetric, Codes, Floats, Metric, encode, weighted_metric


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval, on the scale of the value."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MeanAndWorst:
    """The paper's two figures of a set of tasks, 0..1, each with its interval.

    Attributes:
        mean: mean over seeds, then over tasks.
        worst: lowest seed of each task, then mean over tasks. Its interval resamples the test examples of
            those seeds.
    """

    mean: Interval
    worst: Interval


@dataclass(frozen=True, slots=True, eq=False)
class TaskOutcomes:
    """Answers of one method on one task: equally many test examples under every seed.

    Attributes:
        task: task name.
        metric: how the task is scored.
        seeds: the demonstration seeds, in order.
        gold: [seeds, n] codes of the gold answers (they differ between seeds only where labels are
            renamed per seed).
        prediction: [seeds, n] codes of the predicted answers.
        labels: the answer of each code; for accuracy the codes say `wrong` and `right`, for a graded metric an
            answer's score.
        tests: digest of the test examples of each seed; empty where they are known to be the same.
        seeded: whether the demonstration seed decides anything; False for a system that shows none, or always the
            same ones. It is a property of the system, never of how many seeds are finished.
    """

    task: str
    metric: AnyMetric
    seeds: tuple[int, ...]
    gold: Codes
    prediction: Codes
    labels: tuple[str, ...]
    tests: tuple[str, ...] = ()
    seeded: bool = True

    @property
    def shares_examples(self) -> bool:
        """Whether every seed has the same test examples."""
        return len(set(self.tests)) <= 1


def is_share(outcome: TaskOutcomes) -> bool:
    """Whether a task is measured by a share of its answers, so that means over tasks may hold it."""
    metric = outcome.metric
    if isinstance(metric, Metric):
        return True
    return metric.is_share and bool((np.abs(seed_values(outcome)) <= 1).all())


def task_outcomes(
    task: str,
    metric: AnyMetric,
    answers: Mapping[int, tuple[Sequence[str], Sequence[str]]],
    tests: Mapping[int, str] | None = None,
    *,
    seeded: bool = True,
) -> TaskOutcomes:
    """Encode the answers of one task.

    Args:
        task: task name.
        metric: how the task is scored.
        answers: seed -> (gold, prediction), aligned by test example across seeds; for a graded metric the scores
            as text stand in both places.
        tests: seed -> digest of its test examples; without it all seeds have the same ones.
        seeded: whether the seed decides anything.

    Raises:
        ValueError: no answers, or the seeds differ in their number of test examples.
    """
    sizes = {(len(gold), len(prediction)) for gold, prediction in answers.values()}
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1 or sizes == {(0, 0)}:
        raise ValueError(f"{task}: every seed needs the same test examples, got sizes {sorted(sizes)}")
    digests = tuple((tests or {}).get(seed, "") for seed in answers)
    if metric == Metric.ACCURACY:
        right = np.array([[g == p for g, p in zip(*pair, strict=True)] for pair in answers.values()])
        gold_codes = np.ones(right.shape, dtype=np.int64)
        return TaskOutcomes(
            task,
            metric,
            tuple(answers),
            gold_codes,
            right.astype(np.int64),
            ("wrong", "right"),
            digests,
            seeded,
        )
    flat = [answer for gold, prediction in answers.values() for answer in (*gold, *prediction)]
    codes, labels = encode(flat)
    shaped = codes.reshape(len(answers), 2, -1)
    return TaskOutcomes(
        task, metric, tuple(answers), shaped[:, 0], shaped[:, 1], tuple(labels), digests, seeded
    )


def seed_values(outcomes: TaskOutcomes) -> Floats:
    """The metric of each seed: [seeds], 0..1."""
    return _weighted_seed_values(outcomes, np.ones((1, outcomes.gold.shape[1])))[0]


def bootstrap_mean(
    tasks: Sequence[TaskOutcomes], draws: int = 1000, level: float = 0.95, seed: int = 0
) -> MeanAndWorst:
    """Mean and worst-of-seeds over `tasks` with percentile intervals from `draws` resamplings.

    The order in which tasks, seeds and answers were read is of no effect: console and report say the same interval.
    Macro-F1 is no mean over examples, so it is recomputed in every draw. The worst seed of a task is the one
    observed: the least of several resampled values would lie below the figure that it is an interval of.

    Raises:
        ValueError: no tasks.
    """
    if not tasks:
        raise ValueError("bootstrap over no tasks")
    tasks = sorted(map(_in_order, tasks), key=lambda outcomes: outcomes.task)
    generator = np.random.default_rng(seed)
    means, worsts = np.zeros(draws), np.zeros(draws)
    observed = [seed_values(outcomes) for outcomes in tasks]
    for outcomes, found in zip(tasks, observed, strict=True):
        values = resampled_seed_values(outcomes, draws, generator)
        n_seeds = values.shape[1]
        picks = generator.integers(0, n_seeds, size=(draws, n_seeds))
        means += np.take_along_axis(values, picks, axis=1).mean(axis=1)
        worsts += values[:, int(found.argmin())]
    return MeanAndWorst(
        mean=percentile_interval(float(np.mean([v.mean() for v in observed])), means / len(tasks), level),
        worst=percentile_interval(float(np.mean([v.min() for v in observed])), worsts / len(tasks), level),
    )


def _in_order(outcomes: TaskOutcomes) -> TaskOutcomes:
    """The same answers, seeds ascending and codes in the order of the answers' texts."""
    rows, words = np.argsort(outcomes.seeds), np.argsort(outcomes.labels)
    codes = np.argsort(words)
    return replace(
        outcomes,
        seeds=tuple(outcomes.seeds[row] for row in rows),
        gold=codes[outcomes.gold[rows]],
        prediction=codes[outcomes.prediction[rows]],
        labels=tuple(outcomes.labels[word] for word in words),
        tests=tuple(outcomes.tests[row] for row in rows) if outcomes.tests else (),
    )


def resampled_seed_values(outcomes: TaskOutcomes, draws: int, generator: np.random.Generator) -> Floats:
    """The metric of every seed when the test examples are resampled: [draws, seeds].

    Examples with equal answers under every seed are interchangeable, so resampling n examples is one
    multinomial draw over the distinct patterns.
    """
    if not outcomes.shares_examples:
        alone = [_one_seed(outcomes, number) for number in range(len(outcomes.seeds))]
        return np.concatenate([resampled_seed_values(one, draws, generator) for one in alone], axis=1)
    patterns, counts = distinct_patterns(np.concatenate([outcomes.gold, outcomes.prediction]))
    n_seeds = len(outcomes.seeds)
    compact = TaskOutcomes(
        outcomes.task,
        outcomes.metric,
        outcomes.seeds,
        patterns[:n_seeds],
        patterns[n_seeds:],
        outcomes.labels,
    )
    n = int(counts.sum())
    weights = generator.multinomial(n, counts / n, size=draws).astype(np.float64)
    return _weighted_seed_values(compact, weights)


def _one_seed(outcomes: TaskOutcomes, number: int) -> TaskOutcomes:
    row = slice(number, number + 1)
    return TaskOutcomes(
        outcomes.task,
        outcomes.metric,
        outcomes.seeds[row],
        outcomes.gold[row],
        outcomes.prediction[row],
        outcomes.labels,
    )


def distinct_patterns(columns: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """Distinct columns of [rows, n] and how often each occurs: ([rows, m], [m])."""
    patterns, counts = np.unique(columns, axis=1, return_counts=True)
    return patterns, counts


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _weighted_seed_values(outcomes: TaskOutcomes, weights: Floats) -> Floats:
    columns = [
        weighted_metric(outcomes.metric, weights, gold, prediction, outcomes.labels)
        for gold, prediction in zip(outcomes.gold, outcomes.prediction, strict=True)
    ]
    return np.stack(columns, axis=1)


def percentile_interval(value: float, draws: Floats, level: float) -> Interval:
    """A value with the percentiles of its resampled values [draws]."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
