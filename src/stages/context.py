"""What every stage is handed besides its own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from metashot.engine.runs.record import RunRecord
from metashot.engine.tracking.tracker import Kind, Mode, Tracker, TrackerSpec
from metashot.stages.nodes import build


@dataclass(frozen=True, slots=True)
class LoggerSettings:
    """The keys of `conf/logger`; `predictions` also logs every prediction as a table."""

    kind: Kind
    project: str
    group: str | None
    tags: list[str]
    mode: Mode
    folder: Path
    predictions: bool


@dataclass(frozen=True, slots=True)
class RunContext:
    """The edges of a run.

    Attributes:
        config: the resolved config as plain values.
        output: the run's output folder.
        results_root: where finished cells and checkpoints of all runs live.
        console: for tables and messages.
        tracker: receives metrics.
        record: writes `run.json`.
    """

    config: Mapping[str, Any]
    output: Path
    results_root: Path
    console: Console
    tracker: Tracker
    record: RunRecord


def tracker_spec(config: Mapping[str, Any]) -> TrackerSpec:
    """How this run is called in a dashboard, from its resolved config.

    Raises:
        ConfigError: a key of `logger` that is unknown or has a wrong type.
    """
    logger = build(LoggerSettings, config["logger"], "logger")
    stage = config["stage"]
    setting = config["setting"]["name"] if config["setting"] else config["data"]["name"]
    name = config["name"] or f"{config['method']['name']}-{config['model']['name']}-{setting}-k{config['k']}"
    return TrackerSpec(
        kind=logger.kind,
        project=logger.project,
        group=logger.group,
        job_type=stage if isinstance(stage, str) else "+".join(stage),
        name=name,
        tags=(*logger.tags, *config["tags"]),
        mode=logger.mode,
        folder=logger.folder,
    )
