"""What few-shot tuning would cost: tokens of every task's cells, counted on its own rows."""

from __future__ import annotations

import numpy as np

from metashot.engine.models.loading import LanguageModel
from metashot.metaprompt.meta.planning import Price, Speed
from metashot.metaprompt.tuning.cell import load_task
from metashot.metaprompt.tuning.config import TuneSettings, TuningMethod
from metashot.metaprompt.tuning.tasks import TaskRenderer, TaskRows

_SAMPLE = 64


def price_tuning(settings: TuneSettings, language_model: LanguageModel, speed: Speed) -> list[Price]:
    """One line for each task: all its cells, with their looks at the development set and the test sets.

    Args:
        settings: tasks, seeds, steps.
        language_model: for its tokenizer.
        speed: of this machine, measured with gradients by a prompt; all weights cost about half as much again.
    """
    rules = settings.train_rules()
    prompt = settings.prompt_length if settings.tuning not in (TuningMethod.FULL, TuningMethod.LORA) else 0
    cells = len(settings.data_seeds) * len(settings.train_seeds)
    prices: list[Price] = []
    for name in settings.tasks:
        task = load_task(name, settings, language_model)
        each = prompt + _mean_tokens(task.renderer, task.rows)
        shots = settings.k * len(task.renderer.task.labels)
        looks = 0 if rules.select_on == "last" else -(-rules.steps // rules.evaluate_every)
        tested = sum(
            min(settings.test_limit or len(rows.test), len(rows.test)) for _, rows in task.tests.values()
        )
        trained = int(cells * rules.steps * rules.batch_size * each)
        read = int(cells * (looks * shots + tested) * each)
        prices.append(
            Price(
                f"tuning {task.renderer.task.name}",
                f"{cells} cells of {rules.steps} steps, {tested} test rows",
                trained,
                read,
                trained / speed.trained + read / speed.read,
            )
        )
    return prices


def _mean_tokens(renderer: TaskRenderer, rows: TaskRows) -> float:
    return float(np.mean([len(renderer.example(row).input_ids) for row in rows.train[:_SAMPLE]]))
