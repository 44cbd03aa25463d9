"""TensorBoard and MLflow, written by the trackers of accelerate; what those leave out is left to the run's own files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metashot.base.extras import import_extra
from metashot.engine.tracking.tracker import RunLabel, Status, flatten, quietly

log = logging.getLogger(__name__)
_NOT_IN_A_FOLDER = re.compile(r"[^\w.=,+\[\] -]")
_NOT_IN_A_METRIC = re.compile(r"[^\w.:/ -]")

_ENDINGS: dict[Status, str] = {
    "ok": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
    "pruned": "FINISHED",
}


class TensorBoardTracker:
    """Event files of one run: `tensorboard --logdir <results_root>/runs` finds those of all runs.

    Final values become scalars called `summary/<name>`; texts (what the run builds on, where an artifact lies, how it
    ended) become text cards. Tables are not written.

    Args:
        label: how the run is called; its name becomes a folder.
        config: the resolved config, nested; shown as hyperparameters.
        folder: the run's.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self, label: RunLabel, config: Mapping[str, Any], *, folder: Path) -> None:
        import_extra("tensorboard", "logger=tensorboard")
        self._label, self._config, self._folder = label, config, folder
        self._open: Any = None

    @property
    def _run(self) -> Any:
        """The run; opened by its first record."""
        if self._open is None:
            from accelerate.tracking import TensorBoardTracker as Writer

            about = {"tags": list(self._label.tags), "group": self._label.group, "notes": self._label.notes}
            values = flatten(self._config) | {key: value for key, value in about.items() if value}
            opened = Writer(_NOT_IN_A_FOLDER.sub("_", self._label.name), self._folder)
            opened.start()
            self._open = opened
            opened.store_init_configuration({name: _plain(value) for name, value in values.items()})
            log.info("dashboard: tensorboard --logdir %s", self._folder)
        return self._open

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of one step."""
        with quietly("log metrics"):
            self._run.log(dict(metrics), step=step)

    def summary(self, values: Mapping[str, object]) -> None:
        """Log the final values as scalars called `summary/<name>`."""
        self._values({f"summary/{name}": value for name, value in flatten(values).items()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Leave the table to the run's files."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Log where the artifact lies."""
        self._values({f"artifact/{kind}/{name}": str(path)})

    def uses(self, path: Path) -> None:
        """Log what the run builds on."""
        self._values({"uses": str(path)})

    def finish(self, status: Status) -> None:
        """Log how the run ended, and close it; one that ended before any record is none."""
        if self._open is None and status != "ok":
            return
        self._values({"status": status})
        with quietly("finish the run"):
            self._run.finish()

    def _values(self, values: Mapping[str, object]) -> None:
        with quietly("log values"):
            self._run.log({name: _plain(value) for name, value in values.items()})


class MlflowTracker:
    """An MLflow run, in a database below `folder` unless `MLFLOW_TRACKING_URI` names a server.

    `MLFLOW_EXPERIMENT_NAME`, `MLFLOW_RUN_ID` and `MLFLOW_TAGS` win over the config. Characters that MLflow refuses in
    names of metrics become `_`. Tables are not written; the artifact `predictions` holds theirs.

    Args:
        label: how the run is called; its project is MLflow's experiment.
        config: the resolved config, nested; its dotted keys become parameters.
        folder: shared by runs.

    Raises:
        ConfigError: mlflow is not installed.
    """

    def __init__(self, label: RunLabel, config: Mapping[str, Any], *, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report to its makers
        self._mlflow = import_extra("mlflow", "logger=mlflow")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells of each new table
        self._label, self._config, self._folder = label, config, folder
        self._open: Any = None

    @property
    def _run(self) -> Any:
        """The run; opened by its first record."""
        if self._open is None:
            from accelerate.tracking import MLflowTracker as Client

            place, label = self._folder.resolve(), self._label
            local = not os.environ.get("MLFLOW_TRACKING_URI")
            if local:
                place.mkdir(parents=True, exist_ok=True)
                self._mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
                log.info("dashboard: mlflow ui --backend-store-uri sqlite:///%s", place / "mlflow.db")
            about = {"tags": ",".join(label.tags), "group": label.group, "job_type": label.job_type}
            opened = Client(
                label.project,
                str(place / "artifacts") if local else None,
                tags={key: value for key, value in about.items() if value},
                run_name=label.name,
                description=label.notes,
            )
            opened.start()
            self._open = opened
            opened.store_init_configuration(flatten(self._config))
        return self._open

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of one step."""
        with quietly("log metrics"):
            named = {_NOT_IN_A_METRIC.sub("_", name): float(value) for name, value in metrics.items()}
            self._run.log(named, step=step)

    def summary(self, values: Mapping[str, object]) -> None:
        """Log the final numbers as metrics called `summary/<name>`, other values as tags."""
        flat = {f"summary/{name}": value for name, value in flatten(values).items()}
        self.log({name: value for name, value in flat.items() if isinstance(value, int | float)})
        self._tags({name: value for name, value in flat.items() if not isinstance(value, int | float)})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Leave the table to the run's files."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Upload a file or folder below its kind."""
        with quietly(f"log artifact {name}"):
            send = self._run.log_artifacts if path.is_dir() else self._run.log_artifact
            send(str(path), kind)

    def uses(self, path: Path) -> None:
        """Note what the run builds on as the tag `uses`."""
        self._tags({"uses": str(path)})

    def finish(self, status: Status) -> None:
        """End the run as finished, failed or killed; one that ended before any record is none."""
        if self._open is None and status != "ok":
            return
        self._tags({"status": status})
        with quietly("finish the run"):
            self._mlflow.end_run(_ENDINGS[status])

    def _tags(self, values: Mapping[str, object]) -> None:
        with quietly("log values"):
            run = self._run.tracker.info.run_id
            for name, value in values.items():
                self._mlflow.MlflowClient().set_tag(run, _NOT_IN_A_METRIC.sub("_", name), value)


def _plain(value: object) -> object:
    """What accelerate takes: a number, or a text."""
    return value if isinstance(value, int | float | str) else str(value)
