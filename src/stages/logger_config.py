"""The config node `logger`: what every tracker is told, and what makes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from metashot.base.value_kinds import GivenLine, Weight
from metashot.engine.tracking.tracker import Mode, RunLabel, Tracker

MakeTracker = Callable[[RunLabel, Mapping[str, Any]], Tracker]
Artifact = Literal["predictions", "prompt", "report", "checkpoint"]


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

    project: GivenLine
    group: GivenLine | None
    trackers: dict[str, MakeTracker] = field(default_factory=dict)
    tags: GivenLine | tuple[GivenLine, ...] = ()
    notes: str | None = None
    predictions: bool = True
    artifacts: tuple[Artifact, ...] = ()
    artifact_limit_mb: Weight = 100.0
    mode: Mode = "auto"
    entity: GivenLine | None = None
    id: GivenLine | None = None
    resume: GivenLine | None = None
