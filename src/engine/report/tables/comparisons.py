"""The report's other tables: paper beside ours, tests, number of demonstrations, variants, sensitivity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metashot.engine.metrics.statistics import Interval, seed_values
from metashot.engine.report.reading.coverage import MARK
from metashot.engine.report.systems.pair_tests import PairTest
from metashot.engine.report.systems.published import Compared, Verdict, published_source
from metashot.engine.report.systems.rescoring import Rescored
from metashot.engine.report.systems.results import SystemResults, incomplete_note, method_title
from metashot.engine.report.tables.table import (
    Table,
    TableCell,
    interval_cell,
    names,
    p_value,
    percent,
    points,
    shots,
)

_FOLDED_ROWS = 15
Curve = tuple[str, str, str]
"""Setting, method, model."""


def published_table(compared: Sequence[Compared]) -> Table:
    """Paper beside ours, for the cells that were run."""
    source, notes = published_source()
    chosen = [cell for cell in compared if cell.verdict != Verdict.NOT_RUN]
    rows = [
        (
            *names(
                c.published.table,
                c.published.setting + ("" if c.published.scope == "all" else " (unseen domains)"),
                _published_method(c),
                c.published.model
                if c.model in ("", c.published.model)
                else f"{c.published.model}, ours {c.model}",
            ),
            _paper_cell(c.published.mean, c.published.worst, c.published.approximate),
            TableCell("–") if c.ours is None else _figures_cell(c.ours.mean, c.ours.worst.value),
            points(c.difference),
            TableCell(f"{c.found}/{c.expected}" if c.expected else "", float(c.found)),
            TableCell(c.verdict.value),
        )
        for c in chosen
    ]
    columns = ("Source", "Setting", "Method", "Model", "Paper", "Ours", "Difference", "Tasks", "Verdict")  # fmt: skip
    used = dict.fromkeys(cell.published.table for cell in chosen)
    note = (
        f"Percent, mean/worst; difference of means in points. Agrees: the paper's mean lies in our interval. {source}. "
        + " ".join(f"{table}: {notes[table]}" for table in used if table in notes)
    )
    return Table("published", "Paper versus ours", note, columns, tuple(rows), 4)


def test_table(tests: Sequence[PairTest]) -> Table:
    """Paired permutation tests with Holm's correction inside each setting."""
    rows = [
        (
            *names(t.setting, t.first, t.second),
            points(100 * t.comparison.difference),
            p_value(t.comparison.p_value),
            p_value(t.adjusted),
            TableCell(str(t.comparison.n_tasks), t.comparison.n_tasks),
            TableCell(
                str(t.cells) if t.cells >= t.expected_cells else f"{MARK}{t.cells}/{t.expected_cells}",
                t.cells,
            ),
            TableCell(str(t.comparison.n_examples), t.comparison.n_examples),
            TableCell("exact" if t.comparison.exact else "sampled"),
        )
        for t in tests
    ]
    note = (
        "Difference of means in points, first minus second, over the cells (task x seed) that both have. Two-sided paired "
        "permutation test on the same test examples; Holm's correction over all tests of a setting. Pairs differ "
        "in one respect (method, model, k or variant)."
        + (
            f" {MARK} a/b: only a of b cells are shared; the rest is missing in one of the two."
            if any(t.cells < t.expected_cells for t in tests)
            else ""
        )
    )
    columns = (
        "Setting", "First", "Second", "Difference", "p", "p (Holm)", "Tasks", "Cells", "Examples", "Test"
    )  # fmt: skip
    folded = len(rows) > _FOLDED_ROWS
    return Table("tests", "Differences between methods", note, columns, tuple(rows), 3, folded)


def sensitivity_table(answers: Sequence[SystemResults]) -> Table:
    """How much the demonstrations (seeds) move each system."""
    rows: list[tuple[TableCell, ...]] = []
    for row in answers:
        values = {task: seed_values(o) for task, o in row.outcomes.items() if len(o.seeds) > 1}
        if not values or not row.has_seeds:
            continue
        spread = {task: float(v.max() - v.min()) for task, v in values.items()}
        deviation = float(np.mean([v.std(ddof=1) for v in values.values()]))
        most = max(spread, key=lambda task: spread[task])
        worst = row.worst
        rows.append(
            (
                TableCell(row.system.setting), TableCell(row.system.name), shots(row.system.k), TableCell(row.system.model),
                percent(deviation, mark=row.mark),
                percent(float(np.mean(list(spread.values())))),
                percent(None if worst is None else row.figures.mean.value - worst.value),
                TableCell(f"{most} ({100 * spread[most]:.1f})", 100 * spread[most]),
            )
        )  # fmt: skip
    note = (
        "Points, over demonstration seeds (which set both the choice and the order of demonstrations): standard "
        "deviation and range per task, averaged over tasks; mean minus worst; the task with the widest range."
        + incomplete_note(answers)
    )
    columns = ("Setting", "Method", "k", "Model", "Deviation", "Range", "Mean - worst", "Most sensitive task")
    return Table("sensitivity", "Sensitivity to demonstrations", note, columns, tuple(rows), 4)


def variant_table(answers: Sequence[SystemResults]) -> Table:
    """Demonstration lab: runs of one method that differ in condition or config only."""
    groups: dict[tuple[object, ...], list[SystemResults]] = {}
    for row in answers:
        s = row.system
        groups.setdefault((s.setting, s.method, s.model, s.k), []).append(row)
    rows = [
        (
            *names(row.system.setting, _method(row), row.system.model, row.system.extras or "(as named)"),
            TableCell(str(row.system.k), row.system.k),
            percent(row.figures.mean.value, mark=row.mark),
            interval_cell(row.figures.mean),
            percent(None if row.worst is None else row.worst.value),
            points(100 * (row.figures.mean.value - group[0].figures.mean.value)),
        )
        for group in groups.values()
        if len(group) > 1
        for row in group
    ]
    note = "Percent. The difference is to the first row of the same method, in points." + incomplete_note(
        answers
    )
    columns = ("Setting", "Method", "Model", "What differs", "k", "Mean", "Interval", "Worst", "Difference")
    return Table(
        "variants", "Variants: selection, order, labels and other changes", note, columns, tuple(rows), 4
    )


def shots_table(answers: Sequence[SystemResults]) -> Table:
    """Mean by number of demonstrations, for methods that were run with several."""
    curves = shot_curves(answers)
    ks = sorted({k for curve in curves.values() for k in curve})
    rows = [
        (
            *names(*label),
            *(
                percent(curve[k].figures.mean.value, mark=curve[k].mark) if k in curve else TableCell("–")
                for k in ks
            ),
        )
        for label, curve in curves.items()
    ]
    columns = ("Setting", "Method", "Model", *(f"k={k}" for k in ks))
    note = "Percent, mean over seeds and tasks." + incomplete_note(
        [row for c in curves.values() for row in c.values()]
    )
    return Table("shots", "Number of demonstrations", note, columns, tuple(rows), 3)


def shot_curves(answers: Sequence[SystemResults]) -> dict[Curve, dict[int, SystemResults]]:
    """Curve -> k -> system, for those with at least two values of k.

    The zero-shot method of the same objective is the point at k=0.
    """
    zero = {"direct": "zero", "pmi": "pmi_zero", "channel": "channel_zero"}
    zero |= {"metaicl": "multitask_zero", "channel_metaicl": "channel_multitask_zero"}
    curves: dict[Curve, dict[int, SystemResults]] = {}
    for row in answers:
        s = row.system
        if s.method in zero.values():
            continue
        key = (s.setting, _method(row) + (f" [{s.extras}]" if s.extras else ""), s.model)
        curves.setdefault(key, {})[s.k] = row
        for other in answers:
            o = other.system
            if (
                (o.setting, o.model) == (s.setting, s.model)
                and o.extras in ("", s.extras)
                and o.method == zero.get(s.method)
            ):
                curves[key][0] = other
    return {key: curve for key, curve in curves.items() if len([k for k in curve if k > 0]) > 1}


def rescoring_table(rescored: Sequence[Rescored], answers: Sequence[SystemResults]) -> Table:
    """Calibration and normalization, recomputed from stored log-probabilities."""
    by_system = {row.system: row for row in answers}
    rows = [
        (
            TableCell(r.system.setting),
            TableCell(by_system[r.system].system.name),
            shots(r.system.k),
            *names(r.system.model, r.calibration.name, r.normalization.name),
            percent(r.mean, mark=by_system[r.system].mark),
            percent(r.worst if by_system[r.system].worst is not None else None),
            percent(r.error),
            TableCell("–") if r.nll is None else TableCell(f"{r.nll:.3f}", r.nll),
            TableCell("yes" if r.as_run else ""),
        )
        for r in rescored
        if r.system in by_system
    ]
    note = (
        "Percent. The same model answers ranked by other rules; no model was run again. ECE and NLL as in the table of "
        "confidence. As run: the rule gives the predictions that the run stored." + incomplete_note(answers)
    )
    columns = (
        "Setting",
        "Method",
        "k",
        "Model",
        "Calibration",
        "Normalization",
        "Mean",
        "Worst",
        "ECE",
        "NLL",
        "As run",
    )
    return Table("rescoring", "Calibration and normalization", note, columns, tuple(rows), 6, True)


def calibrating_table(rescored: Sequence[Rescored], answers: Sequence[SystemResults]) -> Table:
    """Does calibration calibrate? Each rule beside no calibration, on the same answers and by the same normalization."""
    plain = {
        (r.system, r.normalization.name): r
        for r in rescored
        if r.calibration.name == "none" and r.error is not None
    }
    pairs: dict[str, list[tuple[Rescored, Rescored]]] = {}
    for r in rescored:
        base = plain.get((r.system, r.normalization.name))
        if (
            base is not None
            and base is not r
            and r.error is not None
            and r.normalization.name == "token_mean"
        ):
            pairs.setdefault(r.calibration.name, []).append((r, base))
    marks = {row.system: row.mark for row in answers}
    rows: list[tuple[TableCell, ...]] = []
    for name, both in pairs.items():
        n, mark = len(both), next((marks[r.system] for r, _ in both if marks.get(r.system)), "")
        changes = [
            float(np.mean([100 * (r.mean - base.mean) for r, base in both])),
            float(np.mean([100 * ((r.error or 0) - (base.error or 0)) for r, base in both])),
            float(np.mean([(r.nll or 0) - (base.nll or 0) for r, base in both])),
        ]
        better = sum(r.mean > base.mean for r, base in both)
        surer = sum((r.error or 0) < (base.error or 0) for r, base in both)
        rows.append(
            (
                TableCell(name), TableCell(f"{n}{mark}", n), points(changes[0]), TableCell(f"{better}/{n}", better / n), points(changes[1]),
                TableCell(f"{surer}/{n}", surer / n), TableCell(f"{changes[2]:+.3f}", changes[2]),
            )
        )  # fmt: skip
    note = (
        "Each rule against no calibration on the same stored answers (normalized per token): mean change over systems, and in "
        "how many of them the rule is better. Mean and ECE in points, NLL in nats: a rule that raises the mean makes better "
        "choices; only one that lowers ECE and NLL makes probabilities that can be believed."
        + incomplete_note(answers)
    )
    columns = ("Calibration", "Systems", "Mean", "Higher in", "ECE", "Lower in", "NLL")
    return Table("calibrates", "Does calibration calibrate?", note, columns, tuple(rows), 1)


def _method(row: SystemResults) -> str:
    return row.system.method_title


def _figures_cell(mean: Interval, worst: float) -> TableCell:
    text = f"{100 * mean.value:.1f}/{100 * worst:.1f} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"
    return TableCell(text, 100 * mean.value)


def _paper_cell(mean: float, worst: float | None, approximate: bool) -> TableCell:
    about = "~" if approximate else ""
    return TableCell(f"{about}{mean:.1f}" + ("" if worst is None else f"/{worst:.1f}"), mean)


def _published_method(compared: Compared) -> str:
    cell = compared.published
    shots = f", k={cell.k}" if cell.table == "Figure 1" else ""
    extra = f" [{cell.condition.replace(',', ', ')}]" if cell.condition else ""
    return method_title(cell.method) + shots + extra
