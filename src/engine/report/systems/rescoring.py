"""Every normalization and calibration recomputed from stored log-probabilities, without a model.

The rules are those of `engine.metrics.rules`. Options of a system lie in flat arrays; `starts` holds where each
example's options begin, and a block of examples with equally many options is one array of places [examples, options].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metashot.engine.metrics.classification import Codes, Floats, Metric, weighted_metric
from metashot.engine.metrics.confidence import Confidence, confidence_of, expected_calibration_error
from metashot.engine.metrics.ranking import OptionBlock
from metashot.engine.metrics.rules import (
    CALIBRATIONS,
    CONTENT_FREE,
    NORMALIZATIONS,
    Calibration,
    Lengths,
    Normalization,
)
from metashot.engine.report.reading.folders import Run
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants
from metashot.engine.report.systems.results import System


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
        error: ECE over all answers, see `engine.metrics.confidence`; None without an answer that is an option.
        nll: of the right option, mean over answers, nats.
    """

    system: System
    calibration: Calibration
    normalization: Normalization
    mean: float
    worst: float
    as_run: bool
    error: float | None = None
    nll: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Options:
    """Flat option arrays of one system; m options in all, n test examples."""

    starts: NDArray[np.int64]  # [n]
    sizes: NDArray[np.int64]  # [n]
    codes: Codes  # [m] answer code of each option
    sum_nll: Floats  # [m]
    lengths: Lengths  # [m] each
    null_sum_nll: Floats  # [n_null, m]
    null_lengths: tuple[Lengths, ...]  # n_null of [m] each

    def block(self, places: NDArray[np.int64]) -> OptionBlock:
        """The options at `places` [examples, options]."""
        nulls = tuple(_at(lengths, places) for lengths in self.null_lengths)
        return OptionBlock(
            self.sum_nll[places], _at(self.lengths, places), self.null_sum_nll[:, places], nulls
        )


def rescore(outputs: Outputs) -> list[Rescored]:
    """Figures of every system under every rule that its stored log-probabilities allow."""
    kept = with_variants(outputs.results, outputs.runs, outputs.names)
    key = ["run", "fingerprint", "task", "seed"]
    frame = kept.select([*SYSTEM, *key, "metric"]).join(outputs.predictions, on=key, how="inner")
    # Generated answers have no options, and the harness does not say how many tokens an option has.
    # SystemResults that carry scores are measured by these, not by their texts.
    frame = frame.filter(pl.col("score").is_null())
    frame = frame.filter(
        (pl.col("options").list.len() > 0) & (pl.col("n_tokens").list.len() == pl.col("options").list.len())
    )
    sources = [_inputs_of(run) for run in outputs.runs]
    probed = {number for number, run in enumerate(outputs.runs) if run.config.get("method.probes")}
    rescored: list[Rescored] = []
    for values, rows in frame.partition_by(SYSTEM, maintain_order=True, as_dict=True).items():
        if probed.issuperset(rows["run"].unique()):  # the content-free ones first, then random words
            firsts = [pl.col(name).list.head(len(CONTENT_FREE)) for name in ("null_sum_nll", "null_n_tokens")]
            rows = rows.with_columns(firsts)
        used = {sources[number] for number in rows["run"].unique()}
        rescored += _rescore_system(System(*values), rows, used.pop() if len(used) == 1 else None)
    return sorted(rescored, key=lambda r: (r.system.setting, r.system.order))


def _rescore_system(system: System, rows: pl.DataFrame, inputs: str | None) -> Iterator[Rescored]:
    options, gold, stored = _flatten(rows)
    cells = _cell_rows(rows)
    blocks = list(_blocks(options, cells))
    for calibration in shown_calibrations(len(options.null_lengths), inputs):
        for normalization in NORMALIZATIONS.values():
            predicted = np.empty_like(stored)
            sure: list[Confidence] = []
            for numbers, places in blocks:
                scores = options.block(places).scores(calibration, normalization)
                best = scores.argmin(axis=-1)
                predicted[numbers] = options.codes[places[np.arange(best.size), best]]
                right = options.codes[places] == gold[numbers][:, None]
                known = right.any(axis=1) & (scores.shape[1] > 1)
                sure.append(confidence_of(scores[known], right[known].argmax(axis=1)))
            confidence = np.concatenate([one.confidence for one in sure])
            correct, nll = (np.concatenate([getattr(one, name) for one in sure]) for name in ("right", "nll"))
            values = _values_by_task(cells, gold, predicted)
            yield Rescored(
                system,
                calibration,
                normalization,
                float(np.mean([np.mean(seeds) for seeds in values.values()])),
                float(np.mean([min(seeds) for seeds in values.values()])),
                bool((predicted == stored).all()),
                expected_calibration_error(confidence, correct) if confidence.size else None,
                float(nll.mean()) if nll.size else None,
            )


def shown_calibrations(n_null: int, inputs: str | None) -> tuple[Calibration, ...]:
    """The calibrations that n stored inputs allow and that are rows of their own.

    Args:
        n_null: inputs besides the test input whose scores are stored.
        inputs: where they are from (`InputsFrom.name`), or None for content-free ones that the method names.
    """
    return tuple(
        rule
        for rule in CALIBRATIONS.values()
        if rule.row_from is not None
        and rule.row_from <= n_null
        and (not rule.needs_null_inputs or (rule.inputs and rule.inputs.name) == inputs)
    )


def _inputs_of(run: Run) -> str | None:
    """Where the inputs of its calibration are from, see `shown_calibrations`."""
    rule = CALIBRATIONS.get(str(run.config.get("method.calibration")))
    return None if rule is None or rule.inputs is None else rule.inputs.name


def _blocks(
    options: _Options, cells: Sequence[tuple[str, Metric, NDArray[np.int64]]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Numbers [k] and option places [k, size] of the test examples of one cell with equally many options."""
    for _, _, numbers in cells:
        for size in np.unique(options.sizes[numbers]):
            mine = numbers[options.sizes[numbers] == size]
            yield mine, options.starts[mine][:, None] + np.arange(size)


def _at(lengths: Lengths, places: NDArray[np.int64]) -> Lengths:
    return Lengths(lengths.tokens[places], lengths.chars[places], lengths.bytes[places])


def _flatten(rows: pl.DataFrame) -> tuple[_Options, Codes, Codes]:
    sizes = rows["options"].list.len().to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    answers = pl.concat([rows["options"].explode(), rows["gold"], rows["prediction"]])
    codes = answers.rank("dense").to_numpy().astype(np.int64) - 1
    n_options, n = int(sizes.sum()), rows.height
    lengths = Lengths(_flat(rows, "n_tokens"), _flat(rows, "n_chars"), _flat(rows, "n_bytes"))
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
        tuple(replace(lengths, tokens=tokens) for tokens in null_tokens),
    )
    return options, codes[n_options : n_options + n], codes[n_options + n :]


def _flat(rows: pl.DataFrame, column: str) -> Floats:
    return rows[column].explode().to_numpy().astype(np.float64)


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
