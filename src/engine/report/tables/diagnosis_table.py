"""The diagnosis of each system as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metashot.engine.report.systems.diagnosis import Diagnosis
from metashot.engine.report.systems.results import System, SystemResults, incomplete_note
from metashot.engine.report.tables.table import Table, TableCell, percent, points, shots

NOTE = (
    "Percent, means over tasks. Biases are total variation distances, 0 is none. Contextual: mean option probabilities after "
    "content-free inputs from uniform. Domain: the same after random words of the task. Posterior: mean option probabilities "
    "over test rows from the share of each right answer. The first two need method.probes=true, or a calibration that scores "
    "such inputs; all three, tasks with one label set. Ties: answers that the order of options decided. Same answer: the "
    "chance that two demonstration seeds, or two prompts, answer a test row alike. Noise: change of the mean, in points, from "
    "right to wrong labels in all demonstrations (a line through the shares that were run)."
)


def diagnosis_table(found: Mapping[System, Diagnosis], answers: Sequence[SystemResults]) -> Table:
    """One row a system."""
    rows = [
        (
            TableCell(row.system.setting), TableCell(row.system.name), shots(row.system.k), TableCell(row.system.model),
            percent(one.contextual), percent(one.domain), percent(one.posterior, mark=row.mark), percent(one.ties),
            percent(one.over_seeds), percent(one.over_prompts),
            points(None if one.noise is None else 100 * one.noise),
        )
        for row in answers
        if (one := found.get(row.system)) is not None
    ]  # fmt: skip
    columns = (
        "Setting", "Method", "k", "Model", "Contextual", "Domain", "Posterior", "Ties", "Same over seeds", "Same over prompts",
        "Noise",
    )  # fmt: skip
    return Table("diagnosis", "Diagnosis", NOTE + incomplete_note(answers), columns, tuple(rows), 4, True)
