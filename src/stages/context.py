"""What every stage is handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from metashot.engine.components.binding import bind, make
from metashot.engine.runs.record import RunRecord
from metashot.engine.tracking.tracker import Kind, Mode, Tracker, TrackerSpec
from metashot.stages.run_config import RunConfig


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
        config: the config, its components made.
        output: the run's output folder.
        console: for tables and messages.
        tracker: receives metrics.
        record: writes `run.json`.
    """

    config: RunConfig
    output: Path
    console: Console
    tracker: Tracker
    record: RunRecord

    @property
    def results_root(self) -> Path:
        """Where finished cells and checkpoints of all runs live."""
        return self.config.results_root


def tracker_spec(config: RunConfig) -> TrackerSpec:
    """How this run is called in a dashboard, from its config.

    Raises:
        ConfigError: a key of `logger` that is unknown or has a wrong type.
    """
    logger: LoggerSettings = make(bind(LoggerSettings, config.logger, "logger"))
    setting = config.setting.name if config.setting else config.data.name
    name = config.name or f"{config.method.name}-{config.model.name}-{setting}-k{config.k}"
    return TrackerSpec(
        kind=logger.kind,
        project=logger.project,
        group=logger.group,
        job_type="+".join(config.stages),
        name=name,
        tags=(*logger.tags, *config.tags),
        mode=logger.mode,
        folder=logger.folder,
    )
