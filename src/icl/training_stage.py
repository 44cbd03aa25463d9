"""`stage=train` of the in-context methods: config nodes in, a checkpoint folder out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from data.episodes import check_disjoint
from data.settings import load_setting, published_overlap
from data.source import TaskSource
from data.synthetic import SyntheticSource
from engine.config import build, convert, unknown_key
from engine.errors import ConfigError
from engine.loop import LoopSettings, TrainingOutcome
from engine.models import ModelSpec, load_model
from engine.optimizers import OptimizerSettings
from engine.run_context import RunContext
from engine.trainable import LoraSettings, TrainableSettings
from icl.held_out import HeldOutSettings
from icl.meta_training import train
from icl.methods import Method
from icl.prompt import LengthLimits
from icl.stages import open_data
from icl.trained import checkpoint_folder
from icl.training_settings import EpisodeSettings, MetaTrainSettings

_GROUPS = (LoopSettings, EpisodeSettings, TrainableSettings)
_OWN_KEYS = ("folder", "name", "seed", "held_out", "keep_last", "keep_best", "lora")


@dataclass(frozen=True, slots=True)
class TrainingTasks:
    """Which tasks train and which are held out.

    Attributes:
        train: meta-training tasks.
        targets: target tasks.
    """

    train: tuple[str, ...]
    targets: tuple[str, ...]


def train_stage(run: RunContext) -> float:
    """Meta-train, say where the checkpoint is; returns the last held-out metric in percent (0 without any).

    Raises:
        ConfigError, DataError, ModelError, CheckpointError: before anything is written, see `icl.meta_training.train`.
    """
    config = run.config
    settings = training_settings(config)
    source = open_data(config["data"])[1]
    tasks = training_tasks(config, source)
    model = load_model(build(ModelSpec, config["model"], "model"))
    folder = checkpoint_folder(run)
    outcome = train(settings, model, source, tasks.train, tasks.targets, folder, run.tracker)
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
        *(field.name for group in _GROUPS for field in fields(group) if field.name != "limits"),
    ]
    for key in node:
        if key not in known:
            raise unknown_key(f"trainer.{key}", known)
    for key in known:
        if key not in node and key != "name":
            raise ConfigError(f"trainer.{key}", "is missing", f"set trainer.{key}=<value>")


def training_tasks(config: Mapping[str, Any], source: TaskSource) -> TrainingTasks:
    """Tasks of the setting, or of the synthetic source itself; `data.tasks` replaces the targets.

    Raises:
        ConfigError: no setting, so nothing says what to train on.
        DataError: a task on both sides, unless the published setting has it.
    """
    chosen: Sequence[str] | None = config["data"].get("tasks")
    if config["setting"] is not None:
        setting = load_setting(str(config["setting"]["name"]))
        train_tasks, targets, allowed = setting.train, setting.test, published_overlap(setting)
    elif isinstance(source, SyntheticSource):
        train_tasks, targets, allowed = source.training_tasks(), source.testing_tasks(), []
    else:
        raise ConfigError(
            "setting", "is not set, so no task is for training", "choose setting=... or data=synthetic"
        )
    targets = list(chosen) if chosen is not None else targets
    check_disjoint(train_tasks, targets, allowed)
    return TrainingTasks(tuple(train_tasks), tuple(targets))
