"""stage=compare: two runs side by side: config, tasks with significance, and flipped examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from metashot.base.errors import OutputError
from metashot.base.files import write_atomic
from metashot.engine.cells.config_difference import Change, config_changes
from metashot.engine.cells.record import read_run
from metashot.engine.cells.results import RUN_FILE
from metashot.engine.metrics.permutation import paired_permutation_test, paired_seeds, share_seeds
from metashot.engine.metrics.statistics import TaskOutcomes, holm
from metashot.engine.report.config import CompareConfig
from metashot.engine.report.formats import text
from metashot.engine.report.reading.folders import find_run_folders
from metashot.engine.report.reading.harness_files import harness_results_files
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import SystemResults, collect_systems
from metashot.engine.report.tables.table import Table, TableCell, names, p_value, percent, points

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
    (first, first_said), (second, second_said) = _only_system(settings.first), _only_system(settings.second)
    before, after = _config(settings.first), _config(settings.second)
    changes = () if before is None or after is None else config_changes(before, after, _NOT_COMPARED)
    shared = [
        task
        for task, outcome in first.outcomes.items()
        if task in second.outcomes and share_seeds(outcome, second.outcomes[task])
    ]
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
            "Means over the cells (task x seed) that both have, in percent; difference first minus second, in points.",
            ("Tasks", "First", "Second", "Difference", "p"),
            (
                (
                    TableCell(", ".join(shared) if len(shared) < 6 else f"{len(shared)} tasks"),
                    *map(percent, overall.means),
                    points(100 * overall.difference),
                    p_value(overall.p_value),
                ),
            ),
        ),
        _tasks_table(first, second, shared, settings),
        flipped_table(first.outcomes, second.outcomes, settings.flipped, (first_said, second_said)),
    )
    shown = tuple(table for table in tables if table.rows)
    title = f"Comparison of {settings.first} (first) and {settings.second} (second)"
    write_atomic(settings.output / "compare.md", text.markdown(shown, (), title))
    for place, folder in (("first: ", settings.first), ("second:", settings.second)):
        console.print(place, folder, soft_wrap=True, markup=False, highlight=False)
    console.print()
    for table in shown:
        console.print(text.console(table))
    if before is None or after is None:
        console.print("a run of lm-evaluation-harness has no config to compare")
    elif not changes:
        console.print("the two configs are equal")
    return RunComparison(changes, shown)


def _only_system(folder: Path) -> tuple[SystemResults, Said]:
    outputs = read_outputs([folder])
    answers, problems = collect_systems(outputs, lambda setting: (), draws=1, level=0.95, seed=0)
    if len(answers) != 1:
        found = ", ".join(f"{row.system.setting}/{row.system.method}" for row in answers) or "; ".join(
            problems
        )
        raise OutputError(str(folder), f"holds {len(answers)} systems ({found})", "give one run's folder")
    if outputs.lost:
        raise OutputError(str(outputs.lost[0]), "cannot be read or is damaged", "give one run's folder")
    texts = outputs.predictions.select("task", "seed", "index", "gold", "prediction").iter_rows()
    return answers[0], {(task, seed, index): (gold, answer) for task, seed, index, gold, answer in texts}


def _config(folder: Path) -> dict[str, Any] | None:
    """What the run was told; None for one of lm-evaluation-harness, which has other keys."""
    is_harness = not (folder / RUN_FILE).exists() and any(
        map(harness_results_files, find_run_folders([folder]).runs)
    )
    return None if is_harness else read_run(folder).config


def _changes_table(changes: tuple[Change, ...]) -> Table:
    rows = tuple(names(change.key, change.before, change.after) for change in changes)
    note = "Config keys in which the two runs differ."
    return Table("changes", "Config", note, ("Key", "First", "Second"), rows, 3)


def _tasks_table(
    first: SystemResults, second: SystemResults, shared: list[str], settings: CompareSettings
) -> Table:
    tests = [
        paired_permutation_test(
            [first.outcomes[t]], [second.outcomes[t]], settings.permutations, settings.seed
        )
        for t in shared
    ]
    adjusted = holm([test.p_value for test in tests])
    rows = [
        (
            TableCell(task),
            *map(percent, test.means),
            points(100 * test.difference),
            p_value(test.p_value),
            p_value(corrected),
        )
        for task, test, corrected in zip(shared, tests, adjusted, strict=True)
    ]
    note = (
        "Percent, mean over the seeds that both have. Paired permutation tests, Holm's correction over tasks."
    )
    columns = ("Task", "First", "Second", "Difference", "p", "p (Holm)")
    return Table("tasks", "Tasks", note, columns, tuple(rows))


Said = Mapping[tuple[str, int, int], tuple[str, str]]
"""(task, seed, place in the test file) -> gold answer and the run's answer, as texts."""


@dataclass(frozen=True, slots=True)
class _Flip:
    """A test example that one run answers rightly and the other wrongly.

    Attributes:
        seeds: under how many seeds it flips.
        task: its task.
        index: its place in the test file.
        winner: `first` or `second`, whichever is right.
        of: the first of those seeds in either run.
    """

    seeds: int
    task: str
    index: int
    winner: str
    of: tuple[int, int]


def flipped_table(
    first: Mapping[str, TaskOutcomes], second: Mapping[str, TaskOutcomes], limit: int, said: tuple[Said, Said]
) -> Table:
    """Test examples that one run answers rightly and the other wrongly, most seeds first.

    Args:
        first: outcomes by task.
        second: outcomes by task.
        limit: rows at most.
        said: the answers of both as texts.
    """
    flips = [flip for task, ours in first.items() if task in second for flip in _flips(ours, second[task])]
    flips.sort(key=lambda flip: (-flip.seeds, flip.task, flip.index, flip.winner))
    total = {
        winner: sum(flip.seeds for flip in flips if flip.winner == winner) for winner in ("first", "second")
    }
    rows = [
        (
            *names(flip.task, flip.winner, *_texts(flip, said)),
            TableCell(str(flip.index), flip.index),
            TableCell(str(flip.seeds), flip.seeds),
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


def _texts(flip: _Flip, said: tuple[Said, Said]) -> tuple[str, str, str]:
    (gold, one), (_, other) = (
        texts[flip.task, seed, flip.index] for texts, seed in zip(said, flip.of, strict=True)
    )
    return gold, one, other


def _flips(ours: TaskOutcomes, theirs: TaskOutcomes) -> Iterator[_Flip]:
    if ours.gold.shape[1] != theirs.gold.shape[1] or not share_seeds(ours, theirs):
        return
    rows = paired_seeds(ours, theirs)
    right, other_right = (_right(one)[places] for one, places in zip((ours, theirs), rows, strict=True))
    for winner, mask in (("first", right & ~other_right), ("second", other_right & ~right)):
        for index in np.flatnonzero(mask.any(axis=0)).tolist():
            place = int(mask[:, index].argmax())
            of = ours.seeds[rows[0][place]], theirs.seeds[rows[1][place]]
            yield _Flip(int(mask[:, index].sum()), ours.task, index, winner, of)


def _right(one: TaskOutcomes) -> NDArray[np.bool_]:
    """[seeds, n] whether each answer is right; a graded one is when it has the whole score."""
    if one.metric.graded:
        return np.asarray(one.labels, dtype=np.float64)[one.prediction] >= 1.0
    return one.gold == one.prediction
