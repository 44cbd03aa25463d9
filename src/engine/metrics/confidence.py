"""How sure answers are, and whether rightly: calibration and selection measures of chosen options.

An option's probability is its share of exp(-nll) among the options of its example; the confidence of an answer is that of
the chosen option. Formulas: ECE with bins of equal mass (Nguyen and O'Connor 2015), the multi-class Brier score
(Brier 1950: the squared distance of the probabilities to the gold option, summed over options), NLL of the gold option in
nats, AUROC of confidence for being right, and accuracy of the most confident share (selective accuracy).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import rankdata

from metashot.engine.metrics.classification import Floats
from metashot.engine.metrics.statistics import Interval, percentile_interval

BINS = 10
_FLOOR = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Confidence:
    """Answers with how sure they are; n test examples.

    Attributes:
        confidence: [n] probability of the chosen option, 0..1.
        right: [n] whether it is the gold one.
        brier: [n] squared distance of the probabilities to the gold option, 0..2.
        nll: [n] of the gold option, nats.
    """

    confidence: Floats
    right: NDArray[np.bool_]
    brier: Floats
    nll: Floats


def confidence_of(scores: Floats, gold: NDArray[np.int64]) -> Confidence:
    """Confidence of ranked options.

    Args:
        scores: [n, options] by which they were ranked, nats, lower is better; inf where an example has fewer options.
        gold: [n] place of the right one.
    """
    logs = log_softmax(-scores, axis=1)
    probabilities = np.exp(logs)
    rows = np.arange(len(gold))
    chosen = scores.argmin(axis=1)
    target = np.zeros_like(probabilities)
    target[rows, gold] = 1.0
    return Confidence(
        probabilities[rows, chosen],
        chosen == gold,
        ((probabilities - target) ** 2).sum(axis=1),
        -np.maximum(logs[rows, gold], np.log(_FLOOR)),
    )


def expected_calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over bins of (as nearly as possible) equally many examples, 0..1."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = [abs(confidence[part].mean() - right[part].mean()) * part.size for part in parts]
    return float(sum(gaps) / confidence.size)


def mean_interval(values: Floats, units: NDArray[np.int64], draws: int, level: float, seed: int) -> Interval:
    """The mean of values [n] with its percentile interval over resampled test examples; `units` as below."""
    generator = np.random.default_rng(seed)
    sums, sizes = np.bincount(units, weights=values), np.bincount(units).astype(np.float64)
    times = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=draws)
    return percentile_interval(float(values.mean()), (times @ sums) / (times @ sizes), level)


def calibration_interval(
    one: Confidence, units: NDArray[np.int64], draws: int, level: float, seed: int
) -> Interval:
    """ECE with its percentile interval over resampled test examples.

    Args:
        one: the answers.
        units: [n] number of the test example that each answer is to, from 0; its answers under several seeds are
            drawn together.
        draws: resamplings.
        level: confidence level.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    n_units = int(units.max()) + 1
    drawn: list[float] = []
    for _ in range(draws):
        times = np.bincount(generator.integers(0, n_units, n_units), minlength=n_units)
        rows = np.repeat(np.arange(units.size), times[units])
        drawn.append(expected_calibration_error(one.confidence[rows], one.right[rows]))
    return percentile_interval(expected_calibration_error(one.confidence, one.right), np.array(drawn), level)


def auroc(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """Chance that a right answer is surer than a wrong one, ties half; None where all are right or all wrong."""
    n_right = int(right.sum())
    n_wrong = right.size - n_right
    if not n_right or not n_wrong:
        return None
    ranks = rankdata(confidence)
    return float((ranks[right].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def accuracy_at(coverage: float, confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Accuracy of the most confident share of the answers, at least one; 0..1."""
    kept = np.argsort(-confidence, kind="stable")[: max(1, round(coverage * confidence.size))]
    return float(right[kept].mean())
