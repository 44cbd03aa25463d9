"""Bootstrap against closed forms, permutation test against its exact distribution, Holm by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metashot.engine.metrics.classification import Metric, macro_f1
from metashot.engine.metrics.permutation import paired_permutation_test
from metashot.engine.metrics.statistics import (
    bootstrap_mean,
    holm,
    resampled_seed_values,
    seed_values,
    task_outcomes,
)


def accuracy_task(name, right):
    """One task from a [seeds, n] table of right (1) and wrong (0)."""
    rows = {seed: (["y"] * len(row), ["y" if hit else "n" for hit in row]) for seed, row in enumerate(right)}
    return task_outcomes(name, Metric.ACCURACY, rows)


def label_task(name, gold, *predictions):
    return task_outcomes(name, Metric.MACRO_F1, {seed: (gold, p) for seed, p in enumerate(predictions)})


def test_one_seed_has_the_binomial_interval():
    """Resampling 400 answers of which 300 are right: sd = sqrt(.75 * .25 / 400), normal to 1 %."""
    task = accuracy_task("t", [[1] * 300 + [0] * 100])
    mean = bootstrap_mean([task], draws=20_000).mean
    half_width = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert mean.value == 0.75
    assert mean.high - mean.low == pytest.approx(2 * half_width, rel=0.05)


def test_seeds_and_examples_give_the_crossed_variance():
    """Var = var(seed means)/S + var(example means)/n + var(interaction)/(S n), all population variances."""
    right = np.random.default_rng(1).random((5, 60)) < np.linspace(0.2, 0.9, 5)[:, None]
    seeds, examples = right.mean(axis=1), right.mean(axis=0)
    interaction = right - seeds[:, None] - examples + right.mean()
    closed = seeds.var() / 5 + examples.var() / 60 + interaction.var() / 300
    task = accuracy_task("t", right)
    generator = np.random.default_rng(0)
    values = resampled_seed_values(task, 40_000, generator)
    picks = generator.integers(0, 5, size=values.shape)
    means = np.take_along_axis(values, picks, axis=1).mean(axis=1)
    assert means.var() == pytest.approx(closed, rel=0.05)
    low, high = np.quantile(means, [0.025, 0.975])
    interval = bootstrap_mean([task], draws=40_000).mean
    assert (interval.low, interval.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))


def test_mean_is_over_seeds_then_tasks_and_worst_is_per_task():
    """Task one: seeds 1.0 and 0.5; task two: 0.25 and 0.75. Mean .625; worst (0.5 + 0.25) / 2."""
    one, two = (
        accuracy_task("one", [[1] * 4, [1, 1, 0, 0]]),
        accuracy_task("two", [[1, 0, 0, 0], [1, 1, 1, 0]]),
    )
    figures = bootstrap_mean([one, two], draws=500)
    assert figures.mean.value == 0.625
    assert figures.worst.value == 0.375
    assert figures.worst.low <= 0.375 <= figures.worst.high


def test_the_interval_of_the_worst_surrounds_it():
    """Five equally good seeds on 16 examples: the least of five resampled values is mostly below the least seen."""
    rng = np.random.default_rng(3)
    gold = ["a"] * 16
    tasks = [
        task_outcomes(
            f"t{number}", Metric.ACCURACY, {s: (gold, rng.choice(["a", "b"], 16).tolist()) for s in range(5)}
        )
        for number in range(20)
    ]
    worst = bootstrap_mean(tasks, 400).worst
    assert worst.low < worst.value < worst.high
    assert worst.value - worst.low == pytest.approx(worst.high - worst.value, abs=0.02)


def test_macro_f1_is_recomputed_in_every_draw():
    """Compare with a bootstrap that resamples the examples one by one."""
    gold, prediction = ["a"] * 20 + ["b"] * 10, ["a"] * 15 + ["b"] * 12 + ["c"] * 3
    task = label_task("t", gold, prediction)
    values = resampled_seed_values(task, 4_000, np.random.default_rng(0))[:, 0]
    generator = np.random.default_rng(1)
    slow = []
    for _ in range(4_000):
        picks = generator.integers(0, 30, size=30)
        slow.append(macro_f1([gold[i] for i in picks], [prediction[i] for i in picks]))
    assert values.mean() == pytest.approx(np.mean(slow), abs=0.01)
    assert values.std() == pytest.approx(np.std(slow), rel=0.06)


def test_examples_resampled_together_keep_their_correlation():
    """Two seeds with equal answers carry no more information than one."""
    row = [1] * 30 + [0] * 30
    one, twice = accuracy_task("t", [row]), accuracy_task("t", [row, row])
    widths = [b.high - b.low for b in (bootstrap_mean([t], draws=20_000).mean for t in (one, twice))]
    assert widths[1] == pytest.approx(widths[0], rel=0.06)


def test_seeds_with_other_test_rows_are_resampled_apart():
    """Seeds are drawn too: half the draws take one seed twice, with its variance; the others halve it, 3/4 in all."""
    row = [1] * 30 + [0] * 30
    answers = {seed: (["y"] * 60, ["y" if hit else "n" for hit in row]) for seed in (1, 2)}
    widths = [
        bootstrap_mean([task_outcomes("t", Metric.ACCURACY, answers, tests)], draws=20_000).mean
        for tests in ({1: "rows", 2: "rows"}, {1: "rows", 2: "others"})
    ]
    same, other = (figure.high - figure.low for figure in widths)
    assert same / other == pytest.approx((4 / 3) ** 0.5, rel=0.03)


def test_the_order_of_tasks_and_seeds_changes_no_end_of_an_interval():
    """The console reads seeds as they are configured, the report as they are sorted: both say the same."""
    draw = np.random.default_rng(0)
    answers = {
        task: {seed: (list("aabbcc") * 4, list(draw.choice(list("abc"), 24))) for seed in (100, 13, 21)}
        for task in ("one", "two")
    }
    forwards = [task_outcomes(task, Metric.MACRO_F1, by_seed) for task, by_seed in answers.items()]
    backwards = [
        task_outcomes(task, Metric.MACRO_F1, dict(sorted(answers[task].items()))) for task in ("two", "one")
    ]
    assert bootstrap_mean(forwards) == bootstrap_mean(backwards)


def test_no_variation_gives_a_point():
    interval = bootstrap_mean([accuracy_task("t", [[1] * 8])], draws=100).mean
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)


def test_unequal_test_sets_are_refused():
    with pytest.raises(ValueError, match="same test examples"):
        task_outcomes("t", Metric.ACCURACY, {1: (["a"], ["a"]), 2: (["a", "b"], ["a", "b"])})


def slow_p(gold, first, second):
    """Every subset of swapped examples, one by one."""

    def statistic(swapped):
        ours = [b if s else a for a, b, s in zip(first, second, swapped, strict=True)]
        theirs = [a if s else b for a, b, s in zip(first, second, swapped, strict=True)]
        return macro_f1(gold, ours) - macro_f1(gold, theirs)

    observed = abs(statistic([False] * len(gold)))
    every = [abs(statistic(s)) for s in itertools.product([False, True], repeat=len(gold))]
    return sum(value >= observed - 1e-12 for value in every) / len(every)


def test_sign_test_by_hand():
    """Six discordant examples, all for the first method: 2 of 2^6 sign patterns are as extreme."""
    first, second = accuracy_task("t", [[1] * 6 + [1, 0]]), accuracy_task("t", [[0] * 6 + [1, 0]])
    result = paired_permutation_test([first], [second])
    assert result.exact
    assert result.difference == 0.75
    assert result.p_value == pytest.approx(2 / 64)
    assert (result.n_tasks, result.n_examples) == (1, 8)


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=1, max_size=8))
def test_macro_f1_test_equals_full_enumeration(rows):
    gold, first, second = map(list, zip(*rows, strict=True))
    result = paired_permutation_test([label_task("t", gold, first)], [label_task("t", gold, second)])
    assert result.exact
    assert result.p_value == pytest.approx(slow_p(gold, first, second), abs=1e-9)
    assert result.difference == pytest.approx(macro_f1(gold, first) - macro_f1(gold, second))


def test_sampled_permutations_approach_the_exact_distribution(monkeypatch):
    """30 discordant examples, 20 for the first: two-sided binomial p = 0.0987."""
    first, second = accuracy_task("t", [[1] * 20 + [0] * 10]), accuracy_task("t", [[0] * 20 + [1] * 10])
    exact = paired_permutation_test([first], [second])
    assert exact.exact
    assert exact.p_value == pytest.approx(0.0987, abs=1e-4)
    monkeypatch.setattr("metashot.engine.metrics.permutation._EXACT_LIMIT", 0)
    sampled = paired_permutation_test([first], [second], permutations=40_000)
    assert not sampled.exact
    assert sampled.p_value == pytest.approx(exact.p_value, abs=0.006)


def test_the_sampled_p_value_is_uniform_under_the_null():
    generator = np.random.default_rng(3)
    p_values = []
    for _ in range(200):
        gold = generator.choice(list("abc"), 40).tolist()
        first, second = (generator.choice(list("abc"), (2, 40)).tolist() for _ in range(2))
        pair = [[label_task("t", gold, *rows)] for rows in (first, second)]
        p_values.append(paired_permutation_test(*pair, permutations=200).p_value)
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.06)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


def test_a_method_whose_seeds_decide_nothing_is_paired_with_every_seed():
    gold = list("aabb")
    zero, shots = label_task("t", gold, list("aaaa")), label_task("t", gold, list("aabb"), list("abab"))
    result = paired_permutation_test([shots], [replace(zero, seeded=False)])
    assert result.difference == pytest.approx((1 + macro_f1(gold, list("abab"))) / 2 - 1 / 3)
    assert (result.n_cells, result.means[0] - result.means[1]) == (2, pytest.approx(result.difference))


def test_a_few_shot_method_with_one_finished_seed_is_paired_with_that_seed_only():
    """Seed 100: half right in both, seed 13 (which the first lacks) 1 of 10. Over the shared cell they are equal."""
    half, tenth = [1] * 5 + [0] * 5, [1] + [0] * 9
    one = replace(accuracy_task("t", [half]), seeds=(100,))
    two = replace(accuracy_task("t", [half, tenth]), seeds=(100, 13))
    result = paired_permutation_test([one], [two])
    assert (result.difference, result.means, result.n_cells) == (0.0, (0.5, 0.5), 1)
    with pytest.raises(ValueError, match=r"no seed in common \(\(100,\) and \(13,\)\)"):
        paired_permutation_test([one], [replace(one, seeds=(13,))])


def test_a_task_without_a_common_seed_is_no_part_of_the_difference():
    pairs = [("both", (1,), (1,)), ("apart", (1,), (2,))]
    first = [replace(accuracy_task(task, [[1, 1]]), seeds=seeds) for task, seeds, _ in pairs]
    second = [replace(accuracy_task(task, [[0, 1]]), seeds=seeds) for task, _, seeds in pairs]
    result = paired_permutation_test(first, second)
    assert (result.n_tasks, result.n_cells, result.difference) == (1, 1, 0.5)


def test_no_common_task_or_seed_is_refused():
    one, other = accuracy_task("one", [[1, 0]]), accuracy_task("other", [[1, 0]])
    with pytest.raises(ValueError, match="no task in common"):
        paired_permutation_test([one], [other])
    rows = (["a", "b"], ["a", "a"])
    early = task_outcomes("t", Metric.ACCURACY, {1: rows, 2: rows})
    late = task_outcomes("t", Metric.ACCURACY, {3: rows, 4: rows})
    with pytest.raises(ValueError, match="no seed in common"):
        paired_permutation_test([early], [late])


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .06 with the running maximum."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_never_beats_bonferroni(p_values):
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, p * len(p_values))


def test_seed_values_are_the_plain_metric():
    gold = list("aabb")
    assert seed_values(label_task("t", gold, list("aabb"), list("aaaa"))) == pytest.approx([1.0, 1 / 3])
