"""Grades of generated answers, worked out by hand, and their intervals and tests."""

from __future__ import annotations

import numpy as np
import pytest

from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.generated import grade
from metashot.engine.metrics.permutation import paired_permutation_test
from metashot.engine.metrics.statistics import bootstrap_mean, seed_values, task_outcomes

pytest.importorskip("torchmetrics")
pytest.importorskip("rouge_score")


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0),
        ("tower", ["eiffel tower", "Tower"], 1.0),
        ("tower of Paris", ["eiffel tower"], 0.0),
        ("", ["eiffel tower"], 0.0),
    ],
)
def test_exact_match_ignores_case_articles_and_punctuation(answer, references, expected):
    assert grade(Metric.EXACT_MATCH, answer, references) == expected


def test_token_f1_takes_the_best_reference():
    # tokens {black, cat} against {cat, sat}: one in common, precision 1/2, recall 1/2; against {cat}: 1/2 and 1 -> 2/3
    assert grade(Metric.TOKEN_F1, "the black cat", ["a cat sat"]) == pytest.approx(1 / 2)
    assert grade(Metric.TOKEN_F1, "the black cat", ["a cat sat", "cat"]) == pytest.approx(2 / 3)


def test_rouge_l_counts_the_longest_common_subsequence():
    # "cat sat" of 3 and 3 words: precision and recall 2/3
    assert grade(Metric.ROUGE_L, "cat sat down", ["the cat sat"]) == pytest.approx(2 / 3)


def test_a_metric_of_options_is_refused():
    with pytest.raises(ValueError, match="ranks options"):
        grade(Metric.ACCURACY, "a", ["a"])


def outcomes(scores: dict[int, list[float]]):
    text = {seed: [repr(score) for score in row] for seed, row in scores.items()}
    return task_outcomes("t", Metric.TOKEN_F1, {seed: (row, row) for seed, row in text.items()})


def test_a_graded_metric_is_the_mean_of_its_grades():
    found = outcomes({100: [0.0, 0.5, 1.0, 0.25], 13: [1.0, 1.0, 1.0, 0.0]})
    assert seed_values(found).tolist() == [0.4375, 0.75]
    interval = bootstrap_mean([found], draws=400).mean
    assert interval.value == pytest.approx(0.59375)
    assert interval.low < interval.value < interval.high


def test_the_paired_test_of_grades_equals_enumerated_sign_flips():
    rng = np.random.default_rng(0)
    ours, theirs = rng.choice([0.0, 0.25, 0.5, 1.0], (2, 10))
    difference = ours - theirs
    signs = np.array(np.meshgrid(*[[-1, 1]] * 10)).reshape(10, -1)
    expected = np.mean(np.abs(difference @ signs) >= abs(difference.sum()) - 1e-9)
    found = paired_permutation_test([outcomes({1: ours.tolist()})], [outcomes({1: theirs.tolist()})])
    assert found.difference == pytest.approx(difference.mean())
    assert found.exact
    assert found.p_value == pytest.approx(expected)
