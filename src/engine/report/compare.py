"""stage=compare: two runs side by side: config, tasks with significance, and flipped examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from metashot.base.errors import OutputError
from metashot.base.files import write_atomic
from metashot.engine.cells.config_difference import Change, config_changes
from metashot.engine.cells.record import read_run
from metashot.engine.cells.results import RUN_FILE
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.permutation import paired_permutation_test
from metashot.engine.metrics.statistics import TaskOutcomes, holm, seed_values
from metashot.engine.report import formats
from metashot.engine.report.config import CompareConfig
from metashot.engine.report.folders import find_run_folders
from metashot.engine.report.harness_files import harness_results_files
from metashot.engine.report.reading import read_outputs
from metashot.engine.report.systems import Answers, collect_answers
from metashot.engine.report.table import Cell, Table, names, p_value, percent, points

_NOT_COMPARED = ("logger", "hydra", "results_root", "name", "tags")


@dataclass(frozen=True, slots=True)
class CompareSettings(CompareConfig):
    """Which runs to compare, and where to.

    Attributes:
        first: output folder of a run.
        second: output folder of another.
        output: where `compare.md` is written.
    """

    first: Path
    second: Path
    output: Path


@dataclass(frozen=True, slots=True, eq=False)
class RunComparison:
    """What was found: changed config keys, and the tables `overall`, `tasks` and `flipped`."""

    changes: tuple[Change, ...]
    tables: tuple[Table, ...]


def compare_runs(settings: CompareSettings, console: Console) -> RunComparison:
    """Compare two runs, print and write the outcome.

    Raises:
        OutputError: a folder holds no results or several systems, or the runs share no task and seed.
    """
    first, second = _only_system(settings.first), _only_system(settings.second)
    before, after = _config(settings.first), _config(settings.second)
    changes = () if before is None or after is None else config_changes(before, after, _NOT_COMPARED)
    shared = [task for task in first.outcomes if task in second.outcomes]
    try:
        overall = paired_permutation_test(
            list(first.outcomes.values()),
            list(second.outcomes.values()),
            settings.permutations,
            settings.seed,
        )
    except ValueError as error:
        raise OutputError("runs", str(error), "compare runs over the same tasks and seeds") from None
    tables = (
        _changes_table(changes),
        Table(
            "overall",
            "Overall",
            "Means over the tasks that both have, in percent; difference first minus second, in points.",
            ("Tasks", "First", "Second", "Difference", "p"),
            (
                (
                    Cell(", ".join(shared) if len(shared) < 6 else f"{len(shared)} tasks"),
                    percent(_mean(first, shared)),
                    percent(_mean(second, shared)),
                    points(100 * overall.difference),
                    p_value(overall.p_value),
                ),
            ),
        ),
        _tasks_table(first, second, shared, settings),
        flipped_table(first.outcomes, second.outcomes, settings.flipped),
    )
    shown = tuple(table for table in tables if table.rows)
    title = f"Comparison of {settings.first} (first) and {settings.second} (second)"
    write_atomic(settings.output / "compare.md", formats.markdown(shown, (), title))
    for place, folder in (("first: ", settings.first), ("second:", settings.second)):
        console.print(place, folder, soft_wrap=True, markup=False, highlight=False)
    console.print()
    for table in shown:
        console.print(formats.console(table))
    if before is None or after is None:
        console.print("a run of lm-evaluation-harness has no config to compare")
    elif not changes:
        console.print("the two configs are equal")
    return RunComparison(changes, shown)


def _only_system(folder: Path) -> Answers:
    answers, problems = collect_answers(
        read_outputs([folder]), lambda setting: (), draws=1, level=0.95, seed=0
    )
    if len(answers) != 1:
        found = ", ".join(f"{row.system.setting}/{row.system.method}" for row in answers) or "; ".join(
            problems
        )
        raise OutputError(str(folder), f"holds {len(answers)} systems ({found})", "give one run's folder")
    return answers[0]


def _config(folder: Path) -> dict[str, Any] | None:
    """What the run was told; None for one of lm-evaluation-harness, which has other keys."""
    is_harness = not (folder / RUN_FILE).exists() and any(
        map(harness_results_files, find_run_folders([folder]))
    )
    return None if is_harness else read_run(folder).config


def _mean(row: Answers, tasks: list[str]) -> float:
    return float(np.mean([seed_values(row.outcomes[task]).mean() for task in tasks]))


def _changes_table(changes: tuple[Change, ...]) -> Table:
    rows = tuple(names(change.key, change.before, change.after) for change in changes)
    note = "Config keys in which the two runs differ."
    return Table("changes", "Config", note, ("Key", "First", "Second"), rows, 3)


def _tasks_table(first: Answers, second: Answers, shared: list[str], settings: CompareSettings) -> Table:
    tests = [
        paired_permutation_test(
            [first.outcomes[t]], [second.outcomes[t]], settings.permutations, settings.seed
        )
        for t in shared
    ]
    adjusted = holm([test.p_value for test in tests])
    rows = [
        (
            Cell(task),
            percent(_mean(first, [task])),
            percent(_mean(second, [task])),
            points(100 * test.difference),
            p_value(test.p_value),
            p_value(corrected),
        )
        for task, test, corrected in zip(shared, tests, adjusted, strict=True)
    ]
    note = "Percent, mean over seeds. Paired permutation tests, Holm's correction over tasks."
    columns = ("Task", "First", "Second", "Difference", "p", "p (Holm)")
    return Table("tasks", "Tasks", note, columns, tuple(rows))


@dataclass(frozen=True, slots=True)
class _Flip:
    """A test example that one run answers rightly and the other wrongly.

    Attributes:
        seeds: under how many seeds it flips.
        task: its task.
        index: its place in the test file.
        winner: `first` or `second`, whichever is right.
        texts: its gold answer and both runs' answers under the first of those seeds; dashes where only
            right and wrong are known.
    """

    seeds: int
    task: str
    index: int
    winner: str
    texts: tuple[str, str, str]


def flipped_table(first: Mapping[str, TaskOutcomes], second: Mapping[str, TaskOutcomes], limit: int) -> Table:
    """Test examples that one run answers rightly and the other wrongly, most seeds first.

    Args:
        first: outcomes by task.
        second: outcomes by task.
        limit: rows at most.
    """
    flips = [flip for task, ours in first.items() if task in second for flip in _flips(ours, second[task])]
    flips.sort(key=lambda flip: (-flip.seeds, flip.task, flip.index, flip.winner))
    total = {
        winner: sum(flip.seeds for flip in flips if flip.winner == winner) for winner in ("first", "second")
    }
    rows = [
        (
            *names(flip.task, flip.winner, *flip.texts),
            Cell(str(flip.index), flip.index),
            Cell(str(flip.seeds), flip.seeds),
        )
        for flip in flips[:limit]
    ]
    note = (
        f"{total['first']} answers are right in the first run only, {total['second']} in the second only. Index is "
        "the place in the test file, from 0; seeds is under how many seeds the answer flips; the answers are "
        "those of the first such seed."
    )
    columns = ("Task", "Right in", "Gold", "First says", "Second says", "Index", "Seeds")
    return Table("flipped", "Flipped examples", note, columns, tuple(rows), 5)


def _flips(ours: TaskOutcomes, theirs: TaskOutcomes) -> Iterator[_Flip]:
    seeds = [seed for seed in ours.seeds if seed in theirs.seeds]
    if not seeds or ours.gold.shape[1] != theirs.gold.shape[1]:
        return
    rows = [[outcome.seeds.index(seed) for seed in seeds] for outcome in (ours, theirs)]
    gold, said = ours.gold[rows[0]], ours.prediction[rows[0]]
    other_gold, other_said = theirs.gold[rows[1]], theirs.prediction[rows[1]]
    right, other_right = gold == said, other_gold == other_said
    for winner, mask in (("first", right & ~other_right), ("second", other_right & ~right)):
        for index in np.flatnonzero(mask.any(axis=0)).tolist():
            seed = int(mask[:, index].argmax())
            texts = (
                ("–", "–", "–")
                if ours.metric is Metric.ACCURACY  # its codes say only right and wrong
                else (
                    ours.labels[gold[seed, index]],
                    ours.labels[said[seed, index]],
                    theirs.labels[other_said[seed, index]],
                )
            )
            yield _Flip(int(mask[:, index].sum()), ours.task, index, winner, texts)
