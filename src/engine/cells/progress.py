"""The progress over evaluation cells, with a time estimate: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from metashot.base.terminal import counted, printable
from metashot.engine.cells.family import CellKey
from metashot.engine.cells.results import FinishedCell
from metashot.engine.models.throughput import duration
from metashot.engine.tracking.tracker import Tracker

_SECONDS_BETWEEN_LINES = 10.0


class CellProgress:
    """Draws one bar; its unit is a cell, and tokens move it inside a cell. In a file or a pipe it is lines.

    Args:
        console: where to draw.
        tracker: gets each cell's value.
        seconds_between_lines: where there is no terminal.
    """

    def __init__(
        self, console: Console, tracker: Tracker, seconds_between_lines: float = _SECONDS_BETWEEN_LINES
    ) -> None:
        self._tracker = tracker
        self._console = console
        self._done = 0
        self._total = 0.0
        self._lines = _Lines(console, seconds_between_lines)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("cells", total=None)

    def __enter__(self) -> CellProgress:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing, also after a failure."""
        self._bar.stop()

    def start(self, total: int, stored: int) -> None:
        """Set the number of cells and say what need not be computed."""
        self._bar.update(self._task, total=total)
        if stored:
            self._console.print(f"{stored} of {total} cells are stored already and are not computed again")
        self._lines.start(total, stored)

    def tokens(self, cell: CellKey, done: int, total: int) -> None:
        """Move inside the current cell."""
        name, completed = f"{cell.task} seed {cell.seed}", self._done + done / max(total, 1)
        self._bar.update(self._task, description=escape(printable(name)), completed=completed)
        self._lines.at(name, completed)

    def finished(self, cell: FinishedCell, *, computed: bool) -> None:
        """Count the cell and log its value."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        result = cell.result
        self._total += result.value
        self._tracker.log(
            {
                f"eval/{result.task}/{result.metric}_percent": 100 * result.value,
                "eval/mean_percent": 100 * self._total / self._done,
                "eval/computed": float(computed),
            },
            step=self._done,
        )


class _Lines:
    """Lines of their own for a console that is no terminal, which shows no bar."""

    def __init__(self, console: Console, seconds_between: float) -> None:
        self._console = console
        self._seconds_between = seconds_between
        self._cells = self._stored = 0
        self._begun = self._said = time.monotonic()

    def start(self, cells: int, stored: int) -> None:
        """Say what is ahead, before the model is loaded."""
        self._cells, self._stored = cells, stored
        if not self._console.is_terminal and cells > stored:
            self._console.print(f"{counted(cells - stored, 'cell')} to compute")

    def at(self, name: str, completed: float) -> None:
        """Say how far it is, when nothing was said for a while.

        Args:
            name: of the current cell.
            completed: cells, stored ones included, with the part of the current one.
        """
        now = time.monotonic()
        if self._console.is_terminal or now - self._said < self._seconds_between:
            return
        self._said = now
        computed = completed - self._stored
        left = (self._cells - completed) * (now - self._begun) / computed if computed > 0 else float("inf")
        estimate = f", about {duration(left)} left" if left < float("inf") else ""
        self._console.print(f"{completed:.1f} of {self._cells} cells{estimate}: {name}", soft_wrap=True)
