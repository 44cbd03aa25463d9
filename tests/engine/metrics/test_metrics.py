"""Macro-F1 over gold labels only, with the released code's worked examples (docs/methods.md, metrics)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.data.task import TaskType
from metashot.engine.metrics.classification import (
    Metric,
    accuracy,
    encode,
    macro_f1,
    metric_of,
    score,
    weighted_macro_f1,
)

LABELS = st.sampled_from(["a", "b", "c", "d"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30)


def released_macro_f1(gold: list[str], prediction: list[str]) -> float:
    """The definition written out: precision 1 where a label is never predicted, F1 0 where both are 0."""
    f1s = []
    for label in set(gold):
        right = [p == label for g, p in zip(gold, prediction, strict=True) if g == label]
        called = [g == label for g, p in zip(gold, prediction, strict=True) if p == label]
        recall = sum(right) / len(right)
        precision = sum(called) / len(called) if called else 1.0
        f1s.append(0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall))
    return sum(f1s) / len(f1s)


def test_a_label_predicted_but_never_gold_adds_no_zero():
    """a: precision 1, recall 1/2, F1 2/3; b: 1; c is never gold: (2/3 + 1) / 2 (scikit-learn: 0.5556)."""
    assert macro_f1(["a", "a", "b"], ["a", "c", "b"]) == pytest.approx(5 / 6)


def test_a_label_never_predicted_counts_zero():
    """a: precision 2/3, recall 1, F1 0.8; b: 0; mean 0.4."""
    assert macro_f1(["a", "a", "b"], ["a", "a", "a"]) == pytest.approx(0.4)


def test_accuracy_is_the_share_of_equal_answers():
    assert accuracy(["x", "y", "z", "z"], ["x", "y", "y", "z"]) == 0.75


@given(PAIRS)
def test_macro_f1_equals_the_definition_written_out(pairs):
    gold, prediction = map(list, zip(*pairs, strict=True))
    assert macro_f1(gold, prediction) == pytest.approx(released_macro_f1(gold, prediction), abs=1e-12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_weights_are_repetitions(pairs, random):
    repeats = [random.randint(0, 3) for _ in pairs]
    repeats[0] += 1
    expanded = [pair for pair, n in zip(pairs, repeats, strict=True) for _ in range(n)]
    gold, prediction = zip(*pairs, strict=True)
    codes, labels = encode([*gold, *prediction])
    weights = np.array([repeats], dtype=float)
    value = weighted_macro_f1(weights, codes[: len(gold)], codes[len(gold) :], len(labels))[0]
    assert value == pytest.approx(macro_f1(*map(list, zip(*expanded, strict=True))), abs=1e-12)


def test_the_task_type_decides_the_metric():
    assert metric_of(TaskType.CLASSIFICATION) == Metric.MACRO_F1
    assert metric_of(TaskType.MULTI_CHOICE) == metric_of(TaskType.FREE_FORM) == Metric.ACCURACY
    assert score(Metric.ACCURACY, ["a", "b"], ["a", "a"]) == 0.5
    assert score(Metric.MACRO_F1, ["a", "b"], ["a", "a"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", [accuracy, macro_f1])
def test_lists_of_different_length_are_refused(metric):
    with pytest.raises(ValueError, match="got 1 and 2"):
        metric(["a", "b"], ["a"])
