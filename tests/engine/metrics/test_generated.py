"""Grades of generated answers, worked out by hand, and their intervals and tests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.generated import grade, number_of, same_answer
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


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,200.50", "1200.5"), (" $12. ", "12"), ("-3e2", "-300"), ("50%", "50"), ("3/4", "0.75"), (".5", "0.5"),
        ("\u22127", "-7"), ("0", "0"), ("072", "72"),
    ],
)  # fmt: skip
def test_a_number_however_it_is_written(text, number):
    assert number_of(text) == number_of(number) == Fraction(number)
    assert grade(Metric.NUMERIC, text, ["no number", number]) == 1.0
    assert grade(Metric.NUMERIC, text, ["12345"]) == 0.0


@pytest.mark.parametrize(
    "text", ["", "seven", "7 apples", "1/0", "nan", "inf", "1e999999999", "1/2/3x", "--1"]
)
def test_what_is_no_number_equals_none(text):
    assert number_of(text) is None
    assert grade(Metric.NUMERIC, text, [text]) == 0.0


def test_answers_are_the_same_as_their_metric_reads_them():
    assert same_answer(Metric.NUMERIC, "7.0", "7")
    assert same_answer(Metric.EXACT_MATCH, "The cat!", "cat")
    assert same_answer(Metric.TOKEN_F1, "b a c", "c b")  # an article and the order do not count
    assert not same_answer(Metric.ROUGE_L, "b c", "c b")


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
