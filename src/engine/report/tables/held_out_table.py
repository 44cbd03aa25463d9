"""What development rows teach about confidence: a temperature, and conformal sets, judged on the test rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metashot.engine.metrics.confidence import calibration_interval, confidence_of, mean_interval
from metashot.engine.metrics.held_out_calibration import (
    conformal_sets,
    conformal_threshold,
    fit_temperature,
)
from metashot.engine.metrics.statistics import Interval
from metashot.engine.report.systems.results import System, SystemResults, incomplete_note
from metashot.engine.report.systems.stored_scores import StoredScores
from metashot.engine.report.tables.table import Table, TableCell, interval_cell, percent, shots

_SPLIT = re.compile(r"(?:^|, )split=(dev|test)")
_MOST_DRAWS = 200


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What was fitted on development rows, and what it is worth on test rows.

    Attributes:
        dev_rows: answers that it was fitted on.
        temperature: by which scores are divided.
        error: ECE of the scores as they are, and after the temperature, each with its interval.
        nll: of the right option, nats, before and after.
        coverage: share of test answers whose conformal set holds the right option, with its interval.
        size: options in a set, mean.
    """

    dev_rows: int
    temperature: float
    error: tuple[Interval, Interval]
    nll: tuple[float, float]
    coverage: Interval
    size: float


def held_out(
    dev: StoredScores, test: StoredScores, wanted: float, draws: int, level: float, seed: int
) -> HeldOut:
    """Fit on `dev`, judge on `test`: one temperature, and a threshold of sets for each task.

    Args:
        dev: answers to development rows.
        test: answers of the same system to test rows, of tasks that `dev` has.
        wanted: share of right options that sets are to hold.
        draws: resamplings of test examples.
        level: confidence level.
        seed: of the resampling.
    """
    temperature = fit_temperature(dev.scores, dev.gold)
    before, after = (confidence_of(test.scores / one, test.gold) for one in (1.0, temperature))
    error = tuple(calibration_interval(one, test.units, draws, level, seed) for one in (before, after))
    inside, sizes = np.zeros(len(test.gold)), np.zeros(len(test.gold))
    for task in np.unique(test.tasks):
        known, mine = dev.tasks == task, test.tasks == task
        sets = conformal_sets(
            test.scores[mine], conformal_threshold(dev.scores[known], dev.gold[known], wanted)
        )
        inside[mine] = sets[np.arange(len(sets)), test.gold[mine]]
        sizes[mine] = sets.sum(axis=1)
    return HeldOut(
        len(dev.gold),
        temperature,
        (error[0], error[1]),
        (float(before.nll.mean()), float(after.nll.mean())),
        mean_interval(inside, test.units, draws, level, seed),
        float(sizes.mean()),
    )


def held_out_table(
    stored: Mapping[System, StoredScores],
    answers: Sequence[SystemResults],
    wanted: float,
    draws: int,
    level: float,
    seed: int,
) -> Table:
    """One row a system that was run on both splits (`-m split=dev,test`)."""
    by_system = {row.system: row for row in answers}
    rows: list[tuple[TableCell, ...]] = []
    used: list[SystemResults] = []
    for system, test in stored.items():
        match = _SPLIT.search(system.variant)
        if match is None or match[1] != "test" or system not in by_system:
            continue
        dev = stored.get(replace(system, variant=_SPLIT.sub(match[0].replace("test", "dev"), system.variant)))
        if dev is None or not set(test.tasks) <= set(dev.tasks):
            continue
        used.append(by_system[system])
        shown = replace(system, variant=_SPLIT.sub("", system.variant).removeprefix(", "))
        one = held_out(dev, test, wanted, min(draws, _MOST_DRAWS), level, seed)
        rows.append(
            (
                TableCell(system.setting), TableCell(shown.name), shots(system.k), TableCell(system.model),
                TableCell(str(one.dev_rows), one.dev_rows), TableCell(f"{one.temperature:.2f}", one.temperature),
                percent(one.error[0].value, mark=used[-1].mark), interval_cell(one.error[0]),
                percent(one.error[1].value), interval_cell(one.error[1]),
                *(TableCell(f"{value:.3f}", value) for value in one.nll),
                percent(one.coverage.value), interval_cell(one.coverage), TableCell(f"{one.size:.2f}", one.size),
            )
        )  # fmt: skip
    note = (
        "Fitted on the development rows of the same tasks, seeds and prompts, judged on the test rows. Temperature: scores are "
        "divided by it; it moves no ranking. ECE in percent and NLL in nats, as they are and after it. Covered: share of "
        f"answers whose conformal set holds the right option ({100 * wanted:.0f} % wanted; a threshold for each task; with few "
        "development rows a set may have to hold all options). Intervals resample test examples."
        + incomplete_note(used)
    )
    interval = f"{100 * level:.0f} % interval"
    columns = (
        "Setting", "Method", "k", "Model", "Rows", "Temperature", "ECE", interval, "ECE, tempered", interval, "NLL",
        "NLL, tempered", "Covered", interval, "Options in a set",
    )  # fmt: skip
    return Table("held_out", "Confidence, fitted on development rows", note, columns, tuple(rows), 4, True)
