"""How a task is scored, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from metashot.data.recipes.loader import load_recipe, recipe_names
from metashot.data.task import TaskType

Metric = Literal["macro_f1", "accuracy"]
_INSTRUCTED = "inst:"
_INSTRUCTED_CLASSIFICATION = "inst:sick"


def task_type(name: str, path: Sequence[str | Path] = ()) -> TaskType | None:
    """The type that a recipe gives a task; None for a task that no recipe describes.

    Instruction targets are multi-choice, only sick stays classification; instruction training variants
    carry no options (docs/methods.md, instructions).
    """
    if name.startswith(_INSTRUCTED):
        if name.count(":") > 1:
            return TaskType.FREE_FORM
        return TaskType.CLASSIFICATION if name == _INSTRUCTED_CLASSIFICATION else TaskType.MULTI_CHOICE
    if name not in recipe_names(path):
        return None
    return load_recipe(name, path=path).task_type


def metric_of(name: str, path: Sequence[str | Path] = ()) -> Metric | None:
    """`macro_f1` for classification, `accuracy` for the rest; None for a task that no recipe describes.

    Source: released code, `metaicl/data.py` (docs/methods.md, metrics). A recipe's own `metric` key wins.
    """
    if not name.startswith(_INSTRUCTED) and name in recipe_names(path):
        chosen = load_recipe(name, path=path).spec.metric
        if chosen is not None:
            return chosen
    kind = task_type(name, path)
    if kind is None:
        return None
    return "macro_f1" if kind is TaskType.CLASSIFICATION else "accuracy"
