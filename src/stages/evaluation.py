"""`stage=evaluate`, for every family: cells computed or found, files of the output folder, the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from metashot.base.files import write_atomic, write_json
from metashot.base.terminal import counted
from metashot.engine.cells.driver import run_cells
from metashot.engine.cells.family import Cost
from metashot.engine.cells.progress import CellProgress
from metashot.engine.cells.results import PREDICTIONS_FILE, FinishedCell
from metashot.engine.cells.summary import SUMMARY_FILE, Summary, console_table, markdown_table, summarize
from metashot.engine.training.ranks import leads
from metashot.stages.context import RunContext, show_notes
from metashot.stages.execution import recorded
from metashot.stages.families import cells_of
from metashot.stages.prompt_sets import (
    SPREAD_FILE,
    parts_of,
    spread_content,
    spread_lines,
    spread_of,
    spread_table,
)


def evaluate_stage(run: RunContext) -> float:
    """Evaluate, write every file of the output folder, print the table; returns the mean in percent.

    With `prompt=set` each format is a run of its own in a folder below, and the figure is the mean over them.
    """
    parts = parts_of(run)
    if not parts:
        return _evaluate(run)[0].mean.value
    cells: dict[str, Sequence[FinishedCell]] = {}
    figure = 0.0
    for step, (name, part) in enumerate(parts.items(), start=1):
        run.console.print(f"prompt={name}", markup=False, highlight=False)
        with recorded(part.record):
            summary, cells[name] = _evaluate(part)
        figure = summary.mean.value
        run.tracker.log({f"eval/{name}/mean_percent": figure}, step)
    spread = spread_of(cells)
    if spread is None:
        return figure
    if leads():
        write_json(run.output / SPREAD_FILE, spread_content(spread))
        run.console.print(spread_table(spread))
        for line in spread_lines(spread):
            run.console.print(line, soft_wrap=True, markup=False)
        run.tracker.summary({"eval/mean_percent": 100 * spread.mean.value})
    return 100 * spread.mean.value


def _evaluate(run: RunContext) -> tuple[Summary, Sequence[FinishedCell]]:
    family = cells_of(run)
    with CellProgress(run.console, run.tracker) as progress:
        outcome = run_cells(family, run.results_root, run.output, progress, run.record.expect)
    summary = summarize(outcome.cells)
    if not leads():
        return summary, outcome.cells
    write_json(run.output / SUMMARY_FILE, summary.to_json())
    write_atomic(run.output / "summary.md", markdown_table(summary))
    run.console.print(console_table(summary))
    for line in (*family.close(outcome.cells, run.output), cost_line(outcome.cost)):
        run.console.print(line, soft_wrap=True)
    show_notes(run.console, outcome.notes)
    run.record.write("running", cost=asdict(outcome.cost), notes=list(outcome.notes))
    _track(run, outcome.cells, summary)
    return summary, outcome.cells


def cost_line(cost: Cost) -> str:
    """One line on what was computed and what sharing saved."""
    if not cost.computed_cells:
        found = "the cell was" if cost.reused_cells == 1 else f"all {cost.reused_cells} cells were"
        return f"nothing to compute: {found} stored already"
    line = f"{counted(cost.computed_cells, 'cell')} computed, {cost.reused_cells} reused"
    if cost.tokens_generated:
        return f"{line}; {cost.tokens_generated:,} tokens generated"
    if not cost.tokens_computed:
        return line
    ratio = cost.tokens_naive / cost.tokens_computed
    return f"{line}; {cost.tokens_computed:,} tokens computed, {ratio:.1f} times fewer than without prefix sharing"


def _track(run: RunContext, cells: Sequence[FinishedCell], summary: Summary) -> None:
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
