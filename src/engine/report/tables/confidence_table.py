"""How sure the systems of a report are, and whether rightly, from the stored scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metashot.engine.metrics.confidence import (
    accuracy_at,
    auroc,
    calibration_interval,
    confidence_of,
)
from metashot.engine.report.systems.results import System, SystemResults, incomplete_note
from metashot.engine.report.systems.stored_scores import StoredScores
from metashot.engine.report.tables.table import Table, TableCell, interval_cell, percent, shots

MOST_DRAWS = 200


def confidence_table(
    stored: Mapping[System, StoredScores],
    answers: Sequence[SystemResults],
    answered: float,
    draws: int,
    level: float,
    seed: int,
) -> Table:
    """One row a system that ranked options: ECE with interval, Brier score, NLL, AUROC, accuracy of the surest answers.

    Args:
        stored: scores and gold of each system.
        answers: the systems, in the order of the results.
        answered: share of answers, the surest ones, that the last column is of.
        draws: resamplings of the interval, at most `MOST_DRAWS`.
        level: of the interval.
        seed: of the resamplings.
    """
    rows: list[tuple[TableCell, ...]] = []
    for row in answers:
        if row.system not in stored:
            continue
        found = stored[row.system]
        one, units = confidence_of(found.scores, found.gold), found.units
        error = calibration_interval(one, units, min(draws, MOST_DRAWS), level, seed)
        rows.append(
            (
                TableCell(row.system.setting), TableCell(row.system.name), shots(row.system.k), TableCell(row.system.model),
                percent(float(one.confidence.mean()), mark=row.mark),
                percent(float(one.right.mean())),
                percent(error.value), interval_cell(error),
                _number(float(one.brier.mean())), _number(float(one.nll.mean())),
                _number(auroc(one.confidence, one.right)),
                percent(accuracy_at(answered, one.confidence, one.right)),
            )
        )  # fmt: skip
    note = (
        "Over all answers of all tasks and seeds. Confidence: the chosen option's share of exp(-score), in percent, beside "
        "the accuracy. ECE: expected calibration error, ten bins of equally many answers, in percent; its interval resamples "
        f"test examples {MOST_DRAWS} times at most. Brier: 0 is best, 2 the worst. NLL: of the right option, nats. AUROC: that a "
        f"right answer is surer than a wrong one. Last: accuracy of the surest {100 * answered:.0f} %."
        + incomplete_note(answers)
    )
    columns = (
        "Setting", "Method", "k", "Model", "Confidence", "Accuracy", "ECE", f"{100 * level:.0f} % interval", "Brier", "NLL",
        "AUROC", f"At {100 * answered:.0f} %",
    )  # fmt: skip
    return Table("confidence", "Confidence", note, columns, tuple(rows), 4, True)


def _number(value: float | None) -> TableCell:
    return TableCell("–") if value is None else TableCell(f"{value:.3f}", value)
