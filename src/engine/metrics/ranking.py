"""From stored log-probabilities to a ranking of options: every rule here needs no model.

All scores are negative log-likelihoods in nats; lower is better; ties go to the first option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Normalization(StrEnum):
    """What an option's summed NLL is divided by."""

    TOKEN_MEAN = "token_mean"
    """Scored target tokens (released MetaICL code)."""
    SUM = "sum"
    """Nothing: the plain conditional probability, as the MetaICL paper writes it."""
    CHARACTERS = "characters"
    """Characters of the target text."""
    BYTES = "bytes"
    """UTF-8 bytes of the target text."""


class Calibration(StrEnum):
    """What an option's score is compared with."""

    NONE = "none"
    PMI = "pmi"
    """Minus the score after a null input (MetaICL's PMI; the null input is a key of the method)."""
    DOMAIN = "domain"
    """Minus the score after a domain premise (Holtzman et al. 2021, domain-conditional PMI)."""
    CONTEXTUAL = "contextual"
    """Divided by the mean probability after content-free inputs (Zhao et al. 2021)."""


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


def normalized(sum_nll: float, counts: OptionCounts, rule: Normalization) -> float:
    """`sum_nll` over the length that `rule` names; a target of no characters counts as one.

    A target without a scored token says nothing and ranks last: it is `inf`. Evaluation refuses to make one.
    """
    length = {
        Normalization.TOKEN_MEAN: counts.tokens,
        Normalization.SUM: 1,
        Normalization.CHARACTERS: counts.chars,
        Normalization.BYTES: counts.bytes,
    }[rule]
    return sum_nll / max(1, length) if counts.tokens else math.inf


def option_scores(
    sum_nll: Sequence[float],
    counts: Sequence[OptionCounts],
    null_sum_nll: Sequence[Sequence[float]],
    null_counts: Sequence[Sequence[OptionCounts]],
    *,
    calibration: Calibration,
    normalization: Normalization,
) -> list[float]:
    """Score of each option of one test example, in nats, lower is better.

    Args:
        sum_nll: summed target NLL per option.
        counts: target lengths per option.
        null_sum_nll: the same sums after each content-free context, [n_null][n_options]; empty without calibration.
        null_counts: lengths that belong to `null_sum_nll`.
        calibration: how the null scores enter.
        normalization: applied to both terms before they are combined.
    """
    plain = [normalized(total, count, normalization) for total, count in zip(sum_nll, counts, strict=True)]
    if calibration is Calibration.NONE:
        return plain
    nulls = [
        [normalized(total, count, normalization) for total, count in zip(totals, row, strict=True)]
        for totals, row in zip(null_sum_nll, null_counts, strict=True)
    ]
    if not nulls:
        raise ValueError(f"calibration {calibration.value!r} needs the scores after a content-free input")
    if calibration is Calibration.CONTEXTUAL:
        return _contextual(plain, nulls)
    return [score - null for score, null in zip(plain, nulls[0], strict=True)]


def _contextual(plain: Sequence[float], nulls: Sequence[Sequence[float]]) -> list[float]:
    """-log(p_i / p_cf_i), with p the softmax over options and p_cf its mean over content-free inputs."""
    log_p = _log_softmax([-score for score in plain])
    content_free = [_log_softmax([-score for score in row]) for row in nulls]
    log_cf = [_log_mean_exp([row[index] for row in content_free]) for index in range(len(plain))]
    return [reference - own for own, reference in zip(log_p, log_cf, strict=True)]


def _log_softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    log_total = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - log_total for value in values]


def _log_mean_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))


def best_option(scores: Sequence[float]) -> int:
    """Index of the lowest score; the first of equal ones."""
    return min(range(len(scores)), key=lambda index: (scores[index], index))
