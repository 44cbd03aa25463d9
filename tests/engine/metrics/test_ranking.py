"""Scores from stored log-probabilities, by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.engine.metrics.ranking import (
    Calibration,
    Normalization,
    OptionCounts,
    best_option,
    normalized,
    option_scores,
)

COUNTS = [OptionCounts(tokens=2, chars=8, bytes=10), OptionCounts(tokens=4, chars=4, bytes=4)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Normalization.TOKEN_MEAN, [3.0, 2.0]),  # 6/2, 8/4
        (Normalization.SUM, [6.0, 8.0]),
        (Normalization.CHARACTERS, [0.75, 2.0]),  # 6/8, 8/4
        (Normalization.BYTES, [0.6, 2.0]),  # 6/10, 8/4
    ],
)
def test_normalizations(rule, expected):
    scores = option_scores([6.0, 8.0], COUNTS, [], [], calibration=Calibration.NONE, normalization=rule)
    assert scores == pytest.approx(expected)


def test_a_target_without_tokens_scores_zero_and_never_nan():
    empty = OptionCounts(tokens=0, chars=0, bytes=0)
    assert [normalized(0.0, empty, rule) for rule in Normalization] == [0.0] * 4


def test_pmi_subtracts_the_normalized_null_score():
    # 6/2 - 5/2 = 0.5 and 8/4 - 2/4 = 1.5
    scores = option_scores(
        [6.0, 8.0],
        COUNTS,
        [[5.0, 2.0]],
        [COUNTS],
        calibration=Calibration.PMI,
        normalization=Normalization.TOKEN_MEAN,
    )
    assert scores == pytest.approx([0.5, 1.5])


def test_contextual_calibration_divides_by_the_mean_content_free_probability():
    # p = (0.6, 0.4); content-free p = (0.9, 0.1) and (0.7, 0.3), mean (0.8, 0.2).
    # Scores are -log(0.6/0.8) and -log(0.4/0.2): the second option wins although p prefers the first.
    one = [OptionCounts(1, 1, 1)] * 2
    nll = [-math.log(p) for p in (0.6, 0.4)]
    nulls = [[-math.log(p) for p in row] for row in ((0.9, 0.1), (0.7, 0.3))]
    scores = option_scores(
        nll,
        one,
        nulls,
        [one, one],
        calibration=Calibration.CONTEXTUAL,
        normalization=Normalization.TOKEN_MEAN,
    )
    assert scores == pytest.approx([-math.log(0.75), -math.log(2)])
    assert best_option(scores) == 1


def test_a_calibration_without_null_scores_is_refused():
    with pytest.raises(ValueError, match="content-free"):
        option_scores([1.0], COUNTS[:1], [], [], calibration=Calibration.PMI, normalization=Normalization.SUM)


def test_ties_go_to_the_first_option():
    assert best_option([2.0, 1.0, 1.0]) == 1


@given(
    st.lists(st.floats(0.1, 50), min_size=2, max_size=5),
    st.floats(0.1, 50),
    st.sampled_from([Calibration.PMI, Calibration.CONTEXTUAL]),
)
def test_a_constant_null_score_does_not_change_the_ranking(sums, constant, calibration):
    counts = [OptionCounts(1, 1, 1)] * len(sums)
    plain = option_scores(sums, counts, [], [], calibration=Calibration.NONE, normalization=Normalization.SUM)
    calibrated = option_scores(
        sums,
        counts,
        [[constant] * len(sums)],
        [counts],
        calibration=calibration,
        normalization=Normalization.SUM,
    )
    assert calibrated[best_option(plain)] == pytest.approx(min(calibrated), abs=1e-9)
