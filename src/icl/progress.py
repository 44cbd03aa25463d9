"""The progress bar over evaluation cells, with a time estimate; also feeds the tracker."""

from __future__ import annotations

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

from metashot.data.terminal import printable
from metashot.engine.runs.results import FinishedCell
from metashot.engine.tracking.tracker import Tracker
from metashot.icl.cell_data import CellKey


class CellProgress:
    """Draws one bar; its unit is a cell, and tokens move it inside a cell.

    Args:
        console: where to draw.
        tracker: gets each cell's value.
    """

    def __init__(self, console: Console, tracker: Tracker) -> None:
        self._tracker = tracker
        self._console = console
        self._done = 0
        self._total = 0.0
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

    def tokens(self, cell: CellKey, done: int, total: int) -> None:
        """Move inside the current cell."""
        self._bar.update(
            self._task,
            description=escape(printable(f"{cell.task} seed {cell.seed}")),
            completed=self._done + done / max(total, 1),
        )

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
