"""What every stage is handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from metashot.engine.runs.record import RunRecord
from metashot.engine.tracking.tracker import Tracker
from metashot.stages.run_config import RunConfig


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
