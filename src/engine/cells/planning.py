"""What `stage=plan` tells of a family's cells before any of them is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from metashot.engine.cells.family import Family


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan of what a run would compute.

    Attributes:
        table: a row for each piece of work.
        rows: the same as plain values, for `plan.json`.
        seconds: estimate on this machine; None where nothing is measured.
        lines: what belongs below the table.
        notes: what the user should know, as an evaluation would say it.
    """

    table: Table
    rows: tuple[Mapping[str, Any], ...]
    seconds: float | None = None
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_cells(family: Family) -> Plan:
    """The cells of any family with their test examples."""
    names = family.names
    table = Table(
        "task",
        "seed",
        "examples",
        title=f"{names.method}, {names.model}, {names.setting}",
        title_justify="left",
    )
    rows = [
        {"task": key.task, "seed": key.seed, "examples": key.n}
        for work in family.work()
        for key in work.cells
    ]
    for row in rows:
        table.add_row(*map(str, row.values()))
    return Plan(table, tuple(rows))
