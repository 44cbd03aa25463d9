"""The store of finished cells: one file per fingerprint, written whole, checked when read.

Beside them lie the answers of cells that are not finished, one file per piece, until the cell is. A finished cell is never computed twice, a killed run goes on where it was, and two processes that share a
`results_root` cannot damage each other's cells.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from metashot.base.errors import OutputError
from metashot.base.files import output_errors, remove_leftovers, write_atomic
from metashot.base.json_text import parse_json, sealed, unsealed
from metashot.engine.cells.results import FinishedCell, cell_from_lines, cell_lines, checked_row, is_unchecked


class ResultStore:
    """Finished cells of any number of runs, by fingerprint.

    Args:
        root: the results root; cells live in `<root>/cells`, rows of unfinished ones in `<root>/rows`.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "cells"
        self._rows = root / "rows"

    def check_writable(self) -> None:
        """Fail before the model is loaded; what killed writers left is removed.

        Raises:
            OutputError: the folder cannot be made or written.
        """
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        probe = self.folder / ".writable"
        write_atomic(probe, "")
        probe.unlink(missing_ok=True)
        remove_leftovers(self.folder)
        remove_leftovers(self.folder, "*/.*.tmp")

    def get(self, fingerprint: str) -> FinishedCell | None:
        """The stored cell; None when it is missing, of another version or damaged (then it is computed again)."""
        try:
            first, _, predictions = self._path(fingerprint).read_bytes().partition(b"\n")
            row = checked_row(first)
            cell = None if is_unchecked(row) else cell_from_lines(row, predictions)
        except (OSError, ValueError, KeyError, TypeError, OutputError):
            return None
        return cell if cell is not None and cell.result.fingerprint == fingerprint else None

    def put(self, cell: FinishedCell) -> None:
        """Store a finished cell, whole or not at all."""
        write_atomic(self._path(cell.result.fingerprint), b"".join(cell_lines(cell)))

    def lock(self, fingerprint: str, wait: float = -1) -> AbstractContextManager[None]:
        """Held while a cell is computed, so that a second process waits for it and then reads it; see `_held`."""
        return _held(self._path(fingerprint).with_suffix(".lock"), wait)

    def rows(self, fingerprint: str) -> dict[int, Any]:
        """Answers of an unfinished cell, by row; files that are damaged are passed over."""
        found: dict[int, Any] = {}
        for path in sorted((self._rows / fingerprint).glob("*.json")):
            with suppress(OSError, ValueError, KeyError):
                kept = unsealed(parse_json(path.read_bytes()))
                found |= dict(zip(kept["rows"], kept["answers"], strict=True))
        return found

    def put_rows(self, fingerprint: str, answers: Mapping[int, Any]) -> None:
        """Keep the answers (plain JSON values) of a piece of a cell, whole or not at all."""
        content = sealed({"rows": list(answers), "answers": list(answers.values())})
        path = self._rows / fingerprint / f"{_name(list(answers))}.json"
        write_atomic(path, json.dumps(content, ensure_ascii=False) + "\n")

    def rows_lock(
        self, fingerprint: str, rows: Sequence[int], wait: float = -1
    ) -> AbstractContextManager[None]:
        """Held while these rows of a cell are computed; see `_held`."""
        return _held(self._rows / fingerprint / f"{_name(rows)}.lock", wait)

    def drop_rows(self, fingerprint: str) -> None:
        """Remove the answers of a cell that is finished."""
        shutil.rmtree(self._rows / fingerprint, ignore_errors=True)

    def _path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint[:2] / f"{fingerprint}.jsonl"


def _name(rows: Sequence[int]) -> str:
    return f"{len(rows)}-from-{rows[0]}-to-{rows[-1]}"


@contextmanager
def _held(path: Path, wait: float) -> Generator[None]:
    """A lock that is held inside the block.

    Raises:
        Timeout: another process held it for `wait` seconds (below 0: waits for ever).
        OutputError: the store cannot be written, or was removed.
    """
    lock = FileLock(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=wait)
        except Timeout as error:
            busy: Timeout | None = error
        else:
            busy = None
    if busy is not None:
        raise busy
    try:
        yield
    finally:
        lock.release()
