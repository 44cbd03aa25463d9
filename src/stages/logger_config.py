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
    """The keys of `conf/logger`."""

    project: GivenLine
    """Project the run belongs to."""
    group: GivenLine | None
    """Runs shown together: the sweep's name, or none for a single run."""
    trackers: dict[str, MakeTracker] = field(default_factory=dict)
    """Name -> what makes it."""
    tags: GivenLine | tuple[GivenLine, ...] = ()
    """Labels besides the run's own `tags`; one text is one tag."""
    notes: str | None = None
    """A longer description."""
    predictions: bool = True
    """Also log every prediction as a table."""
    artifacts: tuple[Artifact, ...] = ()
    """What is uploaded where the tracker takes files."""
    artifact_limit_mb: Weight = 100.0
    """Larger ones stay on disk."""
    mode: Mode = "auto"
    """Mode of W&B: online, offline or disabled; `auto` is online when a key is set."""
    entity: GivenLine | None = None
    """Whose project in W&B; None is the key's own."""
    id: GivenLine | None = None
    """W&B's name of the run; None draws one."""
    resume: GivenLine | None = None
    """What W&B does when the id is known: `allow`, `must`, `never` or `auto`."""
