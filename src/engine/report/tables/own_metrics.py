"""Every metric of tasks that bring their own, as tasks of lm-evaluation-harness do."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from metashot.engine.report.reading.harness_files import METHOD, is_harness_method
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants
from metashot.engine.report.systems.results import System
from metashot.engine.report.tables.table import Table, TableCell, shots

_ERROR = "_stderr,"


def own_metrics_table(outputs: Outputs) -> Table:
    """One row a system, task and metric: the mean over seeds, on the metric's own scale."""
    kept = with_variants(outputs.results, outputs.runs, outputs.names)
    found = (
        kept.select([*SYSTEM, "task", "seed", "metrics"])
        .unique([*SYSTEM, "task", "seed"], maintain_order=True)
        .explode("metrics")
        .unnest("metrics")
        .filter(pl.col("value").is_not_null() & ~pl.col("name").str.contains(_ERROR, literal=True))
        .group_by([*SYSTEM, "task", "name"], maintain_order=True)
        .agg(pl.col("value").mean(), pl.len().alias("seeds"))
    )
    rows: list[tuple[TableCell, ...]] = []
    for row in found.iter_rows(named=True):
        system = System(*(row[name] for name in SYSTEM))
        # A filter of a harness run is a system of its own, but all metrics stand with its first one.
        system = replace(system, method=METHOD) if is_harness_method(system.method) else system
        metric, _, filter_ = str(row["name"]).partition(",")
        value = float(row["value"])
        rows.append(
            (
                TableCell(system.setting), TableCell(system.name), shots(system.k), TableCell(system.model),
                TableCell(str(row["task"])), TableCell(metric), TableCell(filter_), TableCell(f"{value:.4f}", value),
                TableCell(str(row["seeds"]), row["seeds"]),
            )
        )  # fmt: skip
    note = (
        "Every metric of tasks that bring their own, under its name there and on its own scale (no percent): means over seeds. "
        "Filter: what cut the answer out, where the task has several."
    )
    columns = ("Setting", "Method", "k", "Model", "Task", "Metric", "Filter", "Value", "Seeds")
    return Table(
        "own_metrics", "Metrics of the tasks' own", note, columns, tuple(rows), n_labels=7, folded=True
    )
