"""Which family a method is of, found by its class: what its cells are, and which nodes of the config it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from metashot.base.errors import ConfigError
from metashot.engine.cells.family import Family
from metashot.icl.prompting.methods import Method
from metashot.icl.prompting.state_methods import HiddenMethod, TaskVectorMethod
from metashot.icl.scoring.generation import GenerateMethod
from metashot.metaprompt.tuning.config import PromptMethod
from metashot.stages.context import RunContext

TRAINING = ("optimizer", "trainer")
_TUNING = ("supmer", "corpus", "tuning")
SHOTS = ("selection", "demonstrations", "same_demonstrations")
"""Keys that say which demonstrations a prompt shows."""
_IN_CONTEXT = (*TRAINING, "prompt", "scorer", *SHOTS, "checkpoint")


@runtime_checkable
class OwnMethod(Protocol):
    """A method that brings a family of its own: `plan`, `evaluate`, `report` and `compare` serve it.

    With a method `train(run)`, which gives a `metashot.stages.training.Trained`, so does `train`.
    """

    @property
    def name(self) -> str:
        """The name that results carry."""
        ...

    def cells(self, run: RunContext) -> Family:
        """Its cells in this run."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What the stages know of methods of one class and its subclasses.

    Attributes:
        name: `icl`, `prompt` or `own`, as `STAGES` has it.
        cells: makes the family of a run; a function of `metashot.stages`, imported when it is called.
        plan: makes what `stage=plan` shows; empty is a list of the cells.
        train: trains, and gives a `training.Trained`.
        unused: nodes of the config that it has no use for.
    """

    name: str
    cells: str = ""
    plan: str = ""
    train: str = ""
    unused: tuple[str, ...] = ()


KINDS: Mapping[type, Kind] = {
    Method: Kind(
        "icl", "icl_evaluation.ranked_cells", "icl_evaluation.planned", "icl_training.trained", _TUNING
    ),
    HiddenMethod: Kind(
        "icl", "icl_evaluation.hidden_cells", "icl_evaluation.planned", "icl_training.trained", _TUNING
    ),
    TaskVectorMethod: Kind(
        "icl", "icl_evaluation.task_vector_cells", "icl_evaluation.planned", "icl_training.trained", _TUNING
    ),
    GenerateMethod: Kind(
        "icl", "icl_evaluation.generated_cells", "icl_evaluation.planned", "icl_training.trained", _TUNING
    ),
    PromptMethod: Kind(
        "prompt", "metaprompt.tuned_cells", "metaprompt_checks.planned", "metaprompt.trained", _IN_CONTEXT
    ),
}
"""Class of a method -> its kind; a subclass is of the kind of its nearest base."""
OWN = Kind("own")


def kind_of(method: object) -> Kind:
    """The kind of a method.

    Raises:
        ConfigError: its class is no method.
    """
    kind = next((KINDS[base] for base in type(method).__mro__ if base in KINDS), None)
    if kind is None and not isinstance(method, OwnMethod):
        raise ConfigError(
            "method",
            f"{type(method).__qualname__} is no method",
            "derive it from Method or PromptMethod, or give it cells(run)",
        )
    return kind or OWN


def cells_of(run: RunContext) -> Family:
    """The cells of a run, by its method."""
    method = run.config.method
    place = kind_of(method).cells
    return function_at(place)(run) if place else method.cells(run)  # pyright: ignore[reportAttributeAccessIssue]


def training_of(run: RunContext) -> Any:
    """The training of a run, by its method: a `training.Trained`.

    Raises:
        ConfigError: a method of one's own that has none.
    """
    method: Any = run.config.method
    place = kind_of(method).train
    if not place and not hasattr(method, "train"):
        raise ConfigError(
            "stage",
            f"method {method.name!r} has nothing to train",
            "give it train(run), or use stage=evaluate",
        )
    return function_at(place)(run) if place else method.train(run)


def function_at(place: str) -> Callable[..., Any]:
    """A function of `metashot.stages`, imported now: most of a short command is imports."""
    module, _, name = place.partition(".")
    return getattr(import_module(f"metashot.stages.{module}"), name)
