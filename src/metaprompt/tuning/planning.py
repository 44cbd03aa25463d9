"""What few-shot tuning would cost, and what of the test inputs it would cut, counted on every task's own rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metashot.base.terminal import counted
from metashot.metaprompt.meta.planning import Price, Speed
from metashot.metaprompt.tuning.cell import LoadedTask
from metashot.metaprompt.tuning.config import TuneSettings, TuningMethod
from metashot.metaprompt.tuning.cuts import cut_note, lost_tokens
from metashot.metaprompt.tuning.tasks import TaskRenderer, TaskRows

_SAMPLE = 64


def price_tuning(settings: TuneSettings, tasks: Sequence[LoadedTask], speed: Speed) -> list[Price]:
    """One line for each task: all its cells, with their looks at the development set and the test sets.

    Args:
        settings: tasks, seeds, steps.
        tasks: those of the settings.
        speed: of this machine, measured with gradients by a prompt; all weights cost about half as much again.
    """
    rules = settings.train_rules()
    prompt = settings.prompt_length if settings.tuning not in (TuningMethod.FULL, TuningMethod.LORA) else 0
    cells = len(settings.data_seeds) * len(settings.train_seeds)
    prices: list[Price] = []
    for task in tasks:
        each = prompt + _mean_tokens(task.renderer, task.rows)
        shots = settings.k * len(task.renderer.task.labels)
        looks = 0 if rules.select_on == "last" else -(-rules.steps // rules.evaluate_every)
        tested = sum(len(settings.tested(rows.test)) for _, rows in task.tests.values())
        trained = int(cells * rules.steps * rules.batch_size * each)
        read = int(cells * (looks * shots + tested) * each)
        prices.append(
            Price(
                f"tuning {task.renderer.task.name}",
                f"{counted(cells, 'cell')} of {rules.steps} steps, {tested} test rows",
                trained,
                read,
                trained / speed.trained + read / speed.read,
            )
        )
    return prices


def planned_cuts(settings: TuneSettings, tasks: Sequence[LoadedTask]) -> list[str]:
    """One sentence for each task of which test inputs would be cut."""
    notes: list[str] = []
    for name, (renderer, rows) in ((name, test) for task in tasks for name, test in task.tests.items()):
        lost = lost_tokens(renderer, settings.tested(rows.test))
        if any(lost):
            notes.append(cut_note(name, sum(map(bool, lost)), len(lost), sum(lost), settings.max_tokens))
    return notes


def _mean_tokens(renderer: TaskRenderer, rows: TaskRows) -> float:
    return float(np.mean([len(renderer.example(row).input_ids) for row in rows.train[:_SAMPLE]]))
