"""The spread over prompts, by hand and against a plain resampling."""

import numpy as np
import pytest

from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.prompt_spread import prompt_spread
from metashot.engine.metrics.statistics import task_outcomes


def outcomes(right, task="a"):
    """Accuracy outcomes of one task: right [seeds][n]."""
    gold = ["yes"] * len(right[0])
    answers = {seed: (gold, ["yes" if one else "no" for one in row]) for seed, row in enumerate(right)}
    return task_outcomes(task, Metric.ACCURACY, answers)


def test_two_prompts_and_two_seeds_by_hand():
    """Prompt p: seeds 1.0 and 0.5; q: 0.5 and 0.0. Means .75 and .25, whose deviation (n-1) is .3536; seeds differ by
    .5 under each, deviation .3536 too."""
    prompts = {"p": {"a": outcomes([[1, 1], [1, 0]])}, "q": {"a": outcomes([[1, 0], [0, 0]])}}
    found = prompt_spread(prompts, draws=50)
    assert found.mean.value == 0.5
    assert found.values == {"p": 0.75, "q": 0.25}
    assert found.over_prompts == pytest.approx(0.3536, abs=1e-4)
    assert found.over_seeds == pytest.approx(0.3536, abs=1e-4)
    assert found.ranges == {"a": 0.5}


def test_the_interval_is_that_of_a_plain_resampling_of_prompts_seeds_and_examples():
    generator = np.random.default_rng(0)
    tables = generator.random((4, 3, 40)) < generator.random((4, 1, 1))  # [prompts, seeds, examples]
    found = prompt_spread({f"p{i}": {"a": outcomes(rows)} for i, rows in enumerate(tables)}, draws=4000).mean
    means = []
    for _ in range(4000):
        prompts, seeds = generator.integers(0, 4, 4), generator.integers(0, 3, 3)
        examples = generator.integers(0, 40, 40)
        means.append(np.mean([tables[p, s, examples].mean() for p in prompts for s in seeds]))
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_only_what_all_prompts_have_counts():
    prompts = {
        "p": {"a": outcomes([[1, 0], [1, 1]]), "b": outcomes([[0, 0]], "b")},
        "q": {"a": outcomes([[0, 0]])},
    }
    found = prompt_spread(prompts, draws=10)
    assert found.values == {"p": 0.5, "q": 0.0}
    assert found.over_seeds is None
    with pytest.raises(ValueError, match="no task"):
        prompt_spread({"p": {"a": prompts["p"]["a"]}, "q": {"b": prompts["p"]["b"]}})
    with pytest.raises(ValueError, match="two"):
        prompt_spread({"p": prompts["p"]})
