"""A cell's answers as predictions and a measured result."""

from __future__ import annotations

from collections.abc import Sequence

from metashot.data.rows.apart import content_digest
from metashot.data.task import TaskData
from metashot.engine.cells.results import FinishedCell, Prediction, Result
from metashot.engine.metrics.classification import Metric, metric_of, score
from metashot.engine.metrics.ranking import best_option
from metashot.icl.scoring.cell import Cell, OptionScores, ranking_scores
from metashot.icl.scoring.cell_data import CellKey
from metashot.icl.scoring.evaluation_settings import EvaluateSettings
from metashot.icl.scoring.generation import Answers, GenerateMethod, grades


def finish_generated(
    key: CellKey,
    data: TaskData,
    answers: Answers,
    settings: EvaluateSettings,
    method: GenerateMethod,
    model_name: str,
) -> FinishedCell:
    """Grade the answers and measure the cell."""
    metric = Metric(method.metric)
    scores = grades(data.test, answers.texts, metric)
    predictions = tuple(
        Prediction(
            task=key.task, seed=key.seed, index=index, gold=example.output, prediction=answer, options=(), nll=(),
            sum_nll=(), n_tokens=(), n_chars=(), n_bytes=(), null_sum_nll=(), null_n_tokens=(),
            fingerprint=key.fingerprint, score=one,
        )
        for index, (example, answer, one) in enumerate(zip(data.test, answers.texts, scores, strict=True))
    )  # fmt: skip
    return FinishedCell(
        _result(key, data, settings, model_name, metric, sum(scores) / len(scores), answers.lost), predictions
    )


def _result(
    key: CellKey,
    data: TaskData,
    settings: EvaluateSettings,
    model_name: str,
    metric: Metric,
    value: float,
    lost: Sequence[int],
) -> Result:
    """The cell's line in `results.jsonl`; `lost` are the tokens that each test input was cut by."""
    return Result(
        setting=settings.setting,
        method=settings.method.name,
        model=model_name,
        task=key.task,
        seed=key.seed,
        k=data.shots,
        metric=metric.value,
        value=value,
        n=len(data.test),
        fingerprint=key.fingerprint,
        test_digest=content_digest(data),
        cut_inputs=sum(tokens > 0 for tokens in lost),
        cut_tokens=sum(lost),
    )


def finish_cell(
    key: CellKey,
    data: TaskData,
    cell: Cell,
    answers: Sequence[OptionScores],
    settings: EvaluateSettings,
    model_name: str,
) -> FinishedCell:
    """Rank the options and measure the cell."""
    predictions = tuple(
        predict(example.output, example.options, answer, nll, key, index)
        for index, (example, answer, nll) in enumerate(
            zip(data.test, answers, ranking_scores(answers, settings.method), strict=True)
        )
    )
    metric = metric_of(data.task_type)
    value = score(metric, [row.gold for row in predictions], [row.prediction for row in predictions])
    return FinishedCell(_result(key, data, settings, model_name, metric, value, cell.lost), predictions)


def predict(
    gold: str,
    options: tuple[str, ...],
    answer: OptionScores,
    nll: Sequence[float],
    key: CellKey,
    index: int,
) -> Prediction:
    """One test example's line of `predictions.jsonl`."""
    counts = answer.counts[0]
    return Prediction(
        task=key.task,
        seed=key.seed,
        index=index,
        gold=gold,
        prediction=options[best_option(nll)],
        options=options,
        nll=tuple(nll),
        sum_nll=answer.sum_nll[0],
        n_tokens=tuple(count.tokens for count in counts),
        n_chars=tuple(count.chars for count in counts),
        n_bytes=tuple(count.bytes for count in counts),
        null_sum_nll=answer.sum_nll[1:],
        null_n_tokens=tuple(tuple(count.tokens for count in row) for row in answer.counts[1:]),
        fingerprint=key.fingerprint,
    )
