"""Calibration and selection measures against other implementations, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from metashot.engine.metrics.confidence import (
    accuracy_at,
    auroc,
    calibration_interval,
    confidence_of,
    expected_calibration_error,
)


@pytest.fixture
def drawn():
    generator = np.random.default_rng(0)
    return generator.normal(2.0, 1.0, (300, 3)), generator.integers(0, 3, 300)


def test_brier_nll_and_auroc_are_those_of_scikit_learn(drawn):
    scores, gold = drawn
    one = confidence_of(scores, gold)
    probabilities = np.exp(-scores) / np.exp(-scores).sum(axis=1, keepdims=True)
    assert one.nll.mean() == pytest.approx(log_loss(gold, probabilities))
    per_class = [brier_score_loss(gold == label, probabilities[:, label]) for label in range(3)]
    assert one.brier.mean() == pytest.approx(sum(per_class))
    assert (one.right == (scores.argmin(axis=1) == gold)).all()
    assert auroc(one.confidence, one.right) == pytest.approx(roc_auc_score(one.right, one.confidence))


def test_with_as_many_values_as_bins_the_calibration_error_is_that_of_torchmetrics():
    """Ten values of confidence, thirty examples each: bins of equal mass are torchmetrics' bins of equal width."""
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    generator = np.random.default_rng(1)
    confidence = np.repeat(np.arange(10) / 10 + 0.05, 30)
    right = generator.random(300) < confidence**2
    # Of a binary problem whose predicted class is always 1: confidence is its probability, being right its label.
    theirs = functional.binary_calibration_error(
        torch.tensor(confidence), torch.tensor(right.astype(int)), n_bins=10
    )
    assert expected_calibration_error(confidence, right) == pytest.approx(float(theirs), abs=1e-6)


def test_the_calibration_error_by_hand():
    """Two bins: (.5, .6) with one right, |.55 - .5| = .05; (.8, .9) with both, |.85 - 1| = .15. Mean .1."""
    confidence, right = np.array([0.9, 0.5, 0.8, 0.6]), np.array([True, False, True, True])
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(0.1)
    assert accuracy_at(0.75, confidence, right) == 1.0
    assert accuracy_at(1.0, confidence, right) == 0.75
    assert auroc(confidence, np.ones(4, dtype=bool)) is None


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=40))
def test_an_interval_surrounds_what_the_measure_can_be(rows):
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows])
    assert 0 <= expected_calibration_error(confidence, right) <= 1


def test_examples_with_fewer_options_have_the_probabilities_of_those(drawn):
    narrow = np.array([[1.0, 2.0]])
    wide = np.array([[1.0, 2.0, np.inf]])
    gold = np.array([1])
    for name in ("confidence", "brier", "nll"):
        assert getattr(confidence_of(wide, gold), name) == pytest.approx(
            getattr(confidence_of(narrow, gold), name)
        )


def interval_of(one, units=None):
    return calibration_interval(one, np.arange(one.right.size) if units is None else units, 200, 0.95, 0)


def test_the_interval_narrows_with_more_examples_and_not_with_more_seeds(drawn):
    """The same thirty examples answered ten times in the same way say no more than once."""
    scores, gold = drawn
    few, many = (confidence_of(scores[:n], gold[:n]) for n in (30, 300))
    often = confidence_of(np.tile(scores[:30], (10, 1)), np.tile(gold[:30], 10))
    widths = [
        interval.high - interval.low
        for interval in (interval_of(few), interval_of(many), interval_of(often, np.tile(np.arange(30), 10)))
    ]
    assert widths[1] < 0.6 * widths[0]
    assert widths[2] == pytest.approx(widths[0], rel=0.15)
    assert interval_of(many) == interval_of(many)
