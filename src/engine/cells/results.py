"""Results: the records, the store of finished cells, and the files of a run's output folder.

The store keeps one file per fingerprint, written whole: a finished cell is never computed twice, a killed run goes
on where it was, and two processes that share a `results_root` cannot damage each other's cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any

from metashot.base.errors import OutputError
from metashot.base.files import json_line
from metashot.base.json_text import SEAL, parse_json, sealed, unsealed
from metashot.engine.metrics.classification import AnyMetric, Metric

FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
"""Versions of `results.jsonl` that are read: 1 (metashot 0.1) has no digests and fewer keys."""
RESULTS_FILE = "results.jsonl"
PREDICTIONS_FILE = "predictions.jsonl"
RUN_FILE = "run.json"
PREDICTIONS_DIGEST = "predictions"
"""Key of a result's line: sha256 of the cell's lines in `predictions.jsonl`."""


@dataclass(frozen=True, slots=True)
class Result:
    """One (task, seed) cell.

    Attributes:
        setting: the task setting, or the data group's name.
        method: method name.
        model: model name.
        task: task name.
        seed: demonstration seed.
        k: demonstrations in the prompt.
        metric: `macro_f1` or `accuracy`.
        value: 0..1.
        n: test examples.
        fingerprint: hex digest of everything that decides the value.
        test_digest: hex digest of the test examples, whatever their labels are called.
        cut_inputs: test inputs that were cut to the limit of an example.
        cut_tokens: tokens that they lost together.
        shown_mean: demonstrations that a prompt holds whole, of k, in the mean; None where the version did not count.
        shown_least: the fewest that any prompt holds.
        sampled_from: test examples that the task has, where a part of them was taken; else 0.
        metrics: every metric of a task that brings its own, by its name there; None for other tasks.
        format: version of this record.
    """

    setting: str
    method: str
    model: str
    task: str
    seed: int
    k: int
    metric: str
    value: float
    n: int
    fingerprint: str
    test_digest: str = ""
    cut_inputs: int = 0
    cut_tokens: int = 0
    shown_mean: float | None = None
    shown_least: int | None = None
    sampled_from: int = 0
    metrics: Mapping[str, float] | None = None
    format: int = FORMAT_VERSION


REQUIRED = tuple(field.name for field in fields(Result) if field.default is MISSING)
"""Keys that every line of `results.jsonl` has, whatever version wrote it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One test example of a cell. Scores are in nats, lower is better.

    Attributes:
        task: task name.
        seed: demonstration seed.
        index: place in the test file, from 0.
        gold: the gold answer.
        prediction: the option with the lowest `nll`, the first of equal ones.
        options: candidates in order.
        nll: the score by which options were ranked.
        sum_nll: summed NLL of each option's scored tokens.
        n_tokens: scored tokens of each option.
        n_chars: characters of each scored text.
        n_bytes: UTF-8 bytes of each scored text.
        null_sum_nll: [n_null, n_options]: the sums after each content-free input; empty without calibration.
        null_n_tokens: the token counts that belong to them.
        fingerprint: the cell's.
        score: of the answer by the result's metric, where its text does not say whether it is right: 0..1 of generated
            ones, whatever a metric of the task's own says; None where options were ranked.
        texts: what was generated, a text a sample, before the answer was cut out; a line of ranked options has no such key.
    """

    task: str
    seed: int
    index: int
    gold: str
    prediction: str
    options: tuple[str, ...]
    nll: tuple[float, ...]
    sum_nll: tuple[float, ...]
    n_tokens: tuple[int, ...]
    n_chars: tuple[int, ...]
    n_bytes: tuple[int, ...]
    null_sum_nll: tuple[tuple[float, ...], ...]
    null_n_tokens: tuple[tuple[int, ...], ...]
    fingerprint: str
    score: float | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FinishedCell:
    """A result with its predictions."""

    result: Result
    predictions: tuple[Prediction, ...]


def with_cut_inputs(results: Iterable[Result]) -> list[Result]:
    """The first result of each task that has test inputs which were cut; its seeds share the test rows."""
    first: dict[str, Result] = {}
    for result in results:
        if result.cut_inputs:
            first.setdefault(result.task, result)
    return list(first.values())


def prediction_from_row(row: Mapping[str, Any]) -> Prediction:
    """Read one line of `predictions.jsonl`."""
    known = {name: row[name] for name in Prediction.__dataclass_fields__ if name not in ("score", "texts")}
    known |= {"score": row.get("score"), "texts": tuple(row.get("texts", ()))}
    for name in ("options", "nll", "sum_nll", "n_tokens", "n_chars", "n_bytes"):
        known[name] = tuple(known[name])
    for name in ("null_sum_nll", "null_n_tokens"):
        known[name] = tuple(tuple(values) for values in known[name])
    return Prediction(**known)


def result_from_row(row: Mapping[str, Any]) -> Result:
    """Read one line of `results.jsonl`.

    Raises:
        OutputError: a line of another format version.
    """
    if row.get("format", FORMAT_VERSION) not in READABLE:
        raise OutputError(
            RESULTS_FILE,
            f"format {row['format']}, this version reads {FORMAT_VERSION}",
            "use the version that wrote it",
        )
    return Result(**{field.name: row[field.name] for field in fields(Result) if field.name in row})


def relabel(cell: FinishedCell, *, setting: str, method: str, model: str, seed: int) -> FinishedCell:
    """A stored cell under the names of the run that asks for it; names do not decide a value.

    Without demonstrations all seeds share one fingerprint, so the seed is a name as well.
    """
    return FinishedCell(
        replace(cell.result, setting=setting, method=method, model=model, seed=seed),
        tuple(replace(prediction, seed=seed) for prediction in cell.predictions),
    )


def gold_and_predictions(metric: AnyMetric, predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """The two columns that metrics take; of answers with scores these decide: twice, or beside what is right."""
    if predictions and predictions[0].score is not None:
        grades = [repr(row.score) for row in predictions]
        return ["1.0"] * len(grades) if metric is Metric.ACCURACY else grades, grades
    return [row.gold for row in predictions], [row.prediction for row in predictions]


def cell_lines(cell: FinishedCell) -> tuple[bytes, bytes]:
    """The line of a cell in `results.jsonl`, and its lines in `predictions.jsonl`."""
    predictions = b"".join(json_line(_prediction_row(prediction)) for prediction in cell.predictions)
    result = asdict(cell.result)
    if cell.result.metrics is None:
        del result["metrics"]
    row = {**result, PREDICTIONS_DIGEST: sha256(predictions).hexdigest()}
    return json_line(sealed(row)), predictions


def _prediction_row(prediction: Prediction) -> dict[str, Any]:
    row = asdict(prediction)
    if not prediction.texts:
        del row["texts"]
    return row


def checked_row(line: bytes) -> dict[str, Any]:
    """A line of `results.jsonl` with its values as they were written.

    Raises:
        ValueError: no JSON object, or damaged.
    """
    row = parse_json(line)
    if is_unchecked(row):
        return row
    return unsealed(row)


def is_unchecked(row: Any) -> bool:
    """Whether a line of an earlier version, without digests, stands there."""
    return isinstance(row, dict) and row.get("format", 1) == 1 and SEAL not in row


def cell_from_lines(row: Mapping[str, Any], predictions: bytes) -> FinishedCell:
    """The cell of a checked row and its prediction lines.

    Raises:
        ValueError: the lines are not those that were written with the row.
    """
    if sha256(predictions).hexdigest() != row.get(PREDICTIONS_DIGEST):
        raise ValueError("predictions differ from their digest")
    return FinishedCell(
        result_from_row(row),
        tuple(prediction_from_row(parse_json(line)) for line in predictions.splitlines()),
    )
