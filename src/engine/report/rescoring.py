"""Every normalization and calibration recomputed from stored log-probabilities, without a model.

The rules are those of `engine.ranking`, here for all test examples of a system at once: options lie in
flat arrays, `starts` holds where each example's options begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metashot.engine.metrics.classification import Codes, Floats, Metric, weighted_metric
from metashot.engine.metrics.ranking import Calibration, Normalization
from metashot.engine.report.reading import SYSTEM, Outputs
from metashot.engine.report.systems import System
from metashot.engine.report.variants import with_variants

_LENGTHS = {Normalization.CHARACTERS: "n_chars", Normalization.BYTES: "n_bytes"}


@dataclass(frozen=True, slots=True)
class Rescored:
    """A system's figures under another rule, 0..1.

    Attributes:
        system: whose log-probabilities were used.
        calibration: the rule.
        normalization: the rule.
        mean: mean over seeds, then tasks.
        worst: lowest seed of each task, then mean over tasks.
        as_run: whether this rule gives the predictions that the run stored.
    """

    system: System
    calibration: Calibration
    normalization: Normalization
    mean: float
    worst: float
    as_run: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Options:
    """Flat option arrays of one system; m options in all, n test examples."""

    starts: NDArray[np.int64]  # [n]
    sizes: NDArray[np.int64]  # [n]
    codes: Codes  # [m] answer code of each option
    sum_nll: Floats  # [m]
    lengths: dict[Normalization, Floats]  # [m] each
    null_sum_nll: Floats  # [n_null, m]
    null_lengths: list[dict[Normalization, Floats]]  # n_null of [m] each


def rescore(outputs: Outputs) -> list[Rescored]:
    """Figures of every system under every rule that its stored log-probabilities allow."""
    kept = with_variants(outputs.results, outputs.runs)
    key = ["run", "fingerprint", "task", "seed"]
    frame = kept.select([*SYSTEM, *key, "metric"]).join(outputs.predictions, on=key, how="inner")
    # Generated answers have no options, and the harness does not say how many tokens an option has.
    frame = frame.filter(
        (pl.col("options").list.len() > 0) & (pl.col("n_tokens").list.len() == pl.col("options").list.len())
    )
    rescored: list[Rescored] = []
    for values, rows in frame.partition_by(SYSTEM, maintain_order=True, as_dict=True).items():
        rescored += _rescore_system(System(*values), rows)
    return sorted(rescored, key=lambda r: (r.system.setting, r.system.order))


def _rescore_system(system: System, rows: pl.DataFrame) -> Iterator[Rescored]:
    options, gold, stored = _flatten(rows)
    cells = _cell_rows(rows)
    for calibration in _calibrations(len(options.null_sum_nll)):
        for normalization in Normalization:
            scores = option_scores(options, calibration, normalization)
            predicted = options.codes[best_options(scores, options.starts, options.sizes)]
            values = _values_by_task(cells, gold, predicted)
            yield Rescored(
                system,
                calibration,
                normalization,
                float(np.mean([np.mean(seeds) for seeds in values.values()])),
                float(np.mean([min(seeds) for seeds in values.values()])),
                bool((predicted == stored).all()),
            )


def _calibrations(n_null: int) -> tuple[Calibration, ...]:
    """The calibrations that n stored content-free inputs allow.

    With one such input contextual calibration ranks as PMI does, so it is not a row of its own; with
    several, PMI uses the first.
    """
    if n_null == 0:
        return (Calibration.NONE,)
    if n_null == 1:
        return (Calibration.NONE, Calibration.PMI)
    return (Calibration.NONE, Calibration.PMI, Calibration.CONTEXTUAL)


def _flatten(rows: pl.DataFrame) -> tuple[_Options, Codes, Codes]:
    sizes = rows["options"].list.len().to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    answers = pl.concat([rows["options"].explode(), rows["gold"], rows["prediction"]])
    codes = answers.rank("dense").to_numpy().astype(np.int64) - 1
    n_options, n = int(sizes.sum()), rows.height
    lengths = {
        Normalization.TOKEN_MEAN: _flat(rows, "n_tokens"),
        Normalization.SUM: np.ones(n_options),
        **{rule: _flat(rows, column) for rule, column in _LENGTHS.items()},
    }
    n_null = int(rows["null_sum_nll"].list.len().min() or 0)  # pyright: ignore[reportArgumentType]
    layers = range(n_null)
    null_sums = [_flat(rows.select(pl.col("null_sum_nll").list.get(i)), "null_sum_nll") for i in layers]
    null_tokens = [_flat(rows.select(pl.col("null_n_tokens").list.get(i)), "null_n_tokens") for i in layers]
    options = _Options(
        starts,
        sizes,
        codes[:n_options],
        _flat(rows, "sum_nll"),
        lengths,
        np.stack(null_sums) if n_null else np.zeros((0, n_options)),
        # The scored text is the option in both cases, so only its token count is stored twice.
        [lengths | {Normalization.TOKEN_MEAN: tokens} for tokens in null_tokens],
    )
    return options, codes[n_options : n_options + n], codes[n_options + n :]


def _flat(rows: pl.DataFrame, column: str) -> Floats:
    return rows[column].explode().to_numpy().astype(np.float64)


def option_scores(options: _Options, calibration: Calibration, normalization: Normalization) -> Floats:
    """Score of every option in nats, lower is better: [m] (see `engine.ranking.option_scores`)."""
    plain = _normalized(options.sum_nll, options.lengths, normalization)
    if calibration is Calibration.NONE:
        return plain
    nulls = [
        _normalized(sums, lengths, normalization)
        for sums, lengths in zip(options.null_sum_nll, options.null_lengths, strict=True)
    ]
    if calibration is not Calibration.CONTEXTUAL:
        return plain - nulls[0]
    content_free = np.stack([_log_softmax(-null, options) for null in nulls])
    top = content_free.max(axis=0)
    log_mean = top + np.log(np.exp(content_free - top).mean(axis=0))
    return log_mean - _log_softmax(-plain, options)


def _normalized(sums: Floats, lengths: dict[Normalization, Floats], rule: Normalization) -> Floats:
    length = lengths[rule]
    scored = (length > 0) & (lengths[Normalization.TOKEN_MEAN] > 0)
    return np.where(scored, sums / np.where(scored, length, 1.0), 0.0)


def _log_softmax(values: Floats, options: _Options) -> Floats:
    top = np.repeat(np.maximum.reduceat(values, options.starts), options.sizes)
    totals = np.add.reduceat(np.exp(values - top), options.starts)
    return values - top - np.repeat(np.log(totals), options.sizes)


def best_options(scores: Floats, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each example's lowest score, the first of equal ones: [n]."""
    lowest = np.repeat(np.minimum.reduceat(scores, starts), sizes)
    places = np.flatnonzero(scores == lowest)
    owners = np.repeat(np.arange(starts.size), sizes)[places]
    return places[np.unique(owners, return_index=True)[1]]


def _cell_rows(rows: pl.DataFrame) -> list[tuple[str, Metric, NDArray[np.int64]]]:
    """Row numbers of every (task, seed) cell."""
    numbered = rows.select("task", "seed", "metric").with_row_index("row")
    cells = numbered.group_by(["task", "seed"], maintain_order=True).agg(pl.col("metric").first(), "row")
    return [
        (str(task), Metric(metric), np.asarray(row, dtype=np.int64))
        for task, _, metric, row in cells.iter_rows()
    ]


def _values_by_task(
    cells: Sequence[tuple[str, Metric, NDArray[np.int64]]], gold: Codes, predicted: Codes
) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for task, metric, rows in cells:
        pair = np.concatenate([gold[rows], predicted[rows]])
        labels, codes = np.unique(pair, return_inverse=True)
        ones = np.ones((1, rows.size))
        value = weighted_metric(metric, ones, codes[: rows.size], codes[rows.size :], labels.tolist())[0]
        values.setdefault(task, []).append(float(value))
    return values
