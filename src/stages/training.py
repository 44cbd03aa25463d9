"""`stage=train`, for every family: its own training, then one line, one table and one artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from metashot.engine.metrics.scale import in_percent
from metashot.stages.context import RunContext
from metashot.stages.families import training_of

if TYPE_CHECKING:
    from metashot.engine.training.loop import TrainingOutcome


@dataclass(frozen=True, slots=True)
class Trained:
    """What a family's training hands to the stage.

    Attributes:
        outcome: how the loop ended.
        figure: what the stage returns, for sweepers.
        artifact: what trackers call what was trained, and its kind there.
        folder: what is uploaded as such.
        lines: what to print below the outcome.
        table: to show at the end.
    """

    outcome: TrainingOutcome
    figure: float
    artifact: str
    folder: Path
    lines: tuple[str, ...] = ()
    table: Table | None = None


def train_stage(run: RunContext) -> float:
    """Meta-train, say where the checkpoint is; returns the last held-out metric in percent, of a prompt its query loss."""
    trained: Trained = training_of(run)
    outcome = trained.outcome
    run.record.write("running", training={"step": outcome.step, "stopped_by": outcome.stopped_by})
    ended = f"{outcome.step} steps, {outcome.stopped_by}, {outcome.seconds:.0f} s"
    for line in (f"{ended}; checkpoint: {outcome.checkpoint}", *trained.lines):
        run.console.print(line, soft_wrap=True, highlight=False, markup=False)
    held_out = in_percent(outcome.metrics)
    if held_out:
        table = Table("held-out metric", "value")
        for name, value in held_out.items():
            table.add_row(name, f"{value:.4f}")
        run.console.print(table)
    if trained.table is not None:
        run.console.print(trained.table)
    run.tracker.artifact(trained.artifact, trained.artifact, trained.folder)
    run.tracker.summary({f"held_out/{name}": value for name, value in held_out.items()})
    return trained.figure
