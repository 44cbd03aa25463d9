"""Systems that answered a sample of the test rows, beside one that answered all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metashot.engine.cells.prompts import read_prompts
from metashot.engine.metrics.classification import Metric
from metashot.engine.metrics.control_variate import Controlled, controlled_mean
from metashot.engine.metrics.statistics import TaskOutcomes, task_outcomes
from metashot.engine.report.reading.outputs import SYSTEM, Outputs
from metashot.engine.report.reading.variants import with_variants
from metashot.engine.report.systems.results import System, SystemResults

_Key = tuple[str, str, tuple[str, ...]]
"""What makes two test rows of a task the same: input, right answer, options."""
_Rows = Mapping[str, Mapping[int, Mapping[_Key, str]]]
"""Task -> seed -> row -> answer."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled system with its control.

    Attributes:
        row: the sampled system.
        control: the system that answered all rows.
        figures: with and without the control.
    """

    row: SystemResults
    control: SystemResults
    figures: Controlled


def sampled_systems(
    outputs: Outputs, answers: Sequence[SystemResults], *, draws: int, level: float, seed: int
) -> list[Sampled]:
    """Each sampled system with its reference: of the same setting, with all tasks, the same model and method before others.

    Rows are recognized by their text, which `prompts.jsonl` holds; a row that stands twice is left out.
    """
    sampled = [row for row in answers if row.sampled is not None]
    whole = [row for row in answers if row.sampled is None and row.coverage.complete]
    if not sampled or not whole:
        return []
    known = _answers(outputs, {row.system for row in (*sampled, *whole)})
    found: list[Sampled] = []
    for row in sampled:
        controls = [
            one
            for one in whole
            if one.system.setting == row.system.setting and set(row.outcomes) <= set(one.outcomes)
        ]
        mine = row.system
        controls.sort(
            key=lambda one, mine=mine: (one.system.model != mine.model, one.system.method != mine.method)
        )
        for control in controls:
            pair = _paired(row, known.get(mine, {}), known.get(control.system, {}))
            if pair is not None:
                figures = controlled_mean(*pair, control.outcomes, draws, level, seed)
                found.append(Sampled(row, control, figures))
                break
    return found


def _answers(outputs: Outputs, systems: set[System]) -> dict[System, dict[str, dict[int, dict[_Key, str]]]]:
    """What each system answered to each row."""
    key = ["run", "fingerprint", "task", "seed"]
    frame = (
        with_variants(outputs.results, outputs.runs, outputs.names)
        .select([*SYSTEM, *key])
        .join(
            outputs.predictions.select([*key, "index", "gold", "options", "prediction"]), on=key, how="inner"
        )
        .sort([*SYSTEM, "task", "seed", "index"])
    )
    texts = {number: read_prompts(outputs.runs[number].folder) for number in frame["run"].unique()}
    found: dict[System, dict[str, dict[int, dict[_Key, str]]]] = {}
    for values, rows in frame.partition_by(SYSTEM, maintain_order=True, as_dict=True).items():
        if (system := System(*values)) not in systems:
            continue
        twice: set[tuple[str, int, _Key]] = set()
        for row in rows.iter_rows(named=True):
            shown = texts[row["run"]].get((row["task"], row["seed"]))
            if shown is None or row["index"] >= len(shown.inputs):
                continue
            name = (shown.inputs[row["index"]], row["gold"], tuple(row["options"]))
            cell = found.setdefault(system, {}).setdefault(row["task"], {}).setdefault(row["seed"], {})
            if name in cell:
                twice.add((row["task"], row["seed"], name))
            cell[name] = row["prediction"]
        for task, seed, name in twice:
            del found[system][task][seed][name]
    return found


def _paired(
    row: SystemResults, mine: _Rows, theirs: _Rows
) -> tuple[dict[str, TaskOutcomes], dict[str, TaskOutcomes]] | None:
    """Both systems on the sampled rows; None where the control lacks a row or a seed."""
    sample: dict[str, TaskOutcomes] = {}
    control: dict[str, TaskOutcomes] = {}
    for task, outcomes in row.outcomes.items():
        seeds = [seed for seed in mine.get(task, {}) if seed in theirs.get(task, {})]
        if not seeds:
            return None
        rows = list(mine[task][seeds[0]])
        if any(set(rows) - set(part[task][seed]) for part in (mine, theirs) for seed in seeds):
            return None
        for part, into in ((mine, sample), (theirs, control)):
            pairs = {
                seed: ([name[1] for name in rows], [part[task][seed][name] for name in rows])
                for seed in seeds
            }
            into[task] = task_outcomes(task, Metric(outcomes.metric), pairs)
    return sample, control
