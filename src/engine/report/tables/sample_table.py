"""Samples of the test rows as estimates of what all rows would give."""

from __future__ import annotations

from collections.abc import Sequence

from metashot.engine.report.systems.results import incomplete_note
from metashot.engine.report.systems.sampled import Sampled
from metashot.engine.report.tables.table import Table, TableCell, interval_cell, percent, shots


def sample_table(found: Sequence[Sampled], level: float) -> Table:
    """One row a sampled system: its mean, and the mean with a control variate, each with its interval."""
    rows = [
        (
            TableCell(one.row.system.setting), TableCell(one.row.system.name), shots(one.row.system.k), TableCell(one.row.system.model),
            TableCell(f"{one.control.system.title} ({one.control.system.model})"),
            percent(one.figures.plain.value, mark=one.row.mark), interval_cell(one.figures.plain),
            percent(one.figures.controlled.value), interval_cell(one.figures.controlled),
        )
        for one in found
    ]  # fmt: skip
    note = (
        "Percent. What a sample says of the figure of all test rows, alone and beside a system that answered all of them (its "
        "error on the sample is known, and as much of it is taken off as goes along with the sampled system's). Intervals "
        "resample the sample's rows; seeds are those that both have."
        + incomplete_note([one.row for one in found])
    )
    interval = f"{100 * level:.0f} % interval"
    columns = (
        "Setting",
        "Method",
        "k",
        "Model",
        "Reference",
        "Sample",
        interval,
        "With the reference",
        interval,
    )
    return Table("samples", "Samples beside a full run", note, columns, tuple(rows), 5)
