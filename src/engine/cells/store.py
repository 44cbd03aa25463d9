"""The store of finished cells: one file per fingerprint, written whole, checked when read.

A finished cell is never computed twice, a killed run goes on where it was, and two processes that share a
`results_root` cannot damage each other's cells.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from metashot.base.errors import OutputError
from metashot.base.files import output_errors, remove_leftovers, write_atomic
from metashot.engine.cells.results import FinishedCell, cell_from_lines, cell_lines, checked_row, is_unchecked


class ResultStore:
    """Finished cells of any number of runs, by fingerprint.

    Args:
        root: the results root; cells live in `<root>/cells`.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "cells"

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

    def lock(self, fingerprint: str) -> FileLock:
        """Held while a cell is computed, so that a second process waits for it and then reads it."""
        path = self._path(fingerprint)
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_suffix(".lock"))

    def _path(self, fingerprint: str) -> Path:
        return self.folder / fingerprint[:2] / f"{fingerprint}.jsonl"
