"""Scores from stored log-probabilities, by hand."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metashot.base.errors import ConfigError
from metashot.engine.metrics.ranking import OptionCounts, best_option, option_scores
from metashot.engine.metrics.rules import (
    CALIBRATIONS,
    NORMALIZATIONS,
    Calibration,
    Normalization,
    calibration,
    normalization,
    register,
)

OVER_EXAMPLES = {"batch_transductive", "prior_transductive"}
"""Rules that compare the test examples of a cell with each other."""
MATCHING = {"prior"}
"""Rules without a closed form; their property is tested."""
COUNTS = [OptionCounts(tokens=2, chars=8, bytes=10), OptionCounts(tokens=4, chars=4, bytes=4)]


def one_example(sums, counts, null_sums, null_counts, **rules):
    return option_scores([[sums, *null_sums]], [[counts, *null_counts]], **rules)[0]


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
    scores = one_example([6.0, 8.0], COUNTS, [], [], calibration=Calibration.NONE, normalization=rule)
    assert scores == pytest.approx(expected)


def test_a_target_without_tokens_ranks_last_and_is_never_nan():
    empty, other = OptionCounts(tokens=0, chars=0, bytes=0), COUNTS[0]
    for rule in NORMALIZATIONS.values():
        for kind in CALIBRATIONS.values():
            scores = one_example(
                [0.0, 6.0],
                [empty, other],
                [[0.0, 5.0]],
                [[empty, other]],
                calibration=kind,
                normalization=rule,
            )
            assert scores[0] == math.inf
            assert math.isfinite(scores[1])


def test_an_empty_text_counts_as_one_character():
    # The option "" is scored by its separator: 3 nats, not 3 / 0.
    empty = OptionCounts(tokens=1, chars=0, bytes=0)
    for rule in NORMALIZATIONS.values():
        assert one_example([3.0], [empty], [], [], calibration=Calibration.NONE, normalization=rule) == [3.0]


def test_pmi_subtracts_the_normalized_null_score():
    # 6/2 - 5/2 = 0.5 and 8/4 - 2/4 = 1.5
    scores = one_example(
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
    scores = one_example(
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
        one_example([1.0], COUNTS[:1], [], [], calibration=Calibration.PMI, normalization=Normalization.SUM)


def test_ties_go_to_the_first_option():
    assert best_option([2.0, 1.0, 1.0]) == 1


@given(
    st.lists(st.floats(0.1, 50), min_size=2, max_size=5),
    st.floats(0.1, 50),
    st.sampled_from([Calibration.PMI, Calibration.CONTEXTUAL]),
)
def test_a_constant_null_score_does_not_change_the_ranking(sums, constant, calibration):
    counts = [OptionCounts(1, 1, 1)] * len(sums)
    plain = one_example(sums, counts, [], [], calibration=Calibration.NONE, normalization=Normalization.SUM)
    calibrated = one_example(
        sums,
        counts,
        [[constant] * len(sums)],
        [counts],
        calibration=calibration,
        normalization=Normalization.SUM,
    )
    assert calibrated[best_option(plain)] == pytest.approx(min(calibrated), abs=1e-9)


DIVISORS = {
    "token_mean": lambda count: count.tokens,
    "sum": lambda count: 1,
    "characters": lambda count: count.chars,
    "bytes": lambda count: count.bytes,
}


def by_hand(sums, counts, rule, calibration):
    """Sums [1 + n_null][options] with plain Python numbers, one option at a time."""
    layers = [
        [total / DIVISORS[rule](count) for total, count in zip(totals, row, strict=True)]
        for totals, row in zip(sums, counts, strict=True)
    ]
    plain, nulls = layers[0], layers[1:]
    if calibration == "none":
        return plain
    if calibration in ("pmi", "domain"):
        return [one - other for one, other in zip(plain, nulls[0], strict=True)]
    assert calibration in ("contextual", "batch", "domain_context", "generative")
    shares = [[math.exp(-x) / sum(math.exp(-y) for y in row) for x in row] for row in layers]
    means = [sum(row[i] for row in shares[1:]) / len(nulls) for i in range(len(plain))]
    return [-math.log(share / mean) for share, mean in zip(shares[0], means, strict=True)]


@pytest.mark.parametrize("rule", sorted(NORMALIZATIONS))
@pytest.mark.parametrize("name", sorted(set(CALIBRATIONS) - OVER_EXAMPLES - MATCHING))
def test_every_rule_on_a_cell_of_examples_with_different_numbers_of_options(name, rule):
    used = calibration(name)
    n_null = used.fewest if used.most is not None else 3
    draw = random.Random(f"{name}{rule}")
    sizes = [2, 4, 2, 3, 4]
    counts = [
        [
            [OptionCounts(*(draw.randint(1, 9) for _ in range(3))) for _ in range(size)]
            for _ in range(1 + n_null)
        ]
        for size in sizes
    ]
    sums = [[[draw.uniform(0.5, 9) for _ in row] for row in layers] for layers in counts]
    found = option_scores(sums, counts, calibration=used, normalization=normalization(rule))
    for scores, layers, lengths in zip(found, sums, counts, strict=True):
        assert scores == pytest.approx(by_hand(layers, lengths, rule, name), abs=1e-12)


@pytest.mark.parametrize("registry", [NORMALIZATIONS, CALIBRATIONS])
def test_every_rule_has_its_name_and_a_title(registry):
    for name, rule in registry.items():
        assert rule.name == name
        assert rule.title
    with pytest.raises(ValueError, match="is there already"):
        register(next(iter(registry.values())))


def test_unknown_rules_are_named():
    with pytest.raises(
        ConfigError, match=r"method\.normalization: unknown rule 'byte' \(did you mean 'bytes'\?\)"
    ):
        normalization("byte")
    with pytest.raises(
        ConfigError, match=r"method\.calibration: unknown rule 'pmii' \(did you mean 'pmi'\?\)"
    ):
        calibration("pmii")


BIASED = np.array([[0.1, 2.0], [0.3, 2.6], [0.1, 1.2], [0.4, 1.0]])
"""One option is preferred everywhere; relative to the others, the last two examples lean to the second."""


def test_transductive_batch_calibration_divides_by_the_mean_probability_of_an_option():
    found = Calibration.BATCH_TRANSDUCTIVE.combine(BIASED, np.empty((0, 4, 2)))
    p = np.exp(-BIASED) / np.exp(-BIASED).sum(axis=1, keepdims=True)
    assert found == pytest.approx(-np.log(p / p.mean(axis=0)))
    assert found.argmin(axis=1).tolist() == [0, 0, 1, 1]


def test_prior_matching_ends_with_options_that_are_equally_likely_over_the_inputs():
    found = Calibration.PRIOR_TRANSDUCTIVE.combine(BIASED, np.empty((0, 4, 2)))
    p = np.exp(-found) / np.exp(-found).sum(axis=1, keepdims=True)
    assert p.mean(axis=0) == pytest.approx([0.5, 0.5], abs=1e-5)
    assert found - BIASED == pytest.approx((found - BIASED)[:1].repeat(4, axis=0))
    assert found.argmin(axis=1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", sorted(OVER_EXAMPLES))
def test_a_preference_for_one_option_changes_no_ranking(name: str):
    """Adding a constant to an option's score everywhere is what both rules take away."""
    combine, nulls = calibration(name).combine, np.empty((0, 4, 2))
    shifted = combine(BIASED + np.array([0.0, 3.0]), nulls)
    if name == "prior_transductive":
        assert shifted - shifted.mean(axis=1, keepdims=True) == pytest.approx(
            combine(BIASED, nulls) - combine(BIASED, nulls).mean(axis=1, keepdims=True), abs=1e-4
        )
    assert shifted.argmin(axis=1).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("rule", "over_tests"),
    [
        (Calibration.BATCH, Calibration.BATCH_TRANSDUCTIVE),
        (Calibration.PRIOR, Calibration.PRIOR_TRANSDUCTIVE),
    ],
)
def test_rules_over_training_inputs_are_the_transductive_ones_where_those_are_the_test_inputs(
    rule, over_tests
):
    nulls = np.repeat(BIASED[:, None, :], len(BIASED), axis=1)  # [n_null, examples, options]
    assert rule.combine(BIASED, nulls) == pytest.approx(
        over_tests.combine(BIASED, np.empty((0, 4, 2))), abs=1e-9
    )


def test_prior_matching_makes_options_equally_likely_over_the_training_inputs_of_each_example():
    draw = np.random.default_rng(3)
    plain, nulls = draw.normal(size=(5, 3)), draw.normal([0.0, 2.0, -1.0], size=(7, 5, 3))
    shift = Calibration.PRIOR.combine(plain, nulls) - plain
    p = np.exp(-(nulls + shift))
    assert (p / p.sum(axis=2, keepdims=True)).mean(axis=0) == pytest.approx(np.full((5, 3), 1 / 3), abs=1e-5)
