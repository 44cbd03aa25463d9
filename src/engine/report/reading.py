"""Any number of output folders as two Polars frames: results (one row a cell) and predictions.

Nothing is averaged silently: cells that share a fingerprint and disagree are taken out and named, and
runs that differ in more than their labels become variants of their own (`variants.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from metashot.engine.errors import OutputError
from metashot.engine.files import read_lines
from metashot.engine.runs.results import FORMAT_VERSION, PREDICTIONS_FILE, RESULTS_FILE, RUN_FILE
from metashot.engine.sweeps.ledger import HEADER, JobState, Ledger
from metashot.engine.tracking.tracker import flatten

SYSTEM = ("setting", "method", "model", "k", "condition", "variant")
_SHOWN_JOBS = 5
CELL = (*SYSTEM, "task", "seed")

_RESULT_SCHEMA: dict[str, Any] = {
    "setting": pl.String,
    "method": pl.String,
    "model": pl.String,
    "task": pl.String,
    "seed": pl.Int64,
    "k": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,
    "n": pl.Int64,
    "fingerprint": pl.String,
    "test_digest": pl.String,
    "cut_inputs": pl.Int64,
    "cut_tokens": pl.Int64,
}
_LATER: dict[str, Any] = {"test_digest": "", "cut_inputs": 0, "cut_tokens": 0}
"""Columns that older files lack, with what they stand for there."""
_PREDICTION_SCHEMA: dict[str, Any] = {
    "task": pl.String,
    "seed": pl.Int64,
    "index": pl.Int64,
    "gold": pl.String,
    "prediction": pl.String,
    "options": pl.List(pl.String),
    "nll": pl.List(pl.Float64),
    "sum_nll": pl.List(pl.Float64),
    "n_tokens": pl.List(pl.Int64),
    "n_chars": pl.List(pl.Int64),
    "n_bytes": pl.List(pl.Int64),
    "null_sum_nll": pl.List(pl.List(pl.Float64)),
    "null_n_tokens": pl.List(pl.List(pl.Int64)),
    "fingerprint": pl.String,
}


@dataclass(frozen=True, slots=True)
class Run:
    """One output folder.

    Attributes:
        folder: where it lies.
        config: the resolved config with dotted keys; empty when `run.json` is missing or damaged.
    """

    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the output folders hold.

    Attributes:
        runs: the folders; the `run` column of both frames counts them.
        results: one row per (run, task, seed), columns of `results.jsonl`, `run` and `condition`.
        predictions: one row per test example, columns of `predictions.jsonl` and `run`.
        problems: sentences about what was found and left out.
    """

    runs: tuple[Run, ...]
    results: pl.DataFrame
    predictions: pl.DataFrame
    problems: tuple[str, ...]


def find_run_folders(places: Sequence[Path]) -> list[Path]:
    """Folders at or below `places` that hold results, sorted.

    Raises:
        OutputError: a place does not exist, or nothing was found in any of them.
    """
    found: set[Path] = set()
    for place in places:
        if not place.is_dir():
            raise OutputError("report.runs", f"no folder {str(place)!r}", "give output folders of runs")
        found |= {path.parent for path in place.rglob(RESULTS_FILE)}
    if not found:
        listed = ", ".join(map(str, places)) or "an empty list"
        raise OutputError(
            "report.runs",
            f"no results found ({RESULTS_FILE} is in none of: {listed})",
            "run stage=evaluate first, or name the folders of finished runs",
        )
    return sorted(found)


def read_outputs(places: Sequence[Path]) -> Outputs:
    """Read every output folder at or below `places`.

    Raises:
        OutputError: nothing found, a file of another format version, or one that is no results file.
    """
    runs = tuple(Run(folder, read_config(folder)) for folder in find_run_folders(places))
    results = pl.concat([_read_results(number, run) for number, run in enumerate(runs)])
    if results.is_empty():
        raise OutputError("report.runs", "the results files hold no finished cell", "let the runs finish")
    predictions = pl.concat([_read_predictions(number, run.folder) for number, run in enumerate(runs)])
    results, conflicts = _without_conflicts(results, runs)
    results, incomplete = _without_incomplete(results, predictions, runs)
    return Outputs(runs, results, predictions, (*unfinished_sweeps(places), *conflicts, *incomplete))


def unfinished_sweeps(places: Sequence[Path]) -> list[str]:
    """A sentence for every sweep at or below `places` that has jobs left to run, or that failed."""
    problems: list[str] = []
    for header in sorted({path for place in places for path in place.rglob(f"ledger/{HEADER}")}):
        folder = header.parent.parent
        records = Ledger(folder).records()
        left = [r for r in records if r.state not in (JobState.FINISHED, JobState.PRUNED)]
        if left:
            numbers = ", ".join(f"{r.number} ({r.state.value})" for r in left[:_SHOWN_JOBS])
            more = f" and {len(left) - _SHOWN_JOBS} more" if len(left) > _SHOWN_JOBS else ""
            problems.append(
                f"{folder}: {len(left)} of {len(records)} jobs of this sweep are not finished: job {numbers}{more}."
            )
    return problems


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of a run with dotted keys; empty where `run.json` cannot be read."""
    try:
        content = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        return flatten(content["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read_results(number: int, run: Run) -> pl.DataFrame:
    path = run.folder / RESULTS_FILE
    rows: list[dict[str, Any]] = []
    for place, row in enumerate(read_lines(path), start=1):
        version = row.get("format", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise OutputError(
                f"{path}:{place}",
                f"format {version}, this version reads {FORMAT_VERSION}",
                "report results of one version at a time",
            )
        row = {**_LATER, **row}
        missing = [name for name in _RESULT_SCHEMA if name not in row]
        if missing:
            raise OutputError(
                f"{path}:{place}", f"no {missing[0]!r} in this row", "leave this folder out of report.runs"
            )
        rows.append({name: row[name] for name in _RESULT_SCHEMA})
    frame = pl.DataFrame(rows, schema=_RESULT_SCHEMA)
    condition = str(run.config.get("condition") or "")
    return frame.with_columns(pl.lit(number).alias("run"), pl.lit(condition).alias("condition"))


def _read_predictions(number: int, folder: Path) -> pl.DataFrame:
    path = folder / PREDICTIONS_FILE
    if not path.is_file() or path.stat().st_size == 0:
        frame = pl.DataFrame(schema=_PREDICTION_SCHEMA)
    else:
        try:
            frame = pl.read_ndjson(path, schema=_PREDICTION_SCHEMA)
        except pl.exceptions.PolarsError:
            # A line cut by a kill: the lenient reader passes over it.
            rows = [{name: row.get(name) for name in _PREDICTION_SCHEMA} for row in read_lines(path)]
            frame = pl.DataFrame(rows, schema=_PREDICTION_SCHEMA)
    return frame.with_columns(pl.lit(number).alias("run"))


def _without_conflicts(results: pl.DataFrame, runs: Sequence[Run]) -> tuple[pl.DataFrame, list[str]]:
    """Take out cells whose fingerprint stands for more than one value."""
    different = (
        results.group_by("fingerprint", maintain_order=True)
        .agg(pl.col("value").unique(maintain_order=True), pl.col("run").unique(maintain_order=True), pl.col("task").first(), pl.col("seed").first())
        .filter(pl.col("value").list.len() > 1)
    )  # fmt: skip
    problems = [
        f"Task {row['task']}, seed {row['seed']}: one fingerprint ({row['fingerprint'][:12]}) with different values "
        f"{', '.join(f'{value:.4f}' for value in row['value'])} in "
        f"{', '.join(str(runs[number].folder) for number in row['run'])}; left out of every figure."
        for row in different.iter_rows(named=True)
    ]
    return results.join(different.select("fingerprint"), on="fingerprint", how="anti"), problems


def _without_incomplete(
    results: pl.DataFrame, predictions: pl.DataFrame, runs: Sequence[Run]
) -> tuple[pl.DataFrame, list[str]]:
    """Take out cells whose predictions are missing or cut."""
    key = ["run", "fingerprint", "task", "seed"]
    counted = predictions.group_by(key).agg(
        pl.len().alias("found"), pl.col("index").n_unique().alias("distinct")
    )
    joined = results.join(counted, on=key, how="left", maintain_order="left").with_columns(
        pl.col("found", "distinct").fill_null(0)
    )
    whole = (pl.col("found") == pl.col("n")) & (pl.col("distinct") == pl.col("n"))
    problems = [
        f"{runs[row['run']].folder}: task {row['task']}, seed {row['seed']} has {row['found']} predictions "
        f"of {row['n']}; left out of every figure."
        for row in joined.filter(~whole).iter_rows(named=True)
    ]
    return joined.filter(whole).drop("found", "distinct"), problems
