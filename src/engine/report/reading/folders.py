"""One output folder as the report may use it: rows and predictions that are what the run wrote, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from metashot.base.errors import OutputError
from metashot.base.json_text import read_json
from metashot.engine.cells.folder import SUPERSEDED_FILE, CellLines, CellPlace, Contents, read_contents
from metashot.engine.cells.record import SavedRun, read_run
from metashot.engine.cells.results import REQUIRED, RESULTS_FILE, RUN_FILE, Result, is_unchecked
from metashot.engine.report.reading.harness_files import (
    HarnessRun,
    harness_results_files,
    read_harness_folder,
)
from metashot.engine.tracking.tracker import flatten
from metashot.engine.tracking.wandb_tracker import ADDRESS_FILE

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
    "shown_mean": pl.Float64,
    "shown_least": pl.Int64,
    "sampled_from": pl.Int64,
    "metrics": pl.List(pl.Struct({"name": pl.String, "value": pl.Float64})),
}
_LATER: dict[str, Any] = {one.name: one.default for one in fields(Result) if one.name not in REQUIRED}
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
        facts: what else the record says: `started`, `git_commit`, `route`, `self_check`, `dashboard`.
    """

    folder: Path
    config: dict[str, Any]
    facts: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, eq=False)
class RunOutputs:
    """What one folder holds.

    Attributes:
        run: the folder with its config.
        results: one row per usable cell.
        predictions: one row per test example of these cells.
        problems: sentences about what is missing, damaged or left out.
        lost: whether the folder as a whole could not be used.
    """

    run: Run
    results: pl.DataFrame
    predictions: pl.DataFrame
    problems: tuple[str, ...]
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at or below some places.

    Attributes:
        runs: folders that hold results, or a record of a run that should hold some; sorted.
        closed: folders that cannot be looked into.
    """

    runs: tuple[Path, ...]
    closed: tuple[Path, ...]


def find_run_folders(places: Sequence[Path]) -> Found:
    """Folders at or below `places`.

    Raises:
        OutputError: a place does not exist, or nothing was found in any of them.
    """
    found: set[Path] = set()
    closed: set[Path] = set()
    for place in places:
        if not place.is_dir():
            raise OutputError("runs", f"no folder {str(place)!r}", "give output folders of runs")
        for folder, names in _walked(place, closed):
            own = RESULTS_FILE in names or (RUN_FILE in names and _expects_results(folder))
            json_files = any(name.endswith(".json") for name in names)
            if own or (json_files and harness_results_files(folder)):
                found.add(folder)
    if not any((folder / RESULTS_FILE).is_file() or harness_results_files(folder) for folder in found):
        listed = ", ".join(map(str, places)) or "an empty list"
        unread = f"; not readable: {', '.join(map(str, sorted(closed)))}" if closed else ""
        bare = f"; without results: {', '.join(map(str, sorted(found)))}" if found else ""
        raise OutputError(
            "runs",
            f"no results found ({RESULTS_FILE} is in none of: {listed}{unread}{bare})",
            "run stage=evaluate first, or name the folders of finished runs",
        )
    return Found(tuple(sorted(found)), tuple(sorted(closed)))


def _walked(place: Path, closed: set[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at or below a place with the names of its files; those that cannot be listed go into `closed`."""

    def refused(error: OSError) -> None:
        if error.filename is not None and Path(error.filename).exists():
            closed.add(Path(error.filename))

    for folder, _, names in os.walk(place, onerror=refused):
        yield Path(folder), names


def _expects_results(folder: Path) -> bool:
    """Whether a run should have left results here; a record that cannot be read does not say no."""
    try:
        return bool(read_run(folder).cells)
    except OutputError:
        return True


def read_folder(folder: Path) -> tuple[RunOutputs, ...]:
    """Read and check one output folder: our own run, runs of lm-evaluation-harness, or both.

    Raises:
        OutputError: a results file of another format version, or one that is no results file.
    """
    own = (folder / RESULTS_FILE).exists() or (folder / RUN_FILE).exists()
    parts = [_read_own(folder)] if own else []
    try:
        harness = bool(harness_results_files(folder))
        return (*parts, _harness_outputs(folder, read_harness_folder(folder))) if harness else tuple(parts)
    except OSError as error:
        return (*parts, _lost(folder, f"{folder}: cannot be read ({error.strerror})"))


def _read_own(folder: Path) -> RunOutputs:
    try:
        contents = read_contents(folder)
        saved = read_run(folder) if (folder / RUN_FILE).exists() else None
    except OSError as error:
        return _lost(folder, f"{error.filename or folder}: cannot be read ({error.strerror})")
    except OutputError as error:
        if not error.where.endswith(RUN_FILE):
            raise
        return _lost(folder, f"{folder}: {RUN_FILE} is {error.problem}, so what was run is not known")
    usable, problems = _usable(contents, saved)
    run = Run(
        folder,
        flatten(saved.config) if saved else {},
        {**(saved.facts if saved else {}), **_dashboard(folder)},
    )
    return _outputs(run, usable, [f"{folder}: {problem}" for problem in problems])


def _dashboard(folder: Path) -> dict[str, str]:
    try:
        address = read_json(folder / ADDRESS_FILE)["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {"dashboard": str(address)} if address else {}


def _lost(folder: Path, fault: str) -> RunOutputs:
    outputs = _outputs(Run(folder, {}), (), [f"{fault}; left out of every figure."])
    return replace(outputs, lost=True)


def _harness_outputs(folder: Path, found: HarnessRun) -> RunOutputs:
    rows = [_result_row(asdict(cell.result)) for cell in found.cells]
    predictions = [
        {name: asdict(one)[name] for name in PREDICTION_SCHEMA}
        for cell in found.cells
        for one in cell.predictions
    ]
    return RunOutputs(
        Run(folder, {}),
        pl.DataFrame(rows, schema=RESULT_SCHEMA),
        pl.DataFrame(predictions, schema=PREDICTION_SCHEMA),
        found.problems,
    )


def _usable(contents: Contents, saved: SavedRun | None) -> tuple[list[CellLines], list[str]]:
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


def _result_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `results.jsonl` as a row of the frame."""
    found = [{"name": name, "value": value} for name, value in (row["metrics"] or {}).items()]
    return {**{name: row[name] for name in RESULT_SCHEMA}, "metrics": found}


def _outputs(run: Run, blocks: Sequence[CellLines], problems: Sequence[str]) -> RunOutputs:
    rows = [_result_row({**_LATER, **block.row}) for block in blocks]
    lines = b"".join(block.predictions for block in blocks)
    predictions = (
        pl.read_ndjson(BytesIO(lines), schema=PREDICTION_SCHEMA)
        if lines
        else pl.DataFrame(schema=PREDICTION_SCHEMA)
    )
    return RunOutputs(run, pl.DataFrame(rows, schema=RESULT_SCHEMA), predictions, tuple(problems))


def replaced_note(folder: Path) -> str | None:
    """A sentence when an earlier command's results in this folder were replaced."""
    try:
        count = (folder / SUPERSEDED_FILE).read_bytes().count(b"\n")
    except OSError:  # mostly: there is none
        return None
    return f"{folder}: {count} results of earlier commands in this folder were replaced ({SUPERSEDED_FILE}); the last run's are used."
