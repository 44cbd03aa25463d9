"""Macro-F1 as MetaICL's released code computes it, and accuracy, for one set of answers or many reweightings.

Source: released code, `metaicl/data.py` (docs/methods.md, metrics). Macro-F1 averages F1 over the labels that occur in the *gold*
answers only; scikit-learn's default also averages a 0 for every label that was predicted and is
never gold.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from metashot.data.task import TaskType

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


class Metric(StrEnum):
    """What a (task, seed) cell is scored by, on the scale 0..1."""

    MACRO_F1 = "macro_f1"
    """Classification."""
    ACCURACY = "accuracy"
    """Multiple choice."""
    EXACT_MATCH = "exact_match"
    """Generated answers: equal to a reference after SQuAD's normalization."""
    TOKEN_F1 = "token_f1"
    """Generated answers: SQuAD's F1 over tokens, against the best reference."""
    ROUGE_L = "rouge_l"
    """Generated answers: ROUGE-L F-measure, against the best reference."""
    NUMERIC = "numeric"
    """Generated answers: the same number as a reference, however it is written."""

    @property
    def right_or_wrong(self) -> bool:
        """Whether a graded answer is worth 1 or 0 and nothing between."""
        return self in (Metric.EXACT_MATCH, Metric.NUMERIC)

    @property
    def graded(self) -> bool:
        """Whether every answer has a score of its own, 0..1, and the metric is their mean."""
        return self not in (Metric.MACRO_F1, Metric.ACCURACY)


_NO_SHARES = (
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "likelihood",
    "bleu",
    "chrf",
    "ter",
)
"""Metrics of lm-evaluation-harness that are no shares."""


class TaskMetric(str):
    """A metric that a task brings with it, by its name: every answer has a score, and the value is their mean."""

    graded = True

    @property
    def value(self) -> str:
        """The name."""
        return str(self)

    @property
    def is_share(self) -> bool:
        """Whether it lies in 0..1 (a correlation in -1..1), as far as its name says."""
        return self not in _NO_SHARES


AnyMetric = Metric | TaskMetric


def metric_named(name: str) -> AnyMetric:
    """The metric that a result was written with."""
    return Metric(name) if name in set(Metric) else TaskMetric(name)


def metric_of(task_type: TaskType, chosen: str | None = None) -> Metric:
    """The metric that MetaICL reports for a task of this type; `chosen`, what its recipe names, goes first."""
    if chosen is not None:
        return Metric(chosen)
    return Metric.MACRO_F1 if task_type == TaskType.CLASSIFICATION else Metric.ACCURACY


def score(metric: Metric, gold: Sequence[str], prediction: Sequence[str]) -> float:
    """`metric` of chosen options against `gold`, 0..1; graded metrics are in `generated.py`."""
    return macro_f1(gold, prediction) if metric == Metric.MACRO_F1 else accuracy(gold, prediction)


def accuracy(gold: Sequence[str], prediction: Sequence[str]) -> float:
    """Share of equal answers, 0..1.

    Raises:
        ValueError: no answers, or the two lists differ in length.
    """
    _check_pairs(gold, prediction)
    return sum(a == b for a, b in zip(gold, prediction, strict=True)) / len(gold)


def macro_f1(gold: Sequence[str], prediction: Sequence[str]) -> float:
    """Mean F1 over the labels that occur in `gold`, 0..1 (gold a,a,b and prediction a,c,b: 5/6).

    Raises:
        ValueError: no answers, or the two lists differ in length.
    """
    _check_pairs(gold, prediction)
    codes, labels = encode([*gold, *prediction])
    weights = np.ones((1, len(gold)))
    return float(weighted_macro_f1(weights, codes[: len(gold)], codes[len(gold) :], len(labels))[0])


def encode(answers: Sequence[str]) -> tuple[Codes, list[str]]:
    """Give each distinct answer a number in order of first appearance: (codes [n], labels)."""
    labels: dict[str, int] = {}
    codes = [labels.setdefault(answer, len(labels)) for answer in answers]
    return np.asarray(codes, dtype=np.int64), list(labels)


def weighted_metric(
    metric: AnyMetric, weights: Floats, gold: Codes, prediction: Codes, labels: Sequence[str]
) -> Floats:
    """`metric` under each of many reweightings of the same answers.

    Args:
        metric: which metric.
        weights: [draws, n] how often each answer counts in each draw.
        gold: [n] label codes.
        prediction: [n] label codes.
        labels: what each code stands for; for a graded metric the score of the answer, as text.

    Returns:
        [draws] values, 0..1.
    """
    if metric == Metric.MACRO_F1:
        return weighted_macro_f1(weights, gold, prediction, len(labels))
    if metric.graded:
        return weights @ np.asarray(labels, dtype=np.float64)[prediction] / weights.sum(axis=1)
    return weights @ (gold == prediction).astype(np.float64) / weights.sum(axis=1)


def weighted_macro_f1(weights: Floats, gold: Codes, prediction: Codes, n_labels: int) -> Floats:
    """Macro-F1 over gold labels for each row of `weights`: [draws, n] -> [draws]."""
    labels = np.arange(n_labels)
    gold_is = (gold[:, None] == labels).astype(np.float64)
    predicted_is = (prediction[:, None] == labels).astype(np.float64)
    return f1_mean(weights @ (gold_is * predicted_is), weights @ gold_is, weights @ predicted_is)


def f1_mean(hits: Floats, n_gold: Floats, n_predicted: Floats) -> Floats:
    """Mean of F1 = 2 hits / (gold + predicted) over the labels with gold > 0.

    This equals the released code's harmonic mean of precision and recall: where a label is never
    predicted it sets precision to 1, but recall and so F1 are 0.

    Args:
        hits: [draws, labels] answers predicted as the label that are right.
        n_gold: [draws, labels] answers whose gold is the label.
        n_predicted: [draws, labels] answers predicted as the label.

    Returns:
        [draws] values, 0..1.
    """
    present = n_gold > 0
    f1 = np.where(present, 2 * hits / np.maximum(n_gold + n_predicted, np.finfo(np.float64).tiny), 0.0)
    return f1.sum(axis=1) / present.sum(axis=1)


def _check_pairs(gold: Sequence[str], prediction: Sequence[str]) -> None:
    if not gold or len(gold) != len(prediction):
        raise ValueError(f"need as many predictions as gold answers, got {len(prediction)} and {len(gold)}")
