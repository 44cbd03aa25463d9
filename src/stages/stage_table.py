"""Which stages there are, for which kind of methods, and the function that runs each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from metashot.base.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from metashot.stages.run_config import RunConfig

Stage = Callable[[Any], float | None]

STAGES = {
    "prepare": {"icl": "preparation.prepare_stage", "prompt": "metaprompt.prepare_stage"},
    "doctor": {"icl": "preparation.doctor_stage"},
    "train": {"any": "training.train_stage"},
    "find_lr": {"icl": "icl_training.find_lr_stage"},
    "evaluate": {"any": "evaluation.evaluate_stage"},
    "plan": {"any": "planning.plan_stage"},
    "probe": {"prompt": "metaprompt_checks.probe_stage"},
    "export": {"icl": "icl_evaluation.export_stage", "prompt": "metaprompt_checks.export_stage"},
    "report": {"any": "reports.report_stage"},
    "compare": {"any": "reports.compare_stage"},
    "recipe": {"any": "preparation.recipe_stage"},
}
"""Stage -> kind of method, or `any` -> function of `metashot.stages`, imported when it runs: most of a short command is imports."""


STAGES_OF_RUNS = ("report", "compare")
"""Stages that read finished runs: model, method and data of the config have no say in them."""


def check_stage(composed: Mapping[str, Any]) -> None:
    """Refuse a stage that does not exist, before anything is imported.

    Raises:
        ConfigError: such a stage.
    """
    asked = composed["stage"]
    for name in asked if isinstance(asked, list) else [asked]:
        if not isinstance(name, str) or name not in STAGES:
            raise ConfigError("stage", f"unknown stage {name!r}", suggestion(str(name), STAGES))


def chosen_stages(config: RunConfig) -> list[Stage]:
    """The functions of `stage=...`, in order.

    Raises:
        ConfigError: a stage that the method has no use for, or a `checkpoint` that a stage would pass over.
    """
    from metashot.stages.families import function_at, kind_of

    method = config.method
    kinds = ("any", kind_of(method).name)
    _check_checkpoint(config, "icl" in kinds)
    functions: list[Stage] = []
    for name in config.stages:
        place = next((STAGES[name][kind] for kind in kinds if kind in STAGES[name]), None)
        if place is None:
            useful = [stage for stage, places in STAGES.items() if places.keys() & set(kinds)]
            raise ConfigError(
                "stage", f"method {method.name!r} has no stage {name!r}", f"one of {', '.join(useful)}"
            )
        functions.append(function_at(place))
    return functions


def _check_checkpoint(config: RunConfig, scores_in_context: bool) -> None:
    """Refuse `checkpoint=` where the run would work on another model than it names."""
    training = [name for name in ("train", "find_lr") if name in config.stages]
    uses = {"evaluate", "plan", "export", *training} & set(config.stages)
    if config.checkpoint is None or not uses:
        return
    if not scores_in_context:
        raise ConfigError(
            "checkpoint",
            "is for methods that score options in context, and this one tunes a prompt",
            "set tuning.prompt_path, or supmer.checkpoints",
        )
    if training:
        raise ConfigError(
            "checkpoint",
            f"names a finished training, and stage={training[0]} trains another model",
            "add stage=evaluate; to train on from it: model=local model.path=<checkpoint folder>",
        )
