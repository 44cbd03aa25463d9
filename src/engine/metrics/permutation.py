"""Paired permutation test: is one method better than another on the same test examples?

Under the null hypothesis the two methods' answers to an example are exchangeable. The unit that is
swapped is the test example with its answers under all seeds, because those are not independent. The
statistic is the difference of the means over tasks of the means over seeds.

Two test examples, one seed, accuracy: the first method answers both right, the second none, a difference of 1. Swapping
none, one, the other or both examples gives 1, 0, 0 and -1; two of the four are as large as 1, so p = 0.5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metashot.engine.metrics.classification import AnyMetric, Codes, Floats, Metric, f1_mean
from metashot.engine.metrics.statistics import TaskOutcomes, distinct_patterns, seed_values

_EXACT_LIMIT = 20_000
_TIE = 1e-12


@dataclass(frozen=True, slots=True)
class Comparison:
    """Outcome of a paired test.

    Attributes:
        difference: first minus second, 0..1.
        p_value: two-sided.
        exact: whether all permutations were enumerated.
        n_tasks: tasks that both methods answered.
        n_examples: test examples in them.
        n_cells: (task, seed) pairs that the difference is over.
        means: of the first and of the second method over these cells, 0..1.
    """

    difference: float
    p_value: float
    exact: bool
    n_tasks: int
    n_examples: int
    n_cells: int
    means: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """One task: distinct patterns of answers that the two methods do not share in every seed.

    Per seed, the label counts of each method as observed, and what one swap of a pattern moves from
    the second method's counts to the first's (the reverse moves the other way).
    """

    metric: AnyMetric
    grades: Floats | None  # [labels] score of each code, for a graded metric
    free: Codes  # [m] how many examples show the pattern
    n_gold: Floats  # [seeds, labels]
    hits: Floats  # [2, seeds, labels]
    predicted: Floats  # [2, seeds, labels]
    hits_moved: Floats  # [seeds, m, labels]
    predicted_moved: Floats  # [seeds, m, labels]
    n_examples: int
    means: tuple[float, float]


def paired_permutation_test(
    first: Sequence[TaskOutcomes],
    second: Sequence[TaskOutcomes],
    permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Test the difference of two methods on the tasks and seeds that both have.

    A method whose seeds decide nothing (`TaskOutcomes.seeded`) is paired with every seed of the other. All permutations are enumerated where there are at most 20,000 distinct ones.

    Raises:
        ValueError: no task in common, no seed in common, or different numbers of test examples.
    """
    others = {outcomes.task: outcomes for outcomes in second}
    shared = [(mine, others[mine.task]) for mine in first if mine.task in others]
    if not shared:
        raise ValueError("the two methods have no task in common")
    pairs = [_pair(*pair) for pair in shared if share_seeds(*pair)]
    if not pairs:
        task, seeds, other_seeds = shared[0][0].task, shared[0][0].seeds, shared[0][1].seeds
        raise ValueError(f"{task}: no seed in common ({seeds} and {other_seeds})")
    observed = sum(float(_difference(p, np.zeros((1, p.free.size)))[0]) for p in pairs) / len(pairs)
    exact = math.prod(int(n) + 1 for p in pairs for n in p.free) <= _EXACT_LIMIT
    p_value = _exact_p(pairs, observed) if exact else _sampled_p(pairs, observed, permutations, seed)
    return Comparison(
        observed,
        min(1.0, p_value),
        exact,
        n_tasks=len(pairs),
        n_examples=sum(p.n_examples for p in pairs),
        n_cells=sum(p.n_gold.shape[0] for p in pairs),
        means=(float(np.mean([p.means[0] for p in pairs])), float(np.mean([p.means[1] for p in pairs]))),
    )


def _exact_p(pairs: Sequence[_Pair], observed: float) -> float:
    from scipy.stats import binom  # half of the time of importing a report

    free = np.concatenate([p.free for p in pairs])
    swaps = np.array(list(itertools.product(*(range(int(n) + 1) for n in free))), dtype=np.float64)
    probability = np.prod(binom.pmf(swaps, free, 0.5), axis=1)
    parts = np.split(swaps, np.cumsum([p.free.size for p in pairs])[:-1], axis=1)
    total = sum(_difference(pair, part) for pair, part in zip(pairs, parts, strict=True))
    return float(probability[np.abs(total) / len(pairs) >= abs(observed) - _TIE].sum())


def _sampled_p(pairs: Sequence[_Pair], observed: float, permutations: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    total = np.zeros(permutations)
    for pair in pairs:
        total += _difference(pair, _random_swaps(pair.free, permutations, generator))
    extreme = np.abs(total) / len(pairs) >= abs(observed) - _TIE
    # The observed labelling is one of the permutations, so p is never 0.
    return (1 + int(extreme.sum())) / (1 + permutations)


def _random_swaps(free: Codes, permutations: int, generator: np.random.Generator) -> Floats:
    """How many copies of each pattern are swapped: [permutations, m]."""
    coins = (generator.random((permutations, free.size), dtype=np.float32) < 0.5).astype(np.float64)
    several = free > 1
    coins[:, several] = generator.binomial(free[several], 0.5, size=(permutations, int(several.sum())))
    return coins


def _pair(first: TaskOutcomes, second: TaskOutcomes) -> _Pair:
    rows_first, rows_second = paired_seeds(first, second)
    labels = list(dict.fromkeys([*first.labels, *second.labels]))
    recode = np.array([labels.index(label) for label in second.labels], dtype=np.int64)
    gold, gold_second = first.gold[rows_first], recode[second.gold[rows_second]]
    if gold.shape != gold_second.shape or _other_tests(first, rows_first, second, rows_second):
        raise ValueError(f"{first.task}: the two methods answered different test examples")
    ours, theirs = first.prediction[rows_first], recode[second.prediction[rows_second]]
    patterns, counts = distinct_patterns(np.concatenate([gold, gold_second, ours, theirs]))
    one_hot = (patterns.reshape(4, len(rows_first), -1, 1) == np.arange(len(labels))).astype(np.float64)
    hit, predicted = one_hot[:2] * one_hot[2:], one_hot[2:]
    free = (predicted[0] != predicted[1]).any(axis=(0, 2)) | (hit[0] != hit[1]).any(axis=(0, 2))
    return _Pair(
        metric=first.metric,
        grades=np.asarray(labels, dtype=np.float64) if first.metric.graded else None,
        free=counts[free],
        n_gold=np.einsum("m,sml->sl", counts, one_hot[0]),
        hits=np.einsum("m,xsml->xsl", counts, hit),
        predicted=np.einsum("m,xsml->xsl", counts, predicted),
        hits_moved=(hit[1] - hit[0])[:, free],
        predicted_moved=(predicted[1] - predicted[0])[:, free],
        n_examples=int(counts.sum()),
        means=(float(seed_values(first)[rows_first].mean()), float(seed_values(second)[rows_second].mean())),
    )


def _other_tests(
    first: TaskOutcomes, rows_first: Sequence[int], second: TaskOutcomes, rows_second: Sequence[int]
) -> bool:
    """Whether a pair of seeds is known to have different test examples."""
    if not first.tests or not second.tests:
        return False
    pairs = [
        (first.tests[one], second.tests[other]) for one, other in zip(rows_first, rows_second, strict=True)
    ]
    return any(one and other and one != other for one, other in pairs)


def share_seeds(first: TaskOutcomes, second: TaskOutcomes) -> bool:
    """Whether the two have a cell of this task in common; one whose seeds decide nothing shares every cell."""
    return not (first.seeded and second.seeded) or bool(set(first.seeds) & set(second.seeds))


def paired_seeds(first: TaskOutcomes, second: TaskOutcomes) -> tuple[list[int], list[int]]:
    """Rows of each method's answers to one task that belong together, as many of the one as of the other."""
    if not first.seeded or not second.seeded:
        n = max([1, *(len(one.seeds) for one in (first, second) if one.seeded)])
        rows = [list(range(n)) if one.seeded else [0] * n for one in (first, second)]
        return rows[0], rows[1]
    common = [seed for seed in first.seeds if seed in second.seeds]
    return [first.seeds.index(s) for s in common], [second.seeds.index(s) for s in common]


def _difference(pair: _Pair, swaps: Floats) -> Floats:
    """First minus second, mean over seeds, for each row of `swaps` [draws, m]: [draws]."""
    total = np.zeros(swaps.shape[0])
    for seed in range(pair.n_gold.shape[0]):
        hits, predicted = swaps @ pair.hits_moved[seed], swaps @ pair.predicted_moved[seed]
        ours, theirs = pair.hits[0, seed] + hits, pair.hits[1, seed] - hits
        if pair.metric == Metric.ACCURACY:
            total += (ours - theirs).sum(axis=1) / pair.n_examples
            continue
        if pair.grades is not None:
            moved = pair.predicted[0, seed] - pair.predicted[1, seed] + 2 * predicted
            total += moved @ pair.grades / pair.n_examples
            continue
        n_gold = np.broadcast_to(pair.n_gold[seed], hits.shape)
        total += f1_mean(ours, n_gold, pair.predicted[0, seed] + predicted)
        total -= f1_mean(theirs, n_gold, pair.predicted[1, seed] - predicted)
    return total / pair.n_gold.shape[0]
