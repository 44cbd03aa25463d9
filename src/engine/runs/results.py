"""Results: the records, the store of finished cells, and the files of a run's output folder.

The store keeps one file per fingerprint, written whole: a finished cell is never computed twice, a killed run goes
on where it was, and two processes that share a `results_root` cannot damage each other's cells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from metashot.engine.errors import OutputError
from metashot.engine.files import append_lines, output_errors, read_lines, write_atomic

FORMAT_VERSION = 1
RESULTS_FILE = "results.jsonl"
PREDICTIONS_FILE = "predictions.jsonl"
RUN_FILE = "run.json"


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
    format: int = FORMAT_VERSION


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
        null_sum_nll: [n_null][n_options] the sums after each content-free input; empty without calibration.
        null_n_tokens: the token counts that belong to them.
        fingerprint: the cell's.
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


@dataclass(frozen=True, slots=True)
class FinishedCell:
    """A result with its predictions."""

    result: Result
    predictions: tuple[Prediction, ...]


def prediction_from_row(row: dict[str, Any]) -> Prediction:
    """Read one line of `predictions.jsonl`."""
    known = {name: row[name] for name in Prediction.__dataclass_fields__}
    for name in ("options", "nll", "sum_nll", "n_tokens", "n_chars", "n_bytes"):
        known[name] = tuple(known[name])
    for name in ("null_sum_nll", "null_n_tokens"):
        known[name] = tuple(tuple(values) for values in known[name])
    return Prediction(**known)


def result_from_row(row: dict[str, Any]) -> Result:
    """Read one line of `results.jsonl`.

    Raises:
        OutputError: a line of another format version.
    """
    if row.get("format", FORMAT_VERSION) != FORMAT_VERSION:
        raise OutputError(
            RESULTS_FILE,
            f"format {row['format']}, this version reads {FORMAT_VERSION}",
            "use the version that wrote it",
        )
    return Result(**{name: row[name] for name in Result.__dataclass_fields__ if name in row})


class ResultStore:
    """Finished cells of any number of runs, by fingerprint.

    Args:
        root: the results root; cells live in `<root>/cells`.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "cells"

    def check_writable(self) -> None:
        """Fail before the model is loaded.

        Raises:
            OutputError: the folder cannot be made or written.
        """
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        probe = self.folder / ".writable"
        write_atomic(probe, "")
        probe.unlink(missing_ok=True)

    def get(self, fingerprint: str) -> FinishedCell | None:
        """The stored cell, or None when it is missing or its file is damaged (then it is computed again)."""
        path = self._path(fingerprint)
        if not path.is_file():
            return None
        try:
            rows = list(read_lines(path))
            result = result_from_row(rows[0])
            predictions = tuple(prediction_from_row(row) for row in rows[1:])
        except (KeyError, IndexError, TypeError):
            return None
        whole = result.fingerprint == fingerprint and len(predictions) == result.n
        return FinishedCell(result, predictions) if whole else None

    def put(self, cell: FinishedCell) -> None:
        """Store a finished cell, whole or not at all."""
        lines = [asdict(cell.result), *map(asdict, cell.predictions)]
        write_atomic(
            self._path(cell.result.fingerprint),
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
        )

    def lock(self, fingerprint: str) -> FileLock:
        """Held while a cell is computed, so that a second process waits for it and then reads it."""
        path = self._path(fingerprint)
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_suffix(".lock"))

    def _path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint[:2] / f"{fingerprint}.jsonl"


class RunFolder:
    """`results.jsonl` and `predictions.jsonl` of one run: appended cell by cell, each cell once.

    Args:
        folder: the run's output folder. Predictions that a kill left without their result line are dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".results.lock")
        with self._lock:
            self._drop_unfinished()

    def add(self, cell: FinishedCell) -> None:
        """Append one cell unless it is already there."""
        key = _cell_key(asdict(cell.result))
        with self._lock:
            if any(_cell_key(row) == key for row in self._rows(RESULTS_FILE)):
                return
            append_lines(self.folder / PREDICTIONS_FILE, map(asdict, cell.predictions))
            append_lines(self.folder / RESULTS_FILE, [asdict(cell.result)])

    def results(self) -> list[Result]:
        """All results of the folder."""
        return [result_from_row(row) for row in self._rows(RESULTS_FILE)]

    def _rows(self, name: str) -> Iterable[dict[str, Any]]:
        path = self.folder / name
        return read_lines(path) if path.is_file() else ()

    def _drop_unfinished(self) -> None:
        path = self.folder / PREDICTIONS_FILE
        if not path.is_file():
            return
        finished = {_cell_key(row) for row in self._rows(RESULTS_FILE)}
        text = path.read_text(encoding="utf-8", errors="replace")
        rows = list(read_lines(path))
        kept = [row for row in rows if _cell_key(row) in finished]
        if len(kept) < len(rows) or len(rows) < text.count("\n") or (text and not text.endswith("\n")):
            write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def relabel(cell: FinishedCell, *, setting: str, method: str, model: str, seed: int) -> FinishedCell:
    """A stored cell under the names of the run that asks for it; names do not decide a value.

    Without demonstrations all seeds share one fingerprint, so the seed is a name as well.
    """
    return FinishedCell(
        replace(cell.result, setting=setting, method=method, model=model, seed=seed),
        tuple(replace(prediction, seed=seed) for prediction in cell.predictions),
    )


def gold_and_predictions(predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """The two columns that metrics take."""
    return [row.gold for row in predictions], [row.prediction for row in predictions]


def _cell_key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("fingerprint"), row.get("task"), row.get("seed")
