"""The trackers of a run: how it is called, which keys of the config it shows, and the components of `conf/logger`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from metashot.engine.components.binding import bind, make
from metashot.engine.errors import ConfigError
from metashot.engine.sweeps.ledger import decides
from metashot.engine.tracking.many import together
from metashot.engine.tracking.tracker import Mode, RunLabel, Tracker
from metashot.stages.run_config import RunConfig

MakeTracker = Callable[[RunLabel, Mapping[str, Any]], Tracker]
Artifact = Literal["predictions", "prompt", "report", "checkpoint"]

_TRAINING = ("optimizer", "trainer")
_META = ("supmer", "corpus")
_OWN_NODES: dict[str, tuple[str, ...]] = {
    "train": (*_TRAINING, *_META),
    "prepare": ("prepare", "corpus"),
    "evaluate": ("scorer", "tuning", "selection", "prompt", "checkpoint"),
    "plan": ("plan", "scorer", "selection", "prompt", "checkpoint"),
    "report": ("report", "runs"),
    "compare": ("compare", "runs"),
}
"""Nodes that only some stages read; every other node is read by all."""
_PROMPT_METHODS_ONLY = ("supmer", "corpus", "tuning")
_IN_THE_NAME = ("method", "model", "setting", "k", "data", "experiment", "debug", "stage", "seeds_file")
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True)
class LoggerConfig:
    """The keys of `conf/logger`.

    Attributes:
        project: project the run belongs to.
        group: runs shown together.
        trackers: name -> what makes it.
        tags: labels besides those of the run; one text is one tag.
        notes: a longer description.
        predictions: also log every prediction as a table.
        artifacts: kinds that are uploaded.
        artifact_limit_mb: larger ones stay on disk.
        mode: of W&B, as are the rest; its tracker refers to them.
        entity: whose project.
        id: W&B's name of the run.
        resume: what to do when the id is known.
    """

    project: str
    group: str | None
    trackers: dict[str, Any] = field(default_factory=dict)
    tags: str | tuple[str, ...] = ()
    notes: str | None = None
    predictions: bool = True
    artifacts: tuple[Artifact, ...] = ()
    artifact_limit_mb: float = 100.0
    mode: Mode = "auto"
    entity: str | None = None
    id: str | None = None
    resume: str | None = None


def logger_config(node: Mapping[str, Any]) -> LoggerConfig:
    """The config node `logger`, checked.

    Raises:
        ConfigError: a key that is unknown or has a wrong type.
    """
    return make(bind(LoggerConfig, node, "logger"))


def run_tracker(config: RunConfig, composed: Mapping[str, Any], overrides: Sequence[str]) -> Tracker:
    """The trackers that the config names, as one; their runs open with their first records.

    Args:
        config: the run's config.
        composed: the same as plain values.
        overrides: the run's command line, which tells runs of a sweep apart.

    Raises:
        ConfigError: a key of `logger` that is unknown or has a wrong value, a name or tag that a tracker refuses, or a
            package that is not installed.
    """
    logger = logger_config(config.logger)
    label = run_label(config, logger, overrides)
    shown = shown_config(config, composed)
    makers = [
        make(bind(MakeTracker, node, f"logger.trackers.{name}")) for name, node in logger.trackers.items()
    ]
    if logger.artifact_limit_mb < 0:
        raise ConfigError(
            "logger.artifact_limit_mb", f"must be 0 or more, got {logger.artifact_limit_mb}", "use 100"
        )
    return together([maker(label, shown) for maker in makers], logger.artifacts, logger.artifact_limit_mb)


def run_label(config: RunConfig, logger: LoggerConfig, overrides: Sequence[str]) -> RunLabel:
    """How this run is called: by what it runs, and by what else was overridden."""
    setting = config.setting.name if config.setting else config.data.name
    name = config.name
    if name is None:
        own = [word for word in overrides if decides(word) and _root(word) not in _IN_THE_NAME]
        base = f"{config.method.name}-{config.model.name}-{setting}-k{config.k}"
        name = " ".join([base, *own])[:_LONGEST_NAME]
    tags = (logger.tags,) if isinstance(logger.tags, str) else logger.tags
    own_tags = (config.tags,) if isinstance(config.tags, str) else config.tags
    return RunLabel(
        logger.project,
        logger.group,
        "+".join(config.stages),
        name,
        tuple(dict.fromkeys((*tags, *own_tags))),
        logger.notes,
    )


def shown_config(config: RunConfig, composed: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes that the run's stages read, and none that only others do."""
    used = {node for stage in config.stages for node in _OWN_NODES.get(stage, ())}
    special = {node for nodes in _OWN_NODES.values() for node in nodes}
    # Only a prompt method trains a prompt, and only the others are trained by `trainer`.
    prompts = "tuning" in str(composed["method"].get("_target_", ""))
    unused = _TRAINING if prompts else _PROMPT_METHODS_ONLY
    return {
        key: value
        for key, value in composed.items()
        if (key not in special or key in used) and key not in (*unused, "logger")
    }


def _root(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition(".")[0]
