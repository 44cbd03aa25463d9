"""Where metrics of a run go besides its own result files: the interface, nothing, and a JSON-lines file.

A tracker watches a run; it must never end one: what a tracking service does wrong after the start is said once and
then ignored. Names of metrics begin with their phase (`train/loss`, `held_out/accuracy_percent`, `eval/mean_percent`); every share is
percent and says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from metashot.base.files import append_lines, output_errors

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]
Status = Literal["ok", "failed", "interrupted", "pruned"]
STEPS = {"train": "train/step", "held_out": "train/step", "eval": "eval/cell"}
"""First part of a metric's name -> the metric that counts its steps; each phase counts on its own."""


@dataclass(frozen=True, slots=True)
class RunLabel:
    """How a run is called in a dashboard.

    Attributes:
        project: project the run belongs to.
        group: runs shown together, usually one sweep; None for a run of its own.
        job_type: the stage, for example `evaluate`.
        name: name of the run; W&B offline would otherwise show none.
        tags: free labels.
        notes: a longer description.
    """

    project: str
    group: str | None
    job_type: str | None
    name: str
    tags: tuple[str, ...] = ()
    notes: str | None = None


class Tracker(Protocol):
    """Receives what a run measures. `finish` is always called, also when the run fails."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics of one step."""
        ...

    def summary(self, values: Mapping[str, object]) -> None:
        """Record final values, one per name; the last one wins."""
        ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Record a table."""
        ...

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Record a file or folder, for example a checkpoint or a learned prompt."""
        ...

    def uses(self, path: Path) -> None:
        """Record that this run builds on what another run left in `path`, for example its checkpoint."""
        ...

    def finish(self, status: Status) -> None:
        """Close the run; nothing may be recorded afterwards."""
        ...


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys, lists kept: `{"a": {"b": [1]}}` -> `{"a.b": [1]}`.

    W&B sweeps name their parameters this way; a nested config would be overwritten by them.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


class NoTracker:
    """Records nothing."""

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Drop the metrics."""

    def summary(self, values: Mapping[str, object]) -> None:
        """Drop the values."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Drop the table."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Drop the artifact."""

    def uses(self, path: Path) -> None:
        """Drop where something is from."""

    def finish(self, status: Status) -> None:
        """Do nothing."""


class JsonlTracker:
    """Appends to `metrics.jsonl` in the run's folder, one JSON object per event.

    A row of metrics is `{"step": .., "seconds": .., <metric>: ..}`; other rows carry one of the keys
    `summary`, `table`, `artifact`, `uses` or `status`.

    Args:
        label: not written; the folder is the run's own.
        config: not written; `run.json` holds it.
        folder: where the file goes.
    """

    def __init__(self, label: RunLabel, config: Mapping[str, Any], *, folder: Path) -> None:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._start = time.monotonic()

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row of metrics."""
        seconds = round(time.monotonic() - self._start, 3)
        append_lines(self._path, [{"step": step, "seconds": seconds, **metrics}])

    def summary(self, values: Mapping[str, object]) -> None:
        """Append the final values."""
        append_lines(self._path, [{"summary": dict(values)}])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Append the table as one row."""
        append_lines(self._path, [{"table": name, "columns": list(columns), "rows": [list(r) for r in rows]}])

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Append where the artifact lies."""
        append_lines(self._path, [{"artifact": name, "kind": kind, "path": str(path)}])

    def uses(self, path: Path) -> None:
        """Append what the run builds on."""
        append_lines(self._path, [{"uses": str(path)}])

    def finish(self, status: Status) -> None:
        """Append how the run ended; one that ended before any record leaves no file."""
        if status == "ok" or self._path.exists():
            append_lines(self._path, [{"status": status}])


@contextmanager
def quietly(action: str) -> Generator[None]:
    """Say what a tracking service failed to do, and go on with the run."""
    try:
        yield
    except Exception as error:
        log.warning("tracking: could not %s: %s", action, first_line(error))


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
