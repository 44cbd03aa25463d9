"""The trackers of a run: how it is called, which keys of the config it shows, and the components of `conf/logger`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metashot.base.errors import ConfigError
from metashot.engine.sweeps.ledger import decides
from metashot.engine.tracking.many import together
from metashot.engine.tracking.tracker import RunLabel, Tracker
from metashot.stages.families import SHOTS, TRAINING, kind_of
from metashot.stages.run_config import RunConfig

_META = ("supmer", "corpus")
_OWN_NODES: dict[str, tuple[str, ...]] = {
    "train": (*TRAINING, "prompt", *_META),
    "find_lr": (*TRAINING, "prompt", "find_lr"),
    "prepare": ("prepare", "corpus"),
    "evaluate": ("scorer", "tuning", *SHOTS, "prompt", "checkpoint"),
    "plan": ("plan", "scorer", *SHOTS, "prompt", "checkpoint", *_META, "tuning"),
    "probe": ("probe", *_META),
    "export": ("export", "checkpoint", "tuning"),
    "rerun": ("run",),
    "report": ("report", "runs"),
    "compare": ("compare", "runs"),
}
"""Nodes that only some stages read; every other node is read by all."""
_IN_THE_NAME = ("method", "model", "setting", "k", "data", "experiment", "debug", "stage", "seeds_file")
_LONGEST_NAME = 128


def run_tracker(
    config: RunConfig, composed: Mapping[str, Any], overrides: Sequence[str], *, silent: bool = False
) -> Tracker:
    """The trackers that the config names, as one; their runs open with their first records.

    Args:
        config: the run's config.
        composed: the same as plain values.
        overrides: the run's command line, which tells runs of a sweep apart.
        silent: record nothing, as all ranks but the first do.

    Raises:
        ConfigError: a key of `logger` that is unknown or has a wrong value, a name or tag that a tracker refuses, or a
            package that is not installed.
    """
    logger = config.logger
    label = run_label(config, overrides)
    shown = shown_config(config, composed)
    if logger.artifact_limit_mb < 0:
        raise ConfigError(
            "logger.artifact_limit_mb", f"must be 0 or more, got {logger.artifact_limit_mb}", "use 100"
        )
    return together(
        [open_one(label, shown) for open_one in logger.trackers.values()],
        logger.artifacts,
        logger.artifact_limit_mb,
    )


def run_label(config: RunConfig, overrides: Sequence[str]) -> RunLabel:
    """How this run is called: by what it runs, and by what else was overridden."""
    logger = config.logger
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
    unused = kind_of(config.method).unused
    return {
        key: value
        for key, value in composed.items()
        if (key not in special or key in used) and key not in (*unused, "logger")
    }


def _root(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition(".")[0]
