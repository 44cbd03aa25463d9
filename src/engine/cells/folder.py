"""The files of a run's output folder: one current row for each (task, seed), and its predictions.

Lines are appended cell by cell. What a kill left half-written, what was damaged, and what another command left in a
reused folder is taken out at the next start; the store gives whole cells back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock

from metashot.base.errors import OutputError
from metashot.base.files import append_bytes, append_lines, output_errors, write_atomic
from metashot.base.json_text import parse_json
from metashot.engine.cells.results import (
    FORMAT_VERSION,
    PREDICTIONS_DIGEST,
    PREDICTIONS_FILE,
    READABLE,
    REQUIRED,
    RESULTS_FILE,
    FinishedCell,
    Result,
    cell_lines,
    checked_row,
    is_unchecked,
    result_from_row,
)

SUPERSEDED_FILE = "superseded.jsonl"
"""Results that another one has replaced in this folder; their predictions stay in the store."""

CellPlace = tuple[str, int]
"""Task and seed."""


@dataclass(frozen=True, slots=True)
class CellLines:
    """One cell as it stands in the two files.

    Attributes:
        row: its line in `results.jsonl`, intact.
        line: that line.
        predictions: its lines in `predictions.jsonl`.
        fault: what is wrong with the predictions; empty when they are as written.
    """

    row: Mapping[str, Any]
    line: bytes
    predictions: bytes
    fault: str

    @property
    def place(self) -> CellPlace:
        """Task and seed."""
        return str(self.row["task"]), int(self.row["seed"])


@dataclass(frozen=True, slots=True)
class Contents:
    """What the two files of a folder hold.

    Attributes:
        blocks: the last row of each (task, seed), in the order of their places.
        damaged_rows: lines of `results.jsonl` that cannot be read or differ from their digest.
        replaced: intact rows that a later one of the same (task, seed) replaces.
    """

    blocks: tuple[CellLines, ...]
    damaged_rows: int
    replaced: int


def read_contents(folder: Path) -> Contents:
    """Read and check both files.

    Raises:
        OutputError: a row of another format version, or one that is no result.
    """
    path = folder / RESULTS_FILE
    rows: dict[CellPlace, tuple[Mapping[str, Any], bytes]] = {}
    damaged = replaced = 0
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = checked_row(line)
        except ValueError:
            damaged += 1
            continue
        _check_row(row, path, number)
        place = (str(row["task"]), int(row["seed"]))
        replaced += rows.pop(place, None) is not None
        rows[place] = row, line
    return Contents(tuple(_blocks(list(rows.values()), _lines(folder / PREDICTIONS_FILE))), damaged, replaced)


def _check_row(row: Mapping[str, Any], path: Path, number: int) -> None:
    where = f"{path}:{number}"
    if row.get("format", FORMAT_VERSION) not in READABLE:
        problem = f"format {row['format']}, this version reads {FORMAT_VERSION}"
        raise OutputError(where, problem, "report results of one version at a time")
    needed = [name for name in REQUIRED if name not in row]
    if needed:
        raise OutputError(where, f"no {needed[0]!r} in this row", "leave this folder out of runs")
    whole = [name for name in ("seed", "k", "n") if not isinstance(row[name], int)]
    if whole:
        problem = f"{whole[0]} is no whole number: {row[whole[0]]!r}"
        raise OutputError(where, problem, "leave this folder out of runs")


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def _blocks(rows: list[tuple[Mapping[str, Any], bytes]], lines: list[bytes]) -> list[CellLines]:
    """Rows with their predictions: these lie in the order of the rows, or else are found by what they say."""
    found: list[CellLines] = []
    start = 0
    for row, line in rows:
        predictions = b"".join(lines[start : start + int(row["n"])])
        if sha256(predictions).hexdigest() != row.get(PREDICTIONS_DIGEST):
            return _blocks_by_content(rows, lines)
        found.append(CellLines(row, line, predictions, ""))
        start += int(row["n"])
    return found


def _blocks_by_content(rows: list[tuple[Mapping[str, Any], bytes]], lines: list[bytes]) -> list[CellLines]:
    grouped: dict[tuple[Any, ...], list[bytes]] = {}
    for line in lines:
        try:
            said = parse_json(line)
            key = said["task"], said["seed"], said["fingerprint"]
            grouped.setdefault(key, []).append(line)
        except (ValueError, KeyError, TypeError):
            continue
    blocks: list[CellLines] = []
    for row, line in rows:
        mine = grouped.get((row["task"], row["seed"], row["fingerprint"]), [])
        blocks.append(CellLines(row, line, b"".join(mine), _fault(row, mine)))
    return blocks


def _fault(row: Mapping[str, Any], lines: list[bytes]) -> str:
    if is_unchecked(row):
        distinct = len({parse_json(line).get("index") for line in lines})
        return "" if len(lines) == distinct == row["n"] else f"has {len(lines)} predictions of {row['n']}"
    if sha256(b"".join(lines)).hexdigest() == row.get(PREDICTIONS_DIGEST):
        return ""
    if len(lines) != row["n"]:
        return f"has {len(lines)} predictions of {row['n']}"
    return "has predictions that differ from their checksum"


class RunFolder:
    """`results.jsonl` and `predictions.jsonl` of one run, each cell once.

    Args:
        folder: the run's output folder; made if it is not there.
        expected: fingerprint of every cell that the run will hold, by task and seed; rows of other cells move to
            `superseded.jsonl`. None keeps all whole ones.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, expected: Mapping[CellPlace, str] | None = None) -> None:
        self.folder = folder
        self._expected = expected
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".results.lock")
        self._known: dict[CellPlace, str] = {}
        self._read_to = (0, 0)  # inode of the results file, and how many of its bytes are known
        with self._locked():
            self._keep(self._is_wanted)

    def add(self, cell: FinishedCell) -> None:
        """Append one cell unless it is there; it takes the place of another result of its task and seed.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        place = (cell.result.task, cell.result.seed)
        with self._locked():
            self._read_on()
            there = self._known.get(place)
            if there == cell.result.fingerprint:
                return
            if there is not None:
                self._keep(lambda block: block.place != place)
            line, predictions = cell_lines(cell)
            append_bytes(self.folder / PREDICTIONS_FILE, predictions)
            append_bytes(self.folder / RESULTS_FILE, line)

    def results(self) -> list[Result]:
        """All results of the folder."""
        return [result_from_row(block.row) for block in read_contents(self.folder).blocks]

    def check_complete(self) -> None:
        """Hold the files to what the run expected, when it has added every cell.

        Raises:
            OutputError: rows are missing or damaged: something else has changed the folder meanwhile.
        """
        whole = {
            block.place: block.row["fingerprint"]
            for block in read_contents(self.folder).blocks
            if not block.fault
        }
        expected = self._expected or {}
        lost = [place for place, print_ in expected.items() if whole.get(place) != print_]
        if lost:
            task, seed = lost[0]
            raise OutputError(
                str(self.folder),
                f"{len(lost)} of {len(expected)} results are gone again (the first: task {task}, seed {seed}): "
                "the folder was changed or removed while the run wrote to it",
                "run the same command again: stored cells are not computed anew",
            )

    def _is_wanted(self, block: CellLines) -> bool:
        if self._expected is None:
            return True
        return self._expected.get(block.place) == block.row["fingerprint"] and not is_unchecked(block.row)

    def _read_on(self) -> None:
        """Take in what stands in the results file since it was last looked at: rows of this and of other processes.

        Only what is new is read, so that adding n cells costs n rows. `check_complete` reads all of it again.
        """
        path = self.folder / RESULTS_FILE
        if not path.is_file():
            self._known, self._read_to = {}, (0, 0)
            return
        with path.open("rb") as stream:
            state = os.fstat(stream.fileno())
            inode, known = self._read_to
            if state.st_ino != inode or state.st_size < known:
                self._known, known = {}, 0
            stream.seek(known)
            for line in stream:
                with suppress(ValueError, KeyError, TypeError):
                    row = checked_row(line)
                    self._known[str(row["task"]), int(row["seed"])] = str(row["fingerprint"])
                if line.endswith(b"\n"):
                    known += len(line)
        self._read_to = state.st_ino, known

    def _keep(self, wanted: Callable[[CellLines], bool]) -> None:
        """Rewrite both files with the whole blocks that are wanted; the others that are whole leave their row behind."""
        blocks = read_contents(self.folder).blocks
        whole = [block for block in blocks if not block.fault]
        kept = [block for block in whole if wanted(block)]
        if superseded := [block.row for block in whole if not wanted(block)]:
            append_lines(self.folder / SUPERSEDED_FILE, superseded)
        # Results first: predictions without a result are dropped at the next start, results without them as well.
        for name, content in (
            (RESULTS_FILE, b"".join(block.line for block in kept)),
            (PREDICTIONS_FILE, b"".join(block.predictions for block in kept)),
        ):
            path = self.folder / name
            if path.is_file() and path.read_bytes() != content:
                write_atomic(path, content)

    @contextmanager
    def _locked(self) -> Generator[None]:
        with output_errors(self.folder):
            if not self.folder.is_dir():
                raise FileNotFoundError(2, "the folder is gone")
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
