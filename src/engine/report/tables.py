"""The report's main tables: results, intervals, and one table a setting with its tasks."""

from __future__ import annotations

from collections.abc import Sequence

from metashot.engine.metrics.statistics import seed_values
from metashot.engine.report.systems import Answers
from metashot.engine.report.table import Cell, Table, interval_cell, mark_best, names, percent


def main_table(answers: Sequence[Answers]) -> Table:
    """The paper's layout: one row a method, one column a setting, `mean/worst` in percent."""
    settings = list(dict.fromkeys(row.system.setting for row in answers))
    rows = _by_row(answers)
    columns = [[_comparable_mean(cells.get(setting)) for cells in rows.values()] for setting in settings]
    best = mark_best(columns)
    body = [
        (
            *names(*label),
            *(
                _mean_worst(cells.get(setting), best[column][place])
                for column, setting in enumerate(settings)
            ),
        )
        for place, (label, cells) in enumerate(rows.items())
    ]
    note = (
        "Percent: mean over seeds then tasks / worst seed per task then mean over tasks. "
        "Macro-F1 for classification, accuracy otherwise. Bold is the best of a column "
        "among rows that have all tasks."
    )
    return Table("results", "Results", note, ("Method", "Model", *settings), tuple(body), 2)


def interval_table(answers: Sequence[Answers], level: float) -> Table:
    """Every system's mean and worst with its interval."""
    rows = [
        (
            *names(a.system.setting, a.system.title, a.system.model),
            percent(a.figures.mean.value),
            interval_cell(a.figures.mean),
            *_worst(a),
            Cell(f"{len(a.outcomes)}/{len(a.expected)}", len(a.outcomes)),
        )
        for a in answers
    ]
    label = f"{100 * level:.0f} % interval"
    note = (
        "Percentile bootstrap. The mean's interval resamples test examples and seeds, the worst's only test "
        "examples under the seed that was the worst. A dash: seeds change nothing. Tasks are those that are there, of those that the setting has."
    )
    columns = ("Setting", "Method", "Model", "Mean", label, "Worst", label, "Tasks")
    return Table("intervals", "Confidence intervals", note, columns, tuple(rows), 3)


def task_tables(answers: Sequence[Answers]) -> list[Table]:
    """One table a setting: rows are tasks, columns are systems."""
    tables: list[Table] = []
    for setting, group in _by_setting(answers).items():
        tasks = sorted({task for row in group for task in (*row.expected, *row.outcomes)})
        values = [
            [seed_values(row.outcomes[task]).mean() if task in row.outcomes else None for task in tasks]
            for row in group
        ]
        marks = [mark_best([[column[place] for column in values]])[0] for place in range(len(tasks))]
        body = [
            (
                Cell(task),
                Cell(_metric(group, task)),
                *(_task_cell(row, task, marks[place][i]) for i, row in enumerate(group)),
            )
            for place, task in enumerate(tasks)
        ]
        several = len({row.system.model for row in group}) > 1
        heads = [f"{r.system.title} ({r.system.model})" if several else r.system.title for r in group]
        note = "Percent, mean/worst over seeds. Bold is the best of a row; a dash is a task without a result."
        columns = ("Task", "Metric", *heads)
        tables.append(Table(f"tasks-{setting}", f"Tasks of {setting}", note, columns, tuple(body), 2, True))
    return tables


def _by_row(answers: Sequence[Answers]) -> dict[tuple[str, str], dict[str, Answers]]:
    rows: dict[tuple[str, str], dict[str, Answers]] = {}
    for row in sorted(answers, key=lambda a: a.system.order):
        rows.setdefault((row.system.title, row.system.model), {})[row.system.setting] = row
    return rows


def _by_setting(answers: Sequence[Answers]) -> dict[str, list[Answers]]:
    groups: dict[str, list[Answers]] = {}
    for row in answers:
        groups.setdefault(row.system.setting, []).append(row)
    return groups


def _comparable_mean(row: Answers | None) -> float | None:
    """A mean over fewer tasks is no candidate for the best of a column."""
    return None if row is None or row.missing else row.figures.mean.value


def _worst(row: Answers) -> tuple[Cell, Cell]:
    if not row.has_seeds:
        return Cell("–"), Cell("–")
    return percent(row.figures.worst.value), interval_cell(row.figures.worst)


def _mean_worst(row: Answers | None, best: bool) -> Cell:
    if row is None:
        return Cell("–")
    worst = f"/{100 * row.figures.worst.value:.1f}" if row.has_seeds else ""
    short = f" ({len(row.outcomes)} of {len(row.expected)} tasks)" if row.missing else ""
    mean = 100 * row.figures.mean.value
    return Cell(f"{mean:.1f}{worst}{short}", mean, best)


def _task_cell(row: Answers, task: str, best: bool) -> Cell:
    if task not in row.outcomes:
        return Cell("–")
    values = 100 * seed_values(row.outcomes[task])
    worst = f"/{values.min():.1f}" if values.size > 1 else ""
    return Cell(f"{values.mean():.1f}{worst}", float(values.mean()), best)


def _metric(group: Sequence[Answers], task: str) -> str:
    return next((row.outcomes[task].metric.value for row in group if task in row.outcomes), "")
