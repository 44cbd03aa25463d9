"""A temperature beside a search over a grid, and sets that hold the right option as often as they promise."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom
from sklearn.metrics import log_loss

from metashot.engine.metrics.held_out_calibration import conformal_sets, conformal_threshold, fit_temperature


def drawn(generator, n, options=4, sharpness=3.0):
    """Scores whose softmax over `sharpness` is the chance of each option."""
    scores = generator.gamma(2.0, 1.0, (n, options))
    chances = softmax(-scores / sharpness, axis=1)
    gold = np.array([generator.choice(options, p=row) for row in chances])
    return scores, gold


def test_the_temperature_is_the_best_of_a_grid_by_scikit_learns_log_loss():
    scores, gold = drawn(np.random.default_rng(0), 400)
    found = fit_temperature(scores, gold)
    grid = np.geomspace(0.1, 30, 400)
    losses = [log_loss(gold, softmax(-scores / one, axis=1), labels=range(4)) for one in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.03)


def test_the_temperature_by_which_answers_were_drawn_is_found():
    scores, gold = drawn(np.random.default_rng(1), 20_000)
    assert fit_temperature(scores, gold) == pytest.approx(3.0, rel=0.1)


def test_the_threshold_by_hand():
    """Of 1 - p(gold) = .1, .2, .3, .4 a coverage of .6 takes the ceil(5 x .6) = 3rd; .9 the 5th, which is not there."""
    p = np.array([0.9, 0.8, 0.7, 0.6])
    scores, gold = -np.log(np.stack([p, 1 - p], axis=1)), np.zeros(4, dtype=np.int64)
    assert conformal_threshold(scores, gold, 0.6) == pytest.approx(0.3)
    assert conformal_threshold(scores, gold, 0.9) == np.inf
    few = np.array([[0.0, 0.0, np.inf], [0.0, 9.0, np.inf]])
    assert conformal_sets(few, 0.4).tolist() == [[False, False, False], [True, False, False]]
    assert conformal_sets(few, np.inf).tolist() == [[True, True, False], [True, True, False]]


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_over_200_draws_the_right_option_is_in_the_set_as_often_as_promised(coverage):
    """One test row a draw, so that the hits are binomial, with a chance between c and c + 1 / (n + 1)."""
    generator, n, hits = np.random.default_rng(2), 59, 0
    for _ in range(200):
        scores, gold = drawn(generator, n + 1)
        threshold = conformal_threshold(scores[:n], gold[:n], coverage)
        hits += bool(conformal_sets(scores[n:], threshold)[0, gold[n]])
    low, high = binom.ppf(0.005, 200, coverage), binom.ppf(0.995, 200, coverage + 1 / (n + 1))
    assert low <= hits <= high
