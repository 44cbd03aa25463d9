"""What a sweep has done, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from metashot.base.terminal import counted, printable
from metashot.engine.sweeps.ledger import JobRecord, JobState

_STYLES = {JobState.FAILED: "red", JobState.PRUNED: "yellow"}


def shared_overrides(records: Sequence[JobRecord]) -> set[str]:
    """Overrides that every job has, which a table need not repeat."""
    every = [set(record.overrides) for record in records]
    return set.intersection(*every) if len(every) > 1 else set()


def sweep_table(records: Sequence[JobRecord]) -> Table:
    """One row a job: its own overrides, state, figure and error; its folder is named by its number."""
    shared = shared_overrides(records)
    table = Table(title=f"Sweep: {counts(records)}", title_justify="left")
    table.add_column("job", justify="right")
    table.add_column("overrides", overflow="fold")
    table.add_column("state")
    table.add_column("figure", justify="right")
    table.add_column("error", overflow="fold")
    for record in records:
        table.add_row(
            str(record.number),
            Text(printable(_own(record, shared))),
            record.state.value,
            "" if record.figure is None else f"{record.figure:.2f}",
            Text(printable(record.error)),
            style=_STYLES.get(record.state),
        )
    return table


def sweep_markdown(records: Sequence[JobRecord]) -> str:
    """The same table for `summary.md` of the sweep's folder."""
    shared = shared_overrides(records)
    lines = ["| job | overrides | state | figure | error |", "| ---: | --- | --- | ---: | --- |"]
    for record in records:
        figure = "" if record.figure is None else f"{record.figure:.2f}"
        cells = (
            str(record.number),
            _own(record, shared),
            record.state,
            figure,
            record.error,
        )
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return f"Sweep: {counts(records)}\n\n" + "\n".join(lines) + "\n"


def counts(records: Sequence[JobRecord]) -> str:
    """`24 jobs: 23 finished, 1 failed`."""
    states = Counter(record.state for record in records)
    parts = [f"{states[state]} {state.value}" for state in JobState if states[state]]
    return f"{counted(len(records), 'job')}: " + ", ".join(parts)


def _own(record: JobRecord, shared: set[str]) -> str:
    return " ".join(override for override in record.overrides if override not in shared)
