"""What every stage is handed, and how it tells the user what to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from metashot.engine.cells.record import RunRecord
from metashot.engine.cells.results import PREDICTIONS_FILE, FinishedCell
from metashot.engine.tracking.tracker import Tracker
from metashot.stages.run_config import RunConfig

if TYPE_CHECKING:
    from metashot.engine.cells.summary import Summary

SHOWN_NOTES = 12


@dataclass(frozen=True, slots=True)
class RunContext:
    """The edges of a run.

    Attributes:
        config: the config, its components made.
        output: the run's output folder.
        console: for tables and messages.
        tracker: receives metrics.
        record: writes `run.json`.
    """

    config: RunConfig
    output: Path
    console: Console
    tracker: Tracker
    record: RunRecord

    @property
    def results_root(self) -> Path:
        """Where finished cells and checkpoints of all runs live."""
        return self.config.results_root


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """What the user should know of the data, one line each; `run.json` holds all of them."""
    for note in notes[:SHOWN_NOTES]:
        console.print(f"note: {note}", soft_wrap=True, markup=False, highlight=False)
    if len(notes) > SHOWN_NOTES:
        console.print(f"note: and {len(notes) - SHOWN_NOTES} more, in run.json")


def track_evaluation(run: RunContext, cells: Sequence[FinishedCell], summary: Summary) -> None:
    """Tables, predictions and final values of an evaluation, to the trackers; shares in percent, as their names say."""
    results = [asdict(cell.result) for cell in cells]
    names = ["value_percent" if name == "value" else name for name in results[0]]
    shown = [[100 * v if name == "value" else v for name, v in row.items()] for row in results]
    run.tracker.table("results", names, shown)
    if run.config.logger.predictions:
        columns = ("task", "seed", "index", "gold", "prediction", "options", "nll")
        rows = [[getattr(p, name) for name in columns] for cell in cells for p in cell.predictions]
        run.tracker.table("predictions", columns, [[*row[:5], list(row[5]), list(row[6])] for row in rows])
    run.tracker.artifact("predictions", "predictions", run.output / PREDICTIONS_FILE)
    run.tracker.summary(summary.tracked())
