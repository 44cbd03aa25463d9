"""`stage=plan`, for every family: what the next stages would run and cost."""

from __future__ import annotations

from metashot.base.files import write_json
from metashot.engine.cells.planning import plan_cells
from metashot.engine.training.ranks import leads
from metashot.stages.context import RunContext, show_notes
from metashot.stages.families import cells_of, function_at, kind_of

PLAN_FILE = "plan.json"


def plan_stage(run: RunContext) -> float | None:
    """Print the plan and keep it in `plan.json`; returns the seconds that it estimates."""
    place = kind_of(run.config.method).plan
    plan = function_at(place)(run) if place else plan_cells(cells_of(run))
    run.console.print(plan.table)
    for line in plan.lines:
        run.console.print(line, soft_wrap=True)
    show_notes(run.console, plan.notes)
    run.record.write("running", notes=list(plan.notes))
    if leads():
        write_json(run.output / PLAN_FILE, list(plan.rows))
    return plan.seconds
