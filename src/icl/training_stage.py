"""`stage=train` of the in-context methods: config nodes in, a checkpoint folder out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from data.episodes import check_disjoint
from engine.checkpoint import best_checkpoint, verify
from engine.config import build, convert, unknown_key
from engine.errors import ConfigError
from engine.loop import LoopSettings, TrainingOutcome
from engine.models import ModelSpec, load_model
from engine.optimizers import OptimizerSettings
from engine.run_context import RunContext
from engine.task_source import TaskChoice, choose_tasks
from engine.trainable import LoraSettings, TrainableSettings
from icl.held_out import HeldOutSettings
from icl.meta_training import train
from icl.methods import Method
from icl.prompt import LengthLimits
from icl.training_settings import EpisodeSettings, MetaTrainSettings

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
    model = load_model(build(ModelSpec, config["model"], "model"))
    outcome = train(settings, model, tasks.source, tasks.training, tasks.targets, run.output, run.tracker)
    _tell(run, outcome)
    return 100.0 * outcome.metrics.get("metric", 0.0)


def _tell(run: RunContext, outcome: TrainingOutcome) -> None:
    run.record.write("running", training={"step": outcome.step, "stopped_by": outcome.stopped_by})
    text = f"{outcome.step} steps, {outcome.stopped_by}, {outcome.seconds:.0f} s; checkpoint: {outcome.checkpoint}"
    run.console.print(text, soft_wrap=True)


def training_settings(config: Mapping[str, Any]) -> MetaTrainSettings:
    """The settings of a composed config: nodes `method`, `trainer`, `optimizer`, `prompt`, key `k`.

    Raises:
        ConfigError: a key that is unknown, missing or of the wrong type.
    """
    node: dict[str, Any] = dict(config["trainer"])
    _refuse_unknown(node)
    prompt = config["prompt"]
    limits = LengthLimits(
        convert(int, prompt["max_length_per_example"], "prompt.max_length_per_example"),
        convert(int, prompt["max_length"], "prompt.max_length"),
    )
    lora = None if node["lora"] is None else build(LoraSettings, node["lora"], "trainer.lora")
    return MetaTrainSettings(
        method=build(Method, config["method"], "method"),
        k=convert(int, config["k"], "k"),
        seed=convert(int, node["seed"], "trainer.seed"),
        episodes=build(EpisodeSettings, _part(EpisodeSettings, node), "trainer", limits=limits),
        optimizer=build(OptimizerSettings, config["optimizer"], "optimizer"),
        trainable=build(TrainableSettings, _part(TrainableSettings, node), "trainer", lora=lora),
        loop=build(LoopSettings, _part(LoopSettings, node), "trainer"),
        held_out=build(HeldOutSettings, node["held_out"], "trainer.held_out"),
        keep_last=convert(int, node["keep_last"], "trainer.keep_last"),
        keep_best=convert(int, node["keep_best"], "trainer.keep_best"),
    )


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


def trained_method(folder: str | Path) -> dict[str, Any] | None:
    """What a checkpoint folder was meta-trained for (see `training_settings.trained_for`), or None.

    Raises:
        CheckpointError: the folder has a manifest but is damaged.
    """
    path = Path(folder).expanduser()
    if not (path / "manifest.json").is_file():
        return None
    method: dict[str, Any] = verify(path)["method"]
    return method or None


def check_method(folder: str | Path, method: Method, k: int) -> None:
    """Raise ConfigError when `method` contradicts what the checkpoint in `folder` was trained for.

    The number of demonstrations may differ (accuracy over k is a result of the paper), their presence may not.
    """
    trained = trained_method(folder)
    if trained is None:
        return
    asked = {
        "objective": method.objective.value,
        "demonstrations": method.demonstrations,
        "layout": method.layout_for(Path(folder).name).value,
    }
    differing = [key for key, value in asked.items() if trained.get(key) != value]
    if differing:
        told = ", ".join(f"{key} is {trained.get(key)!r} there, {asked[key]!r} here" for key in differing)
        raise ConfigError(
            "method",
            f"{method.name!r} contradicts the checkpoint, which was trained for {trained['name']!r}: {told}",
            f"use method={trained['name']}",
        )
    if method.demonstrations and k == 0:
        raise ConfigError("k", f"0, but {trained['name']!r} was trained with demonstrations", "use k=16")
