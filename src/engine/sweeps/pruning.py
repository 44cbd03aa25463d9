"""Early stopping of a hopeless trial: what a job reports to its search while it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metashot.base.errors import ConfigError
from metashot.base.extras import import_extra
from metashot.engine.tracking.tracker import Status, Tracker

TRIAL_VARIABLE = "METASHOT_TRIAL"
"""Environment variable of a job that belongs to a search; its value is a `TrialAddress` as JSON."""


class Pruned(Exception):
    """The search has stopped this job early; that is no fault."""


@dataclass(frozen=True, slots=True)
class TrialAddress:
    """Where a job finds its trial.

    Attributes:
        storage: Optuna storage URL.
        study: name of the study.
        number: number of the trial.
        metric: name of the logged metric that is judged.
        pruner: `median`, `hyperband` or `none`.
        warmup_steps: steps before a trial may be stopped.
    """

    storage: str
    study: str
    number: int
    metric: str
    pruner: str
    warmup_steps: int

    def to_text(self) -> str:
        """The value of `METASHOT_TRIAL`."""
        return json.dumps(asdict(self))


def make_pruner(name: str, warmup_steps: int) -> object:
    """Optuna's pruner of that name.

    Raises:
        ConfigError: no such pruner.
    """
    pruners = import_extra("optuna", "hydra.sweeper.search").pruners
    makers = {
        "none": pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=warmup_steps),
        "hyperband": lambda: pruners.HyperbandPruner(min_resource=max(1, warmup_steps)),
    }
    if name not in makers:
        raise ConfigError(
            "hydra.sweeper.search.pruner", f"no pruner is called {name!r}", f"one of {', '.join(makers)}"
        )
    return makers[name]()


def trial_id(storage: Any, study: str, number: int) -> int:
    """The storage's own number of a trial, over all studies that it holds."""
    study_id = storage.get_study_id_from_name(study)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def watched(tracker: Tracker) -> Tracker:
    """`tracker`, wrapped when this job belongs to a search."""
    text = os.environ.get(TRIAL_VARIABLE)
    return PruningTracker(tracker, TrialAddress(**json.loads(text))) if text else tracker


class PruningTracker:
    """Passes everything on, and reports one metric to the search.

    Args:
        tracker: where records go.
        address: the trial.
    """

    def __init__(self, tracker: Tracker, address: TrialAddress) -> None:
        optuna = import_extra("optuna", "hydra.sweeper.search")
        storage = optuna.storages.get_storage(address.storage)
        study = optuna.load_study(
            study_name=address.study,
            storage=storage,
            pruner=make_pruner(address.pruner, address.warmup_steps),
        )
        own = trial_id(storage, address.study, address.number)
        self._trial = optuna.trial.Trial(study, own)
        # Of an attempt that was killed: the same job logs the same again.
        self._reported = set(storage.get_trial(own).intermediate_values)
        self._tracker = tracker
        self._metric = address.metric
        self._steps = 0

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics.

        Raises:
            Pruned: the search gives this job up.
        """
        self._tracker.log(metrics, step)
        if self._metric not in metrics:
            return
        self._steps = self._steps + 1 if step is None else step
        if self._steps not in self._reported:
            self._trial.report(float(metrics[self._metric]), self._steps)
        if self._trial.should_prune():
            raise Pruned(f"stopped at step {self._steps}: {self._metric}={metrics[self._metric]:.4g}")

    def summary(self, values: Mapping[str, object]) -> None:
        """Record final values."""
        self._tracker.summary(values)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Record a table."""
        self._tracker.table(name, columns, rows)

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Record a file or folder."""
        self._tracker.artifact(name, kind, path)

    def uses(self, path: Path) -> None:
        """Record what this run builds on."""
        self._tracker.uses(path)

    def finish(self, status: Status) -> None:
        """Close the run."""
        self._tracker.finish(status)
