"""trackio as a local dashboard: one SQLite file per project, read with `trackio show`."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from metashot.base.errors import ConfigError
from metashot.base.extras import import_extra
from metashot.engine.tracking.tracker import RunLabel, Status, flatten, quietly

log = logging.getLogger(__name__)


class TrackioTracker:
    """Adapter to trackio, which has no tags, job types or summary of its own.

    Tags and job type become config keys; final values become one row of metrics with the prefix
    `summary/`; an artifact becomes a note of its path.

    Args:
        label: how the run is called.
        config: the resolved config, nested.
        folder: trackio's own, shared by runs.

    Raises:
        ConfigError: trackio is not installed, or already writes elsewhere in this process.
    """

    def __init__(self, label: RunLabel, config: Mapping[str, Any], *, folder: Path) -> None:
        _claim_folder(folder)
        self._trackio = import_extra("trackio", "logger=trackio")
        self._label, self._folder = label, folder
        extra = {"tags": list(label.tags), "job_type": label.job_type, "notes": label.notes}
        self._config = flatten(config) | {key: value for key, value in extra.items() if value}
        self._open: Any = None

    @property
    def _run(self) -> Any:
        """The run; opened by its first record."""
        if self._open is None:
            label = self._label
            with redirect_stdout(io.StringIO()):  # its own advice leaves out the folder
                self._open = self._trackio.init(
                    project=label.project,
                    name=label.name,
                    group=label.group,
                    config=self._config,
                    embed=False,
                    auto_log_cpu=False,
                    auto_log_gpu=False,
                )
            log.info(
                "dashboard: TRACKIO_DIR=%s trackio show --project %s", self._folder.resolve(), label.project
            )
        return self._open

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; without a step, trackio counts on by itself."""
        with quietly("log metrics"):
            self._run.log(dict(metrics), step=step)

    def summary(self, values: Mapping[str, object]) -> None:
        """Log the final values as metrics called `summary/<name>`."""
        self._log_values({f"summary/{name}": value for name, value in flatten(values).items()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Log a table."""
        with quietly(f"log table {name}"):
            data = [list(row) for row in rows]
            self._run.log({name: self._trackio.Table(columns=list(columns), data=data)})

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Log where the artifact lies; trackio would copy it."""
        self._log_values({f"artifact/{kind}/{name}": str(path)})

    def uses(self, path: Path) -> None:
        """Log what the run builds on."""
        self._log_values({"uses": str(path)})

    def finish(self, status: Status) -> None:
        """Log how the run ended, and close it."""
        if self._open is None and status != "ok":
            return
        with quietly("finish the run"):
            self._run.log({"status": status})
            with redirect_stdout(io.StringIO()):  # it would speak of an upload
                self._trackio.finish()

    def _log_values(self, values: dict[str, Any]) -> None:
        with quietly("log values"):
            self._run.log(values)


def _claim_folder(folder: Path) -> None:
    """Point trackio at `folder`; it reads the variable once, when it is imported.

    Raises:
        ConfigError: trackio was already imported for another folder.
    """
    wanted = str(folder.resolve())
    loaded = sys.modules.get("trackio")
    if loaded is not None and str(Path(loaded.TRACKIO_DIR).resolve()) != wanted:
        raise ConfigError(
            "logger.trackers.trackio.folder",
            f"trackio already writes to {loaded.TRACKIO_DIR} in this process, not to {wanted}",
            "keep one results_root per process",
        )
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRACKIO_DIR"] = wanted
