"""How good a generated answer is, 0..1: exact match, token F1, ROUGE-L, equal numbers; the best of its references counts.

Exact match and token F1 normalize as SQuAD does (case, punctuation, articles and blanks do not count); both come from
torchmetrics, ROUGE-L from rouge-score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from typing import Any

from metashot.base.extras import import_extra, require_extra
from metashot.engine.metrics.classification import Metric

_LARGEST_EXPONENT = 400
"""Of a number in an answer; beyond it nobody means one."""


def grade(metric: Metric, answer: str, references: Sequence[str]) -> float:
    """Score of one answer, 0..1.

    Args:
        metric: a graded metric.
        answer: what was generated.
        references: answers that count as right; at least one.

    Raises:
        ConfigError: the library of the metric is not installed.
        ValueError: a metric that is not graded.
    """
    match metric:
        case Metric.EXACT_MATCH:
            return _squad(answer, references)["exact_match"]
        case Metric.TOKEN_F1:
            return _squad(answer, references)["f1"]
        case Metric.ROUGE_L:
            scorer = _rouge_scorer()
            return max(float(scorer.score(one, answer)["rougeL"].fmeasure) for one in references)
        case Metric.NUMERIC:
            number = number_of(answer)
            return float(number is not None and number in map(number_of, references))
        case _:
            raise ValueError(f"{metric} ranks options; it does not grade generated answers")


def number_of(text: str) -> Fraction | None:
    """The exact number that a text is: `1,200.50`, `$12`, `-3e2`, `50%` (as 50) or `3/4`; None for any other text."""
    plain = text.strip().rstrip(".").strip(" $€£%").replace(",", "").replace("\u2212", "-")
    upper, slash, lower = plain.partition("/")
    if slash:
        whole = [number_of(part) for part in (upper, lower)]
        return whole[0] / whole[1] if whole[0] is not None and whole[1] else None
    try:
        number = Decimal(plain)
    except InvalidOperation:
        return None
    if not number.is_finite() or (number and abs(number.adjusted()) > _LARGEST_EXPONENT):
        return None
    return Fraction(number)


def same_answer(metric: Metric, one: str, other: str) -> bool:
    """Whether each of two answers would have full marks, were the other the reference."""
    return grade(metric, one, [other]) == 1


def _squad(answer: str, references: Sequence[str]) -> dict[str, float]:
    target = {"id": "0", "answers": {"text": list(references), "answer_start": [0] * len(references)}}
    found = _squad_metric()([{"id": "0", "prediction_text": answer}], [target])
    return {name: float(value) / 100 for name, value in found.items()}


@cache
def _squad_metric() -> Callable[..., Any]:
    return import_extra("torchmetrics.functional.text", "method.metric", "squad")


@cache
def _rouge_scorer() -> Any:
    scorers = import_extra("rouge_score.rouge_scorer", "method.metric")
    return scorers.RougeScorer(["rougeL"], use_stemmer=False)


def check_can_grade(metric: Metric) -> None:
    """Fail before the first answer, and without importing it, where a metric's package is missing.

    Raises:
        ConfigError: it is not installed.
    """
    if metric is not Metric.NUMERIC:
        require_extra("rouge_score" if metric is Metric.ROUGE_L else "torchmetrics", "method.metric")
