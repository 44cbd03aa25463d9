"""Which stages there are, for which family of methods, and the function that runs each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from metashot.base.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from metashot.stages.run_config import RunConfig

PROMPT_METHODS = "metashot.metaprompt."
"""Where the methods lie that tune prompts; all others score options in context."""
Stage = Callable[[Any], float | None]

STAGES = {
    "prepare": {"icl": "preparation.prepare_stage", "prompt": "metaprompt.prepare_stage"},
    "doctor": {"icl": "preparation.doctor_stage"},
    "train": {"icl": "icl_training.train_stage", "prompt": "metaprompt.train_stage"},
    "find_lr": {"icl": "icl_training.find_lr_stage"},
    "evaluate": {"icl": "icl_evaluation.evaluate_stage", "prompt": "metaprompt.evaluate_stage"},
    "plan": {"icl": "icl_evaluation.plan_stage", "prompt": "metaprompt_checks.plan_stage"},
    "probe": {"prompt": "metaprompt_checks.probe_stage"},
    "export": {"icl": "icl_evaluation.export_stage", "prompt": "metaprompt_checks.export_stage"},
    "report": {"icl": "reports.report_stage", "prompt": "reports.report_stage"},
    "compare": {"icl": "reports.compare_stage", "prompt": "reports.compare_stage"},
}
"""Stage -> method family -> function of `metashot.stages`, imported when it runs: most of a short command is imports."""


STAGES_OF_RUNS = ("report", "compare")
"""Stages that read finished runs: model, method and data of the config have no say in them."""


def check_stage(composed: Mapping[str, Any]) -> None:
    """Refuse a stage that does not exist, or that the method has no use for, before anything is imported.

    Raises:
        ConfigError: such a stage.
    """
    family = "prompt" if str(composed["method"].get("_target_", "")).startswith(PROMPT_METHODS) else "icl"
    asked = composed["stage"]
    for name in asked if isinstance(asked, list) else [asked]:
        if not isinstance(name, str) or name not in STAGES:
            raise ConfigError("stage", f"unknown stage {name!r}", suggestion(str(name), STAGES))
        if family not in STAGES[name]:
            useful = [stage for stage, functions in STAGES.items() if family in functions]
            method = composed["method"].get("name")
            raise ConfigError(
                "stage", f"method {method!r} has no stage {name!r}", f"one of {', '.join(useful)}"
            )


def chosen_stages(config: RunConfig) -> list[Stage]:
    """The functions of `stage=...`, in order."""
    family = "prompt" if type(config.method).__module__.startswith(PROMPT_METHODS) else "icl"
    functions: list[Stage] = []
    for name in config.stages:
        module, _, function = STAGES[name][family].partition(".")
        functions.append(getattr(import_module(f"metashot.stages.{module}"), function))
    return functions
