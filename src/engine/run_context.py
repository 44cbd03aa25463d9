"""What every stage is handed besides its own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.run_record import RunRecord
from engine.tracking import Tracker


@dataclass(frozen=True, slots=True)
class RunContext:
    """The edges of a run.

    Attributes:
        config: the resolved config as plain values.
        output: the run's output folder.
        results_root: where finished cells and checkpoints of all runs live.
        console: for tables and messages.
        tracker: receives metrics.
        record: writes `run.json`.
    """

    config: Mapping[str, Any]
    output: Path
    results_root: Path
    console: Console
    tracker: Tracker
    record: RunRecord
