"""`stage=train` of the in-context methods: config nodes in, a checkpoint folder out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from metashot.data.episodes import check_disjoint
from metashot.engine.errors import ConfigError
from metashot.engine.models.loading import load_model
from metashot.engine.training.checkpoint import best_checkpoint
from metashot.engine.training.loop import LoopSettings, TrainingOutcome
from metashot.engine.training.optimizers import OptimizerSettings
from metashot.engine.training.trainable import LoraSettings, TrainableSettings
from metashot.icl.held_out import HeldOutSettings
from metashot.icl.meta_training import train
from metashot.icl.methods import Method
from metashot.icl.training_settings import EpisodeSettings, MetaTrainSettings
from metashot.stages.context import RunContext
from metashot.stages.nodes import build, convert, unknown_key
from metashot.stages.run_config import AnyMethod, RunConfig
from metashot.stages.task_source import TaskChoice, choose_tasks

_GROUPS = (LoopSettings, EpisodeSettings, TrainableSettings)
_OWN_KEYS = ("name", "seed", "held_out", "keep_last", "keep_best", "lora")
_NO_KEYS = ("limits", "config_node")
"""Fields that no key of `trainer` sets."""


def train_stage(run: RunContext) -> float:
    """Meta-train, say where the checkpoint is; returns the last held-out metric in percent (0 without any).

    Raises:
        ConfigError, DataError, ModelError, CheckpointError: before anything is written, see `icl.meta_training.train`.
    """
    config = run.config
    settings = training_settings(config)
    tasks = choose_tasks(config)
    _check_tasks(tasks)
    model = load_model(config.model)
    outcome = train(settings, model, tasks.source, tasks.training, tasks.targets, run.output, run.tracker)
    _tell(run, outcome)
    return 100.0 * outcome.metrics.get("metric", 0.0)


def _tell(run: RunContext, outcome: TrainingOutcome) -> None:
    run.record.write("running", training={"step": outcome.step, "stopped_by": outcome.stopped_by})
    text = f"{outcome.step} steps, {outcome.stopped_by}, {outcome.seconds:.0f} s; checkpoint: {outcome.checkpoint}"
    run.console.print(text, soft_wrap=True)


def training_settings(config: RunConfig) -> MetaTrainSettings:
    """The settings of a composed config: nodes `method`, `trainer`, `optimizer`, `prompt`, key `k`.

    Raises:
        ConfigError: a key that is unknown, missing or of the wrong type.
    """
    node: dict[str, Any] = dict(config.trainer)
    _refuse_unknown(node)
    prompt = config.prompt
    lora = None if node["lora"] is None else build(LoraSettings, node["lora"], "trainer.lora")
    return MetaTrainSettings(
        method=in_context(config.method),
        prompt=prompt,
        k=config.k,
        seed=convert(int, node["seed"], "trainer.seed"),
        episodes=build(EpisodeSettings, _part(EpisodeSettings, node), "trainer", limits=prompt.limits),
        optimizer=build(OptimizerSettings, config.optimizer, "optimizer"),
        trainable=build(TrainableSettings, _part(TrainableSettings, node), "trainer", lora=lora),
        loop=build(LoopSettings, _part(LoopSettings, node), "trainer"),
        held_out=build(HeldOutSettings, node["held_out"], "trainer.held_out"),
        keep_last=convert(int, node["keep_last"], "trainer.keep_last"),
        keep_best=convert(int, node["keep_best"], "trainer.keep_best"),
    )


def in_context(method: AnyMethod) -> Method:
    """The method of a stage that scores options in context.

    Raises:
        ConfigError: it is no such method.
    """
    if not isinstance(method, Method):
        raise ConfigError("method", f"{method.name!r} does not score options in context", "use method=direct")
    return method


def _part(group: type[Any], node: Mapping[str, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(group)]
    return {key: value for key, value in node.items() if key in names and key not in _OWN_KEYS}


def _refuse_unknown(node: Mapping[str, Any]) -> None:
    known = [
        *_OWN_KEYS,
        *(field.name for group in _GROUPS for field in fields(group) if field.name not in _NO_KEYS),
    ]
    for key in node:
        if key not in known:
            raise unknown_key(f"trainer.{key}", known)
    for key in known:
        if key not in node and key != "name":
            raise ConfigError(f"trainer.{key}", "is missing", f"set trainer.{key}=<value>")


def _check_tasks(tasks: TaskChoice) -> None:
    if not tasks.training:
        raise ConfigError(
            "setting",
            "is not set, so no task is for training",
            "choose setting=..., data.train_tasks or data=synthetic",
        )
    check_disjoint(tasks.training, tasks.targets, tasks.overlap)


def trained_folder(output: Path) -> Path:
    """The checkpoint of a finished training that evaluation should use: the best one, else the newest.

    Raises:
        ConfigError: there is none.
    """
    folder = best_checkpoint(output / "checkpoints")
    if folder is None:
        raise ConfigError("stage", f"no whole checkpoint below {str(output)!r}", "run stage=train first")
    return folder
