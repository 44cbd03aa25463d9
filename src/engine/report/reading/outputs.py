"""Any number of output folders as two Polars frames: results (one row a cell) and predictions.

Nothing is averaged silently: cells that share a fingerprint and disagree are taken out and named, and
runs that differ in more than their labels become variants of their own (`variants.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from metashot.base.errors import MetashotError, OutputError
from metashot.engine.report.reading.folders import Run, find_run_folders, read_folder, replaced_note
from metashot.engine.sweeps.ledger import HEADER, JobState, Ledger

SYSTEM = ("setting", "method", "model", "k", "condition", "variant")
_SHOWN_JOBS = 5
_SHOWN_PROBLEMS = 3
CELL = (*SYSTEM, "task", "seed")


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the output folders hold.

    Attributes:
        runs: the folders; the `run` column of both frames counts them.
        results: one row per (run, task, seed), columns of `results.jsonl`, `run` and `condition`.
        predictions: one row per test example, columns of `predictions.jsonl` and `run`.
        problems: sentences about what was found and left out.
        lost: folders that could not be used at all.
        names: short names for what runs differ in, see `variants.differing`.
    """

    runs: tuple[Run, ...]
    results: pl.DataFrame
    predictions: pl.DataFrame
    problems: tuple[str, ...]
    lost: tuple[Path, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict[str, str])


def read_outputs(
    places: Sequence[Path], own: Path | None = None, names: Mapping[str, str] | None = None
) -> Outputs:
    """Read every output folder at or below `places`.

    Args:
        places: folders of runs, or folders above them.
        own: the folder of the run that reads, which may be a job of a sweep.
        names: short names for what runs differ in.

    Raises:
        OutputError: nothing found, a file of another format version, or one that is no results file.
    """
    there = find_run_folders(places)
    folders = [outputs for folder in there.runs for outputs in read_folder(folder)]
    runs = tuple(folder.run for folder in folders)
    found = [f"{folder}: cannot be read; left out of every figure." for folder in there.closed]
    found += [problem for folder in folders for problem in folder.problems]
    found += [note for run in runs if (note := replaced_note(run.folder))]
    results = pl.concat([_numbered(number, folder.results) for number, folder in enumerate(folders)])
    if results.is_empty():
        problem = " ".join(["the results files hold no finished cell.", *found[:_SHOWN_PROBLEMS]])
        raise OutputError("runs", problem, "let the runs finish")
    conditions = pl.Series([str(run.config.get("condition") or "") for run in runs], dtype=pl.String)
    results = results.with_columns(conditions.gather(results["run"]).alias("condition"))
    predictions = pl.concat([_numbered(number, folder.predictions) for number, folder in enumerate(folders)])
    results, conflicts = _without_conflicts(results, runs)
    lost = (*there.closed, *(folder.run.folder for folder in folders if folder.lost))
    problems = (*unfinished_sweeps(places, own), *conflicts, *found)
    return Outputs(runs, results, predictions, problems, lost, names or {})


def _numbered(number: int, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit(number).alias("run"))


def unfinished_sweeps(places: Sequence[Path], own: Path | None = None) -> list[str]:
    """A sentence for every sweep at or below `places` that has jobs left to run, or that failed; not for the `own` job."""
    problems: list[str] = []
    for header in sorted({path for place in places for path in place.rglob(f"ledger/{HEADER}")}):
        folder = header.parent.parent
        try:
            records = Ledger(folder).records()
        except (MetashotError, OSError) as error:
            problems.append(f"{folder}: which jobs of this sweep are finished cannot be seen: {error}.")
            continue
        ended = (JobState.FINISHED, JobState.PRUNED)
        left = [r for r in records if r.state not in ended and not (own and r.folder == str(own))]
        if left:
            numbers = ", ".join(f"{r.number} ({r.state.value})" for r in left[:_SHOWN_JOBS])
            more = f" and {len(left) - _SHOWN_JOBS} more" if len(left) > _SHOWN_JOBS else ""
            problems.append(
                f"{folder}: {len(left)} of {len(records)} jobs of this sweep are not finished: job {numbers}{more}."
            )
    return problems


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
