"""The smallest difference that a comparison finds: by the published formula, and by comparisons that are drawn."""

import numpy as np
import pytest
from scipy.stats import norm

from metashot.engine.metrics.power import effective_examples, smallest_difference


def test_it_solves_the_published_formula_for_the_difference():
    for n, d in ((100, 0.3), (500, 0.2), (2000, 0.5)):
        delta = smallest_difference([n], d)
        needed = (norm.ppf(0.975) * d**0.5 + norm.ppf(0.8) * (d - delta**2) ** 0.5) ** 2 / delta**2
        assert needed == pytest.approx(n)


def test_four_of_five_drawn_comparisons_find_it():
    """McNemar's statistic without correction, 4000 comparisons of 300 examples."""
    d, n = 0.3, 300
    delta = smallest_difference([n], d)
    generator = np.random.default_rng(0)
    first, second, _ = generator.multinomial(n, [(d + delta) / 2, (d - delta) / 2, 1 - d], size=4000).T
    found = np.abs(first - second) / np.sqrt(np.maximum(first + second, 1)) > norm.ppf(0.975)
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_tasks_weigh_alike_whatever_their_size():
    """The variance of a mean of two tasks with 100 and 25 examples is (1/100 + 1/25) / 4 of one example's: 80."""
    assert effective_examples([100, 25]) == pytest.approx(80)
    assert effective_examples([50, 50]) == pytest.approx(100)
    assert smallest_difference([100, 25], 0.3) == pytest.approx(smallest_difference([80], 0.3))


def test_too_few_examples_find_nothing():
    assert smallest_difference([4], 0.3) is None
