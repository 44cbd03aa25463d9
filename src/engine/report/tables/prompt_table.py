"""How much systems depend on the prompt format, where several were run (`prompt=set`, or runs of one format each)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from metashot.engine.metrics.prompt_spread import prompt_spread
from metashot.engine.report.systems.results import System, SystemResults, incomplete_note
from metashot.engine.report.tables.table import Table, TableCell, interval_cell, percent, shots

_PROMPT = re.compile(r"(?:^|, )prompt=([^,]+)")
_SHOWN_TASKS = 3


def prompt_table(answers: Sequence[SystemResults], draws: int, level: float, seed: int) -> Table:
    """One row a system that was run with several prompts: the spread over prompts beside that over seeds.

    Args:
        answers: all systems; those whose variants differ in `prompt=<name>` alone are one.
        draws: resamplings.
        level: confidence level.
        seed: of the resampling.
    """
    groups: dict[System, dict[str, SystemResults]] = {}
    for row in answers:
        if found := _PROMPT.search(row.system.variant):
            rest = (row.system.variant[: found.start()] + row.system.variant[found.end() :]).removeprefix(
                ", "
            )
            groups.setdefault(replace(row.system, variant=rest), {})[found[1]] = row
    rows: list[tuple[TableCell, ...]] = []
    used: list[SystemResults] = []
    for system, prompts in groups.items():
        if len(prompts) < 2:
            continue
        try:
            spread = prompt_spread({name: row.outcomes for name, row in prompts.items()}, draws, level, seed)
        except ValueError:  # no task in common
            continue
        used += prompts.values()
        lowest, highest = (choose(spread.values, key=spread.values.__getitem__) for choose in (min, max))
        most = ", ".join(
            f"{task} ({100 * width:.1f})" for task, width in list(spread.ranges.items())[:_SHOWN_TASKS]
        )
        rows.append(
            (
                TableCell(system.setting), TableCell(system.name), shots(system.k), TableCell(system.model),
                TableCell(str(len(prompts)), len(prompts)),
                percent(spread.mean.value, mark=next((row.mark for row in prompts.values() if row.mark), "")),
                interval_cell(spread.mean),
                TableCell(f"{lowest} ({100 * spread.values[lowest]:.1f})"),
                TableCell(f"{highest} ({100 * spread.values[highest]:.1f})"),
                percent(spread.over_prompts), percent(spread.over_seeds), TableCell(most),
            )
        )  # fmt: skip
    note = (
        "Percent, over the tasks and seeds that all prompts of a system share. The interval resamples prompts, seeds and test "
        "examples. Deviations in points: over prompts of a task's mean over seeds, and over seeds under one prompt, "
        "averaged over tasks. Last: the tasks with the widest range over prompts." + incomplete_note(used)
    )
    columns = (
        "Setting", "Method", "k", "Model", "Prompts", "Mean", f"{100 * level:.0f} % interval", "Lowest", "Highest",
        "Over prompts", "Over seeds", "Most sensitive tasks",
    )  # fmt: skip
    return Table("prompts", "Sensitivity to the prompt", note, columns, tuple(rows), 4)
