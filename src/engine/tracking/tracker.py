"""Where metrics of a run go besides its own result files: nowhere, a JSON-lines file, W&B or trackio.

This is the only module that imports wandb. A tracker watches a run; it must never end one: what a
tracking service does wrong after the start is said once and then ignored.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml

from metashot.engine.errors import ConfigError, OutputError
from metashot.engine.files import append_lines, output_errors, write_atomic

log = logging.getLogger(__name__)

Kind = Literal["none", "jsonl", "wandb", "trackio"]
Mode = Literal["auto", "online", "offline"]
Status = Literal["ok", "failed", "pruned"]

_INIT_SECONDS = 30.0
_FINISH_SECONDS = 60.0
RESOLVED_CONFIG = "resolved_config.yaml"


@dataclass(frozen=True, slots=True)
class TrackerSpec:
    """What `conf/logger` says, and how the run is called.

    Attributes:
        kind: `none`, `jsonl`, `wandb` or `trackio`.
        project: project the run belongs to.
        group: runs shown together, usually one sweep; None for a run of its own.
        job_type: the stage, for example `evaluate`.
        name: name of the run; W&B offline would otherwise show none.
        tags: free labels.
        mode: for W&B, `online`, `offline`, or `auto` (online when a key is set).
        folder: where the tracker writes: the run's output folder; for trackio a folder shared by runs.
    """

    kind: Kind
    project: str
    group: str | None
    job_type: str | None
    name: str
    tags: tuple[str, ...]
    mode: Mode
    folder: Path


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

    def finish(self, status: Status) -> None:
        """Close the run; nothing may be recorded afterwards."""
        ...


def open_tracker(spec: TrackerSpec, config: Mapping[str, Any]) -> Tracker:
    """Start tracking a run.

    Args:
        spec: which tracker, and how the run is called.
        config: the resolved config, nested; trackers that show it get it flattened with dotted keys.

    Raises:
        ConfigError: an unknown kind or mode, or the tracker's package is not installed.
        OutputError: the folder cannot be written.
    """
    openers: dict[str, Callable[[], Tracker]] = {
        "none": NoTracker,
        "jsonl": lambda: JsonlTracker(spec.folder),
        "wandb": lambda: WandbTracker(spec, config),
        "trackio": lambda: _open_trackio(spec, config),
    }
    if spec.kind not in openers:
        raise ConfigError(
            "logger.kind", f"no tracker is called {spec.kind!r}", f"one of {', '.join(openers)}"
        )
    if spec.mode not in ("auto", "online", "offline"):
        raise ConfigError("logger.mode", f"unknown mode {spec.mode!r}", "one of auto, online, offline")
    return openers[spec.kind]()


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


def import_extra(package: str, where: str, extra: str | None = None) -> Any:
    """Import an optional package.

    Args:
        package: what to import.
        where: the config choice that needs it.
        extra: metashot's extra that installs it; the package's own name where None.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            where,
            f"needs the package {package}, which is not installed",
            f"pip install 'metashot[{extra or package}]'",
        ) from error


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

    def finish(self, status: Status) -> None:
        """Do nothing."""


class JsonlTracker:
    """Appends to `metrics.jsonl` in the run's folder, one JSON object per event.

    A row of metrics is `{"step": .., "seconds": .., <metric>: ..}`; other rows carry one of the keys
    `summary`, `table`, `artifact` or `status`.
    """

    def __init__(self, folder: Path) -> None:
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

    def finish(self, status: Status) -> None:
        """Append how the run ended."""
        append_lines(self._path, [{"status": status}])


class WandbTracker:
    """One fresh W&B run per job, offline unless a key is set.

    The dotted config goes to `run.config`; the nested one is saved as `resolved_config.yaml`. Offline
    runs lie under `<folder>/wandb` and are uploaded with `wandb sync`. When the server is lost during a
    run, metrics stay on disk for `wandb sync`; a table or artifact is given up after about 20 seconds.
    """

    def __init__(self, spec: TrackerSpec, config: Mapping[str, Any]) -> None:
        self._wandb = import_extra("wandb", "logger=wandb")
        mode = self._choose_mode(spec)
        try:
            self._run = self._start(spec, config, mode)
        except Exception as error:
            if mode != "online":
                raise OutputError(
                    str(spec.folder), f"W&B cannot start: {error}", "choose logger=jsonl or logger=none"
                ) from error
            log.warning("W&B: the server does not answer (%s); logging offline", _first_line(error))
            self._run = self._start(spec, config, "offline")
        with quietly("save the resolved config"):
            path = Path(self._run.dir) / RESOLVED_CONFIG
            write_atomic(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
            self._run.save(str(path), base_path=self._run.dir, policy="now")

    def _choose_mode(self, spec: TrackerSpec) -> Mode:
        wanted = os.environ.get("WANDB_MODE") or spec.mode
        if wanted not in ("auto", "online"):
            return "offline"
        if self._wandb.login(prompt=False, verify=False):
            return "online"
        log.warning(
            "W&B: no API key is set, logging offline to %s (upload later with `wandb sync`)",
            spec.folder / "wandb",
        )
        return "offline"

    def _start(self, spec: TrackerSpec, config: Mapping[str, Any], mode: Mode) -> Any:
        spec.folder.mkdir(parents=True, exist_ok=True)
        # A Settings object keeps the id of the first run started with it, so each run gets its own.
        settings = self._wandb.Settings(
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            console="off",
            silent=True,
            x_graphql_retry_max=3,
        )
        return self._wandb.init(
            project=spec.project,
            group=spec.group,
            job_type=spec.job_type,
            name=spec.name,
            tags=list(spec.tags),
            dir=str(spec.folder),
            config=flatten(config),
            mode=mode,
            reinit="finish_previous",
            settings=settings,
        )

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; without a step, W&B counts on by itself."""
        with quietly("log metrics"):
            self._run.log(dict(metrics), step=step)

    def summary(self, values: Mapping[str, object]) -> None:
        """Set the run's summary, which sweeps and dashboards read."""
        with quietly("write the summary"):
            self._run.summary.update(flatten(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Log a W&B table."""
        with quietly(f"log table {name}"):
            data = [list(row) for row in rows]
            self._run.log({name: self._wandb.Table(columns=list(columns), data=data, allow_mixed_types=True)})

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Log a file or folder as an artifact of the run."""
        with quietly(f"log artifact {name}"):
            artifact = self._wandb.Artifact(name=name, type=kind)
            artifact.add_dir(str(path)) if path.is_dir() else artifact.add_file(str(path))
            self._run.log_artifact(artifact)

    def finish(self, status: Status) -> None:
        """Finish the run; a lost server is waited for one minute at most."""
        with quietly("finish the run"):
            if status == "pruned":
                self._run.summary["pruned"] = True
                self._run.tags = (*(self._run.tags or ()), "pruned")
            self._run.finish(exit_code=1 if status == "failed" else 0)


@contextmanager
def quietly(action: str) -> Generator[None]:
    """Say what a tracking service failed to do, and go on with the run."""
    try:
        yield
    except Exception as error:
        log.warning("tracking: could not %s: %s", action, _first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _open_trackio(spec: TrackerSpec, config: Mapping[str, Any]) -> Tracker:
    from metashot.engine.tracking.trackio_tracker import TrackioTracker  # it uses this module's helpers

    return TrackioTracker(spec, config)
