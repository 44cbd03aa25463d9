"""From log-probabilities to a ranking of options, by the rules of `rules.py`; nothing here needs a model.

All scores are negative log-likelihoods in nats; lower is better; ties go to the first option.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metashot.engine.metrics.rules import Calibration, Floats, Lengths, Normalization


@dataclass(frozen=True, slots=True)
class OptionCounts:
    """The lengths of one option's target.

    Attributes:
        tokens: scored target tokens.
        chars: characters of the target text.
        bytes: UTF-8 bytes of the target text.
    """

    tokens: int
    chars: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class OptionBlock:
    """Test examples of one cell that have equally many options.

    Attributes:
        sum_nll: summed target NLL [examples, options].
        lengths: target lengths.
        null_sum_nll: the same sums after each content-free input [n_null, examples, options].
        null_lengths: target lengths that belong to them, one of [examples, options] each.
    """

    sum_nll: Floats
    lengths: Lengths
    null_sum_nll: Floats
    null_lengths: tuple[Lengths, ...] = ()

    def scores(self, calibration: Calibration, normalization: Normalization) -> Floats:
        """Score of each option in nats, lower is better: [examples, options].

        The normalization is applied to plain and content-free scores before the calibration combines them. An
        option without a scored token says nothing and ranks last: it is `inf`. Evaluation refuses to make one.

        Raises:
            ValueError: a calibration without the content-free scores that it needs.
        """
        if len(self.null_lengths) < calibration.fewest:
            raise ValueError(f"calibration {calibration.name!r} needs the scores after a content-free input")
        nulls = [
            normalized(sums, lengths, normalization)
            for sums, lengths in zip(self.null_sum_nll, self.null_lengths, strict=True)
        ]
        plain = normalized(self.sum_nll, self.lengths, normalization)
        combined = calibration.combine(plain, np.stack(nulls) if nulls else np.zeros((0, *plain.shape)))
        return np.where(self.lengths.tokens > 0, combined, np.inf)


def normalized(sum_nll: Floats, lengths: Lengths, rule: Normalization) -> Floats:
    """`sum_nll` over the length that `rule` names, at least 1 (of a text without characters): [examples, options]."""
    return sum_nll / np.maximum(rule.length(lengths), 1.0)


SumsByInput = Sequence[Sequence[float]]
"""Sums of one test example: after its own prompt, then after each content-free input; [1 + n_null][options]."""


def option_scores(
    sums: Sequence[SumsByInput],
    counts: Sequence[Sequence[Sequence[OptionCounts]]],
    *,
    calibration: Calibration,
    normalization: Normalization,
) -> list[list[float]]:
    """Score of each option of every test example of a cell, in nats, lower is better.

    Args:
        sums: summed target NLL, [examples][1 + n_null][options]; options may differ in number.
        counts: target lengths that belong to them.
        calibration: how content-free scores enter.
        normalization: what sums are divided by.
    """
    found: list[list[float]] = [[] for _ in sums]
    for size in sorted({len(layers[0]) for layers in sums}):
        rows = [row for row, layers in enumerate(sums) if len(layers[0]) == size]
        array = np.array([sums[row] for row in rows], dtype=np.float64).transpose(1, 0, 2)
        lengths = [_lengths([counts[row][layer] for row in rows]) for layer in range(array.shape[0])]
        block = OptionBlock(array[0], lengths[0], array[1:], tuple(lengths[1:]))
        for row, scores in zip(rows, block.scores(calibration, normalization).tolist(), strict=True):
            found[row] = scores
    return found


def _lengths(counts: Sequence[Sequence[OptionCounts]]) -> Lengths:
    return Lengths(
        *(
            np.array([[getattr(count, name) for count in row] for row in counts], dtype=np.float64)
            for name in ("tokens", "chars", "bytes")
        )
    )


def best_option(scores: Sequence[float]) -> int:
    """Index of the lowest score; the first of equal ones."""
    return min(range(len(scores)), key=lambda index: (scores[index], index))
