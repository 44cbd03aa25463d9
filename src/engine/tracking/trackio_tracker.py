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

from metashot.engine.errors import ConfigError, OutputError
from metashot.engine.tracking.tracker import Status, TrackerSpec, flatten, import_extra, quietly

log = logging.getLogger(__name__)


class TrackioTracker:
    """Adapter to trackio, which has no tags, job types or summary of its own.

    Tags and job type become config keys; final values become one row of metrics with the prefix
    `summary/`; an artifact becomes a note of its path.
    """

    def __init__(self, spec: TrackerSpec, config: Mapping[str, Any]) -> None:
        _claim_folder(spec.folder)
        self._trackio = import_extra("trackio", "logger=trackio")
        extra = {"tags": list(spec.tags), "job_type": spec.job_type}
        try:
            with redirect_stdout(io.StringIO()):  # its own advice leaves out the folder
                self._run = self._trackio.init(
                    project=spec.project,
                    name=spec.name,
                    group=spec.group,
                    config=flatten(config) | extra,
                    embed=False,
                    auto_log_cpu=False,
                    auto_log_gpu=False,
                )
        except Exception as error:
            raise OutputError(
                str(spec.folder), f"trackio cannot start: {error}", "choose logger=jsonl or logger=none"
            ) from error
        log.info("dashboard: TRACKIO_DIR=%s trackio show --project %s", spec.folder.resolve(), spec.project)

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

    def finish(self, status: Status) -> None:
        """Log how the run ended, and close it."""
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
            "logger.folder",
            f"trackio already writes to {loaded.TRACKIO_DIR} in this process, not to {wanted}",
            "keep one results_root per process",
        )
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRACKIO_DIR"] = wanted
