"""One output folder as the report may use it: rows and predictions that are what the run wrote, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from metashot.base.errors import OutputError
from metashot.engine.cells.folder import SUPERSEDED_FILE, Block, CellPlace, Contents, read_contents
from metashot.engine.cells.record import SavedRun, read_run
from metashot.engine.cells.results import REQUIRED, RESULTS_FILE, RUN_FILE, Result, is_unchecked
from metashot.engine.report.harness_files import harness_results_files, read_harness_run
from metashot.engine.tracking.tracker import flatten

RESULT_SCHEMA: dict[str, Any] = {
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
_LATER: dict[str, Any] = {field.name: field.default for field in fields(Result) if field.name not in REQUIRED}
"""Columns that older files lack, with what they stand for there."""
PREDICTION_SCHEMA: dict[str, Any] = {
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
    "score": pl.Float64,
}
_SHOWN_CELLS = 3
_MENDING = f"the same command with this folder as hydra.run.dir puts {RESULTS_FILE} right"


@dataclass(frozen=True, slots=True)
class Run:
    """One output folder.

    Attributes:
        folder: where it lies.
        config: the resolved config with dotted keys; empty when there is no `run.json`.
    """

    folder: Path
    config: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class RunOutputs:
    """What one folder holds.

    Attributes:
        run: the folder with its config.
        results: one row per usable cell.
        predictions: one row per test example of these cells.
        problems: sentences about what is missing, damaged or left out.
    """

    run: Run
    results: pl.DataFrame
    predictions: pl.DataFrame
    problems: tuple[str, ...]


def find_run_folders(places: Sequence[Path]) -> list[Path]:
    """Folders at or below `places` that hold results, or a record of a run that should hold some; sorted.

    Raises:
        OutputError: a place does not exist, or nothing was found in any of them.
    """
    found: set[Path] = set()
    for place in places:
        if not place.is_dir():
            raise OutputError("runs", f"no folder {str(place)!r}", "give output folders of runs")
        found |= {path.parent for path in place.rglob(RESULTS_FILE)}
        found |= {path.parent for path in place.rglob(RUN_FILE) if _expects_results(path.parent)}
        found |= {path.parent for path in place.rglob("results_*.json") if harness_results_files(path.parent)}
    if not any((folder / RESULTS_FILE).is_file() or harness_results_files(folder) for folder in found):
        listed = ", ".join(map(str, places)) or "an empty list"
        raise OutputError(
            "runs",
            f"no results found ({RESULTS_FILE} is in none of: {listed})",
            "run stage=evaluate first, or name the folders of finished runs",
        )
    return sorted(found)


def _expects_results(folder: Path) -> bool:
    try:
        return bool(read_run(folder).cells)
    except OutputError:
        return False


def read_folder(folder: Path) -> RunOutputs:
    """Read and check one output folder.

    Raises:
        OutputError: a results file of another format version, or one that is no results file.
    """
    if harness_files := harness_results_files(folder):
        return _read_harness(folder, harness_files[-1])
    contents = read_contents(folder)
    try:
        saved = read_run(folder) if (folder / RUN_FILE).exists() else None
    except OutputError as error:
        problem = f"{folder}: {RUN_FILE} is {error.problem}, so what was run is not known; left out of every figure."
        return _outputs(Run(folder, {}), (), [problem])
    usable, problems = _usable(contents, saved)
    run = Run(folder, flatten(saved.config) if saved else {})
    return _outputs(run, usable, [f"{folder}: {problem}" for problem in problems])


def _read_harness(folder: Path, newest: Path) -> RunOutputs:
    """The newest run of lm-evaluation-harness in a folder."""
    found = read_harness_run(newest)
    problems = [
        f"{newest}: task {task} has no samples beside it (run the harness with --log_samples); left out of every figure."
        for task in found.without_samples
    ]
    rows = [{name: asdict(cell.result)[name] for name in RESULT_SCHEMA} for cell in found.cells]
    predictions = [
        {name: asdict(one)[name] for name in PREDICTION_SCHEMA}
        for cell in found.cells
        for one in cell.predictions
    ]
    return RunOutputs(
        Run(folder, {}),
        pl.DataFrame(rows, schema=RESULT_SCHEMA),
        pl.DataFrame(predictions, schema=PREDICTION_SCHEMA),
        tuple(problems),
    )


def _usable(contents: Contents, saved: SavedRun | None) -> tuple[list[Block], list[str]]:
    """Blocks that are whole and that the run expected; sentences about all else."""
    problems = [
        f"task {block.place[0]}, seed {block.place[1]} {block.fault}; left out of every figure."
        for block in contents.blocks
        if block.fault
    ]
    if contents.damaged_rows:
        problems.append(f"{contents.damaged_rows} damaged rows in {RESULTS_FILE}; left out of every figure.")
    if contents.replaced:
        problems.append(
            f"{contents.replaced} earlier rows of the same task and seed in {RESULTS_FILE}; the last one is used."
        )
    usable = [block for block in contents.blocks if not block.fault]
    if saved and saved.cells:
        foreign = [b for b in usable if saved.cells.get(b.place) != b.row["fingerprint"]]
        if foreign:
            problems.append(
                f"{len(foreign)} results that this run, by its {RUN_FILE}, did not make ({_told([b.place for b in foreign])});"
                " left out of every figure."
            )
        usable = [block for block in usable if block not in foreign]
        found = {block.place for block in usable}
        if missing := [place for place in saved.cells if place not in found]:
            problems.append(
                f"{len(missing)} of {len(saved.cells)} cells are missing ({_told(missing)}); {_MENDING}."
            )
    if saved is None and any(not is_unchecked(block.row) for block in usable):
        problems.append(f"no {RUN_FILE}, so it cannot be seen whether cells are missing.")
    return usable, problems


def _told(places: Sequence[CellPlace]) -> str:
    told = ", ".join(f"{task} seed {seed}" for task, seed in places[:_SHOWN_CELLS])
    return told + (f" and {len(places) - _SHOWN_CELLS} more" if len(places) > _SHOWN_CELLS else "")


def _outputs(run: Run, blocks: Sequence[Block], problems: Sequence[str]) -> RunOutputs:
    rows = [{name: {**_LATER, **block.row}[name] for name in RESULT_SCHEMA} for block in blocks]
    lines = b"".join(block.predictions for block in blocks)
    predictions = (
        pl.read_ndjson(BytesIO(lines), schema=PREDICTION_SCHEMA)
        if lines
        else pl.DataFrame(schema=PREDICTION_SCHEMA)
    )
    return RunOutputs(run, pl.DataFrame(rows, schema=RESULT_SCHEMA), predictions, tuple(problems))


def replaced_note(folder: Path) -> str | None:
    """A sentence when an earlier command's results in this folder were replaced."""
    path = folder / SUPERSEDED_FILE
    if not path.is_file():
        return None
    count = path.read_bytes().count(b"\n")
    return f"{folder}: {count} results of earlier commands in this folder were replaced ({SUPERSEDED_FILE}); the last run's are used."
