"""The report's main tables: results with intervals, the overview of settings, and one table a setting with its tasks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from metashot.engine.metrics.statistics import seed_values
from metashot.engine.report.reading.coverage import MARK
from metashot.engine.report.systems.results import (
    SHOWN_MARK,
    SHOWN_NOTE,
    System,
    SystemResults,
    incomplete_note,
)
from metashot.engine.report.tables.table import Table, TableCell, interval_cell, percent, shots

_BOLD = (
    "Bold: the best of its column, and whatever a paired permutation test does not find below it (p >= {alpha:g}, "
    "Holm's correction). "
)
_FIGURES = "Percent: macro-F1 for classification, accuracy otherwise; mean over seeds, then tasks. "


def result_tables(
    answers: Sequence[SystemResults], best: Collection[System], level: float, alpha: float
) -> list[Table]:
    """One table a setting: every system with its mean, interval, worst seed, and what they rest on.

    Args:
        answers: all systems.
        best: those whose mean is bold.
        level: of the intervals.
        alpha: level of the tests behind `best`.
    """
    groups = _by_setting(answers)
    tables: list[Table] = []
    for setting, group in groups.items():
        rows = [
            (
                *_labels(a),
                percent(a.figures.mean.value, a.system in best, a.mark),
                interval_cell(a.figures.mean),
                *_worst(a),
                _share(a.coverage.tasks, a.coverage.expected_tasks),
                _share(a.coverage.seeds, a.coverage.expected_seeds),
                _share(a.coverage.examples, a.coverage.expected_examples),
            )
            for a in group
        ]
        interval = f"{100 * level:.0f} % interval"
        note = (
            _FIGURES + "Worst: the lowest seed of each task, then mean over tasks; a dash: seeds change nothing. "
            "Intervals: percentile bootstrap; the mean's resamples test examples and seeds, the worst's only the "
            "examples of the seed that was the worst. n: test examples over all tasks. "
            + _BOLD.format(alpha=alpha) + incomplete_note(group).strip()
        )  # fmt: skip
        columns = ("Method", "k", "Model", "Mean", interval, "Worst", interval, "Tasks", "Seeds", "n")
        key, title = (
            ("results", "Results") if len(groups) == 1 else (f"results-{setting}", f"Results on {setting}")
        )
        if len(groups) == 1:
            note = f"Setting {setting}. {note}"
        tables.append(Table(key, title, note, columns, tuple(rows), 3))
    return tables


def overview_table(answers: Sequence[SystemResults], best: Collection[System], alpha: float) -> Table:
    """The paper's layout, for several settings: one row a method, mean and worst of each setting."""
    settings = list(_by_setting(answers))
    rows: dict[tuple[str, int, str], dict[str, SystemResults]] = {}
    for row in sorted(answers, key=lambda a: a.system.order):
        s = row.system
        rows.setdefault((s.name, s.k, s.model), {})[s.setting] = row
    body = [
        (
            TableCell(name),
            shots(k),
            TableCell(model),
            *(cell for setting in settings for cell in _mean_worst(cells.get(setting), best)),
        )
        for (name, k, model), cells in rows.items()
    ]
    note = (
        _FIGURES + "Worst: the lowest seed of each task, then mean over tasks. " + _BOLD.format(alpha=alpha)
    )
    columns = ("Method", "k", "Model", *("Mean", "Worst") * len(settings))
    groups = tuple((setting, 2) for setting in settings)
    return Table(
        "results", "Results", note.rstrip() + incomplete_note(answers), columns, tuple(body), 3, groups=groups
    )


def task_tables(answers: Sequence[SystemResults]) -> list[Table]:
    """One table a setting: rows are tasks, columns are systems."""
    tables: list[Table] = []
    for setting, group in _by_setting(answers).items():
        tasks = sorted({task for row in group for task in (*row.expected, *row.outcomes)})
        body = [
            (TableCell(task), TableCell(_metric(group, task)), *_task_cells(group, task)) for task in tasks
        ]  # fmt: skip
        several = len({row.system.model for row in group}) > 1
        heads = [
            (f"{r.system.title} ({r.system.model})" if several else r.system.title)
            + (f" {SHOWN_MARK}{r.shown[0]:.1f} shown" if r.shown else "")
            for r in group
        ]
        note = (
            "Percent, mean/worst over seeds. Bold is the best of a row among those with all seeds; a dash is a task "
            "without a result."
            + (f" {MARK} a/b: only a of b seeds." if not _all_complete(group) else "")
            + (f" {SHOWN_NOTE}" if any(row.shown for row in group) else "")
        )
        columns = ("Task", "Metric", *heads)
        tables.append(Table(f"tasks-{setting}", f"Tasks of {setting}", note, columns, tuple(body), 2, True))
    return tables


def _labels(row: SystemResults) -> tuple[TableCell, ...]:
    return TableCell(row.system.name), shots(row.system.k), TableCell(row.system.model)


def _all_complete(answers: Sequence[SystemResults]) -> bool:
    return all(row.coverage.complete for row in answers)


def _by_setting(answers: Sequence[SystemResults]) -> dict[str, list[SystemResults]]:
    groups: dict[str, list[SystemResults]] = {}
    for row in answers:
        groups.setdefault(row.system.setting, []).append(row)
    return groups


def _share(found: int, expected: int) -> TableCell:
    return TableCell(str(found) if found >= expected else f"{found}/{expected}", found)


def _worst(row: SystemResults) -> tuple[TableCell, TableCell]:
    if row.worst is None:
        return TableCell("–"), TableCell("–")
    return percent(row.worst.value), interval_cell(row.worst)


def _mean_worst(row: SystemResults | None, best: Collection[System]) -> tuple[TableCell, TableCell]:
    if row is None:
        return TableCell("–"), TableCell("–")
    worst = percent(None if row.worst is None else row.worst.value)
    return percent(row.figures.mean.value, row.system in best, row.mark), worst


def _task_cells(group: Sequence[SystemResults], task: str) -> list[TableCell]:
    values = [100 * seed_values(row.outcomes[task]) if task in row.outcomes else None for row in group]
    whole = [
        float(value.mean())
        for row, value in zip(group, values, strict=True)
        if value is not None and not _lacking(row, task)
    ]
    top = max(whole) if len(whole) > 1 else None
    cells: list[TableCell] = []
    for row, value in zip(group, values, strict=True):
        if value is None:
            cells.append(TableCell("–"))
            continue
        mean, lacking = float(value.mean()), _lacking(row, task)
        worst = f"/{value.min():.1f}" if value.size > 1 and not lacking else ""
        seeds = row.coverage.expected_seeds
        mark = f" {MARK}{seeds - lacking}/{seeds}" if lacking else ""
        cells.append(TableCell(f"{mean:.1f}{worst}{mark}", mean, not lacking and mean == top))
    return cells


def _lacking(row: SystemResults, task: str) -> int:
    """How many seeds of a task are missing."""
    return next((len(seeds) for name, seeds in row.coverage.gaps if name == task), 0)


def _metric(group: Sequence[SystemResults], task: str) -> str:
    return next((row.outcomes[task].metric.value for row in group if task in row.outcomes), "")
