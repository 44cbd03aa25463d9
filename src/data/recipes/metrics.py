"""How a task is scored, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metashot.data.recipes.loader import load_recipe, recipe_names
from metashot.data.task import Scoring, TaskType

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


def scoring_of(name: str, path: Sequence[str | Path] = ()) -> Scoring | None:
    """Type and, where a recipe names one, metric of a task; None for a task that no recipe describes."""
    kind = task_type(name, path)
    if kind is None:
        return None
    described = not name.startswith(_INSTRUCTED)
    return Scoring(kind, load_recipe(name, path=path).spec.metric if described else None)


def metric_of(name: str, path: Sequence[str | Path] = ()) -> str | None:
    """`macro_f1` for classification, `accuracy` for the rest; None for a task that no recipe describes.

    Source: released code, `metaicl/data.py` (docs/methods.md, metrics). A recipe's own `metric` key wins.
    """
    said = scoring_of(name, path)
    if said is None:
        return None
    default = "macro_f1" if said.task_type is TaskType.CLASSIFICATION else "accuracy"
    return said.metric or default
