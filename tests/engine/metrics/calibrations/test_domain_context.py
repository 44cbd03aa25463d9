"""Random words of the domain (Fei et al. 2023): what is drawn, and the formula beside a plain loop."""

import math
from collections import Counter

import numpy as np
import pytest

from metashot.data.tasks.demo import DemoSource
from metashot.engine.metrics.calibrations.domain_context import RULE, random_words
from metashot.engine.metrics.ranking import OptionCounts, option_scores
from metashot.engine.metrics.rules import NORMALIZATIONS, calibration
from metashot.icl.prompting.calibration_inputs import with_calibration_inputs
from metashot.icl.prompting.methods import named_method

TEXTS = ["the film was dull", "what a fine film indeed", "dull"]


def test_texts_are_as_long_as_the_inputs_and_hold_their_words_only():
    """Ten words in three texts: 3.3 in the mean."""
    drawn = random_words(TEXTS, 20, 0)
    assert {len(text.split()) for text in drawn} == {3}
    assert {word for text in drawn for word in text.split()} <= set(" ".join(TEXTS).split())
    assert drawn == random_words(TEXTS, 20, 0) != random_words(TEXTS, 20, 1)


def test_each_word_is_drawn_as_often_as_it_stands_there():
    counts = Counter(word for text in random_words(TEXTS, 4000, 0) for word in text.split())
    total = sum(counts.values())
    for word, times in Counter(" ".join(TEXTS).split()).items():
        assert counts[word] / total == pytest.approx(times / 10, abs=0.01)


def test_the_score_is_that_of_a_plain_loop():
    """argmax p(y | x) / mean over texts of p(y | text), with p normalized over the options."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        options, n = int(generator.integers(2, 5)), int(generator.integers(1, 6))
        nll, nulls = generator.uniform(0, 9, options), generator.uniform(0, 9, (n, options))
        one = [OptionCounts(1, 1, 1)] * options
        (found,) = option_scores(
            [[nll.tolist(), *nulls.tolist()]],
            [[one] * (1 + n)],
            calibration=RULE,
            normalization=NORMALIZATIONS["sum"],
        )

        def share(row, y):
            return math.exp(-row[y]) / sum(math.exp(-other) for other in row)

        for y in range(options):
            prior = sum(share(row, y) for row in nulls) / n
            assert found[y] == pytest.approx(-math.log(share(nll, y) / prior))


def test_a_cell_gets_words_of_its_training_inputs():
    source, method = DemoSource(), named_method("domain_context")
    data = with_calibration_inputs(source.load("demo-emotion", k=4, seed=13), method, source, 4)
    words = {word for row in source.pool("demo-emotion", seed=13) for word in row.input.split()}
    assert len(data.unlabelled) == method.calibration_inputs == 20
    assert {word for text in data.unlabelled for word in text.split()} <= words
    assert calibration("domain_context") is RULE
