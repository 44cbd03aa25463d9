"""A control variate beside a plain computation, and what it is for: narrower intervals that hold the figure of all rows."""

import numpy as np
import pytest

from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.control_variate import controlled_mean
from metashot.engine.metrics.statistics import task_outcomes


def outcomes(right):
    """Accuracy outcomes [seeds][n]."""
    gold = ["yes"] * len(right[0])
    answers = {seed: (gold, ["yes" if one else "no" for one in row]) for seed, row in enumerate(right)}
    return {"a": task_outcomes("a", Metric.ACCURACY, answers)}


def drawn(generator, n, alike):
    """Two systems right on 70 % of n rows each, which share their answer on a share `alike` of them."""
    first = generator.random(n) < 0.7
    second = np.where(generator.random(n) < alike, first, generator.random(n) < 0.7)
    return first, second


def test_for_one_seed_it_is_the_regression_estimate():
    """Of accuracies the slope over resampled rows is that of the rows themselves: cov(a, b) / var(b)."""
    generator = np.random.default_rng(0)
    a, b = drawn(generator, 2000, 0.8)
    rows = generator.choice(2000, 200, replace=False)
    found = controlled_mean(outcomes([a[rows]]), outcomes([b[rows]]), outcomes([b]), 20_000, 0.95, 0)
    slope = np.cov(a[rows], b[rows])[0, 1] / b[rows].var(ddof=1)
    assert found.plain.value == pytest.approx(a[rows].mean())
    assert found.controlled.value == pytest.approx(
        a[rows].mean() - slope * (b[rows].mean() - b.mean()), abs=1e-3
    )


def test_the_interval_is_narrower_by_the_correlation_and_holds_the_figure_of_all_rows():
    generator, held, ratios = np.random.default_rng(1), 0, []
    for _ in range(100):
        a, b = drawn(generator, 3000, 0.9)
        rows = generator.choice(3000, 150, replace=False)
        found = controlled_mean(outcomes([a[rows]]), outcomes([b[rows]]), outcomes([b]), 300, 0.95, 0)
        held += found.controlled.low <= a.mean() <= found.controlled.high
        ratios.append((found.controlled.high - found.controlled.low) / (found.plain.high - found.plain.low))
    assert held >= 88  # of a binomial with p = .95, 99.9 % lie above
    assert np.mean(ratios) == pytest.approx(
        np.sqrt(1 - 0.9**2), abs=0.08
    )  # the correlation is the share alike


def test_a_control_that_says_nothing_changes_nothing():
    a = [[1, 0, 1, 1, 0, 1]]
    same = [[1, 1, 1, 1, 1, 1]]
    found = controlled_mean(outcomes(a), outcomes(same), outcomes([[1] * 20]), 200, 0.95, 0)
    assert found.controlled == found.plain


def test_systems_without_a_common_seed_are_refused():
    a = outcomes([[1, 0]])
    other = {"a": task_outcomes("a", Metric.ACCURACY, {7: (["x", "x"], ["x", "y"])})}
    with pytest.raises(ValueError, match="no seed"):
        controlled_mean(a, other, other, 10, 0.95, 0)
