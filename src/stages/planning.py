"""`stage=plan`, for every family: what the next stages would run and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metashot.base.files import write_json
from metashot.engine.cells.planning import Plan, plan_cells
from metashot.engine.training.ranks import leads
from metashot.stages.context import RunContext, show_notes
from metashot.stages.families import cells_of, function_at, kind_of
from metashot.stages.prompt_sets import parts_of

PLAN_FILE = "plan.json"


def plan_stage(run: RunContext) -> float | None:
    """Print the plan and keep it in `plan.json`; returns the seconds that it estimates."""
    rows: list[Mapping[str, Any]] = []
    seconds: list[float | None] = []
    notes: dict[str, None] = {}
    parts = parts_of(run)
    for name, part in (parts or {"": run}).items():
        plan = _planned(part)
        run.console.print(plan.table)
        for line in plan.lines:
            run.console.print(line, soft_wrap=True)
        rows += [{"prompt": name, **row} if name else row for row in plan.rows]
        seconds.append(plan.seconds)
        notes |= dict.fromkeys(plan.notes)
    show_notes(run.console, list(notes))
    run.record.write("running", notes=list(notes))
    if leads():
        write_json(run.output / PLAN_FILE, rows)
    return None if None in seconds else sum(one or 0.0 for one in seconds)


def _planned(run: RunContext) -> Plan:
    place = kind_of(run.config.method).plan
    return function_at(place)(run) if place else plan_cells(cells_of(run))
