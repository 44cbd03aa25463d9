"""How good a generated answer is, 0..1: exact match, token F1 and ROUGE-L, each against the best of its references.

Exact match and token F1 normalize as SQuAD does (case, punctuation, articles and blanks do not count); both come from
torchmetrics, ROUGE-L from rouge-score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from metashot.base.extras import import_extra, require_extra
from metashot.engine.metrics.classification import Metric

Grade = Callable[[str, Sequence[str]], float]


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
        case _:
            raise ValueError(f"{metric} ranks options; it does not grade generated answers")


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
    require_extra("rouge_score" if metric is Metric.ROUGE_L else "torchmetrics", "method.metric")
