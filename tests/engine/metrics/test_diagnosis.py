"""Measures of what ails answers, by hand."""

import numpy as np
import pytest

from metashot.engine.metrics.diagnosis import agreement, posterior_bias, prior_bias, slope, tie_share


def scores_of(*chances):
    return -np.log(np.array(chances))


def test_the_bias_after_content_free_inputs_by_hand():
    """Means .7 and .3, distance (.2 + .2) / 2 from uniform."""
    assert prior_bias(scores_of([0.8, 0.2], [0.6, 0.4])) == pytest.approx(0.2)
    assert prior_bias(scores_of([0.9, 0.1], [0.1, 0.9])) == pytest.approx(0.0)


def test_the_posterior_bias_by_hand():
    """Means .8 and .2; of two right answers one each: |.8 - .5|."""
    assert posterior_bias(scores_of([0.9, 0.1], [0.7, 0.3]), np.array([0, 1])) == pytest.approx(0.3)
    assert posterior_bias(scores_of([0.9, 0.1], [0.1, 0.9]), np.array([0, 1])) == pytest.approx(0.0)


def test_ties_are_of_the_two_best():
    assert tie_share(np.array([[1.0, 1.0, 2.0], [1.0, 2.0, 2.0], [3.0, 1.0, np.inf]])) == pytest.approx(1 / 3)


def test_agreement_is_the_chance_that_two_draws_answer_alike():
    """Of three draws: first two alike at both places, the third at one of them. (1 + .5 + .5) / 3."""
    assert agreement([["a", "b"], ["a", "b"], ["a", "c"]]) == pytest.approx(2 / 3)
    assert agreement([["a", "b"]]) is None


def test_the_slope_is_numpys():
    x, y = [0.0, 0.25, 0.5, 1.0], [0.8, 0.7, 0.65, 0.4]
    assert slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])
    assert slope([0.5, 0.5], [1.0, 2.0]) is None
