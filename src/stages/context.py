"""What every stage is handed, and how it tells the user what to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from metashot.engine.cells.record import RunRecord
from metashot.engine.tracking.tracker import Tracker
from metashot.stages.run_config import RunConfig

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
